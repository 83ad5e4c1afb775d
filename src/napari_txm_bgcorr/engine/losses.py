"""Losses between predicted and true log backgrounds, by name.

Every loss takes prediction, target and weight, all `(N, 1, Y, X)` float32 (log counts; weight 1
where the beam falls, small where the aperture cuts it off), and gives one number that is zero
where they are equal. None depends on the number of pixels for white differences. Each is a mean
over tiles: a batch may be cut into parts whose gradients add up. Fourier transforms run in
float32 outside autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "LOSSES",
    "discriminator_loss",
    "fft_amplitude",
    "fft_l1",
    "focal_frequency",
    "frc",
    "generator_adversarial_loss",
    "l1",
    "level",
    "split_level",
]

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def split_level(difference: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Split a log difference into its scale-free part and its level.

    Returns
    -------
    free : (N, 1, Y, X)
        Difference less its weighted mean over the tile.
    level : (N, 1, 1, 1)
        That mean: the log of the tile's gain error, unknowable under a covering sample.
    """
    total = weight.sum((2, 3), keepdim=True).clamp_min(1e-6)
    mean = (difference * weight).sum((2, 3), keepdim=True) / total
    return difference - mean, mean


def l1(pred: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean absolute scale-free difference."""
    free, _ = split_level(pred - true, weight)
    per_tile = (free.abs() * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1e-6)
    return per_tile.mean()


def level(pred: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference in level."""
    return split_level(pred - true, weight)[1].abs().mean()


def _free(pred: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Scale-free difference, faded out by the weight, in float32."""
    return split_level(pred.float() - true.float(), weight)[0] * weight


def fft_l1(pred: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Mean modulus of the orthonormal Fourier transform of the difference.

    One transform, since the transform is linear. A squared modulus would equal the spatial
    squared error (Parseval).
    """
    out: Tensor = torch.fft.rfft2(_free(pred, true, weight), norm="ortho").abs().mean()
    return out


def fft_amplitude(pred: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Mean squared difference of the Fourier amplitudes (Dhariwal et al. 2020).

    Equals MONAI's JukeboxLoss, whose square root has no gradient at amplitude 0, where every
    run starts (a blank prediction); the modulus has one. Both lose the target's level first.
    """
    mean = split_level(true.float(), weight)[1]
    a = torch.fft.fft2((pred.float() - mean) * weight, norm="ortho").abs()
    b = torch.fft.fft2((true.float() - mean) * weight, norm="ortho").abs()
    out: Tensor = (a - b).square().mean()
    return out


def focal_frequency(pred: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Focal frequency loss with alpha 1 (Jiang et al. 2021), on orthonormal transforms.

    Each frequency's squared error is weighted by its share of the greatest error.
    """
    squared = torch.fft.rfft2(_free(pred, true, weight), norm="ortho").abs().square()
    share = squared.detach().sqrt()
    share = share / share.amax((2, 3), keepdim=True).clamp_min(1e-12)
    out: Tensor = (share * squared).mean()
    return out


@cache
def _rings(height: int, width: int) -> tuple[Tensor, int]:
    """Ring number of each rfft2 frequency, those beyond Nyquist in a last ring left out."""
    fy = torch.fft.fftfreq(height)[:, None]
    fx = torch.fft.rfftfreq(width)[None, :]
    count = min(height, width) // 2
    ring = (torch.hypot(fy, fx) * 2 * count).round().long()
    return ring.clamp_max(count).flatten(), count


def frc(pred: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """One minus the Fourier ring correlation (Saxton and Baumeister 1982), mean over rings.

    The constant term is left out; so is every ring in which the target has next to no power.
    """
    height, width = pred.shape[-2:]
    rings, count = _rings(height, width)
    rings = rings.to(pred.device)
    a = torch.fft.rfft2(split_level(pred.float(), weight)[0] * weight, norm="ortho").flatten(1)
    b = torch.fft.rfft2(split_level(true.float(), weight)[0] * weight, norm="ortho").flatten(1)

    def ring_sum(x: Tensor) -> Tensor:
        empty = x.new_zeros(x.shape[0], count + 1)
        return empty.index_add(1, rings, x)[:, 1:count]

    cross = ring_sum((a * b.conj()).real)
    power_a, power_b = ring_sum(a.abs().square()), ring_sum(b.abs().square())
    there = (power_b > 1e-8 * power_b.amax(1, keepdim=True)).to(cross.dtype)
    # a blank prediction has no power: bound the slope there, without touching identity
    scale = (torch.maximum(power_a, 1e-4 * power_b) * power_b).clamp_min(1e-20).sqrt()
    correlation = cross / scale
    per_tile = ((1 - correlation) * there).sum(1) / there.sum(1).clamp_min(1)
    return per_tile.mean()


LOSSES: dict[str, Loss] = {
    "l1": l1,
    "level": level,
    "fft_l1": fft_l1,
    "fft_amplitude": fft_amplitude,
    "focal_frequency": focal_frequency,
    "frc": frc,
}


def discriminator_loss(real: Tensor, fake: Tensor, mode: str) -> Tensor:
    """Loss of the discriminator from its scores of true and predicted backgrounds.

    Parameters
    ----------
    real, fake : (N, 1, P, P) float32
        Scores before any sigmoid.
    mode : {"least_squares", "hinge", "vanilla"}
        Mao et al. 2017; Lim and Ye 2017; Goodfellow et al. 2014.
    """
    if mode == "hinge":
        return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())
    if mode == "vanilla":
        return 0.5 * (functional.softplus(-real).mean() + functional.softplus(fake).mean())
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def generator_adversarial_loss(fake: Tensor, mode: str) -> Tensor:
    """Loss of the generator from the discriminator's scores of its backgrounds."""
    if mode == "hinge":
        return -fake.mean()
    if mode == "vanilla":
        return functional.softplus(-fake).mean()
    return (fake - 1).square().mean()
