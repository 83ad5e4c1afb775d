"""A generator's coarse backgrounds: those of the whole ones, for less."""

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.core.mosaic import Joint
from napari_txm_bgcorr.core.overview import bin_mean, survey
from napari_txm_bgcorr.core.own_backgrounds import CoarseMethod, OwnBackgrounds
from napari_txm_bgcorr.core.simulate import simulate_mosaic
from napari_txm_bgcorr.engine.checkpoint import save_model
from napari_txm_bgcorr.engine.config import NetworkConfig
from napari_txm_bgcorr.engine.networks import build_generator
from napari_txm_bgcorr.engine.predict import Generator

SIZE, FIELD = 128, 64


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "blank.safetensors"
    config = NetworkConfig(field_px=FIELD, features=(8, 8))
    torch.manual_seed(2)
    save_model(path, build_generator(config), config, metrics={})
    return str(path)


class Bent(Generator):
    """Changes its prior smoothly, by a tenth, and by its tile's contrast."""

    calls = 0

    def _forward(self, x):
        self.calls += 1
        axis = torch.linspace(-1, 1, FIELD)
        bend = 0.1 * axis[:, None] * axis**2 + 0.05 * x[:, :1].std() * axis
        return x[:, 1:2] + bend


@pytest.fixture(scope="module")
def scan():
    return simulate_mosaic(3, 3, size=SIZE, references=2, darks=1, seed=4).scan


@pytest.mark.parametrize("prior", ["none", "reference", "tile-median"])
def test_cells_are_means_of_the_whole_log_background(model, scan, prior):
    method = Bent(model, "cpu", prior).fit(scan)
    assert isinstance(method, CoarseMethod)
    for i in (0, 5):
        whole = method.background(scan.tiles[i][None], np.array([i]))[0] - scan.dark()
        for cell in (2, 4, 8):
            cells = method.background_cells(scan.tiles[i], i, cell)
            assert cells.dtype == np.float32
            np.testing.assert_allclose(cells, bin_mean(np.log(whole), cell), atol=2e-3)


@pytest.mark.parametrize(("shape", "cell"), [((128, 96), 4), ((100, 100), 4), ((128, 128), 3)])
def test_cells_that_do_not_fit_are_refused(model, scan, shape, cell):
    method = Bent(model, "cpu", "none").fit(scan)
    assert method.background_cells(np.ones(shape, np.float32), 0, cell) is None


def test_a_scan_is_predicted_once_a_tile_and_coarse_answers_change_little(model, scan):
    method = Bent(model, "cpu", "none").fit(scan)
    whole = survey(scan, np.stack([OwnBackgrounds(scan, method)[i] for i in range(len(scan))]))
    method.calls = 0
    coarse = survey(scan, OwnBackgrounds(scan, method))
    assert method.calls == len(scan)
    np.testing.assert_allclose(coarse.rest, whole.rest, atol=2e-3)
    assert np.array_equal(coarse.shape, whole.shape)


def test_most_tiles_are_asked_for_cells_only(model, scan, monkeypatch):
    monkeypatch.setattr("napari_txm_bgcorr.core.overview.MAX_SHARED", 4)
    method = Bent(model, "cpu", "none")
    asked = []
    whole = method.background
    monkeypatch.setattr(method, "background", lambda t, i=None: asked.append(i) or whole(t, i))
    Joint(method).fit(scan)
    assert len(asked) == 4
