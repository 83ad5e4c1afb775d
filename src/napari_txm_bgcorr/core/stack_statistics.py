"""Medians over the tiles of a stack, band by band; sorted: NumPy is fast at that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .parallel import spread

__all__ = ["masked_median", "median_of"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
BAND_PX = 2**12  # sorted together: less than 1 MB of 48 tiles


def median_of(stack: NDArray[Any], workers: int = 1) -> Image:
    """Median over tiles.

    Parameters
    ----------
    stack : (N, Y, X), finite
    workers : int
        Threads; the same bits for any number.

    Returns
    -------
    (Y, X) float32
    """
    count = len(stack)
    low, high = (count - 1) // 2, count // 2

    def band(rows: slice) -> Image:
        part = _pixels_first(stack[:, rows].astype(np.float32, copy=False))
        part.sort(axis=1)
        return _middle(part[:, low], part[:, high])

    return _of_bands(band, stack, workers)


def masked_median(
    stack: Image, kept: Callable[[slice], Mask], least: int = 3, workers: int = 1
) -> Image:
    """Median over the kept tiles at each pixel; over all where fewer than `least` are kept.

    Parameters
    ----------
    stack : (N, Y, X) float32, finite
    kept : callable
        `kept(rows) -> (N, y, X)` bool for some rows of pixels.
    least : int
    workers : int
        Threads; the same bits for any number.

    Returns
    -------
    (Y, X) float32
    """

    def band(rows: slice) -> Image:
        use = kept(rows)
        count = use.sum(axis=0, dtype=np.uint16)
        few = count < least
        part = np.where(use | few, stack[:, rows], np.float32(np.inf))
        ordered = _pixels_first(part)
        ordered.sort(axis=1)
        number = np.where(few, len(stack), count).ravel().astype(np.int64)
        places = np.arange(len(ordered))
        return _middle(ordered[places, (number - 1) // 2], ordered[places, number // 2])

    return _of_bands(band, stack, workers)


def _pixels_first(part: Image) -> Image:
    """`(N, y, x)` to `(y x, N)`, contiguous, in memory of its own."""
    return part.reshape(len(part), -1).T.copy()


def _middle(low: Image, high: Image) -> Image:
    return np.asarray((low + high) / 2, np.float32)


def _of_bands(band: Callable[[slice], Image], stack: NDArray[Any], workers: int) -> Image:
    rows, columns = stack.shape[1:]
    step = max(1, BAND_PX // columns)
    parts = spread(band, [slice(y, y + step) for y in range(0, rows, step)], workers)
    return np.concatenate(list(parts)).reshape(rows, columns)
