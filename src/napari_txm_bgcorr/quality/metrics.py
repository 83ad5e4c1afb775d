"""Quality of a background: against the truth, and without it.

A figure for one tile is a plain number; NaN says that it cannot be told from this tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core import lit_field

__all__ = [
    "background_error",
    "bootstrap_interval",
    "empty_level",
    "leakage",
    "mosaic_errors",
    "psnr_ssim",
    "seam",
    "shared_residue",
]

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

LOW_PASS = 1 / 16  # of the field: what counts as large sample structure
HIGH_PASS = 1 / 128  # of the field: finer than that is the fixed pattern
PHOTONS = 1 / 512  # of the field: smoothing that takes the photon noise down
LEAST_CONTRAST = 0.01  # rms of log transmission from which leakage can be told


def background_error(
    predicted: NDArray[Any], true: NDArray[Any], valid: Mask | None = None
) -> dict[str, float]:
    """Error of the background of one tile.

    Parameters
    ----------
    predicted, true : (Y, X) counts
        Beam alone: dark removed from both.
    valid : (Y, X) bool or None
        Lit field; None: everywhere.

    Returns
    -------
    dict
        ``sf``: rms of ``log(predicted / true)`` after removing one scale (scale-free);
        ``abs``: the same without removing it.
    """
    off = _log_ratio(predicted, true, valid)
    if not off.size:
        return {"sf": float("nan"), "abs": float("nan")}
    return {"sf": float(np.std(off)), "abs": float(np.sqrt(np.mean(off**2)))}


def mosaic_errors(
    predicted: Sequence[NDArray[Any]] | NDArray[Any],
    true: Sequence[NDArray[Any]] | NDArray[Any],
    valid: Sequence[Mask] | Mask | None = None,
) -> dict[str, Floats]:
    """Errors of the tiles of one mosaic.

    Returns
    -------
    dict of (N,) float64
        ``sf``: one scale per tile removed; ``mosaic``: one scale for the whole mosaic
        removed; ``abs``: none removed.
    """
    masks = [None] * len(predicted) if valid is None else list(valid)
    off = [_log_ratio(p, t, v) for p, t, v in zip(predicted, true, masks, strict=True)]
    scale = np.concatenate(off).mean() if off else 0.0
    return {
        "sf": np.array([np.std(o) for o in off]),
        "mosaic": np.array([np.sqrt(np.mean((o - scale) ** 2)) for o in off]),
        "abs": np.array([np.sqrt(np.mean(o**2)) for o in off]),
    }


def _log_ratio(a: NDArray[Any], b: NDArray[Any], valid: Mask | None) -> Floats:
    """Log ratio of the valid pixels, where both are above zero; float64."""
    usable = (a > 0) & (b > 0)
    if valid is not None:
        usable &= valid
    out: Floats = np.log(a[usable].astype(np.float64) / b[usable].astype(np.float64))
    return out


def leakage(
    predicted: NDArray[Any],
    true: NDArray[Any],
    transmission: NDArray[Any],
    valid: Mask | None = None,
) -> float:
    """Share of the specimen's large structure that went into the background of one tile.

    Slope of the low-passed log background error on the low-passed log transmission: 0 none,
    1 all of it (the corrected tile shows nothing but fine detail).

    Parameters
    ----------
    predicted, true : (Y, X) counts
        Beam alone.
    transmission : (Y, X)
        True transmission.
    valid : (Y, X) bool or None

    Returns
    -------
    float
        NaN where the specimen has no large structure to lose.
    """
    usable = (predicted > 0) & (true > 0) & (transmission > 0)
    if valid is not None:
        usable &= valid
    if not usable.any():
        return float("nan")
    safe = [np.where(usable, x, 1.0).astype(np.float64) for x in (predicted, true, transmission)]
    error = _low_pass(np.log(safe[0] / safe[1]), usable)
    sample = _low_pass(np.log(safe[2]), usable)
    error, sample = error - error.mean(), sample - sample.mean()
    if np.sqrt(np.mean(sample**2)) < LEAST_CONTRAST:
        return float("nan")
    return float((error * sample).sum() / (sample * sample).sum())


def _low_pass(image: Floats, usable: Mask) -> Floats:
    """Usable pixels `(n,)` of the image smoothed over large structure, borders unbiased."""
    cell = max(1, max(image.shape) // 64)
    weight, value = usable.astype(np.float64), np.where(usable, image, 0.0)
    rows, columns = (max(1, n // cell) for n in image.shape)
    weight, value = (
        x[: rows * cell, : columns * cell].reshape(rows, -1, columns, x[:, :cell].shape[1])
        .sum(axis=(1, 3)) for x in (weight, value)
    )  # fmt: skip
    sigma = LOW_PASS * max(image.shape) / cell
    blur = [ndimage.gaussian_filter(x, sigma, mode="constant") for x in (value, weight)]
    chosen = weight > 0.5 * weight.max()
    out: Floats = blur[0][chosen] / blur[1][chosen]
    return out


def seam(
    tiles: Sequence[NDArray[Any]] | NDArray[Any],
    positions_px: NDArray[np.float64],
    valid: Sequence[Mask] | None = None,
) -> float:
    """Rms log difference between corrected tiles where they overlap.

    Never quote it alone: offsets that hide seams can raise the background error.

    Parameters
    ----------
    tiles : (T, Y, X)
        Transmissions.
    positions_px : (T, 2)
        Registered top left corners as (y, x), rounded to whole pixels by this function.
    valid : (T, Y, X) bool or None

    Returns
    -------
    float
        NaN where no tiles overlap.
    """
    corners = np.rint(positions_px).astype(int)
    total, count = 0.0, 0
    for a, b in combinations(range(len(tiles)), 2):
        windows = _overlap(corners[a], corners[b], tiles[a].shape)
        if windows is None:
            continue
        one, two = (tiles[i][w] for i, w in zip((a, b), windows, strict=True))
        masks = None
        if valid is not None:
            masks = valid[a][windows[0]] & valid[b][windows[1]]
        off = _log_ratio(one, two, masks)
        total, count = total + float(off @ off), count + off.size
    return float(np.sqrt(total / count)) if count else float("nan")


def _overlap(
    a: NDArray[np.int_], b: NDArray[np.int_], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Windows of the common part in two tiles of one shape, or None."""
    low, high = np.maximum(a, b), np.minimum(a, b) + np.asarray(shape)
    if (high <= low).any():
        return None
    first, second = (
        (slice(*(int(v) for v in (low[0] - o[0], high[0] - o[0]))),
         slice(*(int(v) for v in (low[1] - o[1], high[1] - o[1]))))
        for o in (a, b)
    )  # fmt: skip
    return first, second


