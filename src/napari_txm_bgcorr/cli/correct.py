"""`txm-bgcorr correct`: predict the background of every tile, divide, and write."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from napari_txm_bgcorr.cli.options import Device, Grid, JsonFlag, PixelNm, parse_grid
from napari_txm_bgcorr.cli.system import peak_rss_mb
from napari_txm_bgcorr.core.correction import BackgroundMethod, TileResult, correct_tiles
from napari_txm_bgcorr.core.errors import ConfigError, WriteError
from napari_txm_bgcorr.core.provenance import make_provenance, refuse_if_corrected
from napari_txm_bgcorr.core.scan import LazyTiles, Scan, Source, TileArray

__all__ = ["CorrectOptions", "correct", "correct_paths", "correct_scans", "prepare"]

PARTS = ("raw", "background", "corrected", "mask")
FORMATS = ("omezarr", "ometiff", "tiff")
Shared = dict[tuple[int, ...], dict[str, Any]]
IMAGE_SUFFIXES = (".tif", ".tiff", ".xrm", ".txrm", ".txm", ".h5", ".nxs")
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


METHOD_HELP = (
    "How the background is found: auto (the network with the best help at hand: references, "
    "else the other tiles), generator (the same), captured (the references as they are), "
    "tile-median (of 3 tiles or more), smooth, envelope (from one tile), eigen-flats (3 "
    "references or more), basic (BaSiCPy)."
)
REFERENCE_HELP = (
    "Image without the sample (flat field), or a folder of them; may be repeated. Default: "
    "what the input holds."
)
DARK_HELP = "Image without beam, or a folder of them; may be repeated. Default: as above."
SAVE_HELP = "What to write, some of raw,background,corrected,mask (1 where the result is valid)."
FORMAT_HELP = "omezarr (one store), ometiff (one file a part) or tiff (one file a tile)."


def correct(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Raw files, or folders of tiles.")
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Folder (or store) to make.")
    ],
    method: Annotated[str, typer.Option("--method", metavar="NAME", help=METHOD_HELP)] = "auto",
    model: Annotated[
        str,
        typer.Option("--model", help="The network: a model's name, weights file or run folder."),
    ] = "default",
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", metavar="PATH", help=REFERENCE_HELP)
    ] = None,
    dark: Annotated[
        list[Path] | None, typer.Option("--dark", metavar="PATH", help=DARK_HELP)
    ] = None,
    device: Device = "auto",
    save: Annotated[
        str, typer.Option("--save", metavar="PARTS", help=SAVE_HELP)
    ] = "raw,background,corrected",
    format: Annotated[str, typer.Option("--format", metavar="NAME", help=FORMAT_HELP)] = "omezarr",
    grid: Grid = None,
    pixel_nm: PixelNm = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace an earlier result in OUT, once the new is done."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Correct even what is already corrected.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Divide out the background, predicted from the raw data, of tiles, series and mosaics.

    corrected = (raw - dark) / (background - dark): transmission, 1 where nothing is in the beam.
    Raw files are never changed. Give an interrupted command again and it goes on.
    """
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
            tiles = "1 tile" if done["tiles"] == 1 else f"{done['tiles']} tiles"
            typer.echo(f"{tiles} corrected by {done['method']}: {done['output']}")
            for note in done["notes"]:
                typer.echo(f"  note: {note}")


