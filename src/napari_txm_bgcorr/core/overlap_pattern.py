"""Fine pattern from overlaps: there the specimen itself can be taken away.

A median over few tiles keeps some of a dense specimen in the shared shape. Where two tiles show
the same place, their difference holds no specimen, only what the shape is off at the two
places of the field. After J. R. Kuhn, H. Lin and D. Loranz, Publ. Astron. Soc. Pac. 103 (1991)
1097 (flat fields from displaced images), damped and shrunk here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core.overview import Overview
from napari_txm_bgcorr.core.shapes import spread_indices
from napari_txm_bgcorr.core.shared_pattern import agreeing
from napari_txm_bgcorr.core.threads import spread
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["enlarge", "overlap_pattern"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

ROUNDS = 6
GAIN = 0.5  # each difference is the error of two places
CLIP = 4.0  # robust standard deviations of a difference
STAGE = "comparing overlaps"
LEAST = 3  # differences at a place
FULL = 0.5  # of the usual number of them, from which the pattern counts whole
BLOCK = 32  # tiles summed by one thread, whatever the number of threads
MOST = 144  # tiles looked at: the noise that they leave is far below the stage's own error
JUDGED = 32  # tiles whose differences tell the standard deviation


def overlap_pattern(
    overview: Overview,
    positions_px: NDArray[np.float64],
    smooth: Callable[[int], Image],
    watch: Watch = SILENT,
    workers: int = 1,
) -> Image:
    """What the shared shape is off by, from the differences in overlaps.

    Of a large mosaic, those of the `MOST` tiles about its middle: enough, and the time does not
    grow with the mosaic.

    Parameters
    ----------
    overview : Overview
    positions_px : (T, 2) float64
    smooth : callable
        `smooth(i) -> (y, x)` smooth terms and level found for tile `i`, on bins.
    watch : Watch
        Told after each round, asked before each tile.
    workers : int
        Threads; the same result for any number.

    Returns
    -------
    (y, x) float32
        To add to the shared log shape, on bins; zero where no overlap reaches.
    """
    lit = overview.lit_bins
    chosen = _middle(positions_px, overview.lit.shape)
    corners = np.rint((positions_px - positions_px[chosen].min(axis=0)) / overview.bin_px)
    tiles = spread(lambda i: _flattened(overview, i, smooth(i)), chosen, workers)
    field = _Field.of(tiles, corners[chosen].astype(int), lit)
    judged = spread_indices(len(chosen), JUDGED)
    known = (field.counts.sum(axis=0) >= LEAST) & (field.counts > 0).all(axis=0)
    counts = np.where(known, field.counts, 1)
    pattern, others = np.zeros(lit.shape, np.float32), np.empty_like(field.total)
    limit = np.float32(np.inf)
    for done in range(ROUNDS if known.any() else 0):
        watch.step(STAGE, done, ROUNDS)
        field.others(pattern, others)
        now = _Round(field, pattern, others, limit, watch)
        sums = np.zeros((2, *lit.shape), np.float32)
        for part in spread(now.sums, field.blocks(), workers):
            sums += part
        spreads = [s for i in judged if (s := now.spread(i)) is not None]
        limit = np.float32(CLIP * float(np.median(spreads))) if spreads else limit
        sums[:, ~known] = 0
        step, _ = agreeing(
            sums[0] / counts[0], sums[1] / counts[1], sums.sum(axis=0) / counts.sum(axis=0), known
        )
        pattern += np.float32(GAIN) * step
    return pattern * _faded(counts.sum(axis=0), known)


def _faded(counts: Image, known: Mask) -> Image:
    """Share of the pattern believed at each place: where few differences tell it, part.

    Without it the pattern ends at an edge, and is noisiest there.
    """
    if not known.any():
        return known.astype(np.float32)
    usual = np.median(counts[known])
    share: Image = np.clip(counts / np.float32(FULL * usual), 0, 1) * known
    return share


@dataclass(frozen=True, eq=False)
class _Field:
    """All flattened tiles at their places.

    A tile that reads `v` where `n` tiles sum to `t` differs from the mean of the others by
    ``v n / (n - 1) - t / (n - 1)``.

    Attributes
    ----------
    flat : (T, y, x) float16
    corners : (T, 2) int
    lit : (y, x) bool
    total : (Y, X) float32
        Sum of all tiles.
    share : (Y, X) float32
        ``n / (n - 1)``; 0 where fewer than two tiles see the place.
    counts : (2, y, x) float32
        How often each place of the field is seen by another tile, too: even and odd tiles.
    """

    flat: NDArray[np.float16]
    corners: list[tuple[int, int]]
    lit: Mask
    total: Image
    share: Image
    counts: Image

    @staticmethod
    def of(tiles: Iterable[NDArray[np.float16]], corners: NDArray[np.int_], lit: Mask) -> _Field:
        """Place all tiles."""
        places = [(int(y), int(x)) for y, x in corners]
        size = corners.max(axis=0) + lit.shape
        flat = np.empty((len(places), *lit.shape), np.float16)
        total, share = np.zeros(size, np.float32), np.zeros(size, np.float32)
        seen = lit.astype(np.float32)
        for i, tile in enumerate(tiles):
            flat[i] = tile
            part = _part(places[i], lit)
            total[part] += tile * seen
            share[part] += seen
        for line in share:  # in place: fresh memory costs more than the arithmetic
            line[:] = np.where(line > 1, line / np.maximum(line - 1, 1), 0)
        counts = np.zeros((2, *lit.shape), np.float32)
        for i, corner in enumerate(places):
            counts[i % 2] += share[_part(corner, lit)] > 0
        return _Field(flat, places, lit, total, share, counts * seen)

    def blocks(self) -> Iterator[range]:
        """Tiles in groups that do not depend on the number of threads."""
        count = len(self.flat)
        return (range(k, min(k + BLOCK, count)) for k in range(0, count, BLOCK))

    def others(self, pattern: Image, out: Image) -> None:
        """Sum of all tiles less the pattern, in its share ``1 / (n - 1)`` of a difference."""
        np.copyto(out, self.total)
        own = pattern * self.lit
        for corner in self.corners:
            out[_part(corner, self.lit)] -= own
        for line, share in zip(out, self.share, strict=True):
            line *= np.maximum(share - 1, 0)


@dataclass(frozen=True, eq=False)
class _Round:
    """One pass over all tiles with the pattern found so far."""

    field: _Field
    pattern: Image
    others: Image
    limit: np.float32
    watch: Watch

    def off(self, i: int, out: Image) -> Image:
        """What tile `i` differs from the others by; 0 where it is alone, anything where unlit."""
        part = _part(self.field.corners[i], self.field.lit)
        np.subtract(self.field.flat[i], self.pattern, out=out)
        out *= self.field.share[part]
        out -= self.others[part]
        return out

    def sums(self, block: range) -> Image:
        """Sums `(2, y, x)` of bounded differences over even and odd tiles of a block."""
        lit = self.field.lit
        out, off = np.zeros((2, *lit.shape), np.float32), np.empty(lit.shape, np.float32)
        for i in block:
            self.watch.check()
            self.off(i, off)
            np.clip(off, -self.limit, self.limit, out=off)
            out[i % 2] += off
        out *= lit
        return out

    def spread(self, i: int) -> float | None:
        """Robust standard deviation of a tile's differences; None where it is alone."""
        field = self.field
        seen = field.lit & (field.share[_part(field.corners[i], field.lit)] > 0)
        off = self.off(i, np.empty(field.lit.shape, np.float32))[seen]
        return 1.4826 * float(np.median(np.abs(off[::7]))) if off.size else None


