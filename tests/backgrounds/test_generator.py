from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.backgrounds import generator as predict
from napari_txm_bgcorr.backgrounds.generator import Generator
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.errors import DeviceError, MethodError, ModelError
from napari_txm_bgcorr.models import devices
from napari_txm_bgcorr.models.checkpoint import save_model
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.training.config import NetworkConfig

SIZE = 48
CONFIG = NetworkConfig(field_px=32, features=(8, 8))


def beam(seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    a, b = rng.normal(0, 0.1, 2)
    return (8000 * np.exp(a * x + b * y - 0.1 * (x * x + y * y))).astype(np.float32)


def scan_of(count, seed=0, **facts):
    rng = np.random.default_rng(seed)
    tiles = beam(seed) * np.exp(0.01 * rng.standard_normal((count, SIZE, SIZE)))
    for tile in tiles:
        y, x = rng.integers(0, SIZE - 12, 2)
        tile[y : y + 12, x : x + 12] *= 0.5
    names = tuple(f"t{i}" for i in range(count))
    kind = "single" if count == 1 else "series"
    source = Source(Path("made.tif"), "test")
    return Scan(tiles.astype(np.float32), kind, source, names, **facts)


def save(path, scramble):
    torch.manual_seed(2)
    network = build_generator(CONFIG)
    if scramble:
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.1)
    save_model(path, network, CONFIG, metrics={"validation_error_sf": {"none": 0.04}})
    return str(path)


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    """A model whose last layer is zero: it gives the level alone."""
    return save(tmp_path_factory.mktemp("m") / "blank.safetensors", scramble=False)


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    """A model with random weights: every input changes its result."""
    return save(tmp_path_factory.mktemp("m") / "wild.safetensors", scramble=True)


def test_a_zero_network_gives_the_median_level(blank):
    scan = scan_of(1)
    got = Generator(blank, "cpu").fit(scan).background(scan.tiles)
    assert got.shape == (1, SIZE, SIZE) and got.dtype == np.float32
    assert got.std() < 1 and got.mean() == pytest.approx(np.median(scan.tiles), rel=0.02)


def test_a_known_dark_is_taken_off_and_put_back(wild):
    scan = scan_of(1)
    bare = Generator(wild, "cpu").fit(scan).background(scan.tiles)
    dark = np.full((1, SIZE, SIZE), 2000, np.float32)
    lifted = replace(scan, tiles=scan.tiles + 2000, darks=dark)
    got = Generator(wild, "cpu").fit(lifted).background(lifted.tiles)
    np.testing.assert_allclose(got - 2000, bare, rtol=2e-3)


def test_nothing_but_the_tile_decides(wild):
    """No reference and no other tile: those are the drift model's."""
    scan = scan_of(6)
    alone = Generator(wild, "cpu").fit(scan_of(1)).background(scan.tiles[2:3])
    told = Generator(wild, "cpu").fit(replace(scan, flats=beam(3)[None]))
    np.testing.assert_array_equal(told.background(scan.tiles, np.arange(6))[2:3], alone)
    facts = told.describe()
    assert facts["device"] == "cpu" and len(facts["weights_sha256"]) == 64
    assert "prior" not in facts


def test_wrong_models_and_batches_are_told(wild):
    with pytest.raises(ModelError, match="no such model"):
        Generator("nowhere", "cpu")
    with pytest.raises(MethodError, match="batch 0"):
        Generator(wild, "cpu", batch=0)


def test_result_does_not_depend_on_grouping_and_repeats_exactly(wild):
    scan = scan_of(6)
    method = Generator(wild, "cpu").fit(scan)
    index = np.arange(6)
    whole = method.background(scan.tiles, index)
    again = Generator(wild, "cpu").fit(scan).background(scan.tiles[::-1], index[::-1])[::-1]
    alone = np.concatenate(
        [method.background(scan.tiles[i : i + 1], index[i : i + 1]) for i in index]
    )
    assert np.array_equal(whole, alone) and np.array_equal(whole, again)
    assert np.isfinite(whole).all() and (whole > 0).all()


def test_gain_of_a_tile_is_gain_of_its_background(wild):
    scan = scan_of(1)
    method = Generator(wild, "cpu").fit(scan)
    one, three = method.background(scan.tiles), method.background(3 * scan.tiles)
    np.testing.assert_allclose(three, 3 * one, rtol=1e-4)


def test_batch_is_halved_when_memory_runs_out(wild):
    scan = scan_of(9)
    method = Generator(wild, "cpu").fit(scan)
    expected = method.background(scan.tiles)
    method.batch = 8  # as on a GPU
    real, sizes = method._outputs, []

    def small_memory(x):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(x)

    method._outputs = small_memory
    with pytest.warns(RuntimeWarning, match="out of memory; going on with [42] tiles") as warned:
        got = method.background(scan.tiles)
    assert len(warned) == 2 and sizes == [8, 4, 2, 2, 2, 2, 1]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_too_little_memory_for_one_tile_is_an_error_in_one_line(wild):
    scan = scan_of(1)
    method = Generator(wild, "cpu").fit(scan)

    def none_left(x):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore\nlines")

    method._outputs = none_left
    with pytest.raises(DeviceError, match=r"device cpu: out of memory \(CUDA out of memory") as e:
        method.background(scan.tiles)
    assert "\n" not in str(e.value)


def test_a_failing_device_is_named(wild):
    method = Generator(wild, "cpu").fit(scan_of(1))

    def broken(x):
        raise RuntimeError("CUDA error: an illegal memory access")

    method._outputs = broken
    with pytest.raises(DeviceError, match="device cpu: computing failed"):
        method.background(scan_of(1).tiles)


def test_weights_stay_resident_until_released(wild):
    one, two = Generator(wild, "cpu"), Generator(wild, "cpu")
    assert one._network is two._network
    predict.release()
    assert Generator(wild, "cpu")._network is not one._network


def test_the_cpu_is_always_a_device_and_others_must_exist():
    names = [d.name for d in devices.list_devices()]
    assert names[-1] == "cpu" and devices.choose_device("auto") == names[0]
    assert all(d.label and d.memory_gb > 0 for d in devices.list_devices())
    with pytest.raises(DeviceError, match=r"device cuda:99: not on this machine; choose .*cpu"):
        devices.choose_device("cuda:99")
