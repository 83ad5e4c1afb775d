"""Augmentation follows its physics and can be switched off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.simulation.acquisition import draw_session
from napari_txm_bgcorr.simulation.illumination_drift import growth
from napari_txm_bgcorr.training.config import AugmentConfig
from napari_txm_bgcorr.training.data.augment import drift_of, expose, low_passed, varied_specimens

OFF = {"defocus_px": 0.0, "crop": 1.0, "turn": False, "flip": False, "thickness": (1.0, 1.0)}


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int, edge: int = 32) -> torch.Tensor:
    y = torch.linspace(-1, 1, edge).view(1, 1, -1, 1).expand(count, 1, edge, edge)
    return 9 - 0.4 * y * y


def test_drift_grows_as_the_simulators_does():
    hours = (0.05, 0.25, 2.0, 8.0)
    ours = [
        float(
            drift_of(smooth(400), torch.full((400,), h), numbers()).std((1, 2, 3)).square().mean()
        )
        for h in hours
    ]
    squares = np.zeros(len(hours))
    for seed in range(40):
        session = draw_session(np.random.default_rng(seed), size=32, family="bl01b")
        first = np.log(session.background(0.0))
        for k, h in enumerate(hours):
            change = (np.log(session.background(h)) - first)[session.aperture]
            squares[k] += change.std() ** 2 / 40
    ratio = np.sqrt(np.array(ours) / squares)
    assert (ratio > 0.6).all() and (ratio < 1.6).all(), ratio
    assert growth(np.array([0.0]))[0] == 0
    assert growth(np.array([16 / 60]))[0] == pytest.approx(1)


def test_drift_is_smooth_and_its_own_for_every_tile():
    change = drift_of(smooth(3), torch.full((3,), 4.0), numbers())
    steps = torch.diff(change, dim=2).abs().amax()
    assert 0 < steps < 0.2 * change.abs().amax()
    assert not torch.equal(change[0], change[1])
    assert torch.equal(change, drift_of(smooth(3), torch.full((3,), 4.0), numbers()))
    assert drift_of(smooth(1), torch.zeros(1), numbers()).abs().max() == 0


def test_all_off_leaves_a_specimen_alone():
    specimen = torch.rand((2, 1, 32, 32), generator=numbers()) * 0.9 + 0.05
    same = varied_specimens(specimen, AugmentConfig.model_validate(OFF), numbers())
    torch.testing.assert_close(same, specimen)


@pytest.mark.parametrize(
    "change", [{"turn": True}, {"flip": True}, {"crop": 0.5}, {"thickness": (0.5, 0.6)},
               {"defocus_px": 2.0}],
)  # fmt: skip
def test_each_part_acts_alone(change):
    specimen = torch.ones((12, 1, 32, 32))
    specimen[..., 4:12, 6:20] = 0.4
    out = varied_specimens(specimen, AugmentConfig.model_validate(OFF | change), numbers())
    assert not torch.allclose(out, specimen)
    assert out.min() > 0.3 and out.max() <= 1.0001
    if "thickness" in change:  # Beer and Lambert: the same places, another depth
        depth = torch.log(out[..., 8, 10]) / np.log(0.4)
        assert ((depth > 0.5) & (depth < 0.6)).all()
        assert torch.equal(out == 1, specimen == 1)
    if "flip" in change:
        assert torch.allclose(out.sum((1, 2, 3)), specimen.sum((1, 2, 3)), rtol=1e-4)


def test_noise_is_that_of_quanta_and_comes_after_the_specimen():
    counts = torch.full((200, 1, 32, 32), 10_000.0)
    counts[..., :16] = 1_000.0
    one = torch.ones((200, 1, 1, 1))
    noise = expose(counts, one, AugmentConfig(), numbers()) - counts
    bright, dim = noise[..., 16:].std(), noise[..., :16].std()
    assert 1.3e4 < float(bright) ** 2 < 2.7e4  # 1.3 to 2.7 counts per quantum
    assert float(bright / dim) == pytest.approx(np.sqrt(10), rel=0.05)
    binned = expose(counts, 4 * one, AugmentConfig(), numbers()) - counts
    assert float(bright / binned[..., 16:].std()) == pytest.approx(2, rel=0.02)
    assert torch.equal(expose(counts, one, AugmentConfig(noise=0), numbers()), counts)


def test_the_smooth_part_keeps_the_mean_and_drops_the_fine():
    image = smooth(1, 64) + 0.1 * torch.randn((1, 1, 64, 64), generator=numbers())
    low = low_passed(image, 6.0)
    assert float((low - smooth(1, 64))[..., 8:-8, 8:-8].std()) < 0.03
    assert float(low.mean()) == pytest.approx(float(image.mean()), abs=0.005)
