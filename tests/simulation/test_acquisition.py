"""Scans of the simulator: the same from a seed, overlapping truth, lazy, honest facts."""

from __future__ import annotations

import numpy as np
import pytest

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.simulation.acquisition import (
    SPECIMENS,
    draw_specimen,
    free_of_sample,
    simulate_mosaic,
    simulate_series,
    simulate_tile,
)


def test_same_seed_same_scan_and_other_seed_another():
    first, second, other = (
        simulate_mosaic(2, 2, size=64, references=1, darks=1, seed=s) for s in (5, 5, 6)
    )
    assert np.array_equal(first.scan.tiles[:], second.scan.tiles[:])
    assert np.array_equal(first.scan.flats[:], second.scan.flats[:])
    assert np.array_equal(first.scan.darks[:], second.scan.darks[:])
    assert np.array_equal(first.positions_px, second.positions_px)
    assert not np.array_equal(first.scan.tiles[:], other.scan.tiles[:])


def test_tiles_do_not_depend_on_the_order_they_are_read_in():
    forth, back = (simulate_mosaic(2, 2, size=64, seed=1).scan.tiles for _ in range(2))
    backwards = [back[i] for i in (3, 2, 1, 0)][::-1]
    assert all(np.array_equal(forth[i], backwards[i]) for i in range(4))


@pytest.mark.parametrize("shape", [(2, 3), (13, 2)])  # within, and beyond, one canvas
def test_truth_of_neighbours_agrees_where_they_overlap(shape):
    size = 64
    made = simulate_mosaic(*shape, size=size, overlap=0.4, specimen="fossil", seed=3)
    at = made.positions_px.astype(int)
    tiles = made.transmissions[:]
    pairs = 0
    for i in range(len(at)):
        for j in range(i):
            dy, dx = at[i] - at[j]
            if max(abs(dy), abs(dx)) >= size:
                continue
            one = tiles[j][max(dy, 0) : size + min(dy, 0), max(dx, 0) : size + min(dx, 0)]
            two = tiles[i][max(-dy, 0) : size + min(-dy, 0), max(-dx, 0) : size + min(-dx, 0)]
            assert np.array_equal(one, two)
            pairs += 1
    assert pairs >= len(at) - 1
    assert tiles.std() > 0.01


def test_positions_nominal_in_the_scan_and_jittered_in_truth():
    made = simulate_mosaic(3, 4, size=128, overlap=0.25, jitter_px=20, skew_px=0, seed=2)
    nominal, true = made.scan.positions_px, made.positions_px
    assert nominal[0].tolist() == [192, 0]  # bottom left first
    assert nominal[1].tolist() == [192, 96]
    error = true - nominal
    assert 0 < np.ptp(error, axis=0).max() <= 2 * 20 * 128 / 512 + 1
    assert true.min() == 0
    still = simulate_mosaic(3, 4, size=128, overlap=0.25, jitter_px=0, skew_px=0, seed=2)
    assert np.array_equal(still.positions_px, still.scan.positions_px)


def test_drawn_overlaps_are_those_in_use():
    shares = []
    for seed in range(40):
        made = simulate_mosaic(2, 2, size=512, overlap=None, specimen="empty", seed=seed)
        step = np.ptp(made.scan.positions_px, axis=0)
        shares += [1 - step / 512]
    shares = np.array(shares)
    assert shares.min() > 0.029 and shares.max() < 0.201
    assert np.mean((shares > 0.035) & (shares < 0.075)) > 0.5
    assert (shares > 0.1).any()


def test_rows_are_skewed():
    made = simulate_mosaic(3, 2, size=512, jitter_px=0, skew_px=7, seed=2)
    x = made.positions_px[:, 1].reshape(3, 2)
    assert np.array_equal(np.diff(x, axis=0), np.full((2, 2), 7))


def test_raw_is_dark_and_background_times_transmission():
    made = simulate_mosaic(1, 2, size=128, family="radial", specimen="cells", seed=4)
    for i in range(2):
        expected = made.session.dark + made.backgrounds[i] * made.transmissions[i]
        ratio = made.scan.tiles[i] / expected
        assert abs(np.median(ratio) - 1) < 2e-3
        assert np.median(np.abs(ratio - 1)) < 0.03


def test_background_is_the_session_at_the_tiles_time():
    made = simulate_mosaic(1, 3, size=64, hours_per_tile=2.0, drift=1.5, seed=4)
    assert made.hours.tolist() == [0, 2, 4]
    expected = made.session.background(4.0, drift=1.5)
    assert np.array_equal(made.backgrounds[2], expected)
    frozen = simulate_mosaic(1, 3, size=64, hours_per_tile=2.0, drift=0.0, seed=4)
    assert np.array_equal(frozen.backgrounds[0], frozen.backgrounds[2])


def test_references_show_the_beam_before_and_after():
    made = simulate_mosaic(1, 2, size=64, references=2, reference_hours=1.0, darks=2, seed=8)
    scan = made.scan
    assert scan.flat_times[0] < scan.times[0] < scan.times[-1] < scan.flat_times[1]
    for k, hour in ((0, -1.0), (1, 1 / 60 + 1.0 + 1 / 60)):
        expected = made.session.dark + made.session.background(hour)
        assert abs(np.median(scan.flats[k] / expected) - 1) < 2e-3
    assert abs(np.median(scan.dark() / made.session.dark) - 1) < 0.05


def test_a_31_x_31_mosaic_is_made_only_where_it_is_read():
    made = simulate_mosaic(31, 31, size=64, specimen="slab", seed=1)
    assert made.scan.tiles.shape == (961, 64, 64)
    assert made.scan.tiles[960].dtype == np.uint16
    assert len(made.scan.names) == len(set(made.scan.names)) == 961
    assert made.scan.grid == (31, 31)


def test_facts_of_each_kind():
    tile = simulate_tile(size=128, seed=1).scan
    series = simulate_series(5, size=128, angles_deg=(-30, 30), seed=1).scan
    assert (tile.kind, len(tile), tile.grid, tile.flats, tile.darks) == (
        "single",
        1,
        None,
        None,
        None,
    )
    assert series.kind == "series"
    assert series.angles_deg.tolist() == [-30, -15, 0, 15, 30]
    assert tile.source.format == "simulated"
    assert tile.pixel_nm == pytest.approx(15_000 / 128)
    assert tile.binning == 8


def test_a_rotating_specimen_changes_smoothly():
    made = simulate_series(41, size=64, specimen="cells", angles_deg=(-20, 20), seed=3)
    images = np.log(made.transmissions[:])
    near = np.abs(np.diff(images, axis=0)).mean()
    far = np.abs(images[-1] - images[0]).mean()
    assert 0 < near < 0.5 * far


@pytest.mark.parametrize(
    "call",
    [
        lambda: simulate_mosaic(0, 3),
        lambda: simulate_mosaic(2, 2, overlap=1.0),
        lambda: simulate_series(0),
        lambda: simulate_series(3, angles_deg=(-90, 90)),
        lambda: simulate_tile(specimen="cheese"),
        lambda: simulate_tile(family="cheese"),
        lambda: simulate_tile(size=8),
    ],
)
def test_bad_settings_are_refused_in_one_line(call):
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value).startswith("simulate: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", sorted(SPECIMENS))
def test_every_specimen_is_a_transmission(kind):
    rng = np.random.default_rng(1)
    for shape, field in (((96, 96), None), ((70, 150), 64)):
        image = SPECIMENS[kind](rng, shape, field)
        assert image.shape == shape
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert image.min() > 0
        assert image.max() <= 1.6


def test_mixed_specimens_reach_from_empty_to_covering():
    rng = np.random.default_rng(2)
    images = [draw_specimen(rng, (48, 48)) for _ in range(150)]
    empty = np.mean([np.mean(np.abs(i - i.max()) < 0.05) > 0.95 for i in images])
    covering = np.mean([np.mean(i < 0.95) > 0.95 for i in images])
    assert 0.08 < empty < 0.45
    assert covering > 0.1
    assert min(i.min() for i in images) < 0.3
    assert max(i.max() for i in images) > 1.05  # phase fringes


def test_specimen_is_the_same_at_another_pixel_count():
    for kind in SPECIMENS:
        small = draw_specimen(np.random.default_rng(5), (96, 96), kind)
        large = draw_specimen(np.random.default_rng(5), (192, 192), kind)
        binned = large.reshape(96, 2, 96, 2).mean((1, 3))
        assert np.abs(small - binned).mean() < 0.03, kind


def test_a_slab_lies_over_whole_rows_of_tiles() -> None:
    plain, made = (
        simulate_mosaic(5, 2, size=64, specimen="empty", seed=3, covered_rows=n) for n in (0, 1)
    )
    clear, tiles = plain.transmissions[:], made.transmissions[:]
    assert tiles[[4, 5]].max() < 0.8
    for far in ([0, 1], [8, 9]):
        np.testing.assert_array_equal(tiles[far], clear[far])
    with pytest.raises(ConfigError, match="covered rows 6: give 0 to 5"):
        simulate_mosaic(5, 2, size=64, covered_rows=6)


def test_a_pixel_is_free_where_specimen_and_fringes_change_it_by_less_than_three_permille():
    values = np.array([[0.5, 0.9965, 0.9975, 1.0, 1.0025, 1.0035]], np.float32)
    assert free_of_sample(values).tolist() == [[False, False, True, True, True, False]]
    made = simulate_tile(size=64, specimen="electrode", seed=2)
    free = made.free(0)
    assert free.shape == (64, 64) and free.dtype == bool
    assert np.array_equal(free, free_of_sample(made.transmissions[:])[0])
    assert np.array_equal(free, np.abs(made.transmissions[0] - 1) < 0.003)


def test_a_varied_stock_of_specimens_leaves_from_nothing_to_all_of_a_tile_free():
    rng = np.random.default_rng(7)
    shares = np.array([free_of_sample(draw_specimen(rng, (64, 64))).mean() for _ in range(120)])
    assert (shares < 0.02).mean() > 0.1
    assert (shares > 0.95).mean() > 0.05
    assert ((shares > 0.1) & (shares < 0.9)).mean() > 0.2


def test_dense_particles_absorb_nine_tenths_and_vesicles_have_bright_fringes():
    rng = np.random.default_rng(3)
    dense = [draw_specimen(rng, (96, 96), "clusters") for _ in range(20)]
    assert min(image.min() for image in dense) < 0.1
    bright = [draw_specimen(rng, (96, 96), "vesicles").max() for _ in range(20)]
    assert np.median(bright) > 1.05
