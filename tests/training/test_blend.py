"""Blending with the first weights: only what is validated and exported, never the training."""

from __future__ import annotations

import json

import pytest
import torch

from napari_txm_bgcorr.models.checkpoint import load_model, save_model
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.models.tensors import Batch
from napari_txm_bgcorr.training.blend import WeightBlend
from napari_txm_bgcorr.training.data import pairs
from napari_txm_bgcorr.training.loop import run_training
from napari_txm_bgcorr.training.run.folder import RunFolder
from tests.training.toy import ToyPairs, toy_config


class Level(torch.nn.Module):
    """Predicts the prior plus a learned plane's height at one corner."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plane = torch.linspace(0, 1, x.shape[-1]).expand_as(x[:, :1])
        return x[:, 1:2] + self.value * plane


def target(slope: float) -> dict[str, Batch]:
    inputs = torch.zeros(2, 3, 8, 8)
    plane = torch.linspace(0, 1, 8).expand(2, 1, 8, 8)
    return {"none": Batch(inputs, slope * plane, *torch.ones(2, 2, 1, 8, 8))}


@pytest.mark.parametrize(("slope", "best"), [(1.4, 0.4), (2.1, 1.0), (1.6, 0.7)])
def test_the_share_with_the_least_error_is_taken(slope, best):
    network = Level(1.0)
    blend = WeightBlend(network, (0.4, 0.7, 1.0))
    with torch.no_grad():
        network.value.fill_(2.0)
    errors = blend.validate(network, target(slope), 4, step=1)
    assert blend.share == best
    assert network.value == 2.0
    mixed = blend.of(network)
    assert mixed.value.item() == pytest.approx(1 + best)
    tile = target(slope)["none"]
    again = float((mixed(tile.inputs) - tile.target).std().detach())
    assert errors["mean"] == pytest.approx(again, rel=0.1, abs=1e-4)


def test_the_cases_that_are_named_judge_where_there_are_any():
    cases = {"stale": target(1.4)["none"], "simulated-none": target(2.0)["none"]}
    for judged, best in ((("stale",), 0.4), (("simulated-none",), 1.0), (("pairs-stale",), None)):
        network = Level(1.0)
        blend = WeightBlend(network, (0.4, 0.7, 1.0), judged)
        with torch.no_grad():
            network.value.fill_(2.0)
        errors = blend.validate(network, cases, 4, step=1)
        assert best in (blend.share, None) and errors.keys() == {"stale", "simulated-none", "mean"}
        known = [errors[case] for case in judged if case in errors]
        assert errors["mean"] == pytest.approx(
            known[0] if known else sum(errors[c] for c in cases) / 2
        )


def test_without_shares_the_network_itself_is_exported():
    network = Level(1.0)
    blend = WeightBlend(network, ())
    assert blend.of(network) is network
    assert not blend.start
    blend.validate(network, target(1.0), 4, step=5)
    assert blend.share == 1.0


@pytest.fixture
def begun(tmp_path, monkeypatch):
    monkeypatch.setitem(pairs.PAIRS, "toy", ToyPairs)
    config = toy_config()
    torch.manual_seed(3)
    first = build_generator(config.network)
    save_model(tmp_path / "first.safetensors", first, config.network)
    return toy_config(init=str(tmp_path / "first.safetensors"), blend=(0.3, 0.6), lr=3e-3)


def test_what_is_exported_lies_between_and_the_card_says_where(begun, tmp_path):
    run_training(begun, tmp_path / "run", device="cpu")
    model = load_model(tmp_path / "run" / "model.safetensors")
    share = model.card["metrics"]["blend"]
    assert share in (0.3, 0.6)
    first = load_model(tmp_path / "first.safetensors").network.state_dict()
    held, _ = RunFolder(tmp_path / "run").newest()
    assert model.card["metrics"]["step"] == held["step"]
    for name, value in model.network.state_dict().items():
        assert torch.allclose(value, torch.lerp(first[name], held["average"][name], share))


def test_blending_leaves_the_training_alone(begun, tmp_path):
    states = []
    for name, config in (("with", begun), ("without", begun.model_copy(update={"blend": ()}))):
        run_training(config, tmp_path / name, device="cpu")
        states.append(RunFolder(tmp_path / name).newest()[0])
    for part in ("generator", "average"):
        for key, value in states[0][part].items():
            assert torch.equal(value, states[1][part][key])


def test_a_resumed_run_exports_the_same_blend(begun, tmp_path):
    class Stop(Exception):
        pass

    def stop(step):
        if step.step == 13:
            raise Stop

    run_training(begun, tmp_path / "whole", device="cpu")
    with pytest.raises(Stop):
        run_training(begun, tmp_path / "parted", device="cpu", on_step=stop)
    run_training(begun, tmp_path / "parted", resume=True, device="cpu")
    whole, parted = (tmp_path / name for name in ("whole", "parted"))
    assert (whole / "model.safetensors").read_bytes() == (
        parted / "model.safetensors"
    ).read_bytes()
    cards = [json.loads((run / "model.json").read_text()) for run in (whole, parted)]
    assert cards[0]["metrics"] == cards[1]["metrics"]
