import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from napari_txm_bgcorr.core.correction import (
    BackgroundMethod,
    DivideOptions,
    correct_tiles,
    divide,
    optical_density,
)
from napari_txm_bgcorr.core.pixels import (
    fill_isolated,
    level_of,
    lit_field,
    lit_in_tiles,
    outliers,
)
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.errors import MethodError

SIZE = 128
NAN = DivideOptions(invalid="nan")


def beam(size=SIZE, level=15000.0):
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    return (level * np.exp(0.15 * x - 0.1 * y - 0.2 * (x * x + y * y))).astype(np.float32)


def specimen(size=SIZE, seed=0):
    rough = np.random.default_rng(seed).standard_normal((size, size))
    smooth = ndimage.gaussian_filter(rough, size / 20)
    return np.exp(-0.3 * np.abs(smooth) / smooth.std()).astype(np.float32)


def noisy(image, seed=1):
    return np.random.default_rng(seed).poisson(image).astype(np.uint16)


def cut_corner(image, legs, value):
    """Cut the top right corner off along a straight line."""
    y, x = np.indices(image.shape)
    unlit = y / legs[0] + (image.shape[1] - 1 - x) / legs[1] < 1
    return np.where(unlit, value, image), ~unlit


# --- the ratio --------------------------------------------------------------------------------


def test_division_inverts_multiplication_to_float32_rounding():
    truth = specimen()
    raw = (beam() * truth).astype(np.float32)
    done = divide(raw, beam())
    assert done.valid.all()
    assert done.transmission.dtype == np.float32
    np.testing.assert_allclose(done.transmission, truth, rtol=3e-7)


def test_valid_pixels_hold_exactly_the_ratio():
    raw, dark = noisy(beam() * specimen() + 700), np.full((SIZE, SIZE), 700, np.float32)
    reference = (beam() + 700).astype(np.float32)
    done = divide(raw, reference, dark)
    brute = (raw.astype(np.float32) - dark) / (reference - dark)
    assert done.valid.mean() > 0.999
    np.testing.assert_array_equal(done.transmission[done.valid], brute[done.valid])


@pytest.mark.parametrize("gain", [0.25, 2.0, 16.0])
def test_gain_of_the_camera_cancels(gain):
    raw = (beam() * specimen()).astype(np.float32)
    dark = np.full_like(raw, 100)
    once, scaled = divide(raw, beam(), dark), divide(raw * gain, beam() * gain, dark * gain)
    np.testing.assert_array_equal(once.transmission, scaled.transmission)
    np.testing.assert_array_equal(once.valid, scaled.valid)


def test_dark_is_taken_from_both():
    truth, dark = specimen(), (500 + 30 * specimen(seed=5)).astype(np.float32)
    done = divide((beam() * truth + dark).astype(np.float32), beam() + dark, dark)
    np.testing.assert_allclose(done.transmission, truth, rtol=2e-5)


def test_a_stack_is_divided_tile_by_tile():
    raw = np.stack([noisy(beam() * specimen(seed=s), s) for s in range(3)])
    background = np.stack([beam() * g for g in (0.9, 1.0, 1.1)])
    done = divide(raw, background)
    for k in range(3):
        alone = divide(raw[k], background[k])
        np.testing.assert_array_equal(done.transmission[k], alone.transmission)
        np.testing.assert_array_equal(done.valid[k], alone.valid)


def test_inputs_are_left_alone():
    raw, background, dark = noisy(beam()), beam(), np.full((SIZE, SIZE), 9, np.float32)
    kept = [a.copy() for a in (raw, background, dark)]
    raw.flags.writeable = background.flags.writeable = dark.flags.writeable = False
    divide(raw, background, dark)
    for before, after in zip(kept, (raw, background, dark), strict=True):
        np.testing.assert_array_equal(before, after)


def test_shapes_that_differ_are_refused():
    with pytest.raises(MethodError, match=r"background: shape \(64, 64\)"):
        divide(beam(), beam(64))
    with pytest.raises(MethodError, match=r"dark: shape \(64, 64\).*binning"):
        divide(beam(), beam(), beam(64))


