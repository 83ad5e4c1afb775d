"""Physics of one more exposure, in batch on the device: drift, specimen, noise.

Random numbers come from one generator on the device, so that a batch is a pure function of
its seed. Each part is switched off by its setting in `config.AugmentConfig`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from napari_txm_bgcorr.simulation import MODE_RMS, growth
from napari_txm_bgcorr.training.config import AugmentConfig

__all__ = [
    "blurred",
    "drift_of",
    "expose",
    "log_uniform",
    "low_passed",
    "normal",
    "uniform",
    "varied_specimens",
]

COARSE = 24  # nodes a side of a smooth change, as in the simulator
WAVES = 4  # random waves in the simulator; here one field of their joint rms
GAIN = (1.3, 2.7)  # camera counts per quantum (measured at TLS BL01B: 1.5 to 2.7)
READ_NOISE = (3.0, 20.0)  # counts per camera pixel
DEFOCUSED = 1 / 3  # share of specimens that lie out of focus
SPREAD = 0.35  # log-normal, of how much sessions drift


def uniform(random: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """`(N, 1, 1, 1)` float32, even between two values."""
    drawn = torch.rand((count, 1, 1, 1), generator=random, device=random.device)
    return low + (high - low) * drawn


def log_uniform(random: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """`(N, 1, 1, 1)` float32, even in the logarithm between two values."""
    return uniform(random, count, math.log(low), math.log(high)).exp()


def normal(random: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Unit normal float32."""
    return torch.randn(shape, generator=random, device=random.device)


