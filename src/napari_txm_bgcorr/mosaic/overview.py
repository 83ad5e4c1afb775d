"""A scan seen once, small enough to keep: what registration and the background model work on.

Every tile is read once. The method is asked for the backgrounds that the prior pattern is taken
from, or, where it knows how backgrounds differ, for all. What stays in memory of 961 tiles of
1024 px is about 0.5 GB, whatever the size of the tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    SILENT,
    BackgroundMethod,
    Coarse,
    LazyTiles,
    PredictsTiles,
    Progress,
    Scan,
    TileArray,
    TilePrediction,
    cpu_cores,
    lit_in_tiles,
    log_beam,
    median_of,
    spread,
    spread_indices,
)
from napari_txm_bgcorr.errors import MethodError

from .fixed_pattern import shared_pattern

__all__ = ["FEW", "MethodBackgrounds", "Overview", "bin_mean", "cells_of", "survey"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

WORK_PX = 256  # longer side of what is kept of each tile
MAX_SHARED = 48  # tiles that pattern and fine pattern are taken from, at full size
MAX_PIXELS = 2**26  # of these tiles: 256 MiB of float16 for raw and background
LIT_TILES = 9  # tiles that the lit field is looked for in
FEW, COARSE_CELLS, FINE_CELLS = 64, 32, 64  # cells across the field, for many tiles and for few
DARKEST = 1e-4  # of the median: a background without noise may be as dark as that
STAGE = "looking at tiles"


@dataclass(frozen=True, eq=False)
class Overview:
    """Shared pattern of all tiles, and each tile reduced to `WORK_PX`.

    Attributes
    ----------
    shape : (Y, X) float32
        Log of the background that the tiles share, dark removed, median 0: the median over
        tiles of a method's log backgrounds, plus what their high-passed residuals share.
    lit : (Y, X) bool
        Where the beam arrives.
    raw : (T, y, x) float16
        Log counts, dark removed, less `raw_level` and less the shared shape.
    raw_level : (T,) float64
        Log counts.
    bin_px : int
        Pixels along one of those of `raw`.
    cells : (T, cy, cx) float32
        Log counts, dark removed, on `coarse` cells.
    pattern : (Y, X) float32
        The shared shape before the residuals were looked at.
    change : (T, cy, cx) float32 or None
        What the method's backgrounds differ by from `pattern` and their level, where the method
        knows that.
    levels : (T,) float64 or None
        The method's own log levels against `pattern`, likewise.
    chosen : tuple of int
        Tiles of which `stack` holds the log counts.
    stack : (N, Y, X) float16
        Less `raw_level`.
    unlit_level : float
        Log counts behind the aperture, dark removed: the same in every tile. NaN where all is
        lit.
    free : (T, cy, cx) float32 or None
        Probabilities to be free of sample, by a method that tells them of the `chosen` tiles;
        0.5 in the others. None: it tells none.
    prior_sd : (T, cy, cx) float32 or None
        Standard deviations of the method's log backgrounds, level left out, likewise; 0 in the
        others.
    """

    shape: Image
    lit: Mask
    raw: NDArray[np.float16]
    raw_level: NDArray[np.float64]
    bin_px: int
    cells: Image = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))
    pattern: Image = field(default_factory=lambda: np.empty((0, 0), np.float32))
    change: Image | None = None
    levels: NDArray[np.float64] | None = None
    chosen: tuple[int, ...] = ()
    stack: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0, 0), np.float16))
    unlit_level: float = float("nan")
    free: Image | None = None
    prior_sd: Image | None = None

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def lit_bins(self) -> Mask:
        """Bins `(y, x)` that are wholly lit."""
        whole: Mask = bin_mean(self.lit.astype(np.float32), self.bin_px) > 0.999
        return whole

    @property
    def coarse(self) -> Coarse:
        """The cells of `cells`."""
        return cells_of(self.lit.shape, len(self))


def cells_of(shape: tuple[int, ...], count: int) -> Coarse:
    """Cells on which the background of a scan of `count` tiles `(Y, X)` is solved for."""
    return Coarse(shape, FINE_CELLS if count <= FEW else COARSE_CELLS)


class MethodBackgrounds(LazyTiles):
    """The backgrounds `(T, Y, X)`, counts, that a fitted method gives the tiles of a scan.

    Parameters
    ----------
    scan : Scan
    method : BackgroundMethod
        Fitted.
    knows_drift : bool
        Whether the differences between its backgrounds are known, not guessed from the tiles.
    """

    def __init__(self, scan: Scan, method: BackgroundMethod, knows_drift: bool = False) -> None:
        count, rows, columns = (int(n) for n in scan.tiles.shape)
        super().__init__(
            (count, rows, columns), np.float32, lambda i: self.of(i, np.asarray(scan.tiles[i]))
        )
        self._method, self.knows_drift = method, knows_drift

    def of(self, i: int, tile: NDArray[Any]) -> Image:
        """Background of tile `i`, read already."""
        one: Image = self._method.background(tile[None], np.array([i], np.int64))[0]
        return one

    def seen(self, i: int, tile: NDArray[Any]) -> TilePrediction:
        """Background of tile `i`, with the method's other predictions for it."""
        if not isinstance(self._method, PredictsTiles):
            return TilePrediction(self.of(i, tile)[None])
        return self._method.predict_tiles(tile[None], np.array([i], np.int64))


def bin_mean(image: NDArray[Any], bin_px: int) -> Image:
    """Means over `bin_px` x `bin_px` pixels; a cut last bin is left out."""
    rows, columns = (n // bin_px for n in image.shape)
    part = np.asarray(image, np.float32)[: rows * bin_px, : columns * bin_px]
    if bin_px == 1:
        return part
    lines = part.reshape(rows, bin_px, -1).sum(axis=1)
    mean: Image = np.zeros((rows, columns), np.float32)
    for k in range(bin_px):  # strided sums: six times faster than `reduceat`
        mean += lines[:, k::bin_px]
    mean /= np.float32(bin_px * bin_px)
    return mean


def survey(
    scan: Scan,
    backgrounds: TileArray,
    *,
    work_px: int = WORK_PX,
    workers: int = 1,
    progress: Progress = SILENT,
) -> Overview:
    """Look at every tile once, and at the backgrounds of all or of some spread over the scan.

    Parameters
    ----------
    scan : Scan
    backgrounds : (T, Y, X) array-like, counts
        Of any method, dark included; read tile by tile.
    work_px : int
        Longer side to keep of each tile, at most.
    workers : int
        Threads that each look at one tile at a time; the same result for any number.
    progress : Progress
        Told after each tile.

    Raises
    ------
    StoppedError
        If the progress ended it.
    MethodError
        If backgrounds and tiles differ in number or size.
    """
    if tuple(backgrounds.shape) != tuple(scan.tiles.shape):
        raise MethodError(
            f"{scan.source.path}: backgrounds {tuple(backgrounds.shape)} for tiles "
            f"{tuple(scan.tiles.shape)}; give one background for each tile"
        )
    count, rows, columns = (int(n) for n in scan.tiles.shape)
    bin_px = max(1, min(-(-max(rows, columns) // work_px), rows, columns))
    chosen = shared_tiles(scan)
    knows_drift = isinstance(backgrounds, MethodBackgrounds) and backgrounds.knows_drift
    keep = _Keeper(
        scan, backgrounds, scan.dark(), bin_px, frozenset(chosen),
        frozenset(range(count) if knows_drift else chosen),
        frozenset(chosen[k] for k in spread_indices(len(chosen), LIT_TILES)), progress,
    )  # fmt: skip
    coarse = cells_of((rows, columns), count)
    stacks = np.empty((2, len(chosen), rows, columns), np.float16)
    raw = np.empty((count, rows // bin_px, columns // bin_px), np.float16)
    raw_level, levels = np.empty(count), np.zeros(count)
    cells = np.empty((count, *coarse.size), np.float32)
    change = np.zeros((count if knows_drift else 0, *coarse.size), np.float32)
    free: dict[int, Image] = {}
    prior_sd: dict[int, Image] = {}
    counts: list[Image] = []  # of some tiles, dark removed
    for i, seen in enumerate(spread(keep, range(count), workers)):
        progress.step(STAGE, i + 1, count)
        raw[i], raw_level[i], cells[i] = seen.raw, seen.level, seen.cells
        if seen.background is not None and knows_drift:
            change[i] = seen.background
        if seen.free is not None:
            free[i] = seen.free
        if seen.sd is not None:
            prior_sd[i] = seen.sd
        if seen.shared is not None:
            stacks[:, chosen.index(i)] = seen.shared
            if seen.counts is not None:
                counts.append(seen.counts)
    lit, unlit_level = _lit(np.stack(counts))
    del counts
    pattern, shape = _shared_shape(scan, stacks, raw_level[chosen], lit)
    small = bin_mean(shape, bin_px)
    for tile in raw:
        tile -= small.astype(np.float16)
    if knows_drift:
        change -= coarse.mean(pattern)
        usable = coarse.mean(lit.astype(np.float32)) > 0.999
        levels = np.median(change[:, usable if usable.any() else ...], axis=1).astype(np.float64)
        change -= levels[:, None, None].astype(np.float32)
    return Overview(
        shape, lit, raw, raw_level, bin_px, cells, pattern, change if knows_drift else None,
        levels if knows_drift else None, tuple(chosen), stacks[0], unlit_level,
        _of_all(free, cells, 0.5), _of_all(prior_sd, cells, 0),
    )  # fmt: skip


def _of_all(told: dict[int, Image], cells: Image, others: float) -> Image | None:
    """Array `(T, cy, cx)` with the given values of some tiles and `others` elsewhere."""
    if not told:
        return None
    out = np.full_like(cells, others)
    for i, one in told.items():
        out[i] = one
    return out


def _shared_shape(
    scan: Scan, stacks: NDArray[np.float16], level: NDArray[np.float64], lit: Mask
) -> tuple[Image, Image]:
    """Shape that log backgrounds tell, and the same with the fine pattern of the residuals.

    Parameters
    ----------
    stacks : (2, N, Y, X) float16
        Log counts less `level`, and log backgrounds less their medians.
    """
    pattern = median_of(stacks[1], cpu_cores())
    pattern -= np.median(pattern[lit] if lit.any() else pattern)
    if scan.kind != "mosaic":
        return pattern, pattern
    residuals = stacks[0] - stacks[1]
    residuals -= np.median(residuals[:, ::4, ::4], axis=(1, 2), keepdims=True)
    fine, _ = shared_pattern(np.clip(residuals, -4, 4), lit)
    return pattern, pattern + fine


def _lit(counts: Image) -> tuple[Mask, float]:
    """Lit field from `(N, Y, X)` counts, and the log counts behind the aperture."""
    lit = lit_in_tiles(counts)
    return lit, float("nan") if lit.all() else float(np.log(np.median(counts[:, ~lit])))


def shared_tiles(scan: Scan) -> list[int]:
    """Tiles that a shared shape is taken from, spread over the scan."""
    count, rows, columns = (int(n) for n in scan.tiles.shape)
    limit = max(4, min(MAX_SHARED, MAX_PIXELS // (rows * columns)))
    return (_spread_pairs if scan.kind == "mosaic" else spread_indices)(count, limit)


def _spread_pairs(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` places, spread evenly, by twos: tiles in a row overlap."""
    if count <= limit:
        return list(range(count))
    first = spread_indices(count - 1, limit // 2)
    return sorted({*first, *(i + 1 for i in first)})


@dataclass(frozen=True)
class _SeenTile:
    raw: Image
    level: float
    cells: Image
    background: Image | None = None  # cells, of those that the method was asked about
    shared: NDArray[np.float16] | None = None  # of chosen tiles, and the next one
    counts: Image | None = None
    free: Image | None = None  # cells
    sd: Image | None = None


@dataclass(frozen=True)
class _Keeper:
    """Reads one tile and its background."""

    scan: Scan
    backgrounds: TileArray
    dark: Image | None
    bin_px: int
    chosen: frozenset[int]
    asked: frozenset[int]
    looked: frozenset[int]
    progress: Progress

    def __call__(self, i: int) -> _SeenTile:
        self.progress.check()  # also in the threads, which run ahead of the reports
        counts = np.asarray(self.scan.tiles[i])
        log_raw = log_beam(counts, self.dark)
        coarse = cells_of(log_raw.shape, len(self.scan))
        small = bin_mean(log_raw, self.bin_px)
        level = float(np.median(small[::4, ::4]))
        small, cells = small - np.float32(level), coarse.mean(log_raw)
        if i not in self.asked:
            return _SeenTile(small, level, cells)
        own = self.backgrounds if isinstance(self.backgrounds, MethodBackgrounds) else None
        told = None
        if own is None:
            background = self.backgrounds[i]
        elif i in self.chosen:
            told = own.seen(i, counts)
            background = told.background[0]
        else:
            background = own.of(i, counts)
        log_background = log_beam(background, self.dark, DARKEST)
        if i not in self.chosen:
            return _SeenTile(small, level, cells, coarse.mean(log_background))
        shared = np.empty((2, *log_raw.shape), np.float16)
        shared[0] = log_raw - np.float32(level)
        shared[1] = log_background - np.median(log_background[::4, ::4])
        # References show the aperture alone, tiles dark specimens, too.
        knows = own is not None and own.knows_drift
        kept = np.exp(log_background if knows else log_raw) if i in self.looked else None
        free, sd = (None, None) if told is None else (told.free, told.sd)
        return _SeenTile(
            small, level, cells, coarse.mean(log_background), shared, kept,
            None if free is None else coarse.mean(free[0]),
            None if sd is None else coarse.mean(sd[0]),
        )  # fmt: skip