ANY = hnp.arrays(
    st.sampled_from(
        [np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int64, np.uint64,
         np.float16, np.float32, np.float64]
    ),
    st.shared(st.tuples(st.integers(1, 9), st.integers(1, 9)), key="shape"),
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(raw=ANY, background=ANY, dark=st.none() | ANY, limit=st.none() | st.floats(0, 1e5))
def test_no_input_gives_nan_or_infinity(raw, background, dark, limit):
    done = divide(raw, background, dark, options=DivideOptions(saturation=limit))
    assert done.transmission.dtype == np.float32
    assert np.isfinite(done.transmission).all()
    marked = divide(raw, background, dark, options=DivideOptions("nan", limit))
    np.testing.assert_array_equal(np.isnan(marked.transmission), ~marked.valid)
    np.testing.assert_array_equal(marked.valid, done.valid)


# --- special pixels ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(0, np.uint16), (65535, np.uint16), (255, np.uint8), (-40, np.float32), (np.nan, np.float32),
     (np.inf, np.float32), (-5, np.int32), (3, np.uint16), (60000, np.uint16)],
)  # fmt: skip
def test_a_bad_pixel_is_marked_and_takes_the_median_of_its_neighbours(value, dtype):
    level = 200 if dtype == np.uint8 else 15000
    background = beam(level=level)
    raw = (background * 0.7).astype(dtype)
    raw[40, 50] = value
    done = divide(raw, background)
    assert np.argwhere(~done.valid).tolist() == [[40, 50]]
    around = np.delete((raw[39:42, 49:52] / background[39:42, 49:52]).ravel(), 4)
    assert done.transmission[40, 50] == pytest.approx(np.median(around), rel=1e-6)
    assert np.isnan(divide(raw, background, options=NAN).transmission[40, 50])


def test_the_camera_limit_counts_as_saturation():
    raw = noisy(beam(level=3000))
    raw[10:14, 10:14] = 4095
    done = divide(raw, beam(level=3000), options=DivideOptions(saturation=4095))
    assert not done.valid[10:14, 10:14].any()
    assert done.valid.sum() >= done.valid.size - 16 - 2


def test_a_saturated_region_keeps_its_lower_bound():
    raw = noisy(beam())
    raw[30:50, 30:50] = 65535
    done = divide(raw, beam())
    assert not done.valid[30:50, 30:50].any()
    np.testing.assert_allclose(
        done.transmission[33:47, 33:47], 65535 / beam()[33:47, 33:47], rtol=1e-6
    )


def test_where_the_background_does_not_exceed_the_dark_the_ratio_is_one():
    background, dark = beam(), np.full((SIZE, SIZE), 300, np.float32)
    background[60:80, 60:80] = 300
    background[0:5, 0:5] = 10
    done = divide(noisy(beam()), background, dark)
    for part in (np.s_[62:78, 62:78], np.s_[0:4, 0:4]):
        assert not done.valid[part].any()
        assert (done.transmission[part] == 1).all()


def test_noise_below_the_dark_is_data():
    """Behind an opaque object raw - dark scatters about zero; clipping would bias the mean."""
    dark = np.full((SIZE, SIZE), 500, np.float32)
    raw = np.full((SIZE, SIZE), 500.0) + np.random.default_rng(0).normal(0, 10, (SIZE, SIZE))
    done = divide(raw, beam() + 500, dark)
    assert done.valid.mean() > 0.99
    assert (done.transmission < 0).mean() == pytest.approx(0.5, abs=0.05)
    assert abs(done.transmission.mean()) < 1e-4


def test_hot_and_dead_pixels_are_found_and_nothing_else():
    rng = np.random.default_rng(3)
    raw = noisy(beam() * specimen())
    places = rng.permutation(np.argwhere(np.ones((SIZE, SIZE), bool)))[:60]
    factor = np.where(rng.random(60) < 0.5, rng.uniform(0.0, 0.3, 60), rng.uniform(2.0, 4.0, 60))
    y, x = places.T
    raw[y, x] = np.maximum(raw[y, x] * factor, 1).astype(np.uint16)
    done = divide(raw, beam())
    assert (~done.valid[y, x]).mean() > 0.95
    false = ~done.valid
    false[y, x] = False
    assert false.sum() == 0
    np.testing.assert_allclose(done.transmission[y, x], specimen()[y, x], rtol=0.1)


def test_dead_column_is_found():
    raw = noisy(beam())
    raw[:, 77] = 30
    done = divide(raw, beam())
    assert not done.valid[:, 77].any()
    assert done.valid.sum() == SIZE * (SIZE - 1)
    np.testing.assert_allclose(done.transmission[:, 77], 1, atol=0.05)


