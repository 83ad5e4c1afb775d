"""What the tiles of a scan share: predicted, between their upper quantiles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.engine.priors import TILE_DRIFT_RMS, Prior, to_beam_level
from napari_txm_bgcorr.engine.shared_prior import MAX_PIXELS, mixed_prior, shared_prior

SIZE = 64


def beam(size=SIZE):
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    fine = 0.02 * np.sin(25 * x) * np.sin(21 * y)
    return (8000 * np.exp(0.1 * x - 0.2 * y * y + fine)).astype(np.float32)


def mosaic_of(count, covered=0, specimen=0.5, seed=0):
    """Tiles with a specimen each over half of the field; the last ones are covered wholly."""
    rng = np.random.default_rng(seed)
    tiles = beam() * np.exp(0.005 * rng.standard_normal((count, SIZE, SIZE)))
    for k, tile in enumerate(tiles):
        start = SIZE // 2 * (k % 2)
        tile[:, start : start + SIZE // 2] *= specimen
        if k >= count - covered:
            tile[:] = beam() * 0.5
    source = Source(Path("made.tif"), "test")
    names = tuple(f"t{i}" for i in range(count))
    return Scan(tiles.astype(np.float32), "mosaic", source, names, grid=(1, count))


def smooth_truth(log):
    """A network that knows the smooth part of the beam, and no tile's level."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, log.shape[0])] * 2, indexing="ij")
    return (0.1 * x - 0.2 * y * y + np.median(log)).astype(np.float32)


def scale_free(log_background):
    d = log_background - np.log(beam(len(log_background)))
    return float(np.std(d))


def test_it_finds_the_beam_and_its_fine_pattern_behind_specimens():
    prior = shared_prior(mosaic_of(8), None, smooth_truth)
    found = prior.of(0)
    assert prior.kind == "shared" and found.shape == (SIZE, SIZE)
    assert scale_free(found) < 0.006  # the smooth part alone is off by 0.01
    assert prior.of(None) is found


@pytest.mark.parametrize(("count", "off"), [(2, 0.01), (3, 0.07)])
def test_two_tiles_are_enough(count, off):
    """Of three, two show the specimen on the left: their median is off by 0.3 there."""
    assert scale_free(shared_prior(mosaic_of(count), None, smooth_truth).of(None)) < off


def test_what_the_network_leaks_goes_no_further_than_the_quantiles():
    """A tilt in all predictions, with tiles that show the beam everywhere."""
    ramp = 0.1 * np.linspace(-1, 1, SIZE, dtype=np.float32)
    prior = shared_prior(mosaic_of(6, specimen=1.0), None, lambda log: smooth_truth(log) + ramp)
    assert scale_free(prior.of(None)) < 0.005


def test_where_all_tiles_are_covered_the_prediction_takes_part():
    """What stays in place in nine tiles of ten is in a quantile, and not in the prediction."""
    tiles = beam() * np.exp(0.005 * np.random.default_rng(1).standard_normal((10, SIZE, SIZE)))
    tiles[:9, :, :20] *= 0.6
    tiles[4, :, :20] /= 0.6  # two tiles of ten show the beam there: above 0.75, not above 0.95
    scan = replace(mosaic_of(10), tiles=tiles.astype(np.float32))
    log = shared_prior(scan, None, smooth_truth).of(None) - np.log(beam())
    assert abs(log[:, :20].mean() - log[:, 20:].mean()) < 0.06  # of 0.5 in eight tiles


def test_the_error_that_it_expects_grows_with_what_the_tiles_hide():
    expected, true = [], []
    for specimen in (1.0, 0.8, 0.5):
        scan = mosaic_of(7, specimen=specimen)
        for k, tile in enumerate(np.asarray(scan.tiles)):
            tile[8 * k : 8 * k + 12] *= specimen  # and something of its own
        prior = shared_prior(scan, None, lambda log: np.full_like(log, np.median(log)))
        expected.append(prior.rms(0))
        true.append(scale_free(prior.of(0)))
    assert expected[0] < expected[1] < expected[2]
    assert expected[0] == pytest.approx(TILE_DRIFT_RMS, rel=0.3)
    assert all(t < e for t, e in zip(true, expected, strict=True))
    assert 0 < prior.told < 1


