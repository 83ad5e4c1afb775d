"""Models judged side by side, and one of them put where the package ships it."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_txm_bgcorr.models.checkpoint import load_model, read_card, save_model
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.training.config import NetworkConfig

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TXM_BGCORR_DATA", ROOT.parent / "shared" / "data"))
SMALL = """
network: {field_px: 32}
data: {simulate_px: 32}
"""


def script(place):
    spec = importlib.util.spec_from_file_location(Path(place).stem, ROOT / place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(tmp_path):
    config = NetworkConfig(field_px=32, features=(8, 8), probabilistic=True)
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    save_model(path, build_generator(config), config, metrics={"validation_error_sf": {}})
    return str(path)


@pytest.fixture
def data(tmp_path):
    """A flat beam, an image of it that a network without any correction gets right, and a case."""
    rng = np.random.default_rng(0)
    beam = np.full((64, 64), 8000) + rng.integers(-50, 50, (64, 64))
    tifffile.imwrite(tmp_path / "truth.tif", beam.astype(np.uint16))
    case = {"name": "lab one", "tiles": ["truth.tif"], "truth": ["truth.tif"]}
    other = {**case, "references": ["truth.tif"], "name": "not judged"}
    (tmp_path / "real_cases.json").write_text(json.dumps([case, other]))
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


def test_every_model_has_a_row(model, data, capsys):
    judge = script("benchmarks/judge_checkpoint.py")
    arguments = [model, model, "--data", str(data), "--sessions", "1"]
    rows = judge.main([*arguments, "--preset", str(data / "small.yaml")])
    assert len(rows) == 2 and rows[0] == rows[1]
    assert rows[0]["lab error"] == rows[0]["worst"] < 1
    assert {"seen none", "unseen stale", "seen within 2 sd", "seen free AUC"} <= set(rows[0])
    assert 0 <= rows[0]["real within 1 sd"] <= rows[0]["real within 2 sd"] <= 100
    assert capsys.readouterr().out.count("\n") == 4


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA}: real data are not there")
def test_the_shipped_model_on_real_single_images():
    """Nine images with nothing given; the figures that `real_suite` has for `auto`."""
    judge = script("benchmarks/judge_checkpoint.py")
    row = judge.judge("default", judge.single_cases(DATA), {})
    assert row["bl01b error"] < 8.5 and row["aps error"] < 8.5


def test_a_shipped_model_is_half_precise_and_tells_its_figures(model, tmp_path):
    figures = tmp_path / "rows.json"
    figures.write_text(json.dumps({"before": {}, model: {"aps error": 5.0}}))
    out = tmp_path / "out.safetensors"
    arguments = [model, "--notes", "made by a test", "--figures", str(figures), "--tiles", "64"]
    script("tools/ship_model.py").main([*arguments, "--out", str(out)])
    card = read_card(out)
    assert card["dtype"] == "float16" and card["notes"] == "made by a test"
    assert card["metrics"]["judged"] == {"aps error": 5.0} and card["features"]["tiles"] == 64
    assert load_model(out).config == load_model(Path(model)).config