def test_sharp_specimen_is_not_taken_for_bad_pixels():
    """Lines, a strong edge with its fringe and grains, as sharp as 60 nm at 29 nm a pixel."""
    truth = np.ones((SIZE, SIZE))
    truth[:, 20:22], truth[30:32] = 0.3, 0.4
    truth[60:100, 60:100] = 0.2
    truth[59, 60:100] = 1.3
    truth[10:12, 100:102] = 0.4
    truth = ndimage.gaussian_filter(truth, 0.85)
    done = divide(noisy(beam() * truth), beam())
    assert done.valid.all()


def test_outliers_agree_with_brute_force():
    rng = np.random.default_rng(4)
    image = (1 + 0.01 * rng.standard_normal((24, 24))).astype(np.float32)
    image[rng.integers(0, 24, 12), rng.integers(0, 24, 12)] = 2.5
    found = outliers(image, np.ones((24, 24), bool), 8.0, 0.5)
    brute = np.zeros((24, 24), bool)
    for y in range(24):
        for x in range(24):
            near = [image[j, i] for j in range(max(0, y - 1), min(24, y + 2))
                    for i in range(max(0, x - 1), min(24, x + 2)) if (j, i) != (y, x)]  # fmt: skip
            brute[y, x] = abs(image[y, x] - np.median(near)) > 0.5 * np.median(near)
    np.testing.assert_array_equal(found, brute)


def test_filling_takes_usable_neighbours_only():
    image = np.arange(25, dtype=np.float32).reshape(5, 5)
    usable = np.ones((5, 5), bool)
    usable[2, 2] = usable[1, :] = False
    image[1, :] = 1e6
    filled = fill_isolated(image, ~usable, usable)
    assert image[2, 2] == np.median([11, 13, 16, 17, 18])
    assert filled[2, 2]
    block = np.zeros((5, 5), bool)
    assert not fill_isolated(image, ~block, block).any()


def test_outliers_can_be_left_alone():
    raw = noisy(beam())
    raw[40, 40] = 60000
    done = divide(raw, beam(), options=DivideOptions(outlier_sigma=None))
    assert done.valid.all()
    assert done.transmission[40, 40] == pytest.approx(60000 / beam()[40, 40], rel=1e-6)


# --- apertured corners ------------------------------------------------------------------------


@pytest.mark.parametrize("pedestal", [0.02, 0.1, 0.25, 0.4])
@pytest.mark.parametrize("legs", [(24, 40), (90, 60)])
def test_apertured_corner_is_found_to_the_pixel(pedestal, legs):
    sharp, lit = cut_corner(beam(256), legs, pedestal * 15000)
    found = lit_field(noisy(ndimage.gaussian_filter(sharp, 0.7)))
    rim = ndimage.binary_dilation(~lit, iterations=3) & ndimage.binary_dilation(lit, iterations=3)
    np.testing.assert_array_equal(found[~rim], lit[~rim])


def test_apertured_corner_is_marked_and_filled_with_one():
    background, lit = cut_corner(beam(256), (80, 120), 3000.0)
    raw = noisy(np.where(lit, background * 0.6, 3000))
    done = divide(raw, background.astype(np.float32))
    np.testing.assert_array_equal(done.valid, lit)
    assert (done.transmission[~lit] == 1).all()
    kept = divide(raw, background, options=DivideOptions(aperture=False))
    assert kept.valid.mean() > 0.999


def test_many_tiles_show_a_corner_that_their_mean_does_not():
    """Without a dark image a specimen dims the field, and the corner not."""
    sharp, lit = cut_corner(beam(256), (90, 60), 0.0)
    seen = np.array([1, 0.3, 0.5, 0.4, 0.9, 0.3, 0.5, 0.4, 0.3])
    tiles = np.stack([noisy(sharp * t + 0.55 * 15000) for t in seen])
    assert lit_field(tiles.mean(axis=0)).all()
    rim = ndimage.binary_dilation(~lit, iterations=3) & ndimage.binary_dilation(lit, iterations=3)
    np.testing.assert_array_equal(lit_in_tiles(tiles)[~rim], lit[~rim])


def test_all_four_corners():
    image = beam(256)
    for turn in range(4):
        image = cut_corner(np.rot90(image, turn), (50, 70), 2000.0)[0]
        image = np.rot90(image, -turn)
    lit = lit_field(image)
    assert not any(lit[y, x] for y in (0, -1) for x in (0, -1))
    np.testing.assert_array_equal(lit, image > 2000)


