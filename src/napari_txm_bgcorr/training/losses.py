"""Losses between what a network gives and the truth, by name.

Every row of `LOSSES` takes the network's output `(N, 1, Y, X)` or `(N, 3, Y, X)` float32 and the
`Batch`, and gives one number. Those of the background take prediction, target and weight, all
`(N, 1, Y, X)` (log counts; weight 1 where the beam falls, small where the aperture cuts it off),
and are zero where they are equal. None depends on the number of pixels for white differences.
Each is a mean over tiles: a batch may be cut into parts whose gradients add up. Fourier
transforms run in float32 outside autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from napari_txm_bgcorr.models import LEAST_SD, Batch

__all__ = [
    "BACKGROUND_LOSSES",
    "LOSSES",
    "OUTPUT_LOSSES",
    "discriminator_loss",
    "fft_amplitude",
    "fft_l1",
    "focal_frequency",
    "frc",
    "free",
    "generator_adversarial_loss",
    "l1",
    "level",
    "likelihood",
    "split_level",
]

BackgroundLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
Loss = Callable[[Tensor, Batch], Tensor]
FARTHEST = 0.5  # differences beyond count as this to the stated variance


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
    return _mean(split_level(pred - true, weight)[0].abs(), weight)


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


def likelihood(output: Tensor, batch: Batch) -> Tensor:
    """Negative log-likelihood of the scale-free difference under the stated normal errors.

    Only the stated variance learns from it: the background is held fixed, so that pixels that
    are hard to predict lose no weight there. 0 where a background is exact and stated to be.
    """
    log_variance = output[:, 1:2]
    free_of_scale, _ = split_level(output[:, :1].detach() - batch.target, batch.weight)
    squared = free_of_scale.square().clamp_max(FARTHEST**2)
    surplus = log_variance - 2 * math.log(LEAST_SD)
    return _mean(0.5 * (squared * (-log_variance).exp() + surplus), batch.weight)


def free(output: Tensor, batch: Batch) -> Tensor:
    """Cross entropy of the probability to be free of sample; 0 where nobody knows."""
    known = batch.weight * (batch.free >= 0)
    truth = batch.free.clamp_min(0)
    cost = functional.binary_cross_entropy_with_logits(output[:, 2:3], truth, reduction="none")
    return _mean(cost, known)


def _mean(cost: Tensor, weight: Tensor) -> Tensor:
    """Mean over tiles of the weighted mean over pixels; a tile without weight adds 0."""
    per_tile = (cost * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1e-6)
    return per_tile.mean()


def _of_background(loss: BackgroundLoss) -> Loss:
    return lambda output, batch: loss(output[:, :1], batch.target, batch.weight)


BACKGROUND_LOSSES: dict[str, BackgroundLoss] = {
    "l1": l1,
    "level": level,
    "fft_l1": fft_l1,
    "fft_amplitude": fft_amplitude,
    "focal_frequency": focal_frequency,
    "frc": frc,
}
OUTPUT_LOSSES: dict[str, Loss] = {"likelihood": likelihood, "free": free}
"""Losses of the outputs that only a probabilistic network has."""
LOSSES: dict[str, Loss] = {
    **{name: _of_background(loss) for name, loss in BACKGROUND_LOSSES.items()},
    **OUTPUT_LOSSES,
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
