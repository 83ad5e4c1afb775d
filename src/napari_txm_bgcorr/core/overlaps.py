"""What two tiles that show the same place differ by, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.overview import Overview, bin_mean
from napari_txm_bgcorr.core.registration import neighbours
from napari_txm_bgcorr.core.threads import spread
from napari_txm_bgcorr.core.watch import Watch

__all__ = ["Overlap", "find_overlaps"]

Floats = NDArray[np.float64]
Image = NDArray[np.float32]

CELLS = 16  # blocks across a tile in which overlaps are compared
LEAST_BLOCKS = 4  # of an overlap


@dataclass(frozen=True, eq=False)
class Overlap:
    """Blocks of one overlap: places in both tiles and the log difference, first less second."""

    first: int
    second: int
    place_first: tuple[Floats, Floats]
    place_second: tuple[Floats, Floats]
    difference: Floats
    own_difference: Floats  # with the method's own backgrounds; NaN where it was not asked
    others: Floats  # (n, C) what other shapes would take off the difference


def find_overlaps(
    overview: Overview, positions_px: Floats, watch: Watch, workers: int = 1
) -> list[Overlap]:
    """Compare every two tiles that share an edge.

    Parameters
    ----------
    overview : Overview
    positions_px : (T, 2) float64
        Registered places.
    watch : Watch
        Asked before each pair.
    workers : int
        Threads.
    """
    lit = overview.lit_bins
    others = [bin_mean(other, overview.bin_px) for other in overview.others]
    size = (lit.shape[0] * overview.bin_px, lit.shape[1] * overview.bin_px)

    def compare(pair: tuple[int, int]) -> Overlap | None:
        watch.check()
        i, j = pair
        shift = (positions_px[j] - positions_px[i]) / overview.bin_px
        return _compare(overview, lit, others, i, j, shift)

    found = spread(compare, neighbours(positions_px, size), workers)
    return [one for one in found if one is not None]


def _compare(
    overview: Overview,
    lit: NDArray[np.bool_],
    others: Sequence[Image],
    i: int,
    j: int,
    shift: Floats,
) -> Overlap | None:
    """Blocks of the common part of two tiles; None where it is too small."""
    step = np.rint(shift).astype(int)
    shape = np.asarray(lit.shape)
    low, high = np.maximum(step, 0), np.minimum(shape + step, shape)
    block = max(1, min(lit.shape) // CELLS)
    number = (high - low) // block
    if (number < 1).any():
        return None
    low = low + (high - low - number * block) // 2
    here, there = (
        tuple(
            slice(a, a + n * block) for a, n in zip(start.tolist(), number.tolist(), strict=True)
        )
        for start in (low, low - step)
    )
    both = lit[here] & lit[there]
    difference = overview.raw[i][here].astype(np.float32) - overview.raw[j][there]
    grid = (number[0], block, number[1], block)
    share = both.reshape(grid).mean(axis=(1, 3))
    kept = share > 0.5
    if kept.sum() < LEAST_BLOCKS:
        return None
    y, x = np.nonzero(kept)
    centre = np.stack([y, x]) * block + (block - 1) / 2
    places = [
        2 * (centre + start[:, None] + 0.5) / shape[:, None] - 1 for start in (low, low - step)
    ]

    def blocks(image: Image) -> Floats:
        total = np.where(both, image, 0).reshape(grid).mean(axis=(1, 3))
        out: Floats = total[kept] / share[kept]
        return out

    value = blocks(difference) + overview.raw_level[i] - overview.raw_level[j]
    own = value - (_rest_at(overview, i, places[0]) - _rest_at(overview, j, places[1]))
    columns = np.empty((len(value), len(others)))
    for k, other in enumerate(others):
        columns[:, k] = blocks(other[here] - other[there])
    one, two = ((place[0], place[1]) for place in places)
    return Overlap(i, j, one, two, value, own, columns)


def _rest_at(overview: Overview, i: int, place: Floats) -> Floats:
    """The method's own part of tile `i` at places `(2, n)` in -1..1: nearest cell."""
    shape = np.asarray(overview.rest.shape[1:])[:, None]
    y, x = np.clip(((place + 1) / 2 * shape).astype(int), 0, shape - 1)
    out: Floats = overview.rest[i][y, x].astype(np.float64)
    return out
