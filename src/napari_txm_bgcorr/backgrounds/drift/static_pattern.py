"""Static pattern of camera and scintillator that the tiles share, finer than the cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core import spread

__all__ = ["static_pattern"]

Image = NDArray[np.float32]
SMOOTH_PX = 2.0  # the sample is looked for on this scale
NEAR = 1.5  # widths: what is further off is sample


def static_pattern(
    residual: Callable[[int], Image], count: int, shape: tuple[int, int], width: float,
    workers: int = 1,
) -> Image:  # fmt: skip
    """Mean of what log backgrounds leave of tiles, where that is no sample.

    A pixel that `W` tiles show free of sample gets ``(W - 1) / W`` of their mean: one tile
    alone cannot tell pattern from sample.

    Parameters
    ----------
    residual : callable
        `residual(k) -> (Y, X)` log counts less log background of one of the tiles.
    count : int
        Tiles.
    shape : (Y, X)
    width : float
        Standard deviation of what free places are off, log.
    workers : int
        Threads; the same bits for any number.

    Returns
    -------
    (Y, X) float32
    """
    total, mass = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def weighted(k: int) -> tuple[Image, Image]:
        left = residual(k)
        smooth = ndimage.gaussian_filter(left, SMOOTH_PX)
        weight: Image = np.exp(-0.5 * np.square(smooth / np.float32(NEAR * width)))
        return weight * left, weight

    for part, weight in spread(weighted, range(count), workers):
        total += part
        mass += weight
    out: Any = total / np.maximum(mass, np.float32(1e-6))
    out *= np.clip(1 - 1 / np.maximum(mass, np.float32(1e-6)), 0, 1)
    kept: Image = out
    return kept
