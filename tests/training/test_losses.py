import pytest
import torch
from monai.losses import JukeboxLoss

from napari_txm_bgcorr.models.networks import build_discriminator
from napari_txm_bgcorr.training.config import LossWeights
from napari_txm_bgcorr.training.losses import (
    BACKGROUND_LOSSES,
    LOSSES,
    discriminator_loss,
    fft_amplitude,
    fft_l1,
    frc,
    generator_adversarial_loss,
    l1,
    level,
    split_level,
)

MODES = ["least_squares", "hinge", "vanilla"]


def fields(size=32, seed=0):
    torch.manual_seed(seed)
    pred, true = torch.randn(2, 3, 1, size, size).unbind()
    weight = torch.ones_like(true)
    weight[..., : size // 4, -size // 4 :] = 0.05
    return pred, true, weight


def test_config_and_table_name_the_same_losses():
    assert set(LossWeights.model_fields) == {*LOSSES, "adversarial"}


@pytest.mark.parametrize("name", BACKGROUND_LOSSES)
def test_zero_at_identity_and_positive_elsewhere(name):
    pred, true, weight = fields()
    assert float(BACKGROUND_LOSSES[name](true, true, weight)) == pytest.approx(0, abs=1e-6)
    assert float(BACKGROUND_LOSSES[name](pred, true, weight)) > 1e-3


@pytest.mark.parametrize("name", BACKGROUND_LOSSES)
def test_descending_the_gradient_lowers_the_loss(name):
    pred, true, weight = fields()
    pred = (pred + 0.3).requires_grad_()
    loss = BACKGROUND_LOSSES[name](pred, true, weight)
    (slope,) = torch.autograd.grad(loss, pred)
    assert torch.isfinite(slope).all() and slope.abs().sum() > 0
    lower = BACKGROUND_LOSSES[name](pred - 1e-3 * slope / slope.norm(), true, weight)
    assert float(lower.detach()) < float(loss.detach())


@pytest.mark.parametrize("name", BACKGROUND_LOSSES)
def test_gradient_matches_finite_differences(name):
    pred, true, weight = (t.double()[:1] for t in fields(8))
    if name in ("fft_l1", "fft_amplitude", "focal_frequency", "frc"):
        pred, true = pred.float(), true.float()
        weight = weight.float()
    pred.requires_grad_()
    if name == "focal_frequency":
        pytest.skip("its frequency weights are constants of the gradient by definition")
    (slope,) = torch.autograd.grad(BACKGROUND_LOSSES[name](pred, true, weight), pred)
    step = torch.randn_like(pred)
    eps = 1e-2 if pred.dtype == torch.float32 else 1e-5
    with torch.no_grad():
        up, down = (BACKGROUND_LOSSES[name](pred + s * eps * step, true, weight) for s in (1, -1))
    measured = float(up - down) / (2 * eps)
    assert float((slope * step).sum()) == pytest.approx(measured, rel=0.05, abs=1e-3)


@pytest.mark.parametrize("name", BACKGROUND_LOSSES)
def test_a_blank_prediction_has_a_finite_gradient_of_sane_size(name):
    _, true, weight = fields()
    pred = torch.zeros_like(true, requires_grad=True)
    (slope,) = torch.autograd.grad(BACKGROUND_LOSSES[name](pred, true, weight), pred)
    assert torch.isfinite(slope).all() and slope.norm() < 100


@pytest.mark.parametrize("name", BACKGROUND_LOSSES)
def test_white_differences_cost_the_same_at_any_size(name):
    costs = [float(BACKGROUND_LOSSES[name](*_white(size))) for size in (32, 128)]
    # the greatest of more frequencies is a little greater, and focal weights are relative to it
    near = 0.3 if name == "focal_frequency" else 0.15
    assert costs[1] == pytest.approx(costs[0], rel=near, abs=0.01 if name == "level" else 0)


@pytest.mark.parametrize("name", BACKGROUND_LOSSES)
def test_a_batch_costs_the_mean_of_its_tiles(name):
    """So that its parts' gradients add up, on one device after another or on many at once."""
    pred, true, weight = fields()
    weight[0, ..., :20] = 0.05  # tiles with different lit fields count alike
    alone = [
        float(BACKGROUND_LOSSES[name](*(t[k : k + 1] for t in (pred, true, weight))))
        for k in range(3)
    ]
    assert float(BACKGROUND_LOSSES[name](pred, true, weight)) == pytest.approx(
        sum(alone) / 3, rel=1e-5
    )


@pytest.mark.parametrize("mode", MODES)
def test_adversaries_cost_the_same_at_any_size(mode):
    """Scores are averaged over patches, however many."""
    torch.manual_seed(0)
    critic = build_discriminator(8, 2)
    costs = []
    for size in (32, 128):
        with torch.no_grad():
            scores = critic(torch.randn(8, 4, size, size))[-1]
        costs.append(float(generator_adversarial_loss(scores, mode)))
    assert costs[0] == pytest.approx(costs[1], rel=0.1, abs=0.03)


def _white(size):
    torch.manual_seed(3)
    true = torch.randn(8, 1, size, size)
    return true + 0.3 * torch.randn_like(true), true, torch.ones_like(true)


def test_scale_and_shape_are_judged_apart():
    pred, true, weight = fields()
    assert float(l1(pred + 0.7, true, weight)) == pytest.approx(float(l1(pred, true, weight)))
    assert float(level(true + 0.7, true, weight)) == pytest.approx(0.7, rel=1e-5)
    free, mean = split_level(pred - true, weight)
    torch.testing.assert_close(free + mean, pred - true)
    assert float((free * weight).sum((2, 3)).abs().max()) < 1e-3


def test_unlit_pixels_hardly_count():
    _, true, weight = fields()
    wrong_corner = true + 1.0 * (weight < 0.5)
    wrong_field = true + 1.0 * (weight > 0.5) * (torch.arange(32) < 2)
    assert float(l1(wrong_corner, true, weight)) < float(l1(wrong_field, true, weight))


def test_fft_l1_is_linear_and_sees_one_frequency_as_one_coefficient():
    _, true, weight = fields(16)
    weight = torch.ones_like(weight)
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(16) / 16).expand_as(true)
    one, two = (float(fft_l1(true + a * wave, true, weight)) for a in (1.0, 2.0))
    assert two == pytest.approx(2 * one, rel=1e-4)
    assert one == pytest.approx(8 / (16 * 9), rel=1e-3)  # |coefficient| 8 among 16 x 9


