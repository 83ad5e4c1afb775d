"""The work of `txm-bgcorr correct`: predict the background of every tile, divide, and write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from napari_txm_bgcorr.cli.correct_inputs import (
    check_place,
    refuse_file_name,
    side_by_side,
    split_jobs,
)
from napari_txm_bgcorr.cli.system import peak_rss_mb
from napari_txm_bgcorr.core.correction import BackgroundMethod, TileResult, correct_tiles
from napari_txm_bgcorr.core.errors import ConfigError
from napari_txm_bgcorr.core.provenance import make_provenance, refuse_if_corrected
from napari_txm_bgcorr.core.scan import Scan

__all__ = ["CorrectOptions", "correct_paths", "correct_scans", "method_of", "prepare"]

PARTS = ("raw", "background", "corrected", "mask")
FORMATS = ("omezarr", "ometiff", "tiff")
Shared = dict[tuple[int, ...], dict[str, Any]]


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


def correct_paths(paths: Sequence[Path], out: Path, options: CorrectOptions) -> dict[str, Any]:
    """Correct each path and say what was done, as a JSON-ready summary."""
    started = time.perf_counter()
    refuse_file_name(out)
    # Every input and place is looked at before the first is corrected: a slip costs no hour.
    shared: Shared = {}
    scans = [prepare(path, options, shared) for path in paths]
    jobs = split_jobs(scans, out, options.format)
    for group, target in jobs:
        check_place(group, target, options.save, overwrite=options.overwrite or len(jobs) > 1)
    method = method_of(options)
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
    whole = scans[0] if len(scans) == 1 else side_by_side(scans)
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


def method_of(options: CorrectOptions) -> BackgroundMethod:
    """Make the method that was asked for, not yet fitted."""
    from napari_txm_bgcorr.engine.methods import LEARNED, make_method

    if options.method not in LEARNED:
        return make_method(options.method)
    return make_method(options.method, model=options.model, device=options.device)
