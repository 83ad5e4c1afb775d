"""Sessions of the simulator: statistics of BL01B, drift, noise, apertures, families."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, median_filter

from napari_txm_bgcorr.simulation.acquisition import FAMILIES, draw_session
from napari_txm_bgcorr.simulation.illumination import aperture_mask
from napari_txm_bgcorr.simulation.illumination_steep import STEEP, moved
from napari_txm_bgcorr.simulation.random_fields import coloured, power_law, splat
from napari_txm_bgcorr.simulation.session import _poisson


def session(seed=0, size=64, family="bl01b"):
    return draw_session(np.random.default_rng(seed), size=size, family=family)


def test_same_seed_same_session():
    one, two = session(3), session(3)
    ones = np.ones((64, 64), np.float32)
    assert np.array_equal(one.background(5.0), two.background(5.0))
    assert np.array_equal(one.dark, two.dark)
    images = [s.expose(ones, 5.0, np.random.default_rng(1)) for s in (one, two)]
    assert np.array_equal(*images)
    assert not np.array_equal(one.background(5.0), session(4).background(5.0))


def test_asking_for_a_background_changes_nothing():
    made = session(3)
    before = made.background(0.0)
    made.background(7.0)
    made.expose(np.ones((64, 64), np.float32), 3.0, np.random.default_rng(0))
    assert np.array_equal(made.background(0.0), before)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_shows_the_same_field_at_every_size(family):
    small, large = (session(2, size, family).background(2.0) for size in (128, 256))
    binned = large.reshape(128, 2, 128, 2).mean((1, 3))
    lit = session(2, 128, family).aperture
    error = np.log(small / binned)[lit]
    assert np.std(error) < 0.03
    assert np.std(np.log(binned)[lit]) > 3 * np.std(error)


def test_families_are_drawn_by_weight_and_held_out_ones_never():
    rng = np.random.default_rng(0)
    names = [draw_session(rng, size=16).family for _ in range(300)]
    held_out = {name for name, family in FAMILIES.items() if family.held_out}
    assert held_out
    assert not held_out & set(names)
    assert set(names) == set(FAMILIES) - held_out
    total = sum(family.weight for family in FAMILIES.values())
    for name in set(names):
        assert names.count(name) / len(names) == pytest.approx(
            FAMILIES[name].weight / total, abs=0.08
        )


STEEP_FAMILIES = sorted(name for name, family in FAMILIES.items() if family.shape in STEEP)


@pytest.mark.parametrize("family", STEEP_FAMILIES)
def test_the_light_of_a_steep_family_moves_over_a_fixed_fine_pattern(family):
    made = session(4, 128, family)
    log = [np.log(made.background(hours)) for hours in (0.0, 0.5)]
    fixed = made._log_beam
    assert np.abs(log[1] - log[0]).max() > 0.01
    still = [value - moved(made._moving, 128, made._drift.movement(h)) for value, h in
             zip(log, (0.0, 0.5), strict=True)]  # fmt: skip
    np.testing.assert_allclose(still[0], fixed, atol=1e-3)
    change = still[1] - fixed
    assert np.std(change - gaussian_filter(change, 4, mode="nearest")) < 2e-3


def test_steep_families_reach_from_twice_to_thirty_times():
    ranges = []
    for family in STEEP_FAMILIES:
        for seed in range(12):
            made = session(seed, 64, family)
            low, high = np.percentile(made.background(0.0)[made.aperture], (1, 99))
            ranges.append(high / low)
    assert min(ranges) < 3
    assert max(ranges) > 18
    assert max(ranges) < 60


def test_a_light_that_moves_is_the_one_further_on():
    light = np.add.outer(np.arange(80.0), 3 * np.arange(80.0)).astype(np.float32)
    there, here = moved(light, 64, (0.02, -0.05)), moved(light, 64, (0.0, 0.0))
    np.testing.assert_allclose(here, light[8:-8, 8:-8])
    shifts = -7 * np.tanh(0.02 * 64 / 7) + 3 * 7 * np.tanh(0.05 * 64 / 7)
    np.testing.assert_allclose(there - here, shifts, atol=1e-3)
    assert moved(light, 64, (9.0, -9.0)).shape == (64, 64)


def test_an_aperture_closes_corners_and_never_the_field():
    for name in ("bl01b", "one-sided"):
        for seed in range(300):
            mask = aperture_mask(np.random.default_rng(seed), 32, FAMILIES[name])
            assert (mask > 0.5).mean() > 0.6, (name, seed)


def test_noise_of_a_pixel_lies_between_half_and_twelve_percent():
    for seed in range(40):
        for family in ("half-dark", "ring"):
            made = session(seed, 32, family)
            assert 0.0049 < np.sqrt(made.gain * (512 / 32) ** 2 / made.level) < 0.1201


def test_drift_is_smooth_and_starts_from_zero():
    made = session(1)
    lit = made.aperture
    start = np.log(made.background(0.0))[lit]
    steps = [np.abs(np.log(made.background(h))[lit] - start).max() for h in (1e-4, 1e-3, 1e-2)]
    assert steps[0] < steps[1] < steps[2] < 0.05
    assert steps[0] < 0.002


def test_drift_factor_scales_the_change():
    made = session(1)
    lit = made.aperture
    none, half, full = (
        np.log(made.background(3.0, drift=d))[lit].astype(float) for d in (0.0, 0.5, 1.0)
    )
    assert np.array_equal(made.background(3.0, drift=0.0), made.background(0.0))
    np.testing.assert_allclose(half - none, 0.5 * (full - none), atol=2e-5)
    assert np.abs(full - none).mean() > 1e-3


def changes(hours):
    """Level change and rms of the smooth change of 40 sessions after some hours."""
    found = []
    for seed in range(40):
        made = session(seed)
        log = np.log(made.background(hours) / made.background(0.0))[made.aperture]
        found.append((abs(log.mean()), log.std()))
    return np.median(found, axis=0)


def test_drift_of_a_sixteen_minute_mosaic_is_the_measured_one():
    level, shape = changes(16 / 60)
    assert 0.005 < level < 0.04
    assert 0.008 < shape < 0.035


def test_drift_grows_over_hours_and_saturates_over_months():
    short, day, months = changes(16 / 60)[1], changes(16.0)[1], changes(1400.0)[1]
    assert 2 * short < day < 0.15
    assert months < 2 * day


def test_fine_pattern_stays_within_a_day_and_changes_partly_over_two_months():
    day, months = [], []
    for seed in range(12):
        made = session(seed, 128)
        fine = [fine_part(made, hour) for hour in (0.0, 16.0, 1400.0)]
        day.append(np.corrcoef(fine[0], fine[1])[0, 1])
        months.append(np.corrcoef(fine[0], fine[2])[0, 1])
    assert np.mean(day) > 0.95
    assert 0.45 < np.mean(months) < 0.75  # measured 0.58


def fine_part(made, hour):
    log = np.log(made.background(hour))
    log = np.where(made.aperture, log, np.median(log))
    inside = gaussian_filter(made.aperture.astype(float), 5) > 0.99
    return (log - gaussian_filter(log, 5))[inside]


def test_bands_of_bl01b_flats_are_the_measured_ones():
    found = [bands(session(seed, 512)) for seed in range(5)]
    ratio = np.mean(found, axis=0) / (0.010, 0.012, 0.014, 0.028)
    assert (ratio > 0.7).all(), ratio
    assert (ratio < 1.3).all(), ratio


def bands(made):
    """Rms by band of a flat in raw counts, within the lit field."""
    raw = made.expose(np.ones((512, 512), np.float32), 0.0, np.random.default_rng(0))
    log = np.log(median_filter(raw.astype(np.float32), 3))
    noise = np.log(raw + 1.0) - log
    log += np.clip(noise, -0.1, 0.1).astype(np.float32)
    lit = made.aperture.astype(np.float32)
    low = {
        s: gaussian_filter(log * lit, s) / np.maximum(gaussian_filter(lit, s), 1e-3)
        for s in (1, 3, 8, 20, 60)
    }
    inside = gaussian_filter(lit, 6) > 0.995
    edges = ((1, 3), (3, 8), (8, 20), (20, 60))
    return [np.std((low[a] - low[b])[inside]) for a, b in edges]


def test_bl01b_is_brightest_low_and_dark_at_the_top_right():
    logs = []
    for seed in range(60):
        made = session(seed)
        log = np.log(made.background(0.0))
        log = np.where(made.aperture, log - np.median(log[made.aperture]), np.nan)
        logs.append(log)
    mean = np.nanmean(logs, axis=0)
    thirds = mean[:63, :63].reshape(3, 21, 3, 21).mean((1, 3))
    assert thirds[0, 2] == thirds.min()
    assert max(thirds[1, 1], thirds[2, 1], thirds[1, 0], thirds[2, 0]) == thirds.max()


def test_most_bl01b_sessions_have_their_right_corners_cut():
    masks = apertures(80)
    cut = np.array([[m[0, -1], m[-1, -1], m[0, 0]] for m in masks]) == 0
    assert 0.5 < cut[:, :2].mean() < 0.95
    assert cut[:, 2].mean() < 0.2
    assert any(m.all() for m in masks)  # sometimes nothing is cut


def apertures(count):
    return [session(seed, 32).aperture for seed in range(count)]


def test_behind_the_aperture_counts_fall_to_the_pedestal():
    seen = 0
    for seed in range(12):
        made = session(seed, 128)
        behind = gaussian_filter(made.aperture.astype(np.float32), 3) < 0.001
        if behind.sum() < 20:
            continue
        seen += 1
        raw = made.expose(np.ones((128, 128), np.float32), 0.0, np.random.default_rng(0))
        assert abs(np.median(raw[behind] / made.dark[behind]) - 1) < 0.02
        assert 1500 < np.median(raw[behind]) < 4300
    assert seen >= 3


def test_levels_of_bl01b_are_the_measured_ones():
    made = [session(seed, 32) for seed in range(60)]
    raw = np.array([np.median(m.dark) + m.level for m in made])
    assert raw.min() >= 4900
    assert raw.max() <= 22500
    assert np.ptp(np.log(raw)) > 0.8


def test_exposures_have_the_right_mean_and_variance():
    made = session(5, 32, "radial")
    rng, transmission = np.random.default_rng(0), np.full((32, 32), 0.4, np.float32)
    stack = np.stack([made.expose(transmission, 0.0, rng) for _ in range(400)]).astype(float)
    beam = made.background(0.0) * 0.4
    ordinary = np.ones(32 * 32, bool)
    ordinary[made._bad[0]] = False
    mean = np.median(stack, axis=0).ravel()
    assert np.median(mean[ordinary] / (made.dark + beam).ravel()[ordinary]) == pytest.approx(
        1, abs=5e-4
    )
    low, high = np.percentile(stack, (15.866, 84.134), axis=0)
    variance = (((high - low) / 2) ** 2).ravel()[ordinary]
    expected = (made.gain * beam + made.read_noise**2 + 1 / 12).ravel()[ordinary]
    assert np.median(variance / expected) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("mean", [0.0, 0.3, 12.0, 49.0, 51.0, 900.0])
def test_quanta_have_the_moments_of_poisson_numbers(mean):
    drawn = _poisson(np.full((400, 400), mean, np.float32), np.random.default_rng(0)).astype(float)
    assert drawn.mean() == pytest.approx(mean, rel=0.01, abs=1e-9)
    assert drawn.var() == pytest.approx(mean, rel=0.02, abs=1e-9)
    if mean:
        skewness = ((drawn - mean) ** 3).mean() / mean**1.5
        assert skewness == pytest.approx(mean**-0.5, abs=0.05 * max(1, mean**-0.5))


def test_noise_falls_as_pixels_are_binned():
    small, large = session(5, 128), session(5, 256)
    assert small.gain == pytest.approx(large.gain / 4)
    assert small.read_noise == pytest.approx(large.read_noise / 2)
    assert small.level == pytest.approx(large.level)


def test_outlier_pixels_are_few_and_mostly_fixed():
    made = session(5, 256)
    ones = np.ones((256, 256), np.float32)
    expected = made.dark + made.background(0.0)
    masks = []
    for seed in range(2):
        ratio = made.expose(ones, 0.0, np.random.default_rng(seed)) / expected
        masks.append(np.abs(ratio - 1) > 0.2)
    assert 0 < masks[0].mean() < 0.004
    assert (masks[0] & masks[1]).sum() > 0.3 * masks[0].sum()


def test_counts_saturate():
    made = session(5, 32)
    raw = made.expose(np.full((32, 32), 1000, np.float32), 0.0, np.random.default_rng(0))
    assert np.median(raw[made.aperture]) == 65535


@pytest.mark.parametrize("slope", [-2.0, -3.0])
def test_random_fields_have_their_slope_and_variance(slope):
    fields = [coloured(s, (256, 256), 256, power_law(slope, 4.0)) for s in range(12)]
    assert np.mean(np.square(fields)) == pytest.approx(1, abs=0.15)
    window = np.outer(np.hanning(256), np.hanning(256))
    power = np.mean([np.abs(np.fft.fft2(f * window)) ** 2 for f in fields], axis=0)
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(256, 1 / 256)] * 2))
    rings = [power[(k > a) & (k < a * 1.3)].mean() for a in (8, 64)]
    assert np.log(rings[1] / rings[0]) / np.log(8) == pytest.approx(slope, abs=0.25)


def test_streaks_run_along_their_direction():
    field = coloured(3, (128, 128), 128, power_law(-3.0, 4.0), streak=(5.0, 0))
    rough_y, rough_x = (np.abs(np.diff(field, axis=a)).mean() for a in (0, 1))
    turned = coloured(3, (128, 128), 128, power_law(-3.0, 4.0), streak=(5.0, 8))
    turned_y, turned_x = (np.abs(np.diff(turned, axis=a)).mean() for a in (0, 1))
    assert (rough_x < 0.6 * rough_y) and (turned_y < 0.6 * turned_x)


def test_splat_keeps_the_sum_and_the_place():
    rng = np.random.default_rng(0)
    y, x, weight = rng.uniform(2, 28, 50), rng.uniform(2, 28, 50), rng.uniform(0.5, 2, 50)
    image = splat((31, 31), y, x, weight)
    assert image.sum() == pytest.approx(weight.sum(), rel=1e-5)
    rows = np.arange(31)[:, None]
    assert (image * rows).sum() / image.sum() == pytest.approx((y * weight).sum() / weight.sum())
    assert splat((8, 8), np.array([-5.0]), np.array([3.0])).sum() == 0
