"""Networks that state their uncertainty and the pixels free of sample."""

import math

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models.checkpoint import load_model, resolve_model, save_model
from napari_txm_bgcorr.models.networks import FIRST_SD, NETWORKS, build_generator
from napari_txm_bgcorr.models.tensors import LEAST_SD, UNKNOWN, Batch, free_truth
from napari_txm_bgcorr.models.warm_start import start_from
from napari_txm_bgcorr.simulation.specimens import free_of_sample
from napari_txm_bgcorr.training.config import NetworkConfig, load_config
from napari_txm_bgcorr.training.data.simulated import SimulatedPairs
from napari_txm_bgcorr.training.losses import LOSSES, OUTPUT_LOSSES, free, likelihood
from napari_txm_bgcorr.training.validation import split_figures, validate

SMALL = {"field_px": 32, "scaled": True}
PLAIN = NetworkConfig(name="subpixel4-unet", features=(8, 8), **SMALL)
BOTH = NetworkConfig(name="subpixel4-unet", features=(8, 8), probabilistic=True, **SMALL)
DEEPER = BOTH.model_copy(update={"features": (8, 8, 12)})


def inputs(count=2, size=32, seed=0):
    torch.manual_seed(seed)
    x = 0.2 * torch.randn(count, 3, size, size)
    x[:, 2] = torch.tensor([0.0, 0.4] * count)[:count].view(-1, 1, 1)
    return x


