"""Conversion between counts and the network's inputs and outputs.

The network works in log counts on the whole tile resampled to its field, with one scale per
tile (the median) removed. Input channels: the raw tile; the prior background or zeros; how
stale the prior is expected to be.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from napari_txm_bgcorr.simulation import FREE

__all__ = [
    "LEAST_SD",
    "UNKNOWN",
    "Batch",
    "Pairs",
    "align_prior",
    "despike",
    "expected_rms",
    "field_of",
    "floored_log",
    "free_truth",
    "level_of",
    "log_field",
    "median",
    "network_input",
    "scale_free_rms",
    "staleness_value",
    "upsample",
]

FLOOR = 0.02  # counts below this share of the tile's median are dead or unlit
STALENESS_RMS_MAX = 0.5
LEAST_SD = 2e-4  # of a log background: no network is surer of a pixel
UNKNOWN = -1.0  # in a map of free pixels: nobody knows whether sample lies there


class Pairs(NamedTuple):
    """Tiles as a source draws them, all `(N, 1, F, F)` float32 but `rms`.

    Attributes
    ----------
    log_raw, log_background, log_prior : Tensor
        Log counts on the network's field; the prior is anything where there is none.
    weight : Tensor
        1 where the beam falls, small where the aperture cuts it off.
    rms : (N,) float32 Tensor
        Error expected of the prior (scale-free rms of its log); negative: no prior.
    free : Tensor
        1 where a pixel is free of sample, 0 where it is not, `UNKNOWN`.
    """

    log_raw: Tensor
    log_background: Tensor
    log_prior: Tensor
    weight: Tensor
    rms: Tensor
    free: Tensor


class Batch(NamedTuple):
    """Batch of training samples.

    Attributes
    ----------
    inputs : (N, 3, F, F) float32
    target, weight, free : (N, 1, F, F) float32
    """

    inputs: Tensor
    target: Tensor
    weight: Tensor
    free: Tensor


def median(x: Tensor) -> Tensor:
    """Median of each tile from every fourth pixel: `(N, 1, Y, X)` to `(N, 1, 1, 1)`."""
    return x[..., ::2, ::2].flatten(1).median(dim=1).values.view(-1, 1, 1, 1)


def despike(counts: Tensor) -> Tensor:
    """Clamp each pixel to the range of its four neighbours.

    Single hot and dead pixels vanish, edges and smooth shapes stay; far cheaper than a median.

    Parameters
    ----------
    counts : (N, 1, Y, X) float32
    """
    padded = functional.pad(counts, (1, 1, 1, 1), mode="replicate")
    up, down = padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]
    left, right = padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]
    high = torch.maximum(torch.maximum(up, down), torch.maximum(left, right))
    low = torch.minimum(torch.minimum(up, down), torch.minimum(left, right))
    return torch.minimum(torch.maximum(counts, low), high)


def log_field(counts: Tensor, field_px: int) -> Tensor:
    """Logarithm of the tile averaged to the network's field.

    Parameters
    ----------
    counts : (N, 1, Y, X) float32
        Counts, dark removed where it is known. NaN and infinities count as 0.
    field_px : int
        Edge F of the field in pixels.

    Returns
    -------
    (N, 1, F, F) float32
        ``log`` of the area average (or of the bilinear enlargement of smaller tiles), floored
        at `FLOOR` of the tile's median.
    """
    return floored_log(field_of(counts, field_px))


def field_of(counts: Tensor, field_px: int) -> Tensor:
    """Counts on the network's field, despiked: `(N, 1, Y, X)` to `(N, 1, F, F)` float32."""
    clean = despike(torch.nan_to_num(counts, nan=0.0, posinf=0.0, neginf=0.0))
    size = (field_px, field_px)
    if counts.shape[-2] >= field_px and counts.shape[-1] >= field_px:
        if tuple(counts.shape[-2:]) != size:
            clean = _area(clean, size)
        return clean
    return functional.interpolate(clean, size, mode="bilinear", align_corners=False)


