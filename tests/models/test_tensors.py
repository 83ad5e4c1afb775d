import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.models.tensors import (
    despike,
    log_field,
    network_input,
    scale_free_rms,
    staleness_value,
    upsample,
)


def shape(size):
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    return (9 + 0.2 * y - 0.1 * x * y)[None, None]


@pytest.mark.parametrize(("size", "field"), [(64, 32), (96, 32), (50, 32), (20, 32), (32, 32)])
def test_field_keeps_smooth_shapes_and_their_level(size, field):
    got = log_field(shape(size).exp(), field)
    assert got.shape == (1, 1, field, field)
    assert (got - shape(field))[..., 2:-2, 2:-2].abs().max() < 0.02


def test_field_and_back_loses_little():
    fine = shape(128)
    back = upsample(log_field(fine.exp(), 64), (128, 128))
    assert (back - fine)[..., 4:-4, 4:-4].abs().max() < 1e-3


def test_spikes_and_bad_values_leave_no_trace():
    counts = shape(64).exp()
    bad = counts.clone()
    bad[0, 0, 10, 10], bad[0, 0, 20, 30], bad[0, 0, 40, 5] = 65535, 0, float("nan")
    bad[0, 0, 50, 50] = float("inf")
    assert (log_field(bad, 32) - log_field(counts, 32)).abs().max() < 0.01


def test_despike_keeps_edges_and_ramps():
    ramp = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(despike(ramp), ramp)
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 100
    assert torch.equal(despike(step), step)


@pytest.mark.parametrize("value", [0.0, -5.0, float("nan")])
def test_blank_tiles_give_finite_input(value):
    x = network_input(log_field(torch.full((1, 1, 32, 32), value), 32), None, None)
    assert torch.isfinite(x).all()


@settings(deadline=None)
@given(gain=st.floats(1e-3, 1e3), prior_gain=st.floats(1e-3, 1e3))
def test_input_ignores_every_gain(gain, prior_gain):
    raw, prior = shape(16).exp(), shape(16).flip(3).exp()
    rms = torch.tensor([0.02])
    one = network_input(log_field(raw, 16), prior.log(), rms)
    other = network_input(log_field(raw * gain, 16), (prior * prior_gain).log(), rms)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_no_prior_reads_as_zeros_and_leaves_neighbours_alone():
    log_raw = shape(16).repeat(2, 1, 1, 1)
    prior = log_raw.flip(3)
    x = network_input(log_raw, prior, torch.tensor([-1.0, 0.02]))
    assert x[0, 1:].abs().max() == 0
    assert (x[1, 2] == staleness_value(torch.tensor(0.02))).all()
    torch.testing.assert_close(x[1, 1], (prior[1, 0] - prior[1, 0].median()), atol=0.05, rtol=0)
    assert torch.equal(network_input(log_raw, None, None)[0], x[0])


def test_staleness_rises_with_the_expected_error():
    values = staleness_value(torch.tensor([0.0, 0.003, 0.01, 0.02, 0.1, 0.5, 3.0]))
    assert values[0] == pytest.approx(0.2) and values[-1] == values[-2] == pytest.approx(1)
    assert (values.diff()[:-1] > 0.03).all()


def test_scale_free_rms_removes_scale_and_the_unlit():
    wave = torch.sin(torch.arange(64.0) * 2 * torch.pi / 16).expand(1, 1, 64, 64) * 0.1
    weight = torch.ones_like(wave)
    assert float(scale_free_rms(wave + 5, weight)) == pytest.approx(0.1 / 2**0.5, rel=1e-3)
    spoiled = wave.clone()
    spoiled[..., :16, :] += 9
    weight[..., :16, :] = 0.05
    assert float(scale_free_rms(spoiled, weight)) == pytest.approx(0.1 / 2**0.5, rel=1e-3)
