"""`txm-bgcorr correct`: predict the background of every tile, divide, and write."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from napari_txm_bgcorr.cli.options import Device, Grid, JsonFlag, PixelNm, parse_grid
from napari_txm_bgcorr.cli.system import peak_rss_mb
from napari_txm_bgcorr.core.correction import BackgroundMethod, TileResult, correct_tiles
from napari_txm_bgcorr.core.errors import ConfigError, WriteError
from napari_txm_bgcorr.core.provenance import make_provenance, refuse_if_corrected
from napari_txm_bgcorr.core.scan import LazyTiles, Scan, Source

__all__ = ["CorrectOptions", "correct", "correct_paths", "correct_scans", "prepare"]

PARTS = ("raw", "background", "corrected", "mask")
FORMATS = ("omezarr", "ometiff", "tiff")
FILE_SUFFIX = {"omezarr": ".ome.zarr", "ometiff": "", "tiff": ""}


@dataclass(frozen=True)
class CorrectOptions:
    """What the user asked for, checked.

    Attributes
    ----------
    method, model, device : str
        As in the method table, a model's name, file or run folder, and a device name.
    references, darks : tuple of Path
        Files or folders of reference images and of dark images.
    save : tuple of str
        Some of ``raw``, ``background``, ``corrected``, ``mask``.
    format : str
        ``omezarr``, ``ometiff`` or ``tiff``.
    """

    method: str = "auto"
    model: str = "default"
    device: str = "auto"
    references: tuple[Path, ...] = ()
    darks: tuple[Path, ...] = ()
    grid: tuple[int, int] | None = None
    pixel_nm: float | None = None
    save: tuple[str, ...] = ("background", "corrected")
    format: str = "omezarr"
    overwrite: bool = False
    force: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        """Refuse values outside the tables.

        Raises
        ------
        ConfigError
            Naming the option, the value and what is allowed.
        """
        for part in self.save:
            if part not in PARTS:
                raise ConfigError(f"--save {part}: not a part; choose from {', '.join(PARTS)}")
        if not self.save:
            raise ConfigError("--save: nothing to save; give for example background,corrected")
        if self.format not in FORMATS:
            raise ConfigError(f"--format {self.format}: choose from {', '.join(FORMATS)}")


def correct(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files or folders.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="File or folder to write.")],
    method: Annotated[str, typer.Option("--method", help="Background method.")] = "auto",
    model: Annotated[
        str, typer.Option("--model", help="Model's name, file or run folder.")
    ] = "default",
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", help="Reference image(s).")
    ] = None,
    dark: Annotated[list[Path] | None, typer.Option("--dark", help="Dark image(s).")] = None,
    device: Device = "auto",
    save: Annotated[
        str, typer.Option("--save", help="Some of raw,background,corrected,mask.")
    ] = "raw,background,corrected",
    format: Annotated[str, typer.Option("--format", help="omezarr, ometiff or tiff.")] = "omezarr",
    grid: Grid = None,
    pixel_nm: PixelNm = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Correct even what is already corrected.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Correct tiles, series and mosaics: background predicted from the raw data, divided out."""
    options = CorrectOptions(
        method=method,
        model=model,
        device=device,
        references=tuple(reference or ()),
        darks=tuple(dark or ()),
        grid=parse_grid(grid),
        pixel_nm=pixel_nm,
        save=tuple(part for part in save.replace(" ", "").split(",") if part),
        format=format,
        overwrite=overwrite,
        force=force,
        quiet=as_json or not sys.stderr.isatty(),
    )
    summary = correct_paths(paths, out, options)
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        for done in summary["results"]:
            typer.echo(f"{done['tiles']} tiles corrected by {done['method']}: {done['output']}")
            for note in done["notes"]:
                typer.echo(f"  note: {note}")