def correct_paths(paths: Sequence[Path], out: Path, options: CorrectOptions) -> dict[str, Any]:
    """Correct each path and say what was done, as a JSON-ready summary."""
    started = time.perf_counter()
    _refuse_file_name(out)
    # Every input and place is looked at before the first is corrected: a slip costs no hour.
    shared: Shared = {}
    scans = [prepare(path, options, shared) for path in paths]
    jobs = _jobs(scans, out, options.format)
    for group, target in jobs:
        _check_place(group, target, options, alone=len(jobs) == 1)
    method = _make_method(options)
    results = [correct_scans(group, method, target, options) for group, target in jobs]
    return {
        "results": results,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def prepare(path: Path, options: CorrectOptions, shared: Shared | None = None) -> Scan:
    """Read a path and attach the user's references and darks to it.

    Parameters
    ----------
    path : Path
    options : CorrectOptions
    shared : dict, optional
        References and darks by size of tile, read for one path and used for the next.

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
    shared = {} if shared is None else shared
    size = tuple(scan.tiles.shape[1:])
    if size not in shared:
        given: dict[str, Any] = {}
        shared[size] = given
        if options.references:
            flats, times = io.read_references(options.references, like=scan)
            given |= {"flats": flats, "flat_times": times}
        if options.darks:
            given["darks"], _ = io.read_references(options.darks, like=scan, role="darks")
    return replace(scan, **shared[size])


def correct_scans(
    scans: Sequence[Scan], method: BackgroundMethod, out: Path, options: CorrectOptions
) -> dict[str, Any]:
    """Fit the method to each scan, then predict, divide and write tile by tile into one output.

    An interrupted run of the same job goes on where it stopped.
    """
    from napari_txm_bgcorr import io

    started = time.perf_counter()
    blind: list[str] = []
    whole = scans[0] if len(scans) == 1 else _side_by_side(scans)
    described = method.fit(scans[0]).describe()
    device = str(described.get("device", "cpu"))
    provenance = make_provenance(whole, method, device).to_dict()
    if not options.overwrite and io.finished(
        out, provenance, format=options.format, save=options.save
    ):
        resumed = len(whole)  # one of several outputs, made before the others were interrupted
    else:
        output = io.open_output(
            out, options.format, whole, provenance, save=options.save, overwrite=options.overwrite
        )
        with output as writer:
            resumed = len(writer.done)
            with tqdm(
                total=len(whole), initial=resumed, unit="tile", disable=options.quiet
            ) as bar:
                for result in _results(scans, method, writer.done):
                    writer.write(result)
                    blind += [] if result.valid.any() else [whole.names[result.index]]
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
        "notes": list(dict.fromkeys(n for scan in scans for n in scan.notes)) + _blind(blind),
    }


def _blind(names: Sequence[str]) -> list[str]:
    """Tell of tiles without one pixel to trust."""
    if not names:
        return []
    which = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return [f"no valid pixel in {len(names)} tiles ({which}): dark, saturated or not finite"]


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

    def common(fact: str) -> Any:
        values = {getattr(scan, fact) for scan in scans}
        return values.pop() if len(values) == 1 else None

    def joined(stacks: list[TileArray | None]) -> TileArray | None:
        """Every one of them once, for the provenance."""
        from napari_txm_bgcorr.io.tile_folder import concatenated

        found = list({id(stack): stack for stack in stacks if stack is not None}.values())
        return concatenated(found) if found else None

    times = [scan.times for scan in scans if scan.times is not None]
    return Scan(
        tiles=LazyTiles(
            (len(scans), *first.tiles.shape[1:]), first.tiles.dtype, lambda i: scans[i].tiles[0]
        ),
        kind="series",
        source=Source(
            Path(os.path.commonpath([scan.source.path.absolute().parent for scan in scans])),
            first.source.format,
            tuple(file for scan in scans for file in scan.source.files),
        ),
        names=tuple(scan.names[0] for scan in scans),
        times=np.concatenate(times) if len(times) == len(scans) else None,
        flats=joined([scan.flats for scan in scans]),
        darks=joined([scan.darks for scan in scans]),
        **{fact: common(fact) for fact in ("pixel_nm", "energy_ev", "exposure_s", "binning")},
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
    alike = {
        (scan.kind, tuple(scan.tiles.shape), scan.tiles.dtype, scan.pixel_nm) for scan in scans
    }
    if len(alike) == 1 and scans[0].kind == "single":
        _refuse_repeated([scan.names[0] for scan in scans], out)
        return [(scans, out)]
    names = [_stem(scan.source.path) for scan in scans]
    _refuse_repeated(names, out)
    return [
        ([scan], out / f"{name}{FILE_SUFFIX[format]}")
        for scan, name in zip(scans, names, strict=True)
    ]


def _check_place(
    scans: Sequence[Scan], out: Path, options: CorrectOptions, *, alone: bool
) -> None:
    """Refuse a place that cannot take the output; one of several may have been made already."""
    from napari_txm_bgcorr import io

    for scan in scans:
        io.check_place(out, scan, options.save, overwrite=options.overwrite or not alone)


def _refuse_file_name(out: Path) -> None:
    if out.suffix.lower() in IMAGE_SUFFIXES:
        raise WriteError(f"{out}: the output is a folder; give a name without {out.suffix}")


def _refuse_repeated(names: Sequence[str], out: Path) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise WriteError(
            f"{out}: several inputs are called {repeated[0]}; correct them one by one"
        )


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem
