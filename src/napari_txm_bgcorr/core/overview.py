"""A scan seen once, small enough to keep: what registration and the joint stage work on.

Every tile is read once. The method is asked for the backgrounds that the shared shape is taken
from; of other tiles for coarse cells, where it offers these for less, or not at all. What stays
in memory of 961 tiles of 1024 px is about 0.5 GB, whatever the size of the tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.medians import median_of, quantiles_of
from napari_txm_bgcorr.core.own_backgrounds import OwnBackgrounds
from napari_txm_bgcorr.core.pixels import lit_in_tiles
from napari_txm_bgcorr.core.scan import Scan, TileArray
from napari_txm_bgcorr.core.shapes import log_beam, spread_indices
from napari_txm_bgcorr.core.shared_pattern import shared_pattern
from napari_txm_bgcorr.core.threads import cpu_cores, spread
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = [
    "QUANTILES",
    "Overview",
    "bin_mean",
    "layers_of",
    "shared_tiles",
    "survey",
]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

WORK_PX = 256  # longer side of what is kept of each tile
MAX_SHARED = 48  # tiles that shape and pattern are taken from, at full size
MAX_PIXELS = 2**26  # of these tiles: 256 MiB of float16 for raw and background
QUANTILES = (0.25, 0.5, 0.75)  # of the raw tiles: further shapes for overlaps to choose from
LEAST_TILES = 5  # for quantiles
LIT_TILES = 9  # tiles that the lit field is looked for in
STAGE = "looking at tiles"


@dataclass(frozen=True, eq=False)
class Overview:
    """What all tiles share, and each tile at `WORK_PX`.

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
    rest : (T, y', x') float32
        The method's log backgrounds less the shared shape, absolute log counts; on
        `BACKGROUND_CELLS` cells. NaN of tiles that the method was not asked about.
    bin_px : int
        Pixels along one of those of `raw`.
    pattern_kept : (B,) float64
        Share of the tiles' common residual taken into `shape`, by band, fine to coarse.
    others : (C, Y, X) float32
        What other shapes are off this one: `QUANTILES` of the raw tiles of a mosaic, then those
        of `candidates.compare_shapes`.
    unlit_level : float
        Log counts behind the aperture, dark removed: the same in every tile. NaN where all is
        lit.
    knows_drift : bool
        Whether the method knows how its backgrounds differ (`OwnBackgrounds.every`).
    """

    shape: Image
    lit: Mask
    raw: NDArray[np.float16]
    raw_level: NDArray[np.float64]
    rest: Image
    bin_px: int
    pattern_kept: NDArray[np.float64]
    others: Image = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))
    unlit_level: float = float("nan")
    knows_drift: bool = False

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def lit_bins(self) -> Mask:
        """Bins `(y, x)` that are wholly lit."""
        whole: Mask = bin_mean(self.lit.astype(np.float32), self.bin_px) > 0.999
        return whole

    def mixed(self, shares: NDArray[np.float64]) -> Overview:
        """The same about a mixture of shapes.

        Parameters
        ----------
        shares : (C,) float64
            Of `others`; what is left to 1 is that of `shape`.
        """
        if not shares.any():
            return self
        change: Image = np.tensordot(shares.astype(np.float32), self.others, 1)
        small, cells = bin_mean(change, self.bin_px), bin_mean(change, _cell_px(change.shape))
        raw = self.raw.copy()
        for tile in raw:
            tile -= small.astype(np.float16)
        return replace(
            self, shape=self.shape + change, raw=raw, rest=self.rest - cells,
            others=np.empty((0, *change.shape), np.float32),
        )  # fmt: skip


BACKGROUND_CELLS = 32


def _cell_px(shape: tuple[int, ...]) -> int:
    """Side of the cells on which the backgrounds of single tiles are kept."""
    return max(1, min(shape) // BACKGROUND_CELLS)


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
    watch: Watch = SILENT,
) -> Overview:
    """Look at every tile once, and at the backgrounds of all or of some spread over the scan.

    The shared shape needs no more than `MAX_SHARED` backgrounds. What a method says of single
    tiles counts little in a mosaic: of one with more tiles it is asked about those alone, unless
    it knows the drift (`OwnBackgrounds.every`). In a series, where the level follows the method,
    it is asked about all.

    Parameters
    ----------
    scan : Scan
    backgrounds : (T, Y, X) array-like, counts
        Of any method, dark included; read tile by tile.
    work_px : int
        Longer side to keep of each tile, at most.
    workers : int
        Threads that each look at one tile at a time.
    watch : Watch
        Told after each tile.

    Raises
    ------
    StoppedError
        If the watch ended it.
    MethodError
        If backgrounds and tiles differ in number or size.
    """
    if tuple(backgrounds.shape) != tuple(scan.tiles.shape):
        raise MethodError(
            f"{scan.source.path}: backgrounds {tuple(backgrounds.shape)} for tiles "
            f"{tuple(scan.tiles.shape)}; give one background for each tile"
        )
    count, rows, columns = (int(n) for n in scan.tiles.shape)
    bin_px = max(1, -(-max(rows, columns) // work_px))
    mosaic = scan.kind == "mosaic"
    chosen = shared_tiles(scan)
    own = backgrounds if isinstance(backgrounds, OwnBackgrounds) else None
    knows_drift = own is not None and own.every
    every = not mosaic or own is None or knows_drift
    asked = frozenset(range(count) if every else chosen)
    looked = frozenset(chosen[k] for k in spread_indices(len(chosen), LIT_TILES))
    keep = _Keeper(scan, backgrounds, scan.dark(), bin_px, frozenset(chosen), asked, looked, watch)
    stacks = np.empty((2, len(chosen), rows, columns), np.float16)
    offsets = np.empty(len(chosen), np.float32)
    raw = np.empty((count, rows // bin_px, columns // bin_px), np.float16)
    raw_level = np.empty(count)
    rest = np.full((count, rows // keep.cell, columns // keep.cell), np.nan, np.float32)
    counts: list[Image] = []  # of some tiles, dark removed
    for i, seen in enumerate(spread(keep, range(count), workers)):
        watch.step(STAGE, i + 1, count)
        raw[i], raw_level[i] = seen.raw, seen.level
        if seen.cells is not None:
            rest[i] = seen.cells
        if seen.shared is not None:
            k = chosen.index(i)
            stacks[:, k], offsets[k] = seen.shared, seen.offset
            if seen.counts is not None:
                counts.append(seen.counts)
    lit, unlit_level = _lit(np.stack(counts))
    del counts
    shape, kept = _shared_shape(scan, stacks, lit)
    small, cells = bin_mean(shape, bin_px), bin_mean(shape, keep.cell)
    for tile in raw:
        tile -= small.astype(np.float16)
    others = _quantiles(stacks, offsets, lit) if mosaic else np.empty((0, *lit.shape), np.float32)
    rest -= cells
    return Overview(
        shape, lit, raw, raw_level, rest, bin_px, kept, others - shape, unlit_level, knows_drift
    )


def _shared_shape(
    scan: Scan, stacks: NDArray[np.float16], lit: Mask
) -> tuple[Image, NDArray[np.float64]]:
    """Shape that log backgrounds and residuals `(2, N, Y, X)` tell, with its fine pattern.

    The second value is the weight of each band, see `shared_pattern`.
    """
    shape = median_of(stacks[0], cpu_cores())
    shape -= np.median(shape[lit])
    # A specimen that turns looks alike in neighbours: halves in time differ more.
    order = _halves_in_time(stacks.shape[1]) if scan.kind == "series" else slice(None)
    # It turns, but never leaves: references of its own know the pattern better.
    known = scan.kind == "series" and scan.flats is not None and scan.flats.shape[0] > 0
    pattern, kept = shared_pattern(stacks[1][order][: 0 if known else None], lit)
    shape += pattern
    return shape, kept


def _lit(counts: Image) -> tuple[Mask, float]:
    """Lit field from `(N, Y, X)` counts, and the log counts behind the aperture."""
    lit = lit_in_tiles(counts)
    return lit, float("nan") if lit.all() else float(np.log(np.median(counts[:, ~lit])))


def _quantiles(stacks: NDArray[np.float16], offsets: Image, lit: Mask) -> NDArray[np.float32]:
    """Quantiles of the raw tiles at the levels of their backgrounds, each less its median.

    Parameters
    ----------
    stacks : (2, N, Y, X) float16
        From `layers_of`.
    offsets : (N,) float32
        What `layers_of` took off the residuals.
    """
    if len(offsets) < LEAST_TILES:
        return np.empty((0, *lit.shape), np.float32)

    def layers(rows: slice) -> Image:
        out: Image = stacks[0, :, rows].astype(np.float32) + stacks[1, :, rows]
        return out + offsets[:, None, None]

    out = quantiles_of(layers, (lit.shape[0], lit.shape[1]), QUANTILES, cpu_cores())
    for shape in out:
        shape -= np.median(shape[lit])
    return out


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


def layers_of(log_raw: Image, log_background: Image) -> tuple[NDArray[np.float16], float]:
    """What medians over tiles are taken of: log background and residual less their medians.

    Returns
    -------
    (2, Y, X) float16, float
        And the residual's median.
    """
    residual = np.clip(log_raw - log_background, -4, 4)
    middle = float(np.median(residual[::4, ::4]))
    out = np.empty((2, *log_raw.shape), np.float16)
    out[0] = log_background - np.median(log_background[::4, ::4])
    out[1] = residual - np.float32(middle)
    return out, middle


@dataclass(frozen=True)
class _Seen:
    raw: Image
    level: float
    cells: Image | None = None  # of those that the method was asked about
    shared: NDArray[np.float16] | None = None  # of chosen tiles, and the next ones
    offset: float = 0.0
    counts: Image | None = None


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
    watch: Watch

    @property
    def cell(self) -> int:
        return _cell_px(self.scan.tiles.shape[1:])

    def __call__(self, i: int) -> _Seen:
        self.watch.check()  # here, too: threads are ahead of whoever counts
        counts = np.asarray(self.scan.tiles[i])
        log_raw = log_beam(counts, self.dark)
        small = bin_mean(log_raw, self.bin_px)
        level = float(np.median(small[::4, ::4]))
        small = small - np.float32(level)
        if i not in self.asked:
            return _Seen(small, level)
        log_background, cells = self._background(i, counts)
        if log_background is None:
            return _Seen(small, level, cells)
        layers = layers_of(log_raw, log_background)
        return _Seen(small, level, cells, *layers, np.exp(log_raw) if i in self.looked else None)

    def _background(self, i: int, counts: NDArray[Any]) -> tuple[Image | None, Image]:
        """Log background of a chosen tile, and its cells."""
        own = self.backgrounds if isinstance(self.backgrounds, OwnBackgrounds) else None
        cells = None if own is None or i in self.chosen else own.cells(i, counts, self.cell)
        if cells is not None:
            return None, cells
        background = self.backgrounds[i] if own is None else own.of(i, counts)
        log_background = log_beam(background, self.dark)
        return log_background if i in self.chosen else None, bin_mean(log_background, self.cell)


def _halves_in_time(count: int) -> list[int]:
    """Order in which every second place comes from the first half."""
    middle = (count + 1) // 2
    pairs = zip_longest(range(middle), range(middle, count))
    return [k for pair in pairs for k in pair if k is not None]
