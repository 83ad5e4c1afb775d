import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.core.classical import CLASSICAL
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.mosaic import Joint
from napari_txm_bgcorr.core.simulate import simulate_mosaic
from napari_txm_bgcorr.engine.checkpoint import save_model
from napari_txm_bgcorr.engine.config import NetworkConfig
from napari_txm_bgcorr.engine.methods import METHODS, make_method, method_names
from napari_txm_bgcorr.engine.networks import build_generator
from tests.engine.test_predict import beam, scan_of

TINY = NetworkConfig(field_px=32, features=(8, 8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "tiny.safetensors"
    save_model(path, build_generator(TINY), TINY)
    return str(path)


def test_the_table_is_the_learned_and_all_classical_methods():
    assert method_names()[:2] == ["auto", "generator"]
    assert set(method_names()) == {"auto", "generator", *CLASSICAL}


@pytest.mark.parametrize("name", [n for n in METHODS if n != "basic"])
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


def test_auto_is_the_generator_with_the_best_prior(model):
    scan = scan_of(6, flats=beam()[None])
    auto = make_method("auto", model=model, device="cpu").fit(scan)
    generator = make_method("generator", model=model, device="cpu", prior="reference").fit(scan)
    np.testing.assert_array_equal(auto.background(scan.tiles), generator.background(scan.tiles))


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
        "import sys; from napari_txm_bgcorr.engine.methods import make_method, method_names;"
        "method_names(); make_method('smooth');"
        "sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def mosaic(side=2, size=64):
    drawn = simulate_mosaic(side, side, size=size, seed=2, references=1, reference_hours=8.0)
    return replace(drawn.scan, tiles=np.asarray(drawn.scan.tiles[:]))


def test_auto_refines_a_mosaic_and_can_be_told_not_to(model):
    scan = mosaic()
    auto, bare, generator = (
        make_method(name, joint=joint, model=model, device="cpu").fit(scan)
        for name, joint in (("auto", None), ("auto", False), ("generator", None))
    )
    index = np.arange(4)
    whole, alone = (m.background(scan.tiles, index) for m in (auto, bare))
    assert isinstance(auto, Joint) and auto.name == "auto" and auto.reason == ""
    assert auto.describe()["joint"]["applied"]
    assert not np.array_equal(whole, alone)
    assert not isinstance(bare, Joint) and "joint" not in bare.describe()
    np.testing.assert_array_equal(alone, generator.background(scan.tiles, index))


def test_auto_on_a_single_tile_is_the_generator(model):
    scan = scan_of(1)
    auto = make_method("auto", model=model, device="cpu").fit(scan)
    bare = make_method("generator", model=model, device="cpu").fit(scan)
    index = np.arange(1)
    np.testing.assert_array_equal(
        auto.background(scan.tiles, index), bare.background(scan.tiles, index)
    )
    assert not auto.describe()["joint"]["applied"]


@pytest.mark.parametrize("name", ["captured", "smooth", "envelope", "tile-median"])
def test_every_method_can_be_joined(name):
    scan = mosaic(3)
    method = make_method(name, joint=True).fit(scan)
    told = method.describe()["joint"]
    assert method.name == f"{name}+joint"
    assert told["applied"] != bool(told["reason"])
    assert told["pairs"] == 12
    json.dumps(told)


def test_i0_needs_the_joint_stage():
    with pytest.raises(MethodError, match="only the joint stage uses it"):
        make_method("smooth", i0=900.0)
    assert make_method("smooth", joint=True, i0=900.0).i0 == 900.0


def test_a_tomogram_without_references_has_no_median(model):
    """Its specimen never leaves the field."""
    scan = replace(mosaic(3), kind="series", grid=None, positions_px=None, flats=None,
                   flat_times=None)  # fmt: skip
    bare = make_method("auto", joint=False, model=model, device="cpu").fit(scan)
    assert bare.describe()["prior"] == "none"