def shared_residue(
    tiles: Sequence[NDArray[Any]] | NDArray[Any], valid: Sequence[Mask] | None = None
) -> float:
    """Residual fixed pattern that the tiles of a scan have in common.

    Mean correlation, at zero shift, of the high-passed log tiles with one another. Raw
    tiles of TLS BL01B give 0.4 (a specimen that fills the field) to 0.7; 0 where the pattern
    is gone, for specimens differ from place to place.

    Parameters
    ----------
    tiles : (T, Y, X)
        Raw counts or transmissions of different places of a specimen.
    valid : (T, Y, X) bool or None
        None: the lit field of the tiles' mean.

    Returns
    -------
    float
        In -1..1; NaN for fewer than two tiles.
    """
    if len(tiles) < 2:
        return float("nan")
    common = np.all([t > 0 for t in tiles], axis=0)
    common &= lit_field(np.mean(tiles, axis=0)) if valid is None else np.all(valid, axis=0)
    fine = [_high_pass(t, common) for t in tiles]
    return float(np.mean([a @ b for a, b in combinations(fine, 2)]))


def _high_pass(tile: NDArray[Any], usable: Mask) -> Floats:
    """Fine part of a log tile between photon noise and smooth shape; unit vector `(n,)`."""
    side = max(tile.shape)
    weight = usable.astype(np.float64)
    log = np.where(usable, np.log(np.where(usable, tile, 1).astype(np.float64)), 0.0)

    def blur(sigma: float) -> Floats:
        mass = ndimage.gaussian_filter(weight, sigma)
        smooth: Floats = ndimage.gaussian_filter(log, sigma) / np.maximum(mass, 1e-9)
        return smooth

    # The rim of the lit field would correlate by its shape alone.
    inner = ndimage.binary_erosion(usable, iterations=max(1, round(2 * HIGH_PASS * side)))
    band = (blur(PHOTONS * side) - blur(HIGH_PASS * side))[inner if inner.any() else usable]
    spread = 4 * 1.4826 * np.median(np.abs(band - np.median(band)))
    band = np.clip(band, -spread, spread)  # edges of the specimen shall not rule
    band -= band.mean()
    unit: Floats = band / max(float(np.linalg.norm(band)), 1e-30)
    return unit