def test_covered_tiles_get_the_level_of_the_beam():
    scan = mosaic_of(10, covered=3)
    prior = shared_prior(scan, None, smooth_truth)
    assert prior.levels is not None
    for i in (0, 9):
        log = prior.of(i)[None].copy()
        to_beam_level(log, scan.tiles[i : i + 1], prior, [i])
        off = float(np.median(np.exp(log[0]) / beam()))
        assert off == pytest.approx(1, abs=0.03), i
    unrelated = replace(scan, kind="single", grid=None)
    assert shared_prior(unrelated, None, smooth_truth).levels is None


def test_a_gain_of_all_tiles_changes_nothing_but_the_level():
    scan = mosaic_of(5)
    one = shared_prior(scan, None, smooth_truth)
    other = shared_prior(replace(scan, tiles=3 * scan.tiles), None, smooth_truth)
    np.testing.assert_allclose(one.of(0), other.of(0), atol=1e-4)
    assert one.rms(0) == pytest.approx(other.rms(0), rel=1e-3)


def test_a_known_dark_is_taken_off():
    scan = mosaic_of(6)
    dark = np.full((SIZE, SIZE), 1500, np.float32)
    lifted = replace(scan, tiles=scan.tiles + dark)
    np.testing.assert_allclose(
        shared_prior(lifted, dark, smooth_truth).of(0),
        shared_prior(scan, None, smooth_truth).of(0),
        atol=1e-3,
    )


def test_threads_change_no_bit():
    scan = mosaic_of(9)
    one, four = (shared_prior(scan, None, smooth_truth, workers) for workers in (1, 4))
    np.testing.assert_array_equal(one.of(0), four.of(0))
    assert one.rms(0) == four.rms(0)


def test_of_a_large_scan_only_some_tiles_are_read():
    class Counting:
        shape, dtype = (500, SIZE, SIZE), np.dtype(np.float32)
        reads = 0

        def __len__(self):
            return 500

        def __getitem__(self, i):
            self.reads += 1
            return beam()

    tiles = Counting()
    scan = replace(mosaic_of(2), tiles=tiles, names=("x",) * 500, grid=(1, 500))
    shared_prior(scan, None, smooth_truth)
    assert 10 < tiles.reads <= 48 and MAX_PIXELS // 1024**2 == 24


def test_a_mixture_is_better_than_both_and_keeps_the_level_of_the_reference():
    rng = np.random.default_rng(0)
    off = rng.normal(0, 1, (2, SIZE, SIZE)).astype(np.float32) * [[[0.02]], [[0.04]]]
    truth = np.log(beam())
    reference = Prior("reference", lambda i: truth + off[0] - 0.3, lambda i: 0.02)
    shared = Prior("shared", lambda i: truth + off[1], lambda i: 0.04)
    prior = mixed_prior(reference, shared)
    expected = 0.02 * 0.04 / np.hypot(0.02, 0.04)
    assert prior.rms(3) == pytest.approx(expected)
    assert scale_free(prior.of(3)) == pytest.approx(expected, rel=0.05)
    assert np.median(prior.of(3) - reference.of(3)) == pytest.approx(0, abs=0.005)
    assert prior.knows_level and not shared.knows_level


def test_an_old_reference_counts_little_and_a_fresh_one_much():
    shared = Prior("shared", lambda i: np.zeros((8, 8), np.float32), lambda i: 0.03)
    ramp = np.tile(np.linspace(-1, 1, 8, dtype=np.float32), (8, 1))
    reference = Prior("reference", lambda i: ramp, lambda i: (0.003, 0.3)[i])
    fresh, old = (np.ptp(mixed_prior(reference, shared).of(i)) for i in (0, 1))
    assert fresh > 0.98 * 2 and old < 0.02 * 2
