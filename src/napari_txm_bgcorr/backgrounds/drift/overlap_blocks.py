"""Differences of two tiles that show the same place of the sample, block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import SILENT, Progress, spread
from napari_txm_bgcorr.mosaic import FEW, Overview, bin_mean, neighbours

from .types import OverlapBlocks

__all__ = ["find_overlaps"]

Floats = NDArray[np.float64]
Image = NDArray[np.float32]

FINE, COARSE = 64, 32  # blocks across a tile, of few tiles and of many
LEAST_BLOCKS = 4  # of an overlap
LEAST_LIT = 0.5  # of a block


def find_overlaps(
    overview: Overview,
    positions_px: Floats,
    pattern: Image,
    progress: Progress = SILENT,
    workers: int = 1,
) -> list[OverlapBlocks]:
    """Compare every two tiles that share an edge.

    Parameters
    ----------
    overview : Overview
    positions_px : (T, 2) float64
        Registered places, (y, x).
    pattern : (y, x) float32
        Log background on bins, to take away in place of the overview's shared shape.
    progress : Progress
        Asked before each pair.
    workers : int
        Threads; the same result for any number.
    """
    lit = overview.lit_bins
    bin_px = overview.bin_px
    back = bin_mean(overview.shape, bin_px) - pattern

    def compare(pair: tuple[int, int]) -> OverlapBlocks | None:
        progress.check()
        i, j = pair
        step = np.rint((positions_px[j] - positions_px[i]) / bin_px).astype(int)
        return _compare(overview, back, lit, (i, j), step)

    size = (lit.shape[0] * bin_px, lit.shape[1] * bin_px)
    found = spread(compare, neighbours(positions_px, size), workers)
    return [one for one in found if one is not None]


def _compare(
    overview: Overview,
    back: Image,
    lit: NDArray[np.bool_],
    tiles: tuple[int, int],
    step: NDArray[np.int64],
) -> OverlapBlocks | None:
    """Blocks of the common part of two tiles; None where it is too small."""
    shape = np.asarray(lit.shape)
    across = FINE if len(overview) <= FEW else COARSE
    block = max(1, min(lit.shape) // across)
    low, high = np.maximum(step, 0), np.minimum(shape + step, shape)
    number = (high - low) // block
    if (number < 1).any():
        return None
    low = low + (high - low - number * block) // 2
    here, there = (
        tuple(slice(a, a + n * block) for a, n in zip(start, number, strict=True))
        for start in (low, low - step)
    )
    grid = (number[0], block, number[1], block)
    both = lit[here] & lit[there]
    share = both.reshape(grid).mean(axis=(1, 3))
    kept = share > LEAST_LIT
    if kept.sum() < LEAST_BLOCKS:
        return None
    i, j = tiles
    one = overview.raw[i][here].astype(np.float32) + back[here]
    two = overview.raw[j][there].astype(np.float32) + back[there]
    total = np.where(both, one - two, 0).reshape(grid).mean(axis=(1, 3))
    difference = (total[kept] / share[kept]).astype(np.float64)
    y, x = np.nonzero(kept)
    centre = np.stack([y, x], axis=1) * block + block / 2
    places = [2 * (centre + start) / shape - 1 for start in (low, low - step)]
    level = float(overview.raw_level[i] - overview.raw_level[j])
    return OverlapBlocks(i, j, places[0], places[1], difference + level)
