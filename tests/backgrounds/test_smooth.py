"""Properties of all background methods, then of each."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_txm_bgcorr.backgrounds import captured as captured_module
from napari_txm_bgcorr.backgrounds.captured import COMBINE, Captured, combine_logs
from napari_txm_bgcorr.backgrounds.smooth import (
    CLASSICAL,
    EigenFlats,
    Envelope,
    Smooth,
    TileMedian,
)
from napari_txm_bgcorr.core.correction import BackgroundMethod, correct_tiles
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.core.smooth_fields import Coarse, close_corners, log_beam, to_counts, upper
from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.quality.metrics import background_error

SIZE = 96
NAMES = sorted(CLASSICAL)
MODES = np.random.default_rng(7)


def smooth_beam(size=SIZE, level=15000.0):
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    return level * np.exp(0.1 * x - 0.08 * y - 0.1 * (x * x + y * y))


def pattern(size=SIZE, seed=5, strength=0.02):
    rough = np.random.default_rng(seed).standard_normal((size, size))
    fine = ndimage.gaussian_filter(rough, 1.5, mode="wrap")
    return np.exp(strength * fine / fine.std())


BEAM = (smooth_beam() * pattern()).astype(np.float32)


def grains(seed, size=SIZE, count=6):
    rng = np.random.default_rng(seed)
    out = np.ones((size, size))
    for y, x in rng.integers(0, size - 12, (count, 2)):
        out[y : y + 12, x : x + 12] *= 0.6
    return ndimage.gaussian_filter(out, 0.85)


def expose(truth, seed, transmission=None):
    mean = truth if transmission is None else truth * transmission
    return np.random.default_rng(seed).poisson(mean).astype(np.uint16)


def scan_of(count=8, dark=None, level=None, **facts):
    base = 0 if dark is None else dark
    gains = np.ones(count) if level is None else level
    tiles = np.stack([expose(BEAM * g + base, 10 + i) for i, g in enumerate(gains)])
    for i in range(count):
        tiles[i] = expose(BEAM * gains[i] * grains(i) + base, 50 + i)
    names = tuple(f"t{i}" for i in range(count))
    flats = np.stack([expose(BEAM + base, 100 + i) for i in range(4)])
    given = {"flats": flats, **facts}
    if dark is not None:
        given["darks"] = np.full((1, SIZE, SIZE), dark, np.uint16)
    kind = "single" if count == 1 else "series"
    return Scan(tiles, kind, Source(Path("made"), "test"), names, **given)


# --- the protocol, for all names --------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_protocol(name):
    scan = scan_of()
    method = CLASSICAL[name]()
    assert isinstance(method, BackgroundMethod)
    assert method.name == name
    assert method.fit(scan) is method
    tiles = np.asarray(scan.tiles[2:5])
    kept = tiles.copy()
    out = method.background(tiles, np.arange(2, 5))
    assert out.shape == tiles.shape and out.dtype == np.float32
    assert np.isfinite(out).all() and (out > 0).all()
    np.testing.assert_array_equal(tiles, kept)
    assert json.loads(json.dumps(method.describe())) == method.describe()


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_smooth_field_is_recovered(name):
    truth = smooth_beam()
    tiles = np.stack([expose(truth, i) for i in range(5)])
    scan = Scan(tiles, "series", Source(Path("m"), "test"), tuple("abcde"), flats=tiles[:3])
    out = CLASSICAL[name]().fit(scan).background(tiles, np.arange(5))
    for predicted in out:
        error = background_error(predicted, truth)
        assert error["sf"] < (0.02 if name in ("smooth", "envelope") else 0.01)
        assert error["abs"] < 0.025


@pytest.mark.parametrize("name", NAMES)
def test_unknown_tiles_and_any_grouping_give_the_same(name):
    scan = scan_of(flat_times=None)
    method = CLASSICAL[name]().fit(scan)
    together = method.background(scan.tiles[:4])
    for k in range(4):
        alone = method.background(scan.tiles[k : k + 1])
        np.testing.assert_array_equal(alone[0], together[k])


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_give_the_same_bits(name):
    scan = scan_of()
    a, b = (CLASSICAL[name]().fit(scan).background(scan.tiles[:2], np.arange(2)) for _ in "ab")
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_dark_is_part_of_the_background_but_not_of_its_shape(name):
    plain, dark = scan_of(), scan_of(dark=4000)
    without = CLASSICAL[name]().fit(plain).background(plain.tiles[:2], np.arange(2))
    with_dark = CLASSICAL[name]().fit(dark).background(dark.tiles[:2], np.arange(2))
    assert background_error(with_dark[0] - 4000, without[0])["abs"] < 0.012


@pytest.mark.parametrize("name", NAMES)
def test_apertured_corner_reads_the_pedestal_and_is_masked(name):
    size = 192
    y, x = np.indices((size, size))
    unlit = y / 70 + (size - 1 - x) / 50 < 1
    truth = np.where(unlit, 2500, smooth_beam(size))
    tiles = np.stack([expose(truth, i, np.where(unlit, 1, grains(i, size))) for i in range(5)])
    scan = Scan(tiles, "series", Source(Path("m"), "test"), tuple("abcde"))
    scan = replace(scan, flats=np.stack([expose(truth, 90 + i) for i in range(3)]))
    inner = ndimage.binary_erosion(unlit, iterations=3, border_value=1)
    lit = ~ndimage.binary_dilation(unlit, iterations=3)
    for result in correct_tiles(scan, CLASSICAL[name]().fit(scan)):
        assert np.median(result.background[inner]) == pytest.approx(2500, rel=0.12)
        assert not result.valid[inner].any()
        assert result.valid[lit].mean() > 0.999
        # The corner does not pull the lit field down beside it.
        near = lit & ndimage.binary_dilation(unlit, iterations=10)
        ratio = result.background[near] / truth[near]
        assert abs(np.median(ratio) - 1) < 0.12


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_damaged_tiles_give_finite_backgrounds(name, dtype):
    scan = scan_of()
    tiles = np.asarray(scan.tiles[:4]).astype(dtype)
    tiles[0] = 0
    tiles[1, ::7, ::5] = 0
    tiles[2, ::3, ::4] = np.iinfo(np.uint16).max
    if dtype == np.float32:
        tiles[3, ::6] = np.nan
        tiles[1, 3:9, 3:9] = np.inf
    damaged = replace(scan, tiles=tiles, names=scan.names[:4])
    out = CLASSICAL[name]().fit(damaged).background(tiles, np.arange(4))
    assert np.isfinite(out).all() and (out > 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2, 640), (22, 26), (65, 130)])
def test_fields_of_any_shape(name, shape):
    rng = np.random.default_rng(0)
    tiles = rng.poisson(5000, (4, *shape)).astype(np.uint16)
    scan = Scan(tiles, "series", Source(Path("m"), "test"), tuple("abcd"), flats=tiles)
    out = CLASSICAL[name]().fit(scan).background(tiles, np.arange(4))
    assert out.shape == tiles.shape
    np.testing.assert_allclose(np.median(out, axis=(1, 2)), 5000, rtol=0.03)


@pytest.mark.parametrize("name", ["captured", "tile-median", "eigen-flats"])
def test_not_fitted_or_not_possible_is_said(name):
    method = CLASSICAL[name]()
    with pytest.raises(MethodError, match="not fitted"):
        method.background(np.ones((1, 8, 8)))
    with pytest.raises(MethodError, match=r"made: .*(needs|references)"):
        method.fit(replace(scan_of(1), flats=None))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Smooth(sigma=0), "sigma 0"),
        (lambda: Envelope(order=9), "order 9"),
        (lambda: Captured(combine="max"), "combine 'max'"),
        (lambda: TileMedian(tiles=2), "tiles 2"),
        (lambda: EigenFlats(components=-1), "components -1"),
    ],
)
def test_bad_parameters_are_refused(make, match):
    with pytest.raises(MethodError, match=match):
        make()


# --- captured ---------------------------------------------------------------------------------

HOUR = np.timedelta64(3600, "s")
START = np.datetime64("2024-05-01T08:00:00", "s")


def timed(flats, flat_hours, tile_hours):
    tiles = np.broadcast_to(BEAM, (len(tile_hours), SIZE, SIZE))
    names = tuple(f"t{i}" for i in range(len(tile_hours)))
    return Scan(
        tiles, "series", Source(Path("m"), "test"), names, flats=np.asarray(flats, np.float32),
        flat_times=START + (np.asarray(flat_hours) * 3600).astype("timedelta64[s]"),
        times=START + (np.asarray(tile_hours) * 3600).astype("timedelta64[s]"),
    )  # fmt: skip


def captured(scan, **parameters):
    method = Captured(**parameters).fit(scan)
    return method, method.background(np.asarray(scan.tiles[:]), np.arange(len(scan)))


def test_one_reference_is_given_back():
    scan = replace(timed([BEAM], [0], [3]), flat_times=None)
    _, out = captured(scan)
    np.testing.assert_allclose(out[0], BEAM, rtol=2e-6)


def test_an_exponential_decay_is_followed_exactly():
    hours = np.array([0.0, 10.0])
    flats = [BEAM * np.exp(-0.05 * h) for h in hours]
    _, out = captured(timed(flats, hours, [0, 2.5, 5, 10]))
    for tile, h in zip(out, [0, 2.5, 5, 10], strict=True):
        np.testing.assert_allclose(tile, BEAM * np.exp(-0.05 * h), rtol=5e-6)


def test_outside_the_visits_the_nearest_holds_and_order_does_not_matter():
    flats = [BEAM, BEAM * 0.5, BEAM * 0.25]
    _, out = captured(timed(flats, [4, 8, 0], [-3, 0, 9]))
    for tile, factor in zip(out, [0.25, 0.25, 0.5], strict=True):
        np.testing.assert_allclose(tile, BEAM * factor, rtol=5e-6)


def test_references_of_one_visit_are_combined():
    rng = np.random.default_rng(0)
    flats = [rng.poisson(BEAM) for _ in range(10)]
    hours = [0, 0.01, 0.02, 0.03, 0.04, 8, 8.01, 8.02, 8.03, 8.04]
    method, out = captured(timed(flats, hours, [0, 8]))
    assert method.describe()["visits"] == 2
    assert background_error(out[0], BEAM)["sf"] < 0.7 * background_error(flats[0], BEAM)["sf"]


@pytest.mark.parametrize(
    ("minutes", "tiles", "count"),
    [(range(10), [20], 1), (range(0, 600, 60), [700], 10), ([0, 1, 4, 5], [2, 3], 2),
     ([0, 1, 120, 121], [300], 2)],
)  # fmt: skip
def test_a_visit_ends_at_a_tile_or_a_long_pause(minutes, tiles, count):
    flats = [BEAM] * len(minutes)
    scan = timed(flats, np.array(list(minutes)) / 60, np.array(tiles) / 60)
    assert captured(scan)[0].describe()["visits"] == count


@pytest.mark.parametrize("combine", ["levelled-median", "levelled-mean"])
def test_levels_are_aligned_before_combining(combine):
    """References of a pulsing source: the shape stays, the level is the middle one."""
    flats = [BEAM * g for g in (0.8, 1.0, 1.3)]
    scan = replace(timed(flats, [0, 1, 2], [0]), flat_times=None)
    _, out = captured(scan, combine=combine)
    np.testing.assert_allclose(out[0], BEAM, rtol=1e-5)


def test_mean_and_median_agree_with_numpy():
    rng = np.random.default_rng(1)
    stack = np.log(rng.poisson(500, (7, 24, 24)).astype(np.float32))
    stack -= np.median(stack[:, ::4, ::4], axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(combine_logs(stack, "median"), np.median(stack, 0), atol=1e-6)
    brute = np.log(np.exp(stack).mean(0))
    np.testing.assert_allclose(combine_logs(stack, "mean"), brute, atol=1e-5)


@pytest.mark.parametrize("combine", ["mean", "median"])
@pytest.mark.parametrize("dark", [None, 400])
def test_plain_combination_is_that_of_other_programs(combine, dark):
    """(raw - dark) / (flat - dark) with the mean or median of each, whatever level or time."""
    rng = np.random.default_rng(3)
    base = 0 if dark is None else dark
    flats = np.stack([rng.poisson(BEAM * g + base) for g in (0.8, 1.0, 1.3, 1.1)]).astype("u2")
    darks = None if dark is None else rng.poisson(dark, (5, SIZE, SIZE)).astype("u2")
    scan = replace(scan_of(3, flats=flats, darks=darks), darks_combined=combine,
                   times=START + np.arange(3).astype("timedelta64[h]"),
                   flat_times=START + np.arange(4).astype("timedelta64[h]"))  # fmt: skip
    merge = getattr(np, combine)
    below = 0.0 if darks is None else merge(darks.astype(np.float64), axis=0)
    expected = (scan.tiles[:] - below) / (merge(flats.astype(np.float64), axis=0) - below)
    method = Captured(combine).fit(scan)
    for result in correct_tiles(scan, method):
        ours, theirs = result.transmission[result.valid], expected[result.index][result.valid]
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert result.valid.mean() > 0.99


@pytest.mark.parametrize("combine", COMBINE)
def test_one_reference_is_the_same_however_it_is_combined(combine):
    scan = scan_of(1, flats=scan_of().flats[:1])
    np.testing.assert_allclose(captured(scan, combine=combine)[1][0], scan.flats[0], rtol=2e-6)


def test_a_median_by_bands_is_the_same(monkeypatch):
    scan = scan_of(1)
    whole = captured(scan, combine="median")[1]
    monkeypatch.setattr(captured_module, "BAND_BYTES", 8 * 4 * SIZE * 7)
    np.testing.assert_array_equal(captured(scan, combine="median")[1], whole)


def test_references_of_another_exposure_are_scaled_above_the_dark():
    flats = np.stack([BEAM * g + 300 for g in (1, 0.7, 0.7)]).astype(np.float32)
    scan = scan_of(2, dark=300, flats=flats, flat_exposures_s=np.array([50.0, 35.0, 35.0]),
                   exposures_s=np.array([50.0, 100.0]))  # fmt: skip
    method, out = captured(scan)
    np.testing.assert_allclose(out[0] - 300, BEAM, rtol=1e-5)
    np.testing.assert_allclose(out[1] - 300, 2 * BEAM, rtol=1e-5)
    assert method.describe()["notes"][0].startswith("references of 35 to 50 s scaled to the expo")


@pytest.mark.parametrize("name", ["captured", "eigen-flats"])
def test_references_are_shared_out_by_energy(name):
    shapes = [BEAM, (BEAM * pattern(seed=8, strength=0.1)).astype(np.float32)]
    flats = np.stack([expose(shapes[k % 2], 300 + k) for k in range(6)])
    tiles = np.stack([expose(shapes[k], 400 + k) for k in range(2)])
    scan = Scan(
        tiles, "series", Source(Path("made"), "test"), ("a", "b"), flats=flats,
        energies_ev=np.array([8000.0, 8100.0]), flat_energies_ev=np.array([8000.0, 8100.0] * 3),
    )  # fmt: skip
    method = CLASSICAL[name]().fit(scan)
    out = method.background(tiles, np.arange(2))
    for background, shape in zip(out, shapes, strict=True):
        assert background_error(background, shape)["sf"] < 0.01
    assert "shared out" in method.describe()["notes"][0]


def test_references_of_another_energy_divide_where_they_are_asked_for_and_that_is_said():
    scan = scan_of(1, energy_ev=8353.0, flat_energies_ev=np.array([8250.0, 8300, 8250, 8250]))
    method, out = captured(scan)
    np.testing.assert_allclose(out[0], scan.flats[1], rtol=1e-6)
    assert method.describe()["notes"] == [
        "the image was taken at 8353 eV and divided by references of 8300 eV, where the beam has "
        "another shape: take references at 8353 eV"
    ]
    with pytest.raises(MethodError, match="1 references have the photon energy"):
        EigenFlats().fit(scan)


def test_a_cosmic_ray_does_not_survive_the_median():
    flats = [BEAM.copy() for _ in range(3)]
    flats[1][20:24, 20:24] *= 5
    scan = replace(timed(flats, [0, 1, 2], [0]), flat_times=None)
    _, out = captured(scan, combine="median")
    np.testing.assert_allclose(out[0], BEAM, rtol=1e-5)


def test_without_times_all_references_count():
    flats = [BEAM, BEAM * 0.64]
    scan = timed(flats, [0, 10], [3])
    for odd in (replace(scan, times=None), replace(scan, flat_times=None)):
        _, out = captured(odd)
        np.testing.assert_allclose(out[0], BEAM * 0.82, rtol=1e-5)
    unknown = Captured().fit(scan).background(np.asarray(scan.tiles[:]), None)
    np.testing.assert_allclose(unknown[0], BEAM * 0.8, rtol=1e-5)


# --- tile-median ------------------------------------------------------------------------------


def test_tile_median_recovers_pattern_and_level_under_a_specimen():
    level = np.linspace(1.0, 0.8, 9)
    scan = scan_of(9, level=level)
    method = TileMedian().fit(scan)
    out = method.background(scan.tiles[:], np.arange(9))
    for k in range(9):
        error = background_error(out[k], BEAM * level[k])
        assert error["sf"] < 0.012
        assert error["abs"] < 0.02


def test_leaving_out_what_absorbs_beats_the_plain_median():
    """Six of nine tiles are covered by a third, from one side or another."""
    rng = np.random.default_rng(2)
    tiles = []
    for k in range(9):
        sample = np.ones((SIZE, SIZE))
        if k < 6:
            sample[: SIZE // 3] = rng.uniform(0.5, 0.8)
        tiles.append(expose(BEAM, k, np.rot90(sample, k % 2)))
    scan = Scan(np.stack(tiles), "series", Source(Path("m"), "t"), tuple("abcdefghi"))
    plain, robust = (
        background_error(TileMedian(rounds=r).fit(scan).background(scan.tiles[:1])[0], BEAM)["sf"]
        for r in (1, 3)
    )
    assert robust < 0.012
    assert robust < 0.5 * plain


def test_large_scans_are_sampled_evenly_and_lazily():
    read = []

    def tile(i):
        read.append(i)
        return expose(BEAM, i)

    scan = Scan(LazyTiles((961, SIZE, SIZE), np.uint16, tile), "series", Source(Path("m"), "t"),
                tuple(str(i) for i in range(961)))  # fmt: skip
    method = TileMedian(tiles=20, rounds=1).fit(scan)
    assert len(read) == len(set(read)) == method.describe()["used"] == 20
    assert read[0] == 0 and read[-1] == 960
    assert max(np.diff(read)) <= 52


# --- smooth and envelope ----------------------------------------------------------------------


def test_envelope_is_not_pulled_down_by_a_specimen_and_smooth_is():
    sample = np.ones((SIZE, SIZE))
    sample[30:60, 30:60] = 0.5
    tile = expose(smooth_beam(), 0, sample)[None]
    scan = Scan(tile, "single", Source(Path("m"), "t"), ("a",))
    envelope, smooth = (
        background_error(m.fit(scan).background(tile)[0], smooth_beam())["sf"]
        for m in (Envelope(), Smooth())
    )
    assert envelope < 0.02 < 0.06 < smooth


def test_envelope_fits_its_own_polynomials_exactly():
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    truth = 9000 * np.exp(0.2 * x**3 - 0.1 * x * y + 0.05 * y**2 * x + 0.1 * y)
    scan = Scan(truth[None], "single", Source(Path("m"), "t"), ("a",))
    out = Envelope(order=3).fit(scan).background(truth[None])[0]
    np.testing.assert_allclose(out, truth, rtol=8e-3)


def test_gaussian_equals_scipy_on_the_full_field():
    tile = expose(BEAM, 3)[None]
    scan = Scan(tile, "single", Source(Path("m"), "t"), ("a",))
    out = Smooth(sigma=0.125).fit(scan).background(tile)[0]
    brute = np.exp(
        ndimage.gaussian_filter(np.log(tile[0].astype(float)), SIZE / 8, mode="nearest")
    )
    assert background_error(out, brute)["abs"] < 0.01


# --- eigen flats ------------------------------------------------------------------------------


def modes(weights, noise_seed=None, size=192):
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    a, b = x + 0.3 * np.sin(9 * y), y * x
    image = smooth_beam(size) * pattern(size) * np.exp(weights[0] * a + weights[1] * b)
    return image if noise_seed is None else expose(image, noise_seed)


@pytest.fixture
def eigen_scan():
    rng = np.random.default_rng(0)
    flats = np.stack([modes(rng.normal(0, 0.05, 2), i) for i in range(10)])
    tiles = np.stack([modes(w) for w in ([0.05, 0.0], [-0.07, 0.05], [0.02, 0.08], [0.1, -0.1])])
    raw = np.stack([expose(t, 70 + i, grains(i, 192)) for i, t in enumerate(tiles)])
    scan = Scan(raw, "series", Source(Path("m"), "t"), tuple("abcd"), flats=flats)
    return scan, tiles


def test_parallel_analysis_finds_the_two_ways_the_beam_varies(eigen_scan):
    scan, _ = eigen_scan
    assert EigenFlats().fit(scan).describe()["used"] == 2
    assert EigenFlats(components=1).fit(scan).describe()["used"] == 1


def test_parallel_analysis_finds_nothing_in_noise():
    scan = scan_of(1, flats=np.stack([expose(BEAM, i) for i in range(8)]))
    assert EigenFlats().fit(scan).describe()["used"] == 0


def test_coefficients_follow_the_beam_under_the_specimen(eigen_scan):
    scan, truth = eigen_scan
    out = EigenFlats().fit(scan).background(scan.tiles[:], np.arange(4))
    fixed = Captured().fit(scan).background(scan.tiles[:], np.arange(4))
    for k in range(4):
        fitted = background_error(out[k], truth[k])
        assert fitted["sf"] < 0.02
        assert fitted["sf"] < 0.5 * background_error(fixed[k], truth[k])["sf"]
        assert fitted["abs"] < 0.025


# --- shapes -----------------------------------------------------------------------------------


def test_cells_are_means_and_expand_back_to_a_smooth_field():
    coarse = Coarse((256, 192), 32)
    image = smooth_beam(256)[:, :192]
    brute = image.reshape(32, 8, 32, 6).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse.mean(image), brute, rtol=1e-6)
    np.testing.assert_allclose(coarse.expand(brute), image, rtol=2e-3)


def test_logarithm_is_finite_and_inverts():
    values = np.array([[np.nan, 0.0, -5.0], [100.0, 110.0, np.inf], [90.0, 100.0, 100.0]])
    log = log_beam(values, None)
    assert np.isfinite(log).all()
    np.testing.assert_allclose(to_counts(log, None)[2], values[2], rtol=1e-6)
    dark = np.full((3, 3), 7, np.float32)
    np.testing.assert_allclose(to_counts(log_beam(values + 7, dark), dark)[2], values[2] + 7)


def test_the_upper_level_ignores_what_absorbs():
    cells = np.concatenate([np.full(60, -0.7), np.zeros(40)])
    assert upper(cells, np.ones(100, bool)) == 0
    assert upper(cells, cells < -0.1) == pytest.approx(-0.7)


def test_corners_take_their_own_level():
    raw = np.full((20, 20), 900.0)
    lit = np.ones((20, 20), bool)
    lit[:4, :4] = lit[-3:, -3:] = False
    raw[:4, :4], raw[-3:, -3:] = 200, 300
    background = np.full((20, 20), 1000, np.float32)
    close_corners(background, raw, lit)
    assert (background[:4, :4] == 200).all() and (background[-3:, -3:] == 300).all()
    assert (background[lit] == 1000).all()