def drift_of(log_background: Tensor, hours: Tensor, random: torch.Generator) -> Tensor:
    """Smooth change of an illumination between two moments.

    The law of `simulation.illumination_drift`: tilts, bowls, smooth waves, and shifts of the
    illumination's own smooth shape, each with a normal weight whose rms grows with time as
    the simulator's does. The fine pattern stays.

    Parameters
    ----------
    log_background : (N, 1, F, F) float32
        Log counts, whose smooth shape is what shifts.
    hours : (N,) float32
        Time between the moments; 0 gives 0.
    random : torch.Generator

    Returns
    -------
    (N, 1, F, F) float32
        To be added to the logarithm.
    """
    count, edge = log_background.shape[0], log_background.shape[-1]
    device = log_background.device
    size = torch.from_numpy(growth(hours.cpu().numpy())).to(device, torch.float32)
    size = size * (SPREAD * normal(random, (count,))).exp()
    fixed, waves = (basis.to(device) for basis in _bases())
    weights = normal(random, (count, len(fixed))) * _sizes().to(device)
    coarse = torch.einsum("nm,myx->nyx", weights, fixed)
    wave = torch.einsum("nk,kyx->nyx", normal(random, (count, len(waves))), waves)
    coarse = coarse + math.sqrt(WAVES) * MODE_RMS["wave"] * wave
    smooth = functional.interpolate(log_background, (COARSE, COARSE), mode="area")[:, 0]
    smooth = functional.avg_pool2d(smooth[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    for dim in (1, 2):
        slope = torch.gradient(smooth, spacing=1 / COARSE, dim=dim)[0]
        slope = slope - slope.mean((1, 2), keepdim=True)
        coarse = coarse + MODE_RMS["shift"] * normal(random, (count, 1, 1)) * slope
    coarse = (coarse * size.view(-1, 1, 1))[:, None]
    return functional.interpolate(coarse, (edge, edge), mode="bicubic", align_corners=False)


@lru_cache(maxsize=1)
def _bases() -> tuple[Tensor, Tensor]:
    """Tilts and bowls `(5, 24, 24)`, and cosine waves `(K, 24, 24)` of joint rms 1."""
    axis = (torch.arange(COARSE) + 0.5) / COARSE * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    fixed = [y / 2, x / 2, 1.5 * y * y - 0.5, 1.5 * x * x - 0.5, x * y]
    waves = []
    for v in range(7):
        for u in range(7):
            cycles = math.hypot(u, v) / 2
            if 0.6 <= cycles <= 3:
                wave = torch.cos(math.pi * v * (y + 1) / 2) * torch.cos(math.pi * u * (x + 1) / 2)
                waves.append(wave / cycles**2)  # power spectrum of slope -4
    stack = torch.stack(waves)
    rms = stack.square().mean((1, 2)).sum().sqrt()
    return torch.stack([m - m.mean() for m in fixed]), stack / rms


@lru_cache(maxsize=1)
def _sizes() -> Tensor:
    return torch.tensor([MODE_RMS["tilt"]] * 2 + [MODE_RMS["bowl"]] * 3)


def varied_specimens(
    transmission: Tensor, config: AugmentConfig, random: torch.Generator
) -> Tensor:
    """Augment specimens: rotated, mirrored, cropped, thicker or thinner, out of focus.

    A specimen may lie in any direction and place, so all of these give possible ones (the
    illumination has no such freedom). ``t ** a`` is a specimen ``a`` times as thick (Beer and
    Lambert). Defocus is a Gaussian blur of the transmission alone: condenser and camera stay.

    Parameters
    ----------
    transmission : (N, 1, F, F) float32
    config : AugmentConfig
    random : torch.Generator

    Returns
    -------
    (N, 1, F, F) float32
        In [0.001, 1.6].
    """
    count = transmission.shape[0]
    out = transmission
    if config.turn or config.flip or config.crop < 1:
        theta = _transform(count, config, random)
        grid = functional.affine_grid(theta, list(out.shape), align_corners=False)
        out = functional.grid_sample(out, grid, padding_mode="reflection", align_corners=False)
    if config.defocus_px > 0:
        sigma = uniform(random, count, 0.0, config.defocus_px)
        some = uniform(random, count, 0.0, 1.0) < DEFOCUSED
        out = blurred(out, torch.where(some, sigma, 1e-3 * torch.ones_like(sigma)))
    thickness = log_uniform(random, count, *config.thickness)
    return out.clamp_min(1e-3).pow(thickness).clamp(1e-3, 1.6)


def _transform(count: int, config: AugmentConfig, random: torch.Generator) -> Tensor:
    """`(N, 2, 3)` affine maps from the new field to the old one."""
    angle = uniform(random, count, 0.0, 2 * math.pi if config.turn else 0.0)
    scale = uniform(random, count, config.crop, 1.0)
    mirror = torch.ones_like(scale)
    if config.flip:
        mirror = torch.where(uniform(random, count, 0.0, 1.0) < 0.5, mirror, -mirror)
    shift = [uniform(random, count, -1.0, 1.0) * (1 - scale) for _ in range(2)]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [cos * mirror, -sin, shift[0], sin * mirror, cos, shift[1]]
    return torch.cat(rows, dim=3).view(count, 2, 3)


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with each image's own sigma `(N, 1, 1, 1)` in pixels."""
    reach = max(1, math.ceil(3 * float(sigma.max())))  # device sync, once a batch
    at = torch.arange(-reach, reach + 1, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma.view(-1, 1)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None]  # (N, 1, K)
    count = images.shape[0]
    out = functional.pad(images, (reach,) * 4, mode="replicate").transpose(0, 1)  # (1, N, Y, X)
    out = functional.conv2d(out, kernel[:, :, :, None], groups=count)
    out = functional.conv2d(out, kernel[:, :, None, :], groups=count)
    return out.transpose(0, 1)


def low_passed(images: Tensor, sigma_px: float) -> Tensor:
    """Smooth part: averaged over cells of about ``2.5 sigma`` and interpolated again."""
    edge = images.shape[-1]
    cells = max(4, round(edge / (2.5 * sigma_px)))
    if cells >= edge:
        return images
    coarse = functional.interpolate(images, (cells, cells), mode="area")
    return functional.interpolate(coarse, (edge, edge), mode="bicubic", align_corners=False)


def expose(
    counts: Tensor, shrink: Tensor, config: AugmentConfig, random: torch.Generator
) -> Tensor:
    """Add the noise of one exposure to expected counts.

    Photon noise of variance ``g counts`` for a camera of `g` counts per quantum, and read
    noise, both reduced by averaging camera pixels into one of the field. It is added after
    multiplying background and specimen: a dark specimen has less of it.

    Parameters
    ----------
    counts : (N, 1, F, F) float32
        Expected counts.
    shrink : (N, 1, 1, 1) float32
        Camera pixels in one pixel of the field.
    config : AugmentConfig
    random : torch.Generator
    """
    if config.noise == 0:
        return counts
    gain = uniform(random, counts.shape[0], *GAIN)
    read = uniform(random, counts.shape[0], *READ_NOISE)
    variance = (gain * counts.clamp_min(0) + read.square()) / shrink
    return counts + config.noise * variance.sqrt() * normal(random, tuple(counts.shape))
