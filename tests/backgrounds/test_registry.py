import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.backgrounds.registry import METHODS, make_method, method_names
from napari_txm_bgcorr.backgrounds.smooth import CLASSICAL, Captured
from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.models.checkpoint import save_model
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic
from napari_txm_bgcorr.training.config import NetworkConfig
from tests.backgrounds.test_generator import beam, scan_of

TINY = NetworkConfig(field_px=32, features=(8, 8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "tiny.safetensors"
    save_model(path, build_generator(TINY), TINY)
    return str(path)


def test_the_table_is_the_learned_and_all_classical_methods():
    assert method_names()[:2] == ["auto", "generator"]
    assert set(method_names()) == {"auto", "generator", *CLASSICAL}


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_follows_the_protocol(name, model):
    parameters = {"model": model, "device": "cpu"} if name in ("auto", "generator") else {}
    flats = np.stack([beam(), beam() * 1.1, beam(2)])
    scan = scan_of(6, flats=flats)
    method = make_method(name, **parameters).fit(scan)
    got = method.background(scan.tiles[:2], np.arange(2))
    assert method.name == name
    assert got.shape == (2, *scan.tiles.shape[1:]) and got.dtype == np.float32
    assert np.isfinite(got).all() and (got > 0).all()
    assert isinstance(method.describe(), dict)


def test_auto_starts_from_references_where_any_fit(model):
    scan = scan_of(6, flats=beam()[None])
    auto = make_method("auto", joint=False, model=model, device="cpu").fit(scan)
    index = np.arange(6)
    np.testing.assert_array_equal(
        auto.background(scan.tiles, index), Captured().fit(scan).background(scan.tiles, index)
    )
    assert auto.describe()["prior"] == "references"
    assert auto.knows_drift and auto.workers == 1


def test_auto_starts_from_the_generator_where_none_do(model):
    other = {"energy_ev": 9000.0, "flat_energies_ev": np.array([8000.0])}
    for scan in (scan_of(6), scan_of(6, flats=beam()[None], **other)):
        auto = make_method("auto", joint=False, model=model, device="cpu").fit(scan)
        alone = make_method("generator", model=model, device="cpu").fit(scan)
        index = np.arange(6)
        np.testing.assert_array_equal(
            auto.background(scan.tiles, index), alone.background(scan.tiles, index)
        )
        told = auto.describe()
        assert told["prior"] == "generator" and not auto.knows_drift
    assert any("8000 eV" in note for note in told["notes"])


def test_auto_can_be_fitted_to_one_scan_after_another(model):
    """References of the first are none of the second."""
    auto = make_method("auto", joint=False, model=model, device="cpu")
    assert auto.fit(scan_of(3, flats=beam()[None])).describe()["prior"] == "references"
    told = auto.fit(scan_of(3)).describe()
    assert told["prior"] == "generator" and "references" not in told


def test_none_stands_for_the_default():
    assert make_method("smooth", sigma=None).describe() == make_method("smooth").describe()


@pytest.mark.parametrize(
    ("name", "parameters", "match"),
    [
        ("magic", {}, r"method 'magic': unknown; choose one of auto, generator"),
        ("smooth", {"colour": 1}, r"method smooth: .*colour.*; its parameters are sigma"),
        ("generator", {"colour": 1}, r"method generator: .*colour.*; its parameters are model"),
    ],
)
def test_wrong_names_and_parameters_are_told(name, parameters, match):
    with pytest.raises(MethodError, match=match):
        make_method(name, **parameters)


def test_naming_the_methods_loads_no_torch():
    code = (
        "import sys; from napari_txm_bgcorr.backgrounds.registry import make_method, method_names;"
        "method_names(); make_method('smooth');"
        "sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def mosaic(side=2, size=64):
    drawn = simulate_mosaic(side, side, size=size, seed=2, references=1, reference_hours=8.0)
    return replace(drawn.scan, tiles=np.asarray(drawn.scan.tiles[:]))


@pytest.mark.parametrize("count", [1, 3])
def test_auto_solves_for_the_whole_scan_and_can_be_told_not_to(model, count):
    """Also for single images and series."""
    scan = scan_of(count)
    auto, bare = (
        make_method("auto", joint=joint, model=model, device="cpu").fit(scan)
        for joint in (None, False)
    )
    index = np.arange(count)
    whole, alone = (m.background(scan.tiles, index) for m in (auto, bare))
    assert isinstance(auto, DriftModel) and auto.name == bare.name == "auto"
    assert isinstance(auto, BackgroundMethod)
    assert auto.describe()["prior"] == "generator" and "joint" in auto.describe()
    assert not np.array_equal(whole, alone)
    assert not isinstance(bare, DriftModel) and "joint" not in bare.describe()


def test_auto_of_a_mosaic_is_told_in_full(model):
    scan = mosaic()
    auto = make_method("auto", model=model, device="cpu").fit(scan)
    told = auto.describe()
    stage = told["joint"]
    assert told["prior"] == "references" and told["method"] == "auto"
    assert stage["pairs"] == 4 and stage["registration"]
    assert stage["level"]["from"] in ("empty areas", "references")
    assert len(stage["level_errors"]) == len(stage["free_share"]) == 4
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize("name", ["captured", "smooth", "envelope", "tile-median"])
def test_every_method_can_be_joined(name):
    scan = mosaic(3)
    method = make_method(name, joint=True).fit(scan)
    told = method.describe()["joint"]
    assert method.name == f"{name}+joint"
    assert told["pairs"] == 12
    # only references tell a level
    assert (told["prior"]["level_sd"] is not None) == (name == "captured")
    assert all(0 <= share <= 1 for share in told["free_share"])
    json.dumps(told)


def test_i0_needs_the_joint_stage():
    with pytest.raises(MethodError, match="only the joint stage uses it"):
        make_method("smooth", i0=900.0)
    assert make_method("smooth", joint=True, i0=900.0).i0 == 900.0