def _middle(positions_px: NDArray[np.float64], size: tuple[int, ...]) -> list[int]:
    """At most `MOST` tiles, those about the middle of the mosaic: all their neighbours count."""
    off = (positions_px - (positions_px.min(axis=0) + positions_px.max(axis=0)) / 2) / size
    order = np.argsort(np.abs(off).max(axis=1), kind="stable")
    return sorted(int(i) for i in order[:MOST])


def _part(corner: tuple[int, int], lit: Mask) -> tuple[slice, slice]:
    y, x = corner
    return slice(y, y + lit.shape[0]), slice(x, x + lit.shape[1])


def _flattened(overview: Overview, i: int, smooth: Image) -> NDArray[np.float16]:
    """Log tile without its background, about 0: small numbers suit float16."""
    level = np.float32(overview.raw_level[i])
    out: NDArray[np.float16] = ((overview.raw[i] + level) - smooth).astype(np.float16)
    return out


def enlarge(bins: Image, shape: tuple[int, ...], bin_px: int) -> Image:
    """Bins to `(Y, X)` pixels, linearly; a cut last bin takes its neighbour's value."""
    if bin_px > 1:
        bins = ndimage.zoom(bins, bin_px, order=1, mode="nearest", grid_mode=True)
    rest = [(0, n - m) for n, m in zip(shape, bins.shape, strict=True)]
    out: Image = np.pad(bins, rest, mode="edge").astype(np.float32)
    return out
