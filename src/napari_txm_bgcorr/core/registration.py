"""Where the tiles of a mosaic really lie, from what neighbours show twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.overview import Overview, survey
from napari_txm_bgcorr.core.placement import Edge, reconcile
from napari_txm_bgcorr.core.scan import Scan, TileArray, raster_positions
from napari_txm_bgcorr.core.shared_pattern import Smooth
from napari_txm_bgcorr.core.threads import spread
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["Edge", "Positions", "neighbours", "nominal_positions", "register"]

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

REACH = 0.19  # of the tile: how far off their nominal shift neighbours are looked for
LEAST_OVERLAP = 0.02  # of the tile's area, for two tiles to be neighbours
HIGH_PASS = 1 / 32  # of the tile: coarser structure says little about place
LOW_PASS = 1 / 300  # of the tile: finer than that is noise
# A match needs a correlation AND a height of the peak over the map's scatter (robust): on
# simulated mosaics 98 % of the pairs that show a specimen pass, and 1 in 200 of these is wrong.
MATCHES = ((0.25, 4.5), (0.10, 8.0))
STAGE = "registering neighbours"
DROP = 0.012  # of the tile: a measured shift this far off the common solution is wrong


@dataclass(frozen=True, eq=False)
class Positions:
    """Registered places of the tiles.

    Attributes
    ----------
    positions_px : (T, 2) float64
        Top left corners (y, x) in pixels, y downwards, least value 0.
    edges : tuple of Edge
        Every pair that was looked at.
    note : str
        What was found, one sentence.
    """

    positions_px: Floats
    edges: tuple[Edge, ...] = ()
    note: str = ""

    @property
    def used(self) -> int:
        """Number of measured shifts that the places rest on."""
        return sum(edge.used for edge in self.edges)


def nominal_positions(scan: Scan) -> Floats:
    """Places as the scan states them; abutting tiles where it only has a grid.

    Raises
    ------
    MethodError
        If the scan is no mosaic.
    """
    if scan.positions_px is not None:
        return np.asarray(scan.positions_px, np.float64)
    if scan.grid is None:
        raise MethodError(
            f"{scan.source.path}: no grid and no positions; give the grid of the mosaic"
        )
    size = (float(scan.tiles.shape[1]), float(scan.tiles.shape[2]))
    return raster_positions(scan.grid, size)[: len(scan)]


def neighbours(positions_px: Floats, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Pairs of tiles that share an edge, not a corner alone; the earlier tile first.

    Parameters
    ----------
    positions_px : (T, 2) float64
    size : (Y, X)
        Of a tile.
    """
    scaled = positions_px / np.asarray(size, np.float64)
    order = np.argsort(scaled[:, 0], kind="stable")
    rows = scaled[order, 0]
    ends = np.searchsorted(rows, rows + 1, side="right")  # all further ones are lower still
    pairs = []
    for place, i in enumerate(order.tolist()):
        beside = order[place + 1 : ends[place]]
        off = np.abs(scaled[beside] - scaled[i])
        area = (1 - off[:, 0]) * np.maximum(0.0, 1 - off[:, 1])
        # A corner overlap is narrow both ways; it would need its own, tiny window.
        near = beside[(area >= LEAST_OVERLAP) & (off.min(axis=1) < 0.5)]
        pairs += [(min(i, j), max(i, j)) for j in near.tolist()]
    return sorted(pairs)


def register(
    scan: Scan,
    backgrounds: TileArray | None = None,
    *,
    overview: Overview | None = None,
    workers: int = 1,
    watch: Watch = SILENT,
) -> Positions:
    """Measure where the tiles of a mosaic lie.

    Neighbours are correlated in the high-passed logarithm of the corrected tiles, over the
    part that they really share at each trial shift, within 19 % of the tile about the nominal
    shift. What all tiles have in common (the fixed pattern) is removed first, so that it cannot
    hold them at zero shift. Measured shifts are reconciled by least squares, those that
    contradict the others dropped. Where nothing is seen, the nominal step holds, corrected by
    what was found on other steps of the same direction.

    Parameters
    ----------
    scan : Scan
        A mosaic.
    backgrounds : (T, Y, X) array-like, counts, or None
        Of any method; rough ones do. None where `overview` is given.
    overview : Overview or None
        Of an earlier `survey`, to save reading again.
    workers : int
        Threads that each correlate one pair at a time; the same result for any number.
    watch : Watch
        Told after each pair.

    Returns
    -------
    Positions

    Raises
    ------
    MethodError
        If the scan is no mosaic, or there is nothing to look at.
    StoppedError
        If the watch ended it.
    """
    nominal = nominal_positions(scan)
    if overview is None:
        if backgrounds is None:
            raise MethodError(f"{scan.source.path}: register: give backgrounds or an overview")
        overview = survey(scan, backgrounds, workers=workers, watch=watch)
    size = (int(scan.tiles.shape[1]), int(scan.tiles.shape[2]))
    pairs = neighbours(nominal, size)
    edges = _edges(_Matcher(overview), nominal, pairs, workers, watch)
    placed, edges = reconcile(nominal, edges, DROP * max(size))
    used = sum(edge.used for edge in edges)
    note = f"{used} of {len(edges)} neighbouring pairs registered, the others at the stage's step"
    return Positions(placed - placed.min(axis=0), tuple(edges), note)


