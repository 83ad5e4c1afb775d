"""What the generator tells of a tile without a prior: background, uncertainty, free pixels."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.backgrounds.generator import Generator, Prediction
from napari_txm_bgcorr.core.smooth_fields import Coarse
from napari_txm_bgcorr.models.checkpoint import load_model, save_model
from napari_txm_bgcorr.models.export.graph import BlindBackground
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.training.config import NetworkConfig
from tests.backgrounds.test_generator import scan_of

CONFIG = NetworkConfig(
    name="subpixel4-unet", field_px=32, features=(8, 8), scaled=True, probabilistic=True
)
CARD = {"metrics": {"validation_error_sf": {"none": 0.04}}}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Weights files of wild networks, with and without the outputs."""
    found = {}
    for probabilistic in (True, False):
        config = CONFIG.model_copy(update={"probabilistic": probabilistic})
        torch.manual_seed(3)
        network = build_generator(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        path = tmp_path_factory.mktemp("m") / "wild.safetensors"
        save_model(path, network, config, **CARD)
        found[probabilistic] = str(path)
    return found


@pytest.fixture(scope="module")
def scan():
    dark = np.full((1, 48, 48), 300, np.float32)
    made = scan_of(2)
    return dataclasses.replace(made, tiles=made.tiles + dark, darks=dark)


@pytest.mark.parametrize("probabilistic", [True, False])
def test_the_background_is_that_without_a_prior(models, scan, probabilistic):
    method = Generator(models[probabilistic], "cpu").fit(scan)
    found = method.predict(scan.tiles, np.arange(2))
    assert isinstance(found, Prediction)
    expected = np.log(method.background(scan.tiles) - scan.dark())
    np.testing.assert_allclose(found.log_background, expected, atol=1e-4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.free = None


@pytest.mark.parametrize("probabilistic", [True, False])
def test_one_look_tells_backgrounds_and_what_else_the_network_sees(models, scan, probabilistic):
    method = Generator(models[probabilistic], "cpu").fit(scan)
    found = method.predict_tiles(scan.tiles)
    np.testing.assert_allclose(found.background, method.background(scan.tiles), rtol=1e-4)
    if not probabilistic:
        assert found.free is None and found.sd is None
        return
    told = method.predict(scan.tiles)
    np.testing.assert_array_equal(found.free, told.free)
    np.testing.assert_allclose(found.sd, np.exp(told.log_sd), rtol=1e-6)


def test_uncertainty_and_probability_are_told_for_every_pixel(models, scan):
    found = Generator(models[True], "cpu").fit(scan).predict(scan.tiles)
    assert found.log_sd.shape == found.free.shape == scan.tiles.shape
    assert found.log_sd.dtype == found.free.dtype == np.float32
    assert 0 < found.free.min() < found.free.max() < 1 and np.ptp(found.log_sd) > 0


def test_a_network_that_states_none_has_its_cards_error(models, scan):
    found = Generator(models[False], "cpu").fit(scan).predict(scan.tiles)
    np.testing.assert_allclose(np.exp(found.log_sd), 0.04, rtol=1e-5)
    assert found.free is None
    cells = Generator(models[False], "cpu").fit(scan).predict_cells(scan.tiles[0])
    assert cells.free is None and np.exp(cells.log_sd[0, 0]) == pytest.approx(0.04)


@pytest.mark.parametrize(("shape", "cell"), [((64, 64), 8), ((32, 32), 4), ((52, 77), 8)])
def test_cells_are_means_over_the_tile(models, shape, cell):
    tile = 5000 + 500 * np.random.default_rng(0).random(shape, np.float32)
    method = Generator(models[True], "cpu")
    fine, cells = method.predict(tile[None]), method.predict_cells(tile, cell)
    size = (shape[0] // cell, shape[1] // cell)
    assert cells.log_background.shape == cells.log_sd.shape == cells.free.shape == size
    grid = Coarse(shape, cell=(cell, cell))
    np.testing.assert_allclose(cells.log_background, grid.mean(fine.log_background[0]), atol=0.03)
    np.testing.assert_allclose(cells.free, grid.mean(fine.free[0]), atol=0.03)
    variance = grid.mean(np.exp(2 * fine.log_sd[0]))
    np.testing.assert_allclose(np.exp(2 * cells.log_sd), variance, rtol=0.1)


def test_dark_is_removed_from_cells_and_tiles_alike(models, scan):
    method = Generator(models[True], "cpu").fit(scan)
    bare = dataclasses.replace(scan, tiles=scan.tiles - scan.dark(), darks=None)
    without = Generator(models[True], "cpu").fit(bare)
    for name in ("log_background", "log_sd", "free"):
        one = getattr(method.predict_cells(scan.tiles[1], 4), name)
        other = getattr(without.predict_cells(bare.tiles[1], 4), name)
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_bits_do_not_depend_on_threads(models, scan):
    method = Generator(models[True], "cpu").fit(scan)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((method.predict(scan.tiles), method.predict_cells(scan.tiles[0])))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            for name in ("log_background", "log_sd", "free"):
                assert np.array_equal(getattr(one, name), getattr(same, name))


def test_the_exported_graph_gives_the_background_alone_and_says_so(models, scan):
    from napari_txm_bgcorr.models.card import left_out

    counts = torch.from_numpy(scan.tiles - scan.dark())[:, None]
    for probabilistic, path in models.items():
        model = load_model(Generator(path, "cpu").model.path)
        with torch.inference_mode():
            graph = BlindBackground(model.network, 32)(counts)
        expected = Generator(path, "cpu").fit(scan).predict(scan.tiles).log_background
        np.testing.assert_allclose(graph[:, 0].log().numpy(), expected, atol=1e-3)
        assert ("background alone" in left_out(model.card)) == probabilistic


def test_the_card_tells_how_the_uncertainty_holds(tmp_path, monkeypatch):
    from napari_txm_bgcorr.training.data import pairs
    from napari_txm_bgcorr.training.loop import run_training
    from tests.training.toy import ToyPairs, toy_config

    monkeypatch.setitem(pairs.PAIRS, "toy", ToyPairs)
    network = NetworkConfig(field_px=32, features=(8, 8), probabilistic=True)
    weights = {"l1": 1.0, "likelihood": 0.05, "free": 0.1}
    run_training(
        toy_config(network=network, loss_weights=weights, steps=10, likelihood_start=0.5),
        tmp_path / "run",
        device="cpu",
    )
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    told = card["metrics"]["calibration"]
    assert {"none_within_1_sd", "none_within_2_sd", "none_free_auc"} <= set(told)
    assert set(card["metrics"]["validation_error_sf"]) == {"none", "stale", "stale_prior", "mean"}
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["losses"] for line in lines if json.loads(line)["losses"]]
    assert "likelihood" not in losses[0] and "likelihood" in losses[-1] and "free" in losses[0]
    assert "calibration" in json.loads(lines[-1])