def test_a_smooth_vignette_is_lit():
    """Six to one over the field, as at the APS, without an edge."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, 256)] * 2, indexing="ij")
    assert lit_field(2000 * np.exp(-0.9 * (x * x + y * y))).all()


@pytest.mark.parametrize("dark", [0.0, 0.05])
def test_a_dim_half_of_the_beam_is_lit(dark):
    """It ends as sharply as an aperture, and is not flat."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, 256)] * 2, indexing="ij")
    half = 1 / (1 + np.exp(-(x + y + 0.6) / 0.05))
    image = 20000 * (dark + (0.1 + 0.9 * half) * (1 + 0.5 * x))
    assert image[0, 0] < 0.2 * np.median(image)
    assert lit_field(noisy(image)).all()


def test_a_dim_object_inside_the_field_is_lit():
    image = beam(256)
    image[60:120, 60:120] *= 0.1
    assert lit_field(image).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 640), (22, 26), (512, 300)])
def test_fields_of_any_shape(shape):
    image = np.full(shape, 1000.0)
    assert lit_field(image).all()
    assert lit_field(image * 0).all()
    done = divide(image, image)
    assert done.valid.all() and (done.transmission == 1).all()


def test_the_median_level_ignores_what_is_not_finite():
    image = beam()
    image[::8, ::8] = np.nan
    assert level_of(image) == pytest.approx(float(np.nanmedian(image)), rel=0.01)
    assert level_of(np.full((4, 4), np.nan)) == 0


# --- optical density --------------------------------------------------------------------------


def test_optical_density_inverts_and_has_a_floor():
    density = optical_density(np.array([1.0, np.exp(-1), 0.5, 0.0, -0.2, np.nan], np.float32))
    np.testing.assert_allclose(density[:3], [0, 1, np.log(2)], atol=1e-6)
    np.testing.assert_allclose(density[3:5], -np.log(1e-3), rtol=1e-6)
    assert np.isnan(density[5])
    assert density.dtype == np.float32


# --- whole scans ------------------------------------------------------------------------------


class Constant:
    """A method that says how it was called."""

    name, workers = "constant", 1

    def __init__(self):
        self.calls = []

    def fit(self, scan, progress=None):
        return self

    def background(self, tiles, index=None):
        self.calls.append(tuple(index))
        return np.stack([beam() * (1 + 0.01 * i) for i in index])

    def describe(self):
        return {"level": 15000}


def scan_of(count=7, **facts):
    read = []

    def tile(i):
        read.append(i)
        return noisy(beam() * specimen(seed=i), seed=i)

    tiles = LazyTiles((count, SIZE, SIZE), np.uint16, tile)
    names = tuple(f"t{i}" for i in range(count))
    return Scan(tiles, "series", Source(Path("made"), "test"), names, **facts), read


def test_tiles_come_in_order_and_lazily():
    scan, read = scan_of()
    method = Constant()
    assert isinstance(method, BackgroundMethod)
    results = correct_tiles(scan, method, batch=3)
    assert read == []
    first = next(results)
    assert read[:3] == [0, 1, 2] and max(read) < 6  # at most one batch ahead
    assert [first.index, *(r.index for r in results)] == list(range(7))
    assert method.calls == [(0, 1, 2), (3, 4, 5), (6,)]


def test_result_holds_raw_background_and_their_ratio():
    scan, _ = scan_of(3, darks=np.full((2, SIZE, SIZE), 50, np.uint16))
    for i, result in enumerate(correct_tiles(scan, Constant())):
        np.testing.assert_array_equal(result.raw, scan.tiles[i])
        assert result.raw.dtype == np.uint16
        np.testing.assert_allclose(result.background, beam() * (1 + 0.01 * i), rtol=1e-6)
        expected = divide(scan.tiles[i], result.background, scan.dark())
        np.testing.assert_array_equal(result.transmission, expected.transmission)
        np.testing.assert_array_equal(result.valid, expected.valid)


def test_batch_size_and_repetition_change_nothing():
    scan, _ = scan_of()
    runs = [list(correct_tiles(scan, Constant(), batch=b)) for b in (1, 4, 8, 8)]
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(a.transmission, b.transmission)


