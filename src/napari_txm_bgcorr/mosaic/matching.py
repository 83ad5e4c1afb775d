"""Likeness of two neighbouring tiles at every shift that they may have."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from .fixed_pattern import SmoothedTile
from .overview import Overview

__all__ = ["Matcher", "Scores", "around"]

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

HIGH_PASS = 1 / 64  # of the tile: coarser structure says little about place
LOW_PASS = 1 / 300  # of the tile: finer than that is noise
EVEN = 3 / 64  # of the tile: contrast is evened out over this, so that no single edge decides
LEAST_CONTRAST = 0.5  # of the tile's median: contrast below is not raised
LEAST_COMMON = 0.008  # of the tile: fewer shared bins are no overlap
APART = 5  # bins about the highest peak: what lies beyond is another one
CHANCE = 4.0  # standard deviations that the second highest peak of mere noise has
UPHILL = 4  # bins at most between the peaks of score and correlation
KEPT_TILES, KEPT_WINDOWS = 128, 16


@dataclass(frozen=True, eq=False)
class Scores:
    """Likeness of two tiles at the shifts of a rectangle.

    Attributes
    ----------
    first : (2,) int
        Least shift (y, x) of the second tile against the first, bins.
    values : (h, w) float16
        Fisher's z of the correlation times the root of the shared bins, in robust standard
        deviations of the map: comparable between narrow and wide overlaps. In larger units
        where a second peak is as high as no chance makes it, as along one straight edge. NaN
        where too little is shared.
    correlation : (h, w) float16
    """

    first: NDArray[np.int_]
    values: NDArray[np.float16]
    correlation: NDArray[np.float16]

    def top(self, at: tuple[int, int]) -> Floats:
        """Shift `(y, x)` of a peak in fractions of a bin: a parabola along each axis.

        The peak of the correlation itself, uphill from `at`: scores of narrow overlaps rise
        towards wider ones.
        """
        for _ in range(UPHILL):
            higher = self._highest_beside(at)
            if higher == at or not self.inner(higher):
                break
            at = higher
        out = np.array(at, np.float64)
        for axis in (0, 1):
            low, high = list(at), list(at)
            low[axis] -= 1
            high[axis] += 1
            before, here, after = (float(self.correlation[tuple(p)]) for p in (low, at, high))
            bend = before - 2 * here + after
            if np.isfinite(bend) and bend < 0:
                out[axis] += float(np.clip((before - after) / (2 * bend), -0.5, 0.5))
        return self.first + out

    def _highest_beside(self, at: tuple[int, int]) -> tuple[int, int]:
        """Shift of the highest correlation among one and its eight neighbours."""
        y, x = at
        beside = self.correlation[y - 1 : y + 2, x - 1 : x + 2]
        dy, dx = np.unravel_index(int(np.argmax(beside)), (3, 3))
        return y + int(dy) - 1, x + int(dx) - 1

    def inner(self, at: tuple[int, int]) -> bool:
        """Tell whether all eight shifts around one are known; a peak at the border is none."""
        beside = around(self.values, at, 1)
        return beside.shape == (3, 3) and bool(np.isfinite(beside).all())


class Matcher:
    """Correlates tiles of an overview in the high-passed logarithm, contrast evened out.

    Parameters
    ----------
    overview : Overview
        What all tiles have in common is removed in it, so that it cannot hold them at zero shift.
    """

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self._lit = overview.lit_bins
        side = max(self._lit.shape)
        self._seen = self._lit.astype(np.float32)
        self._sigma = LOW_PASS * side
        self._mass: Image = np.maximum(ndimage.gaussian_filter(self._seen, self._sigma), 1e-3)
        self._coarse, self._even = (SmoothedTile(self._lit, share) for share in (HIGH_PASS, EVEN))
        self._least = LEAST_COMMON * self._lit.size
        self._kept: dict[int, Image] = {}
        self._windows: dict[tuple[int, ...], _Windows] = {}
        self._lock = Lock()

    @property
    def bin_px(self) -> int:
        """Pixels of a tile along one bin."""
        return self._overview.bin_px

    @property
    def shape(self) -> tuple[int, int]:
        """Bins `(y, x)` of a tile."""
        return int(self._lit.shape[0]), int(self._lit.shape[1])

    def scores(self, i: int, j: int, guess: NDArray[np.int_], reach: int) -> Scores | None:
        """Compare tile `j` with tile `i` at all shifts within `reach` of `guess`, bins.

        Returns
        -------
        Scores or None
            None where nothing is shared.
        """
        one = _window(self._lit.shape, guess, reach)
        two = _window(self._lit.shape, -guess, reach)
        if one is None or two is None:
            return None
        # A shift of the windows by k: the second tile's corner lies at k + one - two.
        start = np.array([a.start - b.start for a, b in zip(one, two, strict=True)])
        windows = self._pair_of(one, two, guess - reach - start, 2 * reach + 1)
        correlation = windows.correlate(self._fine(i)[one], self._fine(j)[two])
        known = windows.common > self._least
        if not known.any():
            return None
        z = np.arctanh(np.clip(correlation, -0.98, 0.98)) * np.sqrt(np.maximum(windows.common, 0))
        z[~known] = np.nan
        return Scores(
            windows.first + start,
            (z / _scale(z)).astype(np.float16),
            correlation.astype(np.float16),
        )

    def _pair_of(
        self,
        one: tuple[slice, slice],
        two: tuple[slice, slice],
        first: NDArray[np.int_],
        count: int,
    ) -> _Windows:
        """Two windows of lit fields; most pairs of a mosaic are alike."""
        key = (*(int(n) for s in (*one, *two) for n in (s.start, s.stop)), *first.tolist())
        found = self._windows.get(key)
        if found is None:
            found = _Windows(self._lit[one], self._lit[two], first, count)
            with self._lock:
                if len(self._windows) >= KEPT_WINDOWS:
                    self._windows.pop(next(iter(self._windows)))
                self._windows[key] = found
        return found

    def _fine(self, i: int) -> Image:
        """Fine structure of a tile, kept: a row of neighbours is near, older ones are done."""
        found = self._kept.get(i)
        if found is None:
            found = self._filtered(i)
            with self._lock:
                if len(self._kept) >= KEPT_TILES:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[i] = found
        return found

    def _filtered(self, i: int) -> Image:
        """High-passed tile, outliers bounded, contrast evened out, zero where unlit."""
        log: Image = self._overview.raw[i] * self._seen
        band: Image = ndimage.gaussian_filter(log, self._sigma) / self._mass - self._coarse(log)
        limit = 5 * 1.4826 * float(np.median(np.abs(band[self._lit][::4]))) + 1e-6
        band = np.clip(band, -limit, limit) * self._seen
        contrast: Image = np.sqrt(np.maximum(self._even(band * band), 0))
        usual = float(np.median(contrast[self._lit][::4]))
        least: Image = np.maximum(contrast, np.float32(LEAST_CONTRAST * usual + 1e-6))
        even: Image = band / least
        return even


def around(image: NDArray[Any], at: tuple[int, int], reach: int) -> NDArray[Any]:
    """View of an image within `reach` of a place."""
    y, x = at
    return image[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]


def _scale(z: Floats) -> float:
    """Unit of a map of scores: its robust deviation, or by its second highest peak."""
    spread = 1.4826 * float(np.nanmedian(np.abs(z)))
    rest = np.nan_to_num(z)
    row, column = np.unravel_index(int(np.argmax(rest)), z.shape)
    around(rest, (int(row), int(column)), APART)[:] = 0
    return max(spread, float(rest.max()) / CHANCE, 1e-6)


def _window(
    shape: tuple[int, ...], shift: NDArray[np.int_], reach: int
) -> tuple[slice, slice] | None:
    """Part of a tile that one shifted by `shift`, give or take `reach`, may cover."""
    out = []
    for n, d in zip(shape, shift.tolist(), strict=True):
        low, high = max(0, d - reach), min(n, n + d + reach)
        if high - low < 3:
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

    Attributes
    ----------
    common : (h, w) float64
        Pixels in common at each shift.
    """

    def __init__(
        self, a_lit: NDArray[np.bool_], b_lit: NDArray[np.bool_], first: NDArray[np.int_],
        count: int,
    ) -> None:  # fmt: skip
        least = 1 - np.array(b_lit.shape)
        last = np.minimum(first + count, a_lit.shape)  # exclusive
        self.first = np.minimum(np.maximum(first, least), last)
        # Shifts that are not asked for may wrap around onto one another.
        least = np.maximum(a_lit.shape - self.first, b_lit.shape + last - 1)
        least = np.maximum(least, np.maximum(a_lit.shape, b_lit.shape))
        self.size = [fft.next_fast_len(int(n), real=True) for n in least]
        self.places = np.ix_(*(
            np.arange(low, high) % n
            for low, high, n in zip(self.first, last, self.size, strict=True)
        ))  # fmt: skip
        self.a_lit, self.b_lit = self._forward(a_lit), np.conj(self._forward(b_lit))
        self.common = self._back(self.a_lit * self.b_lit)

    def _forward(self, x: NDArray[np.generic]) -> NDArray[np.complex64]:
        single: Image = np.asarray(x, np.float32)
        return fft.rfft2(single, self.size)

    def _back(self, x: NDArray[np.complex64]) -> Floats:
        out: Floats = fft.irfft2(x, self.size)[self.places].astype(np.float64)
        return out

    def correlate(self, a: Image, b: Image) -> Floats:
        """Correlation at each shift; 0 where nothing is in common."""
        cross = self._back(self._forward(a) * np.conj(self._forward(b)))
        left = self._back(self._forward(a * a) * self.b_lit)
        right = self._back(self.a_lit * np.conj(self._forward(b * b)))
        power = np.sqrt(np.maximum(left, 0) * np.maximum(right, 0))
        least = 1e-6 * max(float(power.max(initial=0)), 1e-12)  # rounding of the transforms
        scores: Floats = np.where(power > least, cross / np.maximum(power, least), 0.0)
        return scores