def wild(config, seed=1):
    torch.manual_seed(seed)
    network = build_generator(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def batch_of(difference, free_map=None):
    """A batch whose output without any correction is off by `difference`."""
    shape = difference.shape
    known = torch.full(shape, UNKNOWN) if free_map is None else free_map
    return Batch(torch.zeros(shape[0], 3, *shape[2:]), -difference, torch.ones(shape), known)


@pytest.mark.parametrize("name", sorted({*NETWORKS} - {"unet256", "swin-unetr", "unetr"}))
def test_every_network_starts_as_the_prior_with_an_even_uncertainty(name):
    config = NetworkConfig(name=name, field_px=64, scaled=True, probabilistic=True)
    x = inputs(size=64)
    with torch.no_grad():
        out = build_generator(config).eval()(x)
    assert out.shape == (2, 3, 64, 64)
    torch.testing.assert_close(out[:, :1], x[:, 1:2])
    sd = (0.5 * out[:, 1]).exp()
    assert float(sd[0].min()) == float(sd[0].max()) == pytest.approx(FIRST_SD, rel=1e-5)
    assert float(sd[1].max()) < FIRST_SD  # told of a good prior
    assert float(out[:, 2].abs().max()) == 0


def test_the_background_does_not_depend_on_the_other_outputs(tmp_path):
    path = tmp_path / "plain.safetensors"
    save_model(path, wild(PLAIN), PLAIN)
    old = load_model(path).network
    new = build_generator(BOTH)
    start_from(new, path)
    with torch.no_grad():
        torch.testing.assert_close(new(inputs())[:, :1], old(inputs()), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("first", "then"), [(PLAIN, DEEPER), (BOTH, DEEPER), (BOTH, PLAIN)])
def test_a_network_starts_where_another_ended(tmp_path, first, then):
    path = tmp_path / "first.safetensors"
    save_model(path, wild(first), first)
    new = build_generator(then).eval()
    start_from(new, path)
    with torch.no_grad():
        old, out = load_model(path).network(inputs()), new(inputs())
    shared = min(old.shape[1], out.shape[1])
    torch.testing.assert_close(out[:, :shared], old[:, :shared], rtol=0, atol=1e-5)


def test_the_added_level_learns(tmp_path):
    path = tmp_path / "first.safetensors"
    save_model(path, wild(BOTH), BOTH)
    new = build_generator(DEEPER)
    start_from(new, path)
    optimizer = torch.optim.SGD(new.parameters(), 0.1)
    for _ in range(4):  # its way up and its second kernels are zero at first
        optimizer.zero_grad()
        new(inputs()).square().mean().backward()
        optimizer.step()
    assert all(float(p.grad.abs().sum()) > 0 for p in new.body.body.bottom.parameters() if p.ndim)


@pytest.mark.parametrize("features", [(8, 12), (8, 8, 12, 12)])
def test_weights_of_another_network_are_refused_in_words(tmp_path, features):
    path = tmp_path / "first.safetensors"
    save_model(path, wild(PLAIN), PLAIN)
    with pytest.raises(ConfigError, match=r"init: .*network\.features"):
        start_from(build_generator(BOTH.model_copy(update={"features": features})), path)


def test_the_likelihood_is_least_where_the_stated_error_is_the_true_one():
    torch.manual_seed(0)
    difference = 0.03 * torch.randn(4, 1, 32, 32)
    batch = batch_of(difference + 0.4)  # a scale, which does not count
    costs = {}
    for sd in (0.01, 0.02, 0.03, 0.045, 0.1):
        output = torch.zeros(4, 3, 32, 32)
        output[:, 1] = 2 * math.log(sd)
        costs[sd] = float(likelihood(output, batch))
    assert min(costs, key=costs.get) == 0.03
    exact = torch.full((1, 3, 8, 8), 2 * math.log(LEAST_SD))
    exact[:, 0] = 0
    assert float(likelihood(exact, batch_of(torch.zeros(1, 1, 8, 8)))) == pytest.approx(0)


def test_the_likelihood_never_moves_the_background():
    output = torch.randn(2, 3, 8, 8, requires_grad=True)
    likelihood(output, batch_of(torch.randn(2, 1, 8, 8))).backward()
    assert float(output.grad[:, 0].abs().sum()) == 0 == float(output.grad[:, 2].abs().sum())
    assert float(output.grad[:, 1].abs().sum()) > 0


def test_free_pixels_count_where_they_are_known():
    known = torch.zeros(2, 1, 8, 8)
    known[0, :, :4] = 1
    known[1] = UNKNOWN
    output = torch.zeros(2, 3, 8, 8, requires_grad=True)
    cost = free(output, batch_of(torch.zeros(2, 1, 8, 8), known))
    cost.backward()
    assert float(cost.detach()) == pytest.approx(math.log(2) / 2)  # nobody knows the other tile
    slope = output.grad[:, 2]
    assert bool((slope[0, :4] < 0).all() and (slope[0, 4:] > 0).all())
    assert float(slope[1].abs().sum()) == 0 == float(output.grad[:, :2].abs().sum())


@pytest.mark.parametrize("name", OUTPUT_LOSSES)
def test_losses_are_means_over_tiles_and_finite_at_the_start(name):
    torch.manual_seed(0)
    batch = batch_of(0.1 * torch.randn(3, 1, 16, 16), (torch.rand(3, 1, 16, 16) > 0.5).float())
    batch.weight[0, ..., :10] = 0.05
    output = torch.randn(3, 3, 16, 16)
    alone = [
        float(LOSSES[name](output[k : k + 1], Batch(*(t[k : k + 1] for t in batch))))
        for k in range(3)
    ]
    assert float(LOSSES[name](output, batch)) == pytest.approx(sum(alone) / 3, rel=1e-5)


class Stating(torch.nn.Module):
    """States `sd`, and tells free pixels by chance or by the raw tile."""

    def __init__(self, sd, knows):
        super().__init__()
        self.sd, self.knows = sd, knows

    def forward(self, x):
        told = x[:, :1] if self.knows else torch.randn_like(x[:, :1])
        return torch.cat([x[:, 1:2], 2 * math.log(self.sd) + 0 * told, told], 1)


@pytest.mark.parametrize(("knows", "auc"), [(True, 1.0), (False, 0.5)])
def test_validation_tells_coverage_and_how_well_free_pixels_are_told(knows, auc):
    torch.manual_seed(0)
    free_map = (torch.rand(8, 1, 64, 64) > 0.3).float()
    batch = batch_of(0.02 * torch.randn(8, 1, 64, 64) + 1, free_map)
    batch.inputs[:, :1] = free_map
    errors, told = split_figures(
        validate(Stating(0.02, knows), {"none": batch}, torch.device("cpu"))
    )
    assert set(errors) == {"none", "mean"} and errors["none"] == pytest.approx(0.02, rel=0.05)
    assert told["none_within_1_sd"] == pytest.approx(0.683, abs=0.03)
    assert told["none_within_2_sd"] == pytest.approx(0.954, abs=0.02)
    assert told["none_free_auc"] == pytest.approx(auc, abs=0.05)


def test_simulated_pairs_know_which_pixels_are_free():
    settings = ["network.field_px=32", "data.simulate_px=64", "data.pool_sessions=0", "batch=4"]
    pairs = SimulatedPairs(load_config("wide", [*settings, "data.pool_specimens=0"])).draw(0)
    assert pairs.free.shape == (4, 1, 32, 32) and set(pairs.free.unique().tolist()) == {0, 1}
    absorbed = pairs.log_raw - pairs.log_background
    assert float(absorbed[pairs.free > 0].abs().mean()) < float(absorbed.abs().mean())
    transmission = np.float32([[1.0, 0.998, 0.9, 1.004]])
    expected = free_of_sample(transmission)
    assert np.array_equal(free_truth(torch.from_numpy(transmission)).numpy() > 0, expected)


def test_fine_tuning_has_the_network_that_ships():
    shipped = load_model(resolve_model("default")).config
    assert load_config("fine-tune").network == shipped
