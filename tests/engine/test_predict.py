from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from napari_txm_bgcorr.engine.priors import (
    expected_drift,
    log_counts,
    predicted_median,
    reference_prior,
    shared_error,
    spread_indices,
)

from napari_txm_bgcorr.core.errors import DeviceError, MethodError, ModelError
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.engine import devices, predict
from napari_txm_bgcorr.engine.checkpoint import save_model
from napari_txm_bgcorr.engine.config import NetworkConfig
from napari_txm_bgcorr.engine.networks import build_generator
from napari_txm_bgcorr.engine.predict import Generator

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
    """A model whose last layer is zero: it gives its prior back."""
    return save(tmp_path_factory.mktemp("m") / "blank.safetensors", scramble=False)


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    """A model with random weights: every input changes its result."""
    return save(tmp_path_factory.mktemp("m") / "wild.safetensors", scramble=True)


def scale_free(a, b):
    d = np.log(a / b)
    return float(np.std(d - np.median(d)))


def test_a_zero_network_returns_the_reference_at_its_own_level(blank):
    flat = beam(3) * 1.1
    scan = scan_of(3, flats=flat[None])
    got = Generator(blank, "cpu", "reference").fit(scan).background(scan.tiles)
    for image in got:
        ratio = image / np.exp(log_counts(flat, None))
        assert np.ptp(ratio) < 1e-5 and ratio.mean() == pytest.approx(1, abs=1e-5)


def test_a_median_over_tiles_is_brought_to_the_empty_level(blank):
    scan = scan_of(9)
    got = Generator(blank, "cpu", "tile-median").fit(scan).background(scan.tiles)
    for image in got:
        # the specimens halve a part of each tile, and do not pull its level down
        assert float(np.median(image / beam())) == pytest.approx(1, rel=0.01)


def test_a_zero_network_without_prior_gives_the_median_level(blank):
    scan = scan_of(1)
    got = Generator(blank, "cpu", "none").fit(scan).background(scan.tiles)
    assert got.shape == (1, SIZE, SIZE) and got.dtype == np.float32
    assert got.std() < 1 and got.mean() == pytest.approx(np.median(scan.tiles), rel=0.02)


def test_known_dark_is_taken_off_and_put_back(blank):
    dark = np.full((1, SIZE, SIZE), 2000, np.float32)
    scan = scan_of(1, flats=beam()[None] + 2000, darks=dark)
    scan = replace(scan, tiles=scan.tiles + 2000)
    got = Generator(blank, "cpu", "reference").fit(scan).background(scan.tiles)
    assert scale_free(got - 2000, beam()[None]) < 2e-3
    assert got.min() > 2000


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


class Contested(Generator):
    """Another thread keeps its own prior right after this one did."""

    def __setattr__(self, name, value):
        if name == "_last" and value is not None:
            value = (np.zeros((1, 1), np.float32), torch.zeros(1))
        super().__setattr__(name, value)


def test_a_tile_gets_its_own_prior_however_threads_meet(wild):
    layer = np.log(beam(3)).astype(np.float32)
    own = Generator(model=str(wild), device="cpu")._coarse(layer)
    assert torch.equal(Contested(model=str(wild), device="cpu")._coarse(layer), own)


def test_gain_of_a_tile_is_gain_of_its_background(wild):
    scan = scan_of(1)
    method = Generator(wild, "cpu", "none").fit(scan)
    one, three = method.background(scan.tiles), method.background(3 * scan.tiles)
    np.testing.assert_allclose(three, 3 * one, rtol=1e-4)


@pytest.mark.parametrize(
    ("count", "flats", "kind"),
    [
        (1, True, "reference"),
        (8, True, "reference"),
        (8, False, "shared"),
        (2, False, "shared"),
    ],
)
def test_auto_takes_the_best_prior_at_hand(wild, count, flats, kind):
    scan = scan_of(count, flats=beam()[None] if flats else None)
    scan = scan if flats else replace(scan, kind="mosaic", grid=(1, count))
    facts = Generator(wild, "cpu").fit(scan).describe()
    assert facts["prior"] == kind and facts["device"] == "cpu"
    assert len(facts["weights_sha256"]) == 64
    assert (facts["prior_error"] is None) == (kind == "none")


