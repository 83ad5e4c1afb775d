"""What is told of a reference: its age's suggestion, and what the network sees."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.engine.checkpoint import save_model
from napari_txm_bgcorr.engine.config import NetworkConfig
from napari_txm_bgcorr.engine.networks import build_generator
from napari_txm_bgcorr.engine.predict import Generator
from napari_txm_bgcorr.engine.prior_error import (
    ASKED,
    BY_AGE,
    FLOOR,
    GAIN,
    UNDATED,
    belief,
    drift_factor,
    rms_change,
)
from napari_txm_bgcorr.engine.priors import COMPARED, blind_error, expected_drift, reference_prior
from napari_txm_bgcorr.engine.tensors import expected_rms

SIZE, FIELD = 64, 32
TAKEN = np.datetime64("2024-03-01T12:00:00")


def told(age_h, *changes, specimens=None, known=BY_AGE):
    suggested = expected_drift(age_h)
    count = len(changes) if specimens is None else specimens
    return suggested * drift_factor(suggested, changes, count, known)


def test_a_greater_change_tells_of_a_greater_error():
    for age in (0.2, 8, 1440):
        errors = [told(age, change) for change in np.linspace(0, 0.3, 20)]
        assert np.all(np.diff(errors) >= 0) and errors[-1] > 1.5 * errors[0]


def test_a_change_as_specimens_make_it_leaves_what_the_age_suggests():
    for age in (10 / 60, 1, 3):
        assert told(age, FLOOR) == pytest.approx(expected_drift(age), rel=0.3)


def test_drift_is_believed_the_more_the_more_specimens_agree():
    true = 0.12
    change = float(np.hypot(GAIN * true, FLOOR))
    one, five = told(8, change), told(8, *[change] * 5)
    assert expected_drift(8) < one < five < 1.1 * true
    # the tiles of a tomogram show one specimen
    assert told(8, *[change] * 5, specimens=1) == one


def test_a_young_reference_is_hardly_doubted():
    """A specimen that is taken for drift must not leak into a good reference."""
    assert told(10 / 60, 0.1) < 2 * expected_drift(10 / 60)
    assert told(8, 0.1) > 1.4 * expected_drift(8)


def test_one_tile_that_is_all_specimen_tells_nothing():
    usual = [0.05, 0.055, 0.06, 0.05]
    assert told(8, *usual, 0.5) <= told(8, *usual, 0.06) and told(8, *usual, 0.5) < 0.05


def test_no_change_at_all_has_its_limits():
    """A network that gives every prior back tells nothing of it."""
    for age in (10 / 60, 8, 1440):
        assert told(age, 0.0) == told(age, FLOOR / 2) > expected_drift(age) / 3


def test_without_an_age_the_change_counts_for_more():
    low, high = (drift_factor(0.045, [c], 1, UNDATED) for c in (0.02, 0.15))
    assert low < drift_factor(0.045, [0.02], 1) and high > drift_factor(0.045, [0.15], 1)


def test_the_change_leaves_out_apertured_corners_and_the_level():
    tilt = np.linspace(-0.1, 0.1, 256, dtype=np.float32) + np.zeros((256, 1), np.float32)
    spoiled = tilt + 3
    spoiled[:24, :24] = -9
    assert rms_change(tilt) == pytest.approx(0.2 / np.sqrt(12), rel=0.02)
    assert rms_change(spoiled) == pytest.approx(rms_change(tilt), rel=0.05)


class Seeing(Generator):
    """A network that sees specimens through: asked, it changes the prior to the truth."""

    def _forward(self, x):
        self.asked = [*getattr(self, "asked", []), float(expected_rms(x[0, 2, 0, 0]))]
        return torch.where(x[:, 2:3] > 0, x[:, :1], x[:, 1:2])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "blank.safetensors"
    config = NetworkConfig(field_px=FIELD, features=(8, 8))
    save_model(path, build_generator(config), config, metrics={})
    return str(path)


def scan_of(count, tilt, age_h=None, kind="mosaic", bad=0):
    """Tiles without specimen, but for the first `bad`; a reference with a tilt of its own."""
    x = np.linspace(-1, 1, SIZE, dtype=np.float32)
    beam = 8000 * np.exp(-0.1 * x**2 - 0.1 * x[:, None] ** 2)
    tiles = np.repeat(beam[None], count, 0)
    tiles[:bad] *= np.exp(-2 * x.clip(0))
    flats = (beam * np.exp(tilt * np.sqrt(3) * x))[None]
    names = tuple(f"t{i}" for i in range(count))
    scan = Scan(tiles, kind, Source(Path("made.tif"), "test"), names, flats=flats)
    if age_h is None:
        return scan
    before = np.timedelta64(round(age_h * 3600), "s")
    return replace(scan, times=np.full(count, TAKEN), flat_times=np.array([TAKEN - before]))


def error_of(model, scan):
    return Seeing(model, "cpu", "reference").fit(scan).describe()["prior_error"]


@pytest.mark.parametrize("age_h", [8, None])
@pytest.mark.parametrize("count", [1, 7])
def test_a_reference_unlike_the_tiles_is_found_out(model, age_h, count):
    good, bad = (error_of(model, scan_of(count, tilt, age_h)) for tilt in (0.0, 0.25))
    assert bad > 2.5 * good and bad > 0.09


def test_a_covered_tile_is_outvoted(model):
    clean, one = (error_of(model, scan_of(7, 0.0, 8, bad=bad)) for bad in (0, 1))
    assert one == clean
    assert error_of(model, scan_of(7, 0.0, 8, bad=7)) > 2 * clean


def test_few_tiles_are_asked_and_each_once(model):
    for count in (1, 3, 40):
        method = Seeing(model, "cpu", "reference").fit(scan_of(count, 0.1, 8))
        assert len(method.asked) == min(count, COMPARED)
        np.testing.assert_allclose(method.asked, ASKED, rtol=1e-5)


def test_a_mosaic_with_several_candidates_asks_once(model):
    method = Seeing(model, "cpu").fit(scan_of(7, 0.1, 8))
    kept = method._references
    assert "reference" in method.candidates(scan_of(7, 0.1, 8)) and method._references is kept
    assert method.fit(scan_of(7, 0.1, 8))._references is not kept


def test_error_grows_with_age_within_a_scan_and_fits_repeat(model):
    scan = scan_of(6, 0.1, 8)
    scan = replace(scan, times=TAKEN + np.arange(6) * np.timedelta64(6, "h"))
    one, two = (Seeing(model, "cpu", "reference").fit(scan).prior for _ in range(2))
    errors = [one.rms(i) for i in range(6)]
    assert np.all(np.diff(errors) > 0) and errors == [two.rms(i) for i in range(6)]
    factors = [error / expected_drift(8 + 6 * i) for i, error in enumerate(errors)]
    np.testing.assert_allclose(factors, factors[0])
    assert errors[0] < one.rms(None) < errors[-1]


def test_what_is_told_reaches_the_network(model):
    scan = scan_of(1, 0.25, 8)
    method = Seeing(model, "cpu", "reference").fit(scan)
    method.background(scan.tiles, np.array([0]))
    assert method.asked[-1] == pytest.approx(method.prior.rms(0), rel=1e-4)
    assert pickle.loads(pickle.dumps(drift_factor)) is drift_factor


def references(step, age_h=8.0):
    """A tile and four references an hour apart, each tilted by `step` against the one before."""
    one = scan_of(1, 0.0, age_h)
    x = np.linspace(-1, 1, SIZE, dtype=np.float32)
    flats = np.concatenate([one.flats * np.exp(k * step * x) for k in range(4)])
    hours = (age_h + 3 - np.arange(4)) * 3600
    return replace(one, flats=flats, flat_times=TAKEN - hours.astype("timedelta64[s]"))


def test_references_that_differ_much_tell_of_fast_drift():
    slow, fast = (reference_prior(references(step), None) for step in (0.005, 0.2))
    assert slow.known[0] < BY_AGE[0] < fast.known[0] and fast.known[1] < BY_AGE[1]
    ratio = np.log(0.2 / np.sqrt(3) / expected_drift(1))
    assert fast.known == pytest.approx(belief([ratio] * 3), rel=0.05)
    assert told(8, FLOOR, known=slow.known) < told(8, FLOOR) < told(8, FLOOR, known=fast.known)


def test_references_of_one_moment_tell_nothing_of_drift():
    scan = references(0.2)
    at_once = replace(scan, flat_times=np.repeat(scan.flat_times[:1], 4))
    assert reference_prior(at_once, None).known == BY_AGE == belief([])
    assert reference_prior(replace(scan, flat_times=None), None).known == UNDATED


@pytest.mark.parametrize(("tilt", "kind"), [(0.3, "reference"), (0.6, "none")])
def test_an_old_reference_of_another_illumination_is_left_aside(model, tilt, kind):
    """The network gives every prior back, but predicts an even background without one."""
    method = Generator(model, "cpu").fit(scan_of(1, tilt, 1440, kind="single"))
    assert method.describe()["prior"] == kind
    young = Generator(model, "cpu").fit(scan_of(1, tilt, 1 / 6, kind="single"))
    assert young.describe()["prior"] == "reference"


def test_a_fine_tuned_model_is_not_taken_at_its_word():
    assert blind_error({"none": 0.08, "stale": 0.01, "none_prior": 0.02}) == 0.08
    tuned = {"none": 0.05, "stale": 0.03, "simulated-none": 0.11, "simulated-stale": 0.03}
    assert blind_error(tuned) == pytest.approx(0.08)
    assert blind_error({"stale": 0.03}) == np.inf
