"""Correct some tiles of a finished output again, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    BackgroundMethod,
    DivideOptions,
    LazyTiles,
    Scan,
    StatesUncertainty,
    TileResult,
    correct_tiles,
)
from napari_txm_bgcorr.errors import ConfigError, MethodError

from .prepare import with_references

if TYPE_CHECKING:
    from napari_txm_bgcorr.core import BackgroundMethod, Scan
    from napari_txm_bgcorr.io.output import FinishedOutput

__all__ = ["flagged_tiles", "nearby", "redo_output", "redo_tiles", "subset"]


def redo_output(
    path: Path,
    tiles: Sequence[int],
    *,
    method: str = "auto",
    model: str = "default",
    device: str = "auto",
    references: Sequence[Path] = (),
    darks: Sequence[Path] = (),
    local: int | None = None,
) -> Path:
    """Correct some tiles again by another method or reference; the others keep every bit.

    Parameters
    ----------
    path : Path
        OME-Zarr output.
    tiles : sequence of int
        Counted from 0; empty: nothing is done.
    method, model, device : str
        As in `CorrectionConfig`.
    references, darks : sequence of Path
        For these tiles.
    local : int or None
        See `redo_tiles`.

    Returns
    -------
    Path
        The output.

    Raises
    ------
    ReadError
        If it is no complete output.
    MethodError
        If a tile is not of the scan, or the method cannot work on it.
    ConfigError
        If the dark is another than that of the other tiles.
    """
    from napari_txm_bgcorr.backgrounds import LEARNED, make_method
    from napari_txm_bgcorr.io.output import Patch, open_finished

    output = open_finished(path)
    if not tiles:
        return output.path
    scan = with_references(output.scan, references, darks)
    subset(scan, tiles)
    given: dict[str, Any] = {"model": model, "device": device} if method in LEARNED else {}
    maker = make_method(method, **given)
    entry = _provenance(output, scan, maker, list(tiles), local)
    patch = Patch(output, list(tiles), entry)
    for result in redo_tiles(
        scan, maker, tiles, local=local, uncertainty="uncertainty" in patch.roles
    ):
        patch.write(result)
    patch.close_complete()
    return output.path


def flagged_tiles(path: Path, darks: Sequence[Path] = ()) -> list[int]:
    """Tiles of a finished output that the quality flags raise, ascending."""
    from napari_txm_bgcorr.quality import flagged

    from .quality_report import measure_output

    _, gauge = measure_output(path, darks)
    return [int(i) for i in np.flatnonzero(flagged(gauge.table()))]


def _provenance(
    output: FinishedOutput,
    scan: Scan,
    method: BackgroundMethod,
    tiles: list[int],
    local: int | None,
) -> dict[str, Any]:
    """Provenance of redone tiles; refuse another dark image than that of the other tiles."""
    from napari_txm_bgcorr.core import make_provenance

    part = scan if local is None else subset(scan, nearby(scan, tiles[0], max(1, local)))
    made = make_provenance(scan, method.fit(part)).to_dict()
    made["device"] = made["parameters"].get("device", "cpu")
    before = output.provenance.get("darks_sha256")
    if made["darks_sha256"] != before:
        raise ConfigError(
            f"{output.path}: the other tiles were corrected "
            f"{'without a' if before is None else 'with another'} dark image; "
            f"{'leave out --dark' if before is None else 'give the same with --dark'}"
        )
    keep = ("method", "parameters", "weights_sha256", "flats_sha256", "versions", "device", "date")
    return {"local": local, **{key: made[key] for key in keep}}


def subset(scan: Scan, indices: Sequence[int]) -> Scan:
    """Some tiles of a scan as a scan of their own, in the order given; references stay.

    Parameters
    ----------
    scan : Scan
    indices : sequence of int
        Each at most once.

    Raises
    ------
    MethodError
        If a tile is not of the scan, or there are none.
    """
    chosen = [int(i) for i in indices]
    wrong = [i for i in chosen if not 0 <= i < len(scan)]
    if wrong or not chosen or len(set(chosen)) < len(chosen):
        what = f"tile {wrong[0]}" if wrong else "tiles given twice" if chosen else "no tiles"
        raise MethodError(
            f"{scan.source.path}: {what}: give different tiles from 0 to {len(scan) - 1}"
        )
    shape = (len(chosen), int(scan.tiles.shape[1]), int(scan.tiles.shape[2]))

    def of(values: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if values is None else values[chosen]

    places = None if scan.positions_px is None else scan.positions_px[chosen]
    return replace(
        scan,
        tiles=LazyTiles(shape, scan.tiles.dtype, lambda k: np.asarray(scan.tiles[chosen[k]])),
        names=tuple(scan.names[i] for i in chosen),
        grid=None,  # what is left need not fill one
        raster_index=None,
        positions_px=None if places is None else places - places.min(axis=0),
        times=of(scan.times),
        energies_ev=of(scan.energies_ev),
        exposures_s=of(scan.exposures_s),
        monitor=of(scan.monitor),
        angles_deg=of(scan.angles_deg),
    )


def nearby(scan: Scan, index: int, reach: int) -> list[int]:
    """Tiles within `reach` rows and columns of a mosaic, else within `reach` exposures.

    Parameters
    ----------
    scan : Scan
    index : int
    reach : int
        1: the tile and those around it.

    Returns
    -------
    list of int
        The tile itself included, ascending.
    """
    cells = scan.cells
    if cells is None:
        return list(range(max(0, index - reach), min(len(scan), index + reach + 1)))
    near = np.abs(cells - cells[index]).max(axis=1) <= reach
    return [int(i) for i in np.flatnonzero(near)]


def redo_tiles(
    scan: Scan,
    method: BackgroundMethod,
    indices: Sequence[int],
    *,
    local: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    options: DivideOptions | None = None,
    uncertainty: bool = False,
) -> Iterator[TileResult]:
    """Correct chosen tiles again.

    Parameters
    ----------
    scan : Scan
        The whole raw scan.
    method : BackgroundMethod
        Not fitted yet.
    indices : sequence of int
    local : int or None
        Fit, for each tile, to the tiles within that many rows and columns (exposures of a
        series) alone: a local reference. None: fit to the whole scan.
    should_stop : callable
        Asked before each tile.
    options : DivideOptions or None
    uncertainty : bool
        Also give the uncertainty of each background, where the method states one.

    Yields
    ------
    TileResult
        In the order of `indices`, numbered as in `scan`.

    Raises
    ------
    MethodError
        If a tile is not of the scan, or the method cannot work on what is nearby.
    """
    chosen = DivideOptions() if options is None else options
    if local is None:
        subset(scan, indices)  # refuse wrong tiles before anything is fitted
        fitted = method.fit(scan)
        yield from correct_tiles(
            scan, fitted, indices=indices, should_stop=should_stop, options=chosen,
            uncertainty=uncertainty and isinstance(fitted, StatesUncertainty),
        )  # fmt: skip
        return
    if local < 1:
        raise MethodError(f"local {local}: give 1 or more rows and columns around a tile")
    subset(scan, indices)
    for i in indices:
        if should_stop():
            return
        near = nearby(scan, int(i), local)
        part = subset(scan, near)
        fitted = method.fit(part)
        for result in correct_tiles(
            part, fitted, indices=[near.index(int(i))], options=chosen,
            uncertainty=uncertainty and isinstance(fitted, StatesUncertainty),
        ):  # fmt: skip
            yield replace(result, index=int(i))