def correct_paths(paths: Sequence[Path], out: Path, options: CorrectOptions) -> dict[str, Any]:
    """Correct each path and say what was done, as a JSON-ready summary."""
    started = time.perf_counter()
    # Every input is opened before the first is corrected: a wrong path costs no hour.
    scans = [prepare(path, options) for path in paths]
    method = _make_method(options)
    results = [
        correct_scans(group, method, target, options)
        for group, target in _jobs(scans, out, options.format)
    ]
    return {
        "results": results,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def prepare(path: Path, options: CorrectOptions) -> Scan:
    """Read a path and attach the user's references and darks to it.

    Raises
    ------
    ReadError
        If the path or a reference cannot be read.
    AlreadyCorrectedError
        If the path is itself a corrected result and `force` is not set.
    """
    from napari_txm_bgcorr import io

    scan = io.read(path, grid=options.grid, pixel_nm=options.pixel_nm)
    refuse_if_corrected(scan, force=options.force)
    if options.references:
        flats, times = io.read_references(options.references, like=scan)
        scan = replace(scan, flats=flats, flat_times=times)
    if options.darks:
        darks, _ = io.read_references(options.darks, like=scan, role="darks")
        scan = replace(scan, darks=darks)
    return scan


def correct_scans(
    scans: Sequence[Scan], method: BackgroundMethod, out: Path, options: CorrectOptions
) -> dict[str, Any]:
    """Fit the method to each scan, then predict, divide and write tile by tile into one output.

    An interrupted run of the same job goes on where it stopped.
    """
    from napari_txm_bgcorr import io

    started = time.perf_counter()
    whole = scans[0] if len(scans) == 1 else _side_by_side(scans)
    described = method.fit(scans[0]).describe()
    device = str(described.get("device", "cpu"))
    provenance = make_provenance(whole, method, device).to_dict()
    output = io.open_output(
        out, options.format, whole, provenance, save=options.save, overwrite=options.overwrite
    )
    with output as writer:
        resumed = len(writer.done)
        with tqdm(total=len(whole), initial=resumed, unit="tile", disable=options.quiet) as bar:
            for result in _results(scans, method, writer.done):
                writer.write(result)
                bar.update()
        writer.close_complete()
    return {
        "inputs": [str(scan.source.path) for scan in scans],
        "output": str(out),
        "kind": scans[0].kind,
        "tiles": len(whole),
        "resumed": resumed,
        "method": options.method,
        "parameters": described,
        "device": device,
        "seconds": round(time.perf_counter() - started, 3),
        "notes": [note for scan in scans for note in scan.notes],
    }


def _results(
    scans: Sequence[Scan], method: BackgroundMethod, done: frozenset[int]
) -> Iterator[TileResult]:
    offset = 0
    for scan in scans:
        todo = [i for i in range(len(scan)) if i + offset not in done]
        if todo:
            for result in correct_tiles(scan, method.fit(scan), indices=todo):
                yield replace(result, index=result.index + offset)
        offset += len(scan)


def _side_by_side(scans: Sequence[Scan]) -> Scan:
    """Show single images of equal size as one stack, so that they share one output."""
    first = scans[0]
    return Scan(
        tiles=LazyTiles(
            (len(scans), *first.tiles.shape[1:]), first.tiles.dtype, lambda i: scans[i].tiles[0]
        ),
        kind="series",
        source=Source(
            first.source.path.parent,
            first.source.format,
            tuple(file for scan in scans for file in scan.source.files),
        ),
        names=tuple(scan.names[0] for scan in scans),
        pixel_nm=first.pixel_nm,
        energy_ev=first.energy_ev,
        exposure_s=first.exposure_s,
        binning=first.binning,
    )


def _make_method(options: CorrectOptions) -> BackgroundMethod:
    from napari_txm_bgcorr.engine.methods import LEARNED, make_method

    if options.method not in LEARNED:
        return make_method(options.method)
    return make_method(options.method, model=options.model, device=options.device)


def _jobs(scans: Sequence[Scan], out: Path, format: str) -> list[tuple[Sequence[Scan], Path]]:
    """Which scans go to which output: single tiles of one size together, others apart."""
    if len(scans) == 1:
        return [(scans, out)]
    alike = {(scan.kind, tuple(scan.tiles.shape), scan.tiles.dtype) for scan in scans}
    if len(alike) == 1 and scans[0].kind == "single":
        _refuse_repeated([scan.names[0] for scan in scans], out)
        return [(scans, out)]
    names = [_stem(scan.source.path) for scan in scans]
    _refuse_repeated(names, out)
    return [
        ([scan], out / f"{name}{FILE_SUFFIX[format]}")
        for scan, name in zip(scans, names, strict=True)
    ]


def _refuse_repeated(names: Sequence[str], out: Path) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise WriteError(
            f"{out}: several inputs are called {repeated[0]}; correct them one by one"
        )


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem
