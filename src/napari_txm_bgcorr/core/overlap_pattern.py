"""Fine pattern from overlaps: there the specimen itself can be taken away.

A median over few tiles keeps some of a dense specimen in the shared shape. Where two tiles show
the same place, their difference holds no specimen, only what the shape is off at the two
places of the field. After J. R. Kuhn, H. Lin and D. Loranz, Publ. Astron. Soc. Pac. 103 (1991)
1097 (flat fields from displaced images), damped and shrunk here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core.overview import Overview, agreeing
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["enlarge", "overlap_pattern"]

Image = NDArray[np.float32]

ROUNDS = 6
GAIN = 0.5  # each difference is the error of two places
CLIP = 4.0  # robust standard deviations of a difference
STAGE = "comparing overlaps"
LEAST = 3  # differences at a place


def overlap_pattern(
    overview: Overview,
    positions_px: NDArray[np.float64],
    smooth: Callable[[int], Image],
    watch: Watch = SILENT,
) -> Image:
    """What the shared shape is off by, from the differences in overlaps.

    Parameters
    ----------
    overview : Overview
    positions_px : (T, 2) float64
    smooth : callable
        `smooth(i) -> (y, x)` smooth terms and level found for tile `i`, on bins.
    watch : Watch
        Told after each round, asked before each tile.

    Returns
    -------
    (y, x) float32
        To add to the shared log shape, on bins; zero where no overlap reaches.
    """
    lit = overview.lit_bins
    corners = np.rint((positions_px - positions_px.min(axis=0)) / overview.bin_px).astype(int)
    flat = [_flattened(overview, i, smooth(i)) for i in range(len(overview))]
    mass = _seen(lit, corners)
    pattern = np.zeros(lit.shape, np.float32)
    limit = np.inf
    for done in range(ROUNDS):
        watch.step(STAGE, done, ROUNDS)
        total = _canvas(flat, pattern, lit, corners)
        halves = np.zeros((2, 2, lit.size), np.float32)  # (half, sum and count)
        spreads = []
        for i, (y, x) in enumerate(corners.tolist()):
            watch.check()
            part = np.s_[y : y + lit.shape[0], x : x + lit.shape[1]]
            shared = np.flatnonzero(lit & (mass[part] > 1))
            if not shared.size:
                continue
            others = mass[part].ravel()[shared].astype(np.float32) - 1
            own = flat[i].ravel()[shared] - pattern.ravel()[shared]
            off = own - (total[part].ravel()[shared] - own) / others
            spreads.append(1.4826 * float(np.median(np.abs(off[::7]))))
            halves[i % 2, 0, shared] += np.clip(off, -limit, limit)
            halves[i % 2, 1, shared] += 1
        halves = halves.reshape(2, 2, *lit.shape)
        if not spreads:
            return pattern
        limit = CLIP * float(np.median(spreads))
        known = (halves[:, 1].sum(axis=0) >= LEAST) & (halves[:, 1] > 0).all(axis=0)
        if not known.any():
            return pattern
        sums = np.where(known, halves[:, 0], 0)
        counts = np.where(known, halves[:, 1], 1)
        step, _ = agreeing(
            sums[0] / counts[0], sums[1] / counts[1], sums.sum(axis=0) / counts.sum(axis=0), known
        )
        pattern += np.float32(GAIN) * step
    return pattern


def _flattened(overview: Overview, i: int, smooth: Image) -> NDArray[np.float16]:
    """Log tile without its background, about 0: small numbers suit float16."""
    level = np.float32(overview.raw_level[i])
    out: NDArray[np.float16] = ((overview.raw[i] + level) - smooth).astype(np.float16)
    return out


def _canvas(
    flat: list[NDArray[np.float16]],
    pattern: Image,
    lit: NDArray[np.bool_],
    corners: NDArray[np.int_],
) -> Image:
    """Sum of all tiles at their places."""
    rows, columns = lit.shape
    total = np.zeros(corners.max(axis=0) + lit.shape, np.float32)
    for tile, (y, x) in zip(flat, corners.tolist(), strict=True):
        total[y : y + rows, x : x + columns] += (tile - pattern) * lit
    return total


def _seen(lit: NDArray[np.bool_], corners: NDArray[np.int_]) -> NDArray[np.uint16]:
    """How many tiles see each place."""
    mass = np.zeros(corners.max(axis=0) + lit.shape, np.uint16)
    for y, x in corners.tolist():
        mass[y : y + lit.shape[0], x : x + lit.shape[1]] += lit
    return mass


def enlarge(bins: Image, shape: tuple[int, ...], bin_px: int) -> Image:
    """Bins to `(Y, X)` pixels, linearly; a cut last bin takes its neighbour's value."""
    if bin_px > 1:
        bins = ndimage.zoom(bins, bin_px, order=1, mode="nearest", grid_mode=True)
    rest = [(0, n - m) for n, m in zip(shape, bins.shape, strict=True)]
    out: Image = np.pad(bins, rest, mode="edge").astype(np.float32)
    return out