def _edges(
    matcher: _Matcher,
    nominal: Floats,
    pairs: Sequence[tuple[int, int]],
    workers: int,
    watch: Watch,
) -> list[Edge]:
    """Every pair correlated, in order."""

    def match(pair: tuple[int, int]) -> Edge:
        watch.check()
        i, j = pair
        return matcher.match(i, j, nominal[j] - nominal[i])

    edges = []
    for edge in spread(match, pairs, workers):
        edges.append(edge)
        watch.step(STAGE, len(edges), len(pairs))
    return edges


class _Matcher:
    """Correlates two tiles of an overview."""

    def __init__(self, overview: Overview) -> None:
        self.overview = overview
        self.lit = overview.lit_bins
        side = max(self.lit.shape)
        self.sigma = LOW_PASS * side
        self.reach = max(2, round(REACH * side))
        self.seen = self.lit.astype(np.float32)
        self.mass = np.maximum(ndimage.gaussian_filter(self.seen, self.sigma), 1e-3)
        self.coarse = Smooth(self.lit, HIGH_PASS)
        self._kept: dict[int, Image] = {}
        self._windows: dict[tuple[int, ...], _Windows] = {}
        self._lock = Lock()

    def windows(
        self, one: tuple[slice, slice], two: tuple[slice, slice], first: NDArray[np.int_]
    ) -> _Windows:
        """What two windows of lit fields have in common; most pairs of a mosaic are alike."""
        key = (*(int(n) for s in (*one, *two) for n in (s.start, s.stop)), *first.tolist())
        found = self._windows.get(key)
        if found is None:
            found = _Windows(self.lit[one], self.lit[two], first, 2 * self.reach + 1)
            with self._lock:
                if len(self._windows) > 16:
                    self._windows.pop(next(iter(self._windows)))
                self._windows[key] = found
        return found

    def fine(self, i: int) -> Image:
        """High-passed tile, outliers bounded, zero where unlit."""
        found = self._kept.get(i)
        if found is not None:
            return found
        found = self._fine(i)
        with self._lock:
            if len(self._kept) > 128:  # a row of neighbours is near; older ones are done with
                self._kept.pop(next(iter(self._kept)))
            self._kept[i] = found
        return found

    def _fine(self, i: int) -> Image:
        log = self.overview.raw[i] * self.seen
        band = ndimage.gaussian_filter(log, self.sigma) / self.mass - self.coarse(log)
        limit = 5 * 1.4826 * float(np.median(np.abs(band[self.lit][::4]))) + 1e-6
        clipped: Image = np.clip(band, -limit, limit) * self.lit
        return clipped

    def match(self, i: int, j: int, nominal_px: Floats) -> Edge:
        bin_px = self.overview.bin_px
        edge = Edge(i, j, (float(nominal_px[0]), float(nominal_px[1])))
        guess = np.rint(nominal_px / bin_px).astype(int)
        one = _window(self.lit.shape, guess, self.reach)
        two = _window(self.lit.shape, -guess, self.reach)
        if one is None or two is None:
            return edge
        # A shift of the windows by k: the second tile's corner lies at k + one - two.
        start = np.array([a.start - b.start for a, b in zip(one, two, strict=True)])
        windows = self.windows(one, two, guess - self.reach - start)
        map_ = windows.correlate(self.fine(i)[one], self.fine(j)[two])
        if map_.size == 0 or not np.isfinite(map_).any():
            return edge
        at = np.unravel_index(int(np.nanargmax(map_)), map_.shape)
        height = float(map_[at])
        known = map_[np.isfinite(map_)]
        middle = float(np.median(known))
        spread = 1.4826 * float(np.median(np.abs(known - middle)))
        peak = (height - middle) / max(spread, 1e-6)
        inner = all(0 < a < n - 1 for a, n in zip(at, map_.shape, strict=True))
        sure = any(height >= c and peak >= p for c, p in MATCHES)
        if not sure or not inner:
            return replace(edge, correlation=height, peak=peak)
        shift = (windows.first + _top(map_, (int(at[0]), int(at[1]))) + start) * bin_px
        return Edge(i, j, (float(shift[0]), float(shift[1])), height, peak, True)


