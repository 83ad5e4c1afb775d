"""Tiles on coarse bins, as the quality figures look at them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.mosaic import bin_mean

__all__ = ["fine_band", "log_bins"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

FINE = (0.5, 2.0)  # bins: band of the fixed fine pattern, between noise and smooth shape


def log_bins(
    image: NDArray[Any], valid: Mask, share: Image, bin_px: int, floor: float | None
) -> Image:
    """Log of the mean over the valid pixels of each bin; NaN where less than half are."""
    values = np.where(valid, np.asarray(image, np.float32), np.float32(0))
    mean = bin_mean(values, bin_px) / np.maximum(share, np.float32(1e-6))
    least = np.float32(1e-6 if floor is None else floor)
    usable = share >= 0.5
    if floor is None:
        usable &= mean > 0
    out: Image = np.where(usable, np.log(np.maximum(mean, least)), np.float32(np.nan))
    return out


def fine_band(log: Image) -> Image:
    """Fine part of a log tile on bins, between noise and smooth shape; norm 1, 0 where unknown."""
    known = np.isfinite(log)
    inner = ndimage.binary_erosion(known, iterations=4, border_value=1)
    if not inner.any():
        return np.zeros(log.shape, np.float32)
    weight, values = known.astype(np.float32), np.where(known, log, np.float32(0))
    low = [
        ndimage.gaussian_filter(values, s)
        / np.maximum(ndimage.gaussian_filter(weight, s), np.float32(1e-6))
        for s in FINE
    ]
    band = low[0] - low[1]
    limit = 4 * 1.4826 * float(np.median(np.abs(band[inner])))
    band = np.clip(band, -limit, limit)  # edges of the specimen shall not rule
    band = np.where(inner, band - band[inner].mean(), 0)
    out: Image = (band / max(float(np.linalg.norm(band)), 1e-30)).astype(np.float32)
    return out
