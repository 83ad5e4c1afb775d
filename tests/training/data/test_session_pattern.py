"""The session's mean pattern: less noise, the same shape, nothing of another pattern."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.core.training_images import ImageStack
from napari_txm_bgcorr.models.tensors import floored_log
from napari_txm_bgcorr.training.config import DataConfig
from napari_txm_bgcorr.training.data.session_pattern import SharedPattern
from napari_txm_bgcorr.training.data.storage import Images, hold

PX = 64
NOISE = 0.01


def pattern(seed: int) -> np.ndarray:
    """A smooth hill with a fine pattern of 3 % rms."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, PX)] * 2, indexing="ij")
    fine = np.random.default_rng(seed).normal(0, 1, (PX, PX))
    fine = sum(np.roll(fine, (a, b), (0, 1)) for a in range(4) for b in range(4)) / 4
    return np.log(9000) - 0.4 * y**2 - 0.2 * x + 0.03 * fine


def references(logs: list[np.ndarray], sessions: tuple[str, ...] | None = None) -> Images:
    rng = np.random.default_rng(9)
    images = np.stack([np.exp(log + rng.normal(0, NOISE, log.shape)) for log in logs])
    names = tuple(map(str, range(len(logs))))
    stack = ImageStack(images.round().astype("u2"), names, sessions or ("day",) * len(logs))
    return hold([stack], DataConfig(), PX, torch.device("cpu"))


def shared(images: Images, number: int) -> torch.Tensor:
    chosen = np.array([number])
    gain = SharedPattern(images, np.arange(len(images))).gain(chosen)
    return (floored_log(images.take(chosen, -1).counts) + gain)[0, 0]


def error(found: torch.Tensor, true: np.ndarray) -> float:
    return float((found - torch.from_numpy(true)).std())


@pytest.mark.parametrize(("count", "share"), [(2, 0.78), (9, 0.45)])
def test_noise_falls_with_the_number_of_references(count, share):
    true = pattern(1)
    images = references([true] * count)
    alone = error(shared(references([true]), 0), true)
    assert alone == pytest.approx(NOISE, rel=0.25)  # less what despiking takes
    assert error(shared(images, 0), true) < share * alone


def test_one_reference_stays_as_it_is():
    images = references([pattern(1), pattern(1)], ("monday", "tuesday"))
    assert not SharedPattern(images, np.arange(2)).gain(np.array([0, 1])).any()


def test_another_pattern_of_the_same_day_is_left_out():
    images = references([pattern(1), pattern(2)])
    assert not SharedPattern(images, np.arange(2)).gain(np.array([0])).any()


def test_the_smooth_shape_stays_each_images_own():
    y = np.linspace(-1, 1, PX)[:, None]
    true = pattern(1)
    images = references([true, true + 0.2 * y, true - 0.2 * y])
    found = shared(images, 0)
    # away from the edge, where a ramp's local mean is off
    inner = (found - torch.from_numpy(true))[8:-8, 8:-8]
    slope = np.polyfit(y[8:-8, 0], inner.mean(dim=1).numpy(), 1)[0]
    assert abs(slope) < 0.01


def test_a_shifted_pattern_is_shifted_back():
    true = pattern(1)
    moved = np.roll(true, (1, -2), (0, 1))
    images = references([true, *[moved] * 6])
    inner = np.s_[4:-4, 4:-4]
    found = error(shared(images, 0)[inner], true[inner])
    assert found < 0.7 * error(shared(references([true]), 0)[inner], true[inner])
