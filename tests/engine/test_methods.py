import subprocess
import sys

import numpy as np
import pytest

from napari_txm_bgcorr.core.classical import CLASSICAL
from napari_txm_bgcorr.core.errors import MethodError
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
