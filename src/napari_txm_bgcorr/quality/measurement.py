"""Measure the quality of each tile, from finished outputs or while tiles are being corrected.

A `Gauge` takes tiles one by one, keeps a small picture of each (about 0.4 MB), and makes the
table from these whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import Scan, TileArray, TileResult, lit_field
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.mosaic import Overview, Positions, bin_mean, register

from .table import TileQuality
from .tile_bins import fine_band, log_bins
from .tile_metrics import departures, ghosts, overlaps, picture, residues, sides_of, structure

__all__ = ["WORK_PX", "Gauge", "measure", "trusted"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

WORK_PX = 256  # longer side of what is kept of each tile, at most
CELLS = 32  # across the field: what is kept of each background
FLOOR = 1e-3  # transmission below it counts as this much
AHEAD = 4  # tiles that threads may be ahead


class Gauge:
    """Collects tiles of one scan and tells how good they are.

    Parameters
    ----------
    scan : Scan
        The raw scan, for its size, names, grid, positions, times and dark; pixels are not read.
    work_px : int
        Longer side to keep of each tile, at most.
    """

    def __init__(self, scan: Scan, *, work_px: int = WORK_PX) -> None:
        count, rows, columns = (int(n) for n in scan.tiles.shape)
        self.scan, self.size = scan, (rows, columns)
        self.bin_px = max(1, -(-max(rows, columns) // work_px))
        self.cell_px = max(1, min(rows, columns) // CELLS)
        self.dark = scan.dark()
        self.measured = np.zeros(count, bool)
        small = (count, rows // self.bin_px, columns // self.bin_px)
        self._raw = np.full(small, np.nan, np.float16)
        self._corrected = np.full(small, np.nan, np.float16)
        self._fine = np.zeros(small, np.float16)
        self._level = np.full(count, np.nan)  # of the raw log, taken off `_raw`
        coarse = (count, rows // self.cell_px, columns // self.cell_px)
        self._background = np.full(coarse, np.nan, np.float32)
        self._tile = np.full(coarse, np.nan, np.float32)  # log raw on the same cells
        self._valid = np.full(count, np.nan)
        self._novelty = np.full(count, np.nan)
        self._level_error = np.full(count, np.nan)
        self._positions: Floats | None = scan.positions_px
        self._registered = False

    def add(self, result: TileResult, novelty: float = float("nan")) -> None:
        """Take one corrected tile, in any order; the same tile again replaces it.

        Safe to call from several threads with different tiles.

        Parameters
        ----------
        result : TileResult
        novelty : float
            Novelty of this tile to the learned method, see `models.novelty`.

        Raises
        ------
        MethodError
            If the tile is not of this scan.
        """
        i = int(result.index)
        if not 0 <= i < len(self.scan) or result.raw.shape != self.size:
            raise MethodError(
                f"{self.scan.source.path}: tile {i} of {result.raw.shape} px: not of this scan "
                f"of {len(self.scan)} tiles of {self.size} px; measure the scan it belongs to"
            )
        beam = self._beam(result.background)
        raw = self._beam(result.raw)
        valid = result.valid
        share = bin_mean(valid.astype(np.float32), self.bin_px)
        log_raw = log_bins(raw, valid, share, self.bin_px, None)
        level = float(np.nanmedian(log_raw)) if np.isfinite(log_raw).any() else np.nan
        corrected = log_bins(result.transmission, valid, share, self.bin_px, FLOOR)
        self._level[i] = level
        self._raw[i] = np.clip(log_raw - level, -30, 30)
        self._corrected[i] = corrected
        self._fine[i] = fine_band(corrected)
        cells = bin_mean(valid.astype(np.float32), self.cell_px)
        self._background[i] = log_bins(beam, valid, cells, self.cell_px, None)
        self._tile[i] = log_bins(raw, valid, cells, self.cell_px, None)
        self._valid[i] = float(valid.mean())
        self._novelty[i] = novelty
        self.measured[i] = True

    def tell(self, described: Mapping[str, Any]) -> None:
        """Take what the joint stage knows of its own errors.

        Parameters
        ----------
        described : mapping
            What the fitted method says of itself: `parameters` of the provenance.
        """
        stage = described.get("joint")
        errors = stage.get("level_errors", ()) if isinstance(stage, Mapping) else ()
        if len(errors) == len(self.scan):
            self._level_error[:] = errors

    def _beam(self, counts: NDArray[Any]) -> Image:
        values = np.asarray(counts, np.float32)
        return values if self.dark is None else values - self.dark

    def register(self) -> Positions:
        """Find where the tiles lie, from what was added so far; later tables use it.

        Raises
        ------
        MethodError
            If the scan is no mosaic.
        """
        found = register(self.scan, overview=self._overview())
        self.place(found.positions_px, registered=True)
        return found

    def place(self, positions_px: Floats, *, registered: bool = True) -> None:
        """Use known top left corners `(T, 2)` (y, x) in pixels for the overlaps.

        Raises
        ------
        MethodError
            If there is not one for each tile.
        """
        places = np.asarray(positions_px, np.float64)
        if places.shape != (len(self.scan), 2):
            raise MethodError(
                f"{self.scan.source.path}: positions {places.shape} for {len(self.scan)} tiles; "
                "give one (y, x) for each tile"
            )
        self._positions, self._registered = places, registered

    def _overview(self) -> Overview:
        """Overview for registration; corrected tiles have no fixed pattern to mislead it."""
        known = np.isfinite(self._corrected)
        lit_bins: Mask = (
            known[self.measured].mean(axis=0) > 0.5 if self.measured.any() else known[0]
        )
        lit = np.zeros(self.size, bool)
        large = np.kron(lit_bins, np.ones((self.bin_px, self.bin_px), bool))
        lit[: large.shape[0], : large.shape[1]] = large
        tiles = np.where(known, self._corrected, np.float16(0))
        return Overview(
            np.zeros(self.size, np.float32), lit, tiles, np.zeros(len(self.scan)), self.bin_px
        )

    def pictures(self, longest_px: int = 1000) -> tuple[Image, Image]:
        """Small pictures of the whole scan: raw, and corrected.

        Parameters
        ----------
        longest_px : int
            Longer side, at most.

        Returns
        -------
        raw, corrected : (H, W) float32
            Counts with the dark removed, transmission. Tiles lie at their places, those of a
            series side by side; NaN where there is nothing.
        """
        count = len(self.scan)
        places = self._positions
        if places is None:
            columns = int(np.ceil(np.sqrt(count)))
            rows = np.stack([np.arange(count) // columns, np.arange(count) % columns], axis=1)
            places = rows * np.array(self.size) * 1.03
        return picture(self._raw, self._level, places, self.bin_px, longest_px), picture(
            self._corrected, np.zeros(count), places, self.bin_px, longest_px
        )

    def thumbnail(self, i: int) -> tuple[Image, Image]:
        """Raw (counts, dark removed) and corrected tile `i` on bins `(y, x)`; NaN unknown."""
        raw = np.exp(self._raw[i].astype(np.float32) + np.float32(self._level[i]))
        return raw, np.exp(self._corrected[i].astype(np.float32))

    def table(self) -> TileQuality:
        """Figures of all tiles added so far."""
        seen = self.measured
        pairs = overlaps(
            self._raw, self._level, self._corrected, seen, self._positions, self.size, self.bin_px
        )
        sides = sides_of(pairs, self._positions, len(self.scan))
        departure, jump, leak = departures(self._background, self._tile, self.scan.times, seen)
        coarse, structures = structure(self._tile - self._background)
        return TileQuality(
            names=self.scan.names,
            size=self.size,
            measured=seen.copy(),
            cells=self.scan.cells,
            positions_px=None if self._positions is None else self._positions.copy(),
            registered=self._registered,
            sides_before=sides.before,
            sides_after=sides.after,
            seam_before=_median(sides.before),
            seam_after=_median(sides.after),
            seam_shape=_median(sides.bend),
            level=_mean(sides.offset),
            level_error=self._level_error.copy(),
            shared_residue=residues(self._fine, seen),
            shared_shading=ghosts(coarse, seen),
            departure=departure,
            jump=jump,
            leakage=leak,
            structure=structures,
            novelty=self._novelty.copy(),
            valid=self._valid.copy(),
        )


def measure(
    scan: Scan,
    backgrounds: TileArray,
    corrected: TileArray,
    valid: TileArray | None = None,
    *,
    positions_px: Floats | None = None,
    registration: bool = True,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    novelty: Callable[[TileResult], float] | None = None,
    described: Mapping[str, Any] | None = None,
) -> Gauge:
    """Measure a finished correction, tile by tile.

    Parameters
    ----------
    scan : Scan
        Raw tiles.
    backgrounds : (T, Y, X) array-like, counts
        Dark included.
    corrected : (T, Y, X) array-like
        Transmissions.
    valid : (T, Y, X) array-like or None
        Non-zero where the correction can be trusted; None: found from raw and background.
    positions_px : (T, 2) float64 or None
        Known places of the tiles; None: registered here where the scan is a mosaic.
    registration : bool
        False: take the stage's own positions.
    workers : int
        Threads that each take one tile at a time; the figures do not depend on it.
    progress : callable
        Called with (tiles done, all tiles).
    should_stop : callable
        Asked after each tile; the gauge then holds what was measured.
    novelty : callable or None
        Measure of the learned method for one tile.
    described : mapping or None
        What the method that made them says of itself; see `Gauge.tell`.

    Returns
    -------
    Gauge
        ``.table()`` has the figures, ``.pictures()`` small views of the whole scan.

    Raises
    ------
    MethodError
        If the stacks differ in number or size.
    """
    for label, stack in (("backgrounds", backgrounds), ("corrected", corrected)):
        if tuple(stack.shape) != tuple(scan.tiles.shape):
            raise MethodError(
                f"{scan.source.path}: {label} {tuple(stack.shape)} for tiles "
                f"{tuple(scan.tiles.shape)}; give one for each tile"
            )
    gauge = Gauge(scan)
    gauge.tell(described or {})
    if positions_px is not None:
        gauge.place(positions_px)

    def look(i: int) -> None:
        result = _result(scan, backgrounds, corrected, valid, gauge.dark, i)
        gauge.add(result, float("nan") if novelty is None else novelty(result))

    for done in _each(look, len(scan), workers):
        progress(done, len(scan))
        if should_stop():
            break
    enough = int(gauge.measured.sum()) > 1
    if positions_px is None and registration and scan.kind == "mosaic" and enough:
        gauge.register()
    return gauge


def _each(look: Callable[[int], None], count: int, workers: int) -> Iterator[int]:
    """Do `look` for every tile; yields how many are done."""
    if workers <= 1:
        for i in range(count):
            look(i)
            yield i + 1
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="quality") as pool:
        for first in range(0, count, workers * AHEAD):
            part = range(first, min(first + workers * AHEAD, count))
            for i, _ in zip(part, pool.map(look, part), strict=True):
                yield i + 1


def _result(
    scan: Scan,
    backgrounds: TileArray,
    corrected: TileArray,
    valid: TileArray | None,
    dark: Image | None,
    i: int,
) -> TileResult:
    raw, background = np.asarray(scan.tiles[i]), np.asarray(backgrounds[i], np.float32)
    transmission = np.asarray(corrected[i], np.float32)
    if valid is None:
        known = trusted(raw, background, transmission, dark)
    else:
        known = np.asarray(valid[i]) > 0
    return TileResult(i, raw, background, transmission, known)


def trusted(
    raw: NDArray[Any], background: Image, transmission: Image, dark: Image | None = None
) -> Mask:
    """Mask `(Y, X)` bool of the trusted pixels of a tile, for outputs that did not save one.

    The lit field, without saturated, dead and undefined pixels. (The hot pixels that the
    division found are filled in its output and cannot be told from it.)
    """
    known: Mask = lit_field(background if dark is None else background - dark)
    known &= np.isfinite(transmission) & (transmission > 0) & (raw > 0)
    if np.issubdtype(raw.dtype, np.integer):
        known &= raw < np.iinfo(raw.dtype).max
    return known


def _median(sides: Floats) -> Floats:
    """Median over the known sides `(T, 4)`; NaN where there are none."""
    out = np.full(len(sides), np.nan)
    some = np.isfinite(sides).any(axis=1)
    out[some] = np.nanmedian(sides[some], axis=1)
    return out


def _mean(sides: Floats) -> Floats:
    out = np.full(len(sides), np.nan)
    some = np.isfinite(sides).any(axis=1)
    out[some] = np.nanmean(sides[some], axis=1)
    return out
