"""The command `models`, and what `correct` says of a model that does not fit."""

import json

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from napari_txm_bgcorr.cli import app
from napari_txm_bgcorr.errors import ConfigError, ModelError
from napari_txm_bgcorr.models.checkpoint import save_model
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.training.config import NetworkConfig

TINY = NetworkConfig(field_px=16, features=(4, 4))


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("TXM_BGCORR_MODELS", str(tmp_path / "own"))
    torch.manual_seed(2)
    save_model(
        tmp_path / "made.safetensors",
        build_generator(TINY),
        TINY,
        metrics={"validation_error_sf": {"none": 0.05, "mean": 0.04}},
        facts={"fits": {"level_counts": [5000, 9000], "dark": "removed"}, "limits": ["small"]},
    )
    return tmp_path / "made.safetensors"


def run(*words, **more):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False, **more)


def test_a_model_is_imported_shown_renamed_used_and_removed(made, tmp_path):
    assert "--model mine" in run("models", "import", made, "--name", "mine").output
    listed = json.loads(run("models", "list", "--json").output)
    names = {row["name"]: row for row in listed["models"]}
    assert names["default"]["shipped"] and not names["mine"]["shipped"]
    assert names["mine"]["error"] == 0.04 and "4.00 %" in run("models", "list").output
    shown = run("models", "show", "mine").output
    assert "5000, 9000" in shown and "small" in shown and "none: 5.00 %" in shown
    assert json.loads(run("models", "show", "mine", "--json").output)["limits"] == ["small"]
    run("models", "rename", "mine", "yours")
    tile = np.random.default_rng(0).poisson(60_000, (24, 24)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "raw.tif", tile)
    done = run(
        "correct", tmp_path / "raw.tif", "-o", tmp_path / "out", "--method", "generator",
        "--model", "yours", "--device", "cpu", "--json",
    )  # fmt: skip
    notes = json.loads(done.stdout)["results"][0]["notes"]
    assert any("model yours: trained at a level of 5000 to 9000 counts" in n for n in notes)
    assert any("dark images removed" in n for n in notes)
    assert "removed" in run("models", "remove", "yours", "--yes").output
    assert "yours" not in run("models", "list").output


def test_classical_methods_have_no_card_to_compare(made, tmp_path):
    tifffile.imwrite(tmp_path / "raw.tif", np.full((24, 24), 60_000, np.uint16))
    done = run(
        "correct", tmp_path / "raw.tif", "-o", tmp_path / "out", "--method", "smooth", "--json"
    )
    assert not any("trained" in n for n in json.loads(done.stdout)["results"][0]["notes"])


def test_removing_asks_first(made):
    run("models", "import", made)
    with pytest.raises(ConfigError, match="made: kept"):
        run("models", "remove", "made", input="n\n")
    assert "made" in run("models", "list").output


def test_export_writes_beside_the_card_and_refuses_the_shipped_name(made, tmp_path):
    done = json.loads(run("models", "export", made, tmp_path / "x.safetensors", "--json").output)
    assert done["file"].endswith("x.safetensors") and (tmp_path / "x.json").exists()
    with pytest.raises(ModelError, match="has that name already"):
        run("models", "import", made, "--name", "default")


def test_bench_train_refuses_slips_before_it_measures():
    with pytest.raises(ConfigError, match="--minutes-total"):
        run("bench", "train", "--minutes-total", "-1")
