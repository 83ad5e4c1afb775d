"""Checks that an image can serve as a reference: lit, not clipped, without sample."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["THUMBNAIL_PX", "fault_of", "sample_score", "thumbnail"]

THUMBNAIL_PX = 64
FLAT = 0.02  # a beam varies by more over the field (measured: 0.1 to 0.25), a dark by less
CLIPPED = 0.002  # share of pixels at the image's greatest value
DEGREE = 3  # of the smooth change that drift alone makes,
ROUGH = 0.3  # and this share of it in finer detail; measured: 0.4 at APS 8-BM over 5.5 h
LIT = 0.35  # of the median, in a thumbnail: darker corners are cut off by the aperture

Floats = NDArray[np.float32]


def fault_of(image: NDArray[Any], least_level: float = 100.0) -> str | None:
    """Reason why an image is no reference, judged by itself, or None.

    Parameters
    ----------
    image : (Y, X) counts
    least_level : float
        Counts that the median must reach.

    Returns
    -------
    str or None
        ``blank``, ``dark`` or ``saturated``, with the figure that says so.
    """
    finite = np.isfinite(image) if image.dtype.kind == "f" else None
    share = 1.0 if finite is None else float(finite.mean())
    if share < 0.999:
        return f"blank: {100 * (1 - share):.1f} % of the pixels are no numbers"
    level = float(np.median(image))
    if level < least_level:
        return f"dark: median {level:.0f} counts, less than {least_level:.0f}"
    top = image.max()
    clipped = float(np.mean(image >= top))
    if clipped > CLIPPED:
        return f"saturated: {100 * clipped:.1f} % of the pixels read the greatest value, {top:.0f}"
    spread = _coarse_spread(image)
    if spread < FLAT:
        return f"dark: even to {100 * spread:.2f} %, without the shape of a beam"
    return None


def _coarse_spread(image: NDArray[Any]) -> float:
    """Spread of the logarithm over about 16 x 16 cells, as the sigma of a normal one."""
    cells = max(1, min(image.shape) // 16)
    y, x = (n // cells for n in image.shape)
    cut = np.asarray(image[: y * cells, : x * cells], np.float32).reshape(y, cells, x, cells)
    means = np.median(cut, axis=(1, 3))  # hot pixels do not count
    low, middle, high = np.percentile(means, [5, 50, 95])
    return float((high - low) / max(middle, 1e-6) / 3.29)


def thumbnail(image: NDArray[Any]) -> Floats:
    """Logarithm of the image averaged to at most 64 x 64 cells, less its median."""
    y, x = (max(1, n // THUMBNAIL_PX) for n in image.shape)
    rows, columns = image.shape[0] // y, image.shape[1] // x
    cut = np.asarray(image[: rows * y, : columns * x], np.float64)
    means = cut.reshape(rows, y, columns, x).mean(axis=(1, 3))
    floor = max(0.02 * float(np.median(means)), 1e-6)
    logs = np.log(np.maximum(means, floor))
    return np.asarray(logs - np.median(logs), np.float32)


def sample_score(own: Floats, others: Sequence[Floats]) -> float:
    """Score of the absorption in an image that other references do not show.

    The log ratio to the median of other references, less a cubic surface (what drift does):
    root mean square of what lies below it, less (in squares) `ROUGH` of the surface's own, since
    a beam that drifts much changes in finer detail, too. A specimen absorbs in places, so the
    image that carries it is the one that lies below; its partner lies above and scores less.

    Parameters
    ----------
    own : (Y, X) float32
        `thumbnail` of the image.
    others : sequence of (Y, X) float32
        Thumbnails of other images of that size, binning and photon energy, best of the same
        day; at least one.

    Returns
    -------
    float
        Real ones: 0 to 0.014 for empty images (0.03 at APS 8-BM 5.5 h apart, where 0.05 is
        left beyond a cubic surface), 0.05 (a fifth of the field thinly covered) to 0.2 with a
        specimen.
    """
    median = np.median(np.stack(others), axis=0)
    lit = (own > np.log(LIT)) & (median > np.log(LIT))
    if lit.sum() < 100:
        return 0.0
    difference, terms = (own - median)[lit].astype(np.float64), _terms(own.shape)[lit]
    weight = np.ones(len(difference))
    for _ in range(6):  # towards the upper part: what is empty tells the drift
        weighted = terms.T * weight  # normal equations: ten terms, far cheaper than lstsq
        fit = np.linalg.solve(
            weighted @ terms + 1e-9 * np.eye(terms.shape[1]), weighted @ difference
        )
        rest = difference - terms @ fit
        scale = max(float(np.median(np.abs(rest))) * 1.5, 1e-4)
        weight = np.where(rest < 0, 1 / (1 + (rest / scale) ** 2), 1.0)
    rest -= np.median(rest[rest > np.quantile(rest, 0.3)])
    below = float(np.mean(np.minimum(rest, 0) ** 2))
    return float(np.sqrt(max(below - (ROUGH * float(np.std(terms @ fit))) ** 2, 0.0)))


@lru_cache(maxsize=8)
def _terms(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Products of powers up to `DEGREE` of y and x: `(Y, X, K)`."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    powers = [(a, b) for a in range(DEGREE + 1) for b in range(DEGREE + 1 - a)]
    return np.stack([y**a * x**b for a, b in powers], axis=-1)