def empty_level(
    transmission: NDArray[Any], empty: Mask, valid: Mask | None = None
) -> dict[str, float]:
    """Transmission where there is no specimen: 1 within the photon noise if all is well.

    Parameters
    ----------
    transmission : (Y, X)
    empty : (Y, X) bool
        Where there is no specimen.
    valid : (Y, X) bool or None

    Returns
    -------
    dict
        ``mean``; ``spread`` of the pixels; ``smooth_spread``, the same after a Gaussian of
        2 px (photon noise down to a seventh); ``pixels``. NaN where nothing is empty.
    """
    usable = empty if valid is None else empty & valid
    if not usable.any():
        return {"mean": np.nan, "spread": np.nan, "smooth_spread": np.nan, "pixels": 0}
    value = np.where(usable, transmission, 0).astype(np.float64)
    mass = ndimage.gaussian_filter(usable.astype(np.float64), 2)
    smooth = ndimage.gaussian_filter(value, 2) / np.maximum(mass, 1e-9)
    return {
        "mean": float(value[usable].mean()),
        "spread": float(value[usable].std()),
        "smooth_spread": float(smooth[usable].std()),
        "pixels": int(usable.sum()),
    }


def psnr_ssim(predicted: NDArray[Any], true: NDArray[Any], data_range: float) -> dict[str, float]:
    """PSNR (dB) and mean SSIM, for comparison with papers; they say little about shading.

    SSIM after Z. Wang et al., IEEE Trans. Image Process. 13 (2004) 600: Gaussian window of
    sigma 1.5 px cut at 3.5 sigma, K1 = 0.01, K2 = 0.03, population variances, the border of
    half a window left out.

    Parameters
    ----------
    predicted, true : (Y, X)
    data_range : float
        Span of possible values; the figures mean nothing without it.
    """
    a, b = predicted.astype(np.float64), true.astype(np.float64)
    mean_square = float(np.mean((a - b) ** 2))
    psnr = float("inf") if mean_square == 0 else 10 * np.log10(data_range**2 / mean_square)

    def blur(x: Floats) -> Floats:
        return np.asarray(ndimage.gaussian_filter(x, 1.5, truncate=3.5))

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    ssim = ((2 * mean_a * mean_b + c1) * (2 * both + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    edge = 5 if min(a.shape) > 10 else 0
    inner = ssim[edge : a.shape[0] - edge, edge : a.shape[1] - edge]
    return {"psnr": float(psnr), "ssim": float(inner.mean()), "data_range": float(data_range)}


def bootstrap_interval(
    values: Sequence[float] | Floats,
    groups: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    statistic: Callable[[Floats], Any] = np.mean,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic, over groups (sessions), not values.

    Tiles of one session are alike: drawing tiles would give intervals far too narrow.

    Parameters
    ----------
    values : (n,) float
        NaN is left out.
    groups : (n,) int or None
        Session of each value; None: each its own.
    statistic : callable
        Of a 1-D array.
    level : float
    draws, seed : int

    Returns
    -------
    (low, high)
        NaN where there are no values.
    """
    kept = np.asarray(values, np.float64)
    owner = np.arange(kept.size) if groups is None else np.asarray(groups)
    owner, kept = owner[np.isfinite(kept)], kept[np.isfinite(kept)]
    if not kept.size:
        return float("nan"), float("nan")
    parts = [kept[owner == g] for g in np.unique(owner)]
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(parts), (draws, len(parts)))
    found = [float(statistic(np.concatenate([parts[i] for i in pick]))) for pick in picks]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