def test_chosen_tiles_in_the_given_order():
    scan, read = scan_of()
    chosen = list(correct_tiles(scan, Constant(), indices=[5, 1]))
    assert [r.index for r in chosen] == [5, 1] == read


@pytest.mark.parametrize(
    ("given", "match"), [({"indices": [7]}, "tile 7"), ({"batch": 0}, "batch 0")]
)
def test_bad_requests_are_refused_at_once(given, match):
    scan, read = scan_of()
    with pytest.raises(MethodError, match=match):
        correct_tiles(scan, Constant(), **given)
    assert read == []


def test_stopping_ends_within_the_tile():
    scan, read = scan_of(40)
    seen = []
    for result in correct_tiles(scan, Constant(), batch=4, should_stop=lambda: len(seen) >= 6):
        seen.append(result.index)  # noqa: PERF401 the question looks at it
    assert seen == list(range(6))
    assert max(read) < 12  # at most one batch ahead


def test_memory_does_not_grow_with_the_scan():
    """961 tiles hold as little as 20; a batch of 8 of them is the bound."""
    peaks = []
    for count in (20, 961):
        tiles = LazyTiles(
            (count, SIZE, SIZE), np.uint16, lambda i: np.full((SIZE, SIZE), 9000, "u2")
        )
        scan = Scan(
            tiles, "series", Source(Path("m"), "test"), tuple(str(i) for i in range(count))
        )
        method = Constant()
        tracemalloc.start()
        quick = DivideOptions(outlier_sigma=None, aperture=False)
        for _ in correct_tiles(scan, method, options=quick):
            method.calls.clear()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 100 * SIZE * SIZE * 4


# --- several tiles at once --------------------------------------------------------------------


class Slow:
    """Takes longer for earlier tiles, so that results come in another order than asked."""

    name, workers = "slow", 1
    workers = 4

    def __init__(self):
        self.running, self.most, self.lock = 0, 0, threading.Lock()

    def fit(self, scan, progress=None):
        return self

    def background(self, tiles, index=None):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.02 if int(index[0]) % 4 == 0 else 0.001)
        with self.lock:
            self.running -= 1
        return np.full(tiles.shape, 1000.0, np.float32) + index[:, None, None].astype(np.float32)

    def describe(self):
        return {}


def numbered_scan(count=12):
    stack = np.arange(1, count + 1, dtype=np.uint16)[:, None, None] * np.ones((1, 8, 8), np.uint16)
    return Scan(stack, "series", Source(Path("x"), "test"), tuple(map(str, range(count))))


def test_threads_keep_the_order_and_the_bits():
    method, scan = Slow(), numbered_scan()
    together = list(correct_tiles(scan, method))
    one_by_one = list(correct_tiles(scan, method, workers=1))
    assert [r.index for r in together] == list(range(12))
    assert 1 < method.most <= 4
    for a, b in zip(together, one_by_one, strict=True):
        np.testing.assert_array_equal(a.transmission, b.transmission)


def test_stopping_threads_ends_within_the_tiles_in_flight():
    method, scan, seen = Slow(), numbered_scan(200), []
    for result in correct_tiles(scan, method, should_stop=lambda: len(seen) >= 3):
        seen.append(result.index)  # noqa: PERF401 - the loop stops itself by what it has seen
    assert seen == [0, 1, 2]
    assert not [t for t in threading.enumerate() if t.name.startswith("correct")]


def test_an_error_in_a_thread_reaches_the_caller():
    class Failing(Slow):
        def background(self, tiles, index=None):
            if index[0] == 5:
                raise MethodError("tile 5: no")
            return super().background(tiles, index)

    with pytest.raises(MethodError, match="tile 5"):
        list(correct_tiles(numbered_scan(), Failing()))


def test_uncertainty_is_given_only_when_asked_for_and_stated():
    class States(Constant):
        def uncertainty(self, index):
            return np.full((SIZE, SIZE), 0.01 * (index + 1), np.float32)

    scan, _ = scan_of()
    assert next(correct_tiles(scan, States())).uncertainty is None
    (tile,) = correct_tiles(scan, States(), indices=[3], uncertainty=True)
    np.testing.assert_array_equal(tile.uncertainty, np.full((SIZE, SIZE), np.float32(0.04)))
    with pytest.raises(MethodError, match="method constant: states no uncertainty"):
        correct_tiles(scan, Constant(), uncertainty=True)