def _area(counts: Tensor, size: tuple[int, int]) -> Tensor:
    """Area average; Apple GPUs cannot do it where the sizes are no multiples: then the CPU."""
    if counts.device.type == "mps" and any(
        n % f for n, f in zip(counts.shape[-2:], size, strict=True)
    ):
        return functional.interpolate(counts.cpu(), size, mode="area").to(counts.device)
    return functional.interpolate(counts, size, mode="area")


def floored_log(field: Tensor) -> Tensor:
    """Logarithm of counts on the field, floored at `FLOOR` of each tile's median."""
    return torch.log(torch.maximum(field, (FLOOR * median(field)).clamp_min(1e-3)))


def free_truth(transmission: Tensor) -> Tensor:
    """Map of sample-free pixels, 1 or 0, of a known transmission: within `FREE` of 1."""
    return ((transmission - 1).abs() < FREE).to(torch.float32)


def level_of(log_raw: Tensor) -> Tensor:
    """The level that is removed from every channel: median of the log raw, `(N, 1, 1, 1)`."""
    return median(log_raw)


def align_prior(log_prior: Tensor, log_raw: Tensor) -> Tensor:
    """Prior shifted to the raw tile's level by the median of their difference."""
    return log_prior + median(log_raw - log_prior)


def staleness_value(rms: Tensor) -> Tensor:
    """Third channel from the expected error of the prior.

    ``0.2 + 0.8 log(1 + rms / 0.005) / log(1 + 0.5 / 0.005)``: 0.2 for a perfect prior, 0.32
    at 0.5 %, 0.48 at 2 %, 1 at 50 % and beyond. 0 is kept for "no prior".

    Parameters
    ----------
    rms : Tensor
        Expected rms of the prior's log error with one scale removed; 0.01 is 1 %.
    """
    top = math.log1p(STALENESS_RMS_MAX / 0.005)
    return 0.2 + 0.8 * torch.log1p(rms.clamp(0.0, STALENESS_RMS_MAX) / 0.005) / top


def expected_rms(staleness: Tensor) -> Tensor:
    """Expected error of the prior back from the third channel; 1 where there is no prior."""
    top = math.log1p(STALENESS_RMS_MAX / 0.005)
    rms = 0.005 * torch.expm1((staleness - 0.2).clamp_min(0) / 0.8 * top)
    return torch.where(staleness > 0.1, rms, torch.ones_like(rms))


def network_input(log_raw: Tensor, log_prior: Tensor | None, rms: Tensor | None) -> Tensor:
    """Stack the three channels.

    Parameters
    ----------
    log_raw : (N, 1, F, F) float32
        Log counts.
    log_prior : (N, 1, F, F) float32 or None
        Log counts of the prior, at any scale.
    rms : (N,) float32 or None
        Expected scale-free error of each prior; negative: this tile has none.

    Returns
    -------
    (N, 3, F, F) float32
    """
    level = level_of(log_raw)
    blank = torch.zeros_like(log_raw)
    if log_prior is None or rms is None:
        return torch.cat([log_raw - level, blank, blank], dim=1)
    there = (rms >= 0).to(log_raw.dtype).view(-1, 1, 1, 1)
    prior = (align_prior(log_prior, log_raw) - level) * there
    stale = staleness_value(rms).view(-1, 1, 1, 1) * there
    return torch.cat([log_raw - level, prior, stale.expand_as(blank)], dim=1)


def scale_free_rms(difference: Tensor, weight: Tensor) -> Tensor:
    """Root mean square over the lit field after removing one scale per tile.

    Parameters
    ----------
    difference, weight : (N, 1, F, F) float32
        Difference of two log backgrounds; weight of each pixel (pixels below 0.5 are left out).

    Returns
    -------
    (N,) float32
    """
    lit = (weight > 0.5).to(difference.dtype)
    count = lit.sum((1, 2, 3)).clamp_min(1)
    mean = ((difference * lit).sum((1, 2, 3)) / count).view(-1, 1, 1, 1)
    return ((difference - mean).square() * lit).sum((1, 2, 3)).div(count).sqrt()


def upsample(log_background: Tensor, size: tuple[int, int]) -> Tensor:
    """Smoothly resample a predicted log background `(N, 1, F, F)` to the tile's size (Y, X)."""
    if tuple(log_background.shape[-2:]) == size:
        return log_background
    return functional.interpolate(log_background, size, mode="bicubic", align_corners=False)