@pytest.mark.parametrize(("stated", "kind"), [(0.03, "none"), (0.045, "reference")])
def test_a_reference_worse_than_the_network_alone_is_left_aside(blank, stated, kind):
    """Two months: 9 % expected, 5.5 % as nothing is seen of it, of which three quarters stay.

    The card says what the network reaches without a prior.
    """
    taken = np.datetime64("2024-03-01T00:00:00")
    scan = replace(
        scan_of(1, flats=beam()[None]),
        times=np.array([taken]),
        flat_times=np.array([taken - np.timedelta64(60, "D")]),
    )
    method = Generator(blank, "cpu")
    stated_card = {**method.model.card, "metrics": {"validation_error_sf": {"none": stated}}}
    method.model = replace(method.model, card=stated_card)
    assert method.fit(scan).describe()["prior"] == kind
    asked_for = Generator(blank, "cpu", "reference")
    asked_for.model = method.model
    assert asked_for.fit(scan).describe()["prior"] == "reference"


def test_priors_that_cannot_be_had_are_refused(wild):
    with pytest.raises(MethodError, match="no references"):
        Generator(wild, "cpu", "reference").fit(scan_of(8))
    with pytest.raises(MethodError, match="needs 3 tiles or more, there are 2"):
        Generator(wild, "cpu", "tile-median").fit(scan_of(2))
    with pytest.raises(MethodError, match="prior 'best': unknown"):
        Generator(wild, "cpu", "best")
    with pytest.raises(ModelError, match="no such model"):
        Generator("nowhere", "cpu")


@pytest.mark.parametrize("kind", ["tile-median", "predicted-median"])
def test_median_over_tiles_recovers_the_shared_background(blank, kind):
    scan = scan_of(15)
    got = Generator(blank, "cpu", kind).fit(scan).background(scan.tiles[:3], np.arange(3))
    for image in got:
        assert scale_free(image, beam()) < (0.012 if kind == "tile-median" else 0.05)


def test_a_tile_is_left_out_of_its_own_prior(blank):
    scan = scan_of(7)

    def prior_of(some):
        return predicted_median(some, None, lambda log: log.copy())

    prior = prior_of(scan)
    spoiled = np.array(scan.tiles)
    spoiled[2] *= np.linspace(0.1, 3, SIZE, dtype=np.float32)
    other = prior_of(replace(scan, tiles=spoiled))
    np.testing.assert_array_equal(other.of(2), prior.of(2))
    assert not np.array_equal(other.of(1), prior.of(1))
    assert not np.array_equal(other.of(None), prior.of(None))


