"""Novelty: small for what a model was described with, large for anything else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.core.correction import TileResult
from napari_txm_bgcorr.errors import ModelError
from napari_txm_bgcorr.models import novelty
from napari_txm_bgcorr.models.checkpoint import load_model, save_model
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.models.novelty import (
    Features,
    Novelty,
    add_features,
    describe_features,
    unlike_training,
)
from napari_txm_bgcorr.simulation.acquisition import simulate_tile
from napari_txm_bgcorr.training.config import NetworkConfig

SIZE, TILES = 64, 12


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights whose card describes its features."""
    path = tmp_path_factory.mktemp("novelty") / "toy.safetensors"
    import torch

    torch.manual_seed(0)
    config = NetworkConfig(name="unet256", field_px=256, ngf=2)
    save_model(path, build_generator(config).eval(), config)
    patch = pytest.MonkeyPatch()
    patch.setattr(novelty, "AXES", 4)
    model = load_model(path)
    card = {**model.card, "features": describe_features(model, tiles=TILES, size=SIZE)}
    path.with_suffix(".json").write_text(json.dumps(card))
    patch.undo()
    return path


def tile(raw: np.ndarray) -> TileResult:
    image = raw.astype(np.float32)
    return TileResult(0, raw, image, image, np.ones(raw.shape, bool))


def test_training_tiles_lie_within_the_edge(described: Path):
    found = []
    for k in range(TILES):
        scan = simulate_tile(size=SIZE, seed=novelty.SEED * 1000 + k, darks=k % 2).scan
        found.append(Novelty(scan, str(described))(tile(np.asarray(scan.tiles[0]))))
    assert 0.8 < np.mean(np.array(found) <= 1.001) < 1
    assert np.median(found) > 0.2


def test_novelty_counts_spreads_along_the_axes(described: Path, monkeypatch):
    scan = simulate_tile(size=SIZE, seed=1).scan
    look = Novelty(scan, str(described))
    space = look._space
    for times in (0.0, 2.0, 20.0):
        far = space.mean + times * space.spread[0] * space.axes[0]
        monkeypatch.setattr(look, "_look", lambda raw, dark, far=far: far)
        wanted = times / np.sqrt(len(space.spread)) / space.edge
        assert look(tile(np.ones((SIZE, SIZE)))) == pytest.approx(wanted, rel=0.02, abs=1e-6)


def test_a_scan_is_unlike_the_training_if_most_tiles_are(described: Path, tmp_path, monkeypatch):
    scan = simulate_tile(size=SIZE, seed=novelty.SEED * 1000 + 1, darks=1).scan
    assert unlike_training(scan, str(described), "Model toy") == []
    three = replace(
        scan, kind="series", tiles=np.repeat(scan.tiles[:], 3, 0), names=("a", "b", "c")
    )
    for found, said in (([0.9, 1.24, 5.0], True), ([5.0, 0.9, 0.8], False)):
        values = iter(found)
        monkeypatch.setattr(Novelty, "of", lambda self, raw, values=values: next(values))
        sentences = unlike_training(three, str(described), "Model toy")
        assert [s[:50] for s in sentences] == [
            "Model toy: trained on images unlike these (novelty"
        ] * said
        assert not said or "1.2" in sentences[0]
    path = tmp_path / "toy.safetensors"
    path.write_bytes(described.read_bytes())
    card = json.loads(described.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, "features": None}))
    assert unlike_training(scan, str(path), "Model toy") == []  # it cannot tell


def test_brightness_is_nothing_new(described: Path):
    scan = simulate_tile(size=SIZE, seed=2).scan
    look = Novelty(scan, str(described))
    raw = np.asarray(scan.tiles[0]).astype(np.float32)
    assert look(tile(raw * 3)) == pytest.approx(look(tile(raw)), rel=1e-3)


def test_a_card_without_features_is_refused(described: Path, tmp_path: Path):
    scan = simulate_tile(size=SIZE, seed=1).scan
    path = tmp_path / "toy.safetensors"
    path.write_bytes(described.read_bytes())
    card = json.loads(described.with_suffix(".json").read_text())
    for features, message in (
        (None, "does not describe features"),
        ({**card["features"], "axes": "AAAA"}, "cannot be read"),
        ({"mean": "AAAAAA=="}, "cannot be read"),
    ):
        path.with_suffix(".json").write_text(json.dumps({**card, "features": features}))
        with pytest.raises(ModelError, match=message):
            Novelty(scan, str(path))


def test_adding_features_leaves_all_else(described: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(novelty, "describe_features", lambda model, tiles: {"tiles": tiles})
    path = tmp_path / "toy.safetensors"
    path.write_bytes(described.read_bytes())
    card = json.loads(described.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card))
    assert add_features(path, tiles=7) == path
    after = json.loads(path.with_suffix(".json").read_text())
    assert after == {**card, "features": {"tiles": 7}}
    assert path.read_bytes() == described.read_bytes()


def test_features_are_of_the_coarsest_layer(described: Path):
    model = load_model(described)
    found = Features(model)(np.full((SIZE, SIZE), 500, np.uint16), None)
    assert found.ndim == 1 and np.isfinite(found).all()
    with pytest.raises(ModelError, match="too few"):
        describe_features(model, tiles=3)