def _window(
    shape: tuple[int, ...], shift: NDArray[np.int_], reach: int
) -> tuple[slice, slice] | None:
    """Part of a tile that one shifted by `shift`, give or take `reach`, may cover."""
    out = []
    for n, d in zip(shape, shift.tolist(), strict=True):
        low, high = max(0, d - reach), min(n, n + d + reach)
        if high - low < 8:
            return None
        out.append(slice(low, high))
    return out[0], out[1]


class _Windows:
    """Correlation of two windows over their common lit part at some shifts.

    After D. Padfield, IEEE Trans. Image Process. 21 (2012) 2706, means taken as zero: the
    windows are high-passed. Only the common part counts, so that no window's edge matters.

    Parameters
    ----------
    a_lit, b_lit : (y, x) bool
    first : (2,) int
        Least shift of `b` against `a` that is asked for; cut to those with any common part.
    count : int
        Shifts along each axis.
    """

    def __init__(
        self, a_lit: NDArray[np.bool_], b_lit: NDArray[np.bool_], first: NDArray[np.int_],
        count: int,
    ) -> None:  # fmt: skip
        least = 1 - np.array(b_lit.shape)
        self.first = np.maximum(first, least)
        last = np.minimum(first + count, a_lit.shape)  # exclusive
        # Shifts that are not asked for may wrap around onto one another.
        least = np.maximum(a_lit.shape - self.first, b_lit.shape + last - 1)
        least = np.maximum(least, np.maximum(a_lit.shape, b_lit.shape))
        self.size = [fft.next_fast_len(int(n), real=True) for n in least]
        self.places = np.ix_(*(
            np.arange(low, high) % n
            for low, high, n in zip(self.first, last, self.size, strict=True)
        ))  # fmt: skip
        self.a_lit, self.b_lit = self._forward(a_lit), np.conj(self._forward(b_lit))
        common = self._back(self.a_lit * self.b_lit)
        self.enough = common > 0.25 * _most_common(a_lit, b_lit)

    def _forward(self, x: NDArray[np.generic]) -> NDArray[np.complex64]:
        out: NDArray[np.complex64] = fft.rfft2(np.asarray(x, np.float32), self.size)
        return out

    def _back(self, x: NDArray[np.complex64]) -> Floats:
        out: Floats = fft.irfft2(x, self.size)[self.places].astype(np.float64)
        return out

    def correlate(self, a: Image, b: Image) -> Floats:
        """Scores at the shifts; NaN where the common part is too small."""
        cross = self._back(self._forward(a) * np.conj(self._forward(b)))
        left = self._back(self._forward(a * a) * self.b_lit)
        right = self._back(self.a_lit * np.conj(self._forward(b * b)))
        power = np.sqrt(np.maximum(left, 0) * np.maximum(right, 0))
        scores: Floats = np.where(
            self.enough & (power > 0), cross / np.maximum(power, 1e-12), np.nan
        )
        return scores


def _most_common(a_lit: NDArray[np.bool_], b_lit: NDArray[np.bool_]) -> float:
    """Largest common lit part of two windows at any shift, pixels."""
    size = [m + n - 1 for m, n in zip(a_lit.shape, b_lit.shape, strict=True)]
    one = fft.rfft2(a_lit.astype(np.float32), size)
    two = np.conj(fft.rfft2(b_lit.astype(np.float32), size))
    return float(fft.irfft2(one * two, size).max())


def _top(scores: Floats, at: tuple[int, int]) -> Floats:
    """Sub-pixel place of a peak: parabolas through its neighbours along each axis."""
    out = np.array(at, np.float64)
    for axis in (0, 1):
        low, high = list(at), list(at)
        low[axis] -= 1
        high[axis] += 1
        before, here, after = (float(scores[tuple(p)]) for p in (low, at, high))
        bend = before - 2 * here + after
        if np.isfinite(bend) and bend < 0:
            out[axis] += float(np.clip((before - after) / (2 * bend), -0.5, 0.5))
    return out