def test_fft_amplitude_is_monais():
    pred, true, _ = fields()
    mean = true.mean((2, 3), keepdim=True)
    expected = JukeboxLoss(2)(pred - mean, true - mean)
    torch.testing.assert_close(fft_amplitude(pred, true, torch.ones_like(true)), expected)


def test_frc_ignores_scale_and_punishes_noise():
    pred, true, weight = fields()
    weight = torch.ones_like(weight)
    assert float(frc(3 * true, true, weight)) == pytest.approx(0, abs=1e-5)
    assert float(frc(true + 0.1 * pred, true, weight)) < float(frc(true + pred, true, weight))


@pytest.mark.parametrize("mode", MODES)
def test_adversaries_pull_in_opposite_directions(mode):
    good, bad = torch.full((2, 1, 4, 4), 2.0), torch.full((2, 1, 4, 4), -2.0)
    assert discriminator_loss(good, bad, mode) < discriminator_loss(bad, good, mode)
    fake = torch.zeros(1, 1, 4, 4, requires_grad=True)
    (for_generator,) = torch.autograd.grad(generator_adversarial_loss(fake, mode), fake)
    (for_critic,) = torch.autograd.grad(discriminator_loss(good, fake, mode), fake)
    assert (for_generator < 0).all()
    assert (for_critic >= 0).all()