def test_references_are_interpolated_in_time_and_age(blank):
    hours = np.array([0, 10])
    scan = scan_of(
        3,
        flats=np.stack([beam(1), beam(2)]),
        flat_times=np.datetime64("2024-01-01T00:00:00") + hours * np.timedelta64(1, "h"),
        times=np.datetime64("2024-01-01T00:00:00") + np.array([0, 5, 10]) * np.timedelta64(1, "h"),
    )
    prior = reference_prior(scan, None)
    logs = [log_counts(beam(k), None) for k in (1, 2)]
    np.testing.assert_allclose(prior.of(0), logs[0])
    np.testing.assert_allclose(prior.of(1), (logs[0] + logs[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(prior.of(2), logs[1])
    assert prior.rms(1) == expected_drift(5) > prior.rms(0) == prior.rms(None)


def test_expected_drift_passes_through_what_was_measured():
    assert expected_drift(10 / 60) == pytest.approx(0.015, rel=0.2)
    assert expected_drift(60 * 24) == pytest.approx(0.10, rel=0.1)
    assert expected_drift(0) == 0.003 and expected_drift(-5) == expected_drift(5)


def test_split_halves_tell_the_error_of_the_median():
    rng = np.random.default_rng(0)
    layers = [rng.normal(0, 0.1, (256, 256)).astype(np.float32) for _ in range(32)]
    true = float(np.std(np.median(layers, axis=0)))
    assert shared_error(layers) == pytest.approx(true, rel=0.15)


@pytest.mark.parametrize(("count", "limit"), [(1, 64), (64, 64), (961, 64), (5, 2)])
def test_tiles_are_spread_over_the_scan(count, limit):
    chosen = spread_indices(count, limit)
    assert len(chosen) == min(count, limit) == len(set(chosen))
    assert chosen[0] == 0 and (limit == 1 or chosen[-1] == count - 1)


def test_large_scans_are_read_in_part_only(blank):
    class Counting:
        shape, dtype = (500, SIZE, SIZE), np.dtype(np.float32)
        reads = 0

        def __getitem__(self, i):
            self.reads += 1
            return beam()

    scan = replace(scan_of(1), tiles=Counting(), names=("x",) * 500, kind="series")
    Generator(blank, "cpu", "predicted-median").fit(scan)
    assert 0 < scan.tiles.reads <= 64


def test_batch_is_halved_when_memory_runs_out(wild):
    scan = scan_of(9)
    method = Generator(wild, "cpu", "none").fit(scan)
    expected = method.background(scan.tiles)
    method.batch = 8  # as on a GPU
    real, sizes = method._forward, []

    def small_memory(x):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(x)

    method._forward = small_memory
    with pytest.warns(RuntimeWarning, match="out of memory; going on with [42] tiles") as warned:
        got = method.background(scan.tiles)
    assert len(warned) == 2 and sizes == [8, 4, 2, 2, 2, 2, 1]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_too_little_memory_for_one_tile_is_an_error_in_one_line(wild):
    scan = scan_of(1)
    method = Generator(wild, "cpu", "none").fit(scan)

    def none_left(x):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore\nlines")

    method._forward = none_left
    with pytest.raises(DeviceError, match=r"device cpu: out of memory \(CUDA out of memory") as e:
        method.background(scan.tiles)
    assert "\n" not in str(e.value)


def test_a_failing_device_is_named(wild):
    method = Generator(wild, "cpu", "none").fit(scan_of(1))

    def broken(x):
        raise RuntimeError("CUDA error: an illegal memory access")

    method._forward = broken
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


@pytest.mark.parametrize(("age_h", "kind"), [(0.01, "reference"), (2000, "none")])
def test_a_mosaic_starts_from_its_tiles_and_its_reference(blank, age_h, kind, monkeypatch):
    monkeypatch.setattr(Generator, "_predict_blind", lambda self, log: np.log(beam()))
    taken = np.datetime64("2024-01-01T00:00:00")
    ramp = np.exp(0.1 * np.linspace(-1, 1, SIZE))
    scan = replace(
        scan_of(9, flats=(beam() * ramp)[None].astype(np.float32)),
        kind="mosaic",
        grid=(3, 3),
        times=np.full(9, taken),
        flat_times=np.array([taken - np.timedelta64(int(age_h * 3600), "s")]),
    )
    prior = Generator(blank, "cpu").fit(scan).prior
    assert prior.kind == "mixed"
    off = scale_free(np.exp(prior.of(0)), beam()) / scale_free(ramp, 1)
    assert (off > 0.8) if kind == "reference" else (off < 0.2)  # the tilt is the reference's
    level = np.median(prior.of(0)) - np.median(np.log(beam()))
    assert level == pytest.approx(0, abs=0.02)
    series = Generator(blank, "cpu")
    stated_card = {**series.model.card, "metrics": {"validation_error_sf": {"none": 0.03}}}
    series.model = replace(series.model, card=stated_card)
    series.fit(replace(scan, kind="series", grid=None))
    # the sample of a series stays in the field, so its median is no help
    assert series.describe()["prior"] == ("reference" if kind == "reference" else "none")


@pytest.mark.parametrize(
    ("count", "age_h", "kinds"),
    [
        (9, None, ["none"]),
        (9, 0.01, ["reference", "none"]),
        (4, 0.01, ["reference", "none"]),
        (9, 5000, ["none"]),  # worse than no prior at all
        (4, None, ["none"]),
    ],
)
def test_a_mosaic_offers_what_its_priors_make_of_it(wild, count, age_h, kinds):
    taken = np.datetime64("2024-01-01T00:00:00")
    side = int(count**0.5)
    scan = replace(scan_of(count), kind="mosaic", grid=(side, side))
    if age_h is not None:
        before = np.array([taken - np.timedelta64(int(age_h * 3600), "s")])
        times = np.full(count, taken)
        scan = replace(scan, flats=beam()[None], flat_times=before, times=times)
    offered = Generator(wild, "cpu").prepare(scan).candidates(scan)
    assert list(offered) == kinds
    for name, one in offered.items():
        assert one.describe()["prior"] == name
        alone = Generator(wild, "cpu", prior=name).fit(scan)
        index = np.array([1])
        np.testing.assert_array_equal(
            one.background(scan.tiles[1:2], index), alone.background(scan.tiles[1:2], index)
        )
    assert Generator(wild, "cpu", prior="none").fit(scan).candidates(scan) == {}
    series = replace(scan, kind="series", grid=None)
    assert Generator(wild, "cpu").fit(series).candidates(series) == {}
