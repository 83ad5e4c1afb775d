"""The mosaic as one object: what the joint stage finds, and when it steps aside."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from napari_txm_bgcorr.core.joint import JointOptions
from napari_txm_bgcorr.core.overlap_pattern import overlap_pattern
from scipy import ndimage

from napari_txm_bgcorr.core import quality
from napari_txm_bgcorr.core.classical import Captured, Smooth, TileMedian
from napari_txm_bgcorr.core.correction import BackgroundMethod, correct_tiles
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.legendre import legendre, terms
from napari_txm_bgcorr.core.mosaic import Joint, blend, joint, survey
from napari_txm_bgcorr.core.overview import Overview
from napari_txm_bgcorr.core.scan import LazyTiles, Scan, Source, raster_positions
from napari_txm_bgcorr.core.shared_pattern import shared_pattern
from napari_txm_bgcorr.core.simulate import SimulatedScan, simulate_mosaic

SIZE = 96
STEP = 76
GRID = (4, 4)


def specimen(shape: tuple[int, int], seed: int, contrast: float = 0.15) -> np.ndarray:
    """Log transmission with structure of all sizes, never above 0."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    radius = np.hypot(fy[:, None], fx)
    radius[0, 0] = np.inf
    noise = np.fft.rfft2(rng.standard_normal(shape)) / radius**1.2
    image = np.fft.irfft2(noise, shape)
    return -contrast * np.abs(image / image.std())


def polynomial(coefficients: dict[tuple[int, int], float], size: int = SIZE) -> np.ndarray:
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    order = tuple(coefficients)
    values = legendre(order, np.repeat(axis, size), np.tile(axis, size))
    return (values @ np.array(list(coefficients.values()))).reshape(size, size)


def make_scan(
    errors: np.ndarray, *, contrast: float = 0.15, seed: int = 0, grid: tuple[int, int] = GRID
) -> tuple[Scan, np.ndarray, np.ndarray]:
    """Scan, its true log backgrounds, and given ones that lack `errors` (T, Y, X)."""
    places = raster_positions(grid, (STEP, STEP))
    count = len(places)
    whole = tuple(int(n) + SIZE for n in places.max(axis=0))
    sample = specimen(whole, seed, contrast)
    rng = np.random.default_rng(seed + 1)
    shape = (
        9.0
        + polynomial({(0, 0): 0, (1, 0): 0.1, (0, 2): -0.15})
        + 0.03 * (rng.standard_normal((SIZE, SIZE)))
    )
    true = np.broadcast_to(shape, (count, SIZE, SIZE)) + errors
    corners = places.astype(int)
    tiles = np.stack([
        np.exp(b + sample[y : y + SIZE, x : x + SIZE])
        for b, (y, x) in zip(true, corners, strict=True)
    ])  # fmt: skip
    tiles *= 1 + 0.003 * rng.standard_normal(tiles.shape)
    scan = Scan(
        tiles=tiles.astype(np.float32), kind="mosaic", source=Source(Path("made"), "made"),
        names=tuple(f"t{k}" for k in range(count)), grid=grid, positions_px=places,
    )  # fmt: skip
    return scan, true, np.exp(np.broadcast_to(shape, true.shape)).astype(np.float32)


def one_scale_error(backgrounds: object, true: np.ndarray) -> float:
    found = np.log(np.asarray(backgrounds[:])) - true  # type: ignore[index]
    return float(np.std(found))


def test_a_known_shared_error_is_recovered() -> None:
    missing = polynomial({(0, 0): 0.0, (0, 1): 0.05, (1, 0): -0.03, (2, 0): 0.03, (1, 1): 0.02})
    scan, true, given = make_scan(np.broadcast_to(missing, (16, SIZE, SIZE)))
    done = joint(scan, given, scan.positions_px)
    assert done.applied
    assert one_scale_error(given, true) > 0.035
    assert one_scale_error(done.backgrounds, true) < 0.006


def test_levels_of_single_tiles_are_tied_through_the_overlaps() -> None:
    off = np.zeros((16, SIZE, SIZE))
    off[5] += 0.08
    off[10] -= 0.05
    scan, true, given = make_scan(off)
    done = joint(scan, given, scan.positions_px)
    assert one_scale_error(given, true) > 0.02
    assert one_scale_error(done.backgrounds, true) < 0.006
    assert done.levels[5] - np.median(done.levels) == pytest.approx(0.08, abs=0.015)


def test_levels_alone_would_turn_a_tilt_into_a_ramp() -> None:
    """Without f, a tilt of the shape is explained by levels that rise from tile to tile."""
    missing = np.broadcast_to(polynomial({(0, 1): 0.05}), (16, SIZE, SIZE))
    scan, true, given = make_scan(missing)
    rigid = JointOptions(shared_error=1e-6, shape_drift=1e-6, level_drift=1.0)
    levels_only = joint(scan, given, scan.positions_px, options=rigid)
    both = joint(scan, given, scan.positions_px)
    assert one_scale_error(levels_only.backgrounds, true) > one_scale_error(given, true)
    assert one_scale_error(both.backgrounds, true) < 0.2 * one_scale_error(given, true)


def test_drift_of_single_tiles_is_followed() -> None:
    tilt = np.sin(np.arange(16) / 4)[:, None, None] * polynomial({(0, 1): 0.03, (1, 0): 0.02})
    scan, true, given = make_scan(tilt)
    done = joint(scan, given, scan.positions_px)
    assert one_scale_error(done.backgrounds, true) < 0.45 * one_scale_error(given, true)


def test_a_level_that_falls_for_hours_is_not_taken_for_a_tilt() -> None:
    """The method knows it roughly; drift that stays about a mean would give it to f."""
    grid, rng = (7, 7), np.random.default_rng(3)
    fall = np.linspace(0.1, -0.1, 49)[:, None, None] * np.ones((SIZE, SIZE))
    tilt = polynomial({(1, 0): 0.01})
    scan, true, given = make_scan(fall + tilt, grid=grid)
    start = np.datetime64("2026-01-01T00:00:00", "s")
    scan = replace(scan, times=start + np.arange(49) * np.timedelta64(1440, "s"))
    rough = (given * np.exp(fall + rng.normal(0, 0.02, 49)[:, None, None])).astype(np.float32)
    alone = JointOptions(slow_drift=1e-6)
    errors = [
        one_scale_error(joint(scan, rough, scan.positions_px, options=o).backgrounds, true)
        for o in (JointOptions(), alone)
    ]
    assert errors[0] < 0.012
    assert errors[0] < 0.5 * errors[1]


def test_good_backgrounds_are_left_alone() -> None:
    scan, true, given = make_scan(np.zeros((16, SIZE, SIZE)))
    done = joint(scan, given, scan.positions_px)
    assert not done.applied
    assert "nothing to gain" in done.reason
    assert done.backgrounds is given
    forced = joint(scan, given, scan.positions_px, options=JointOptions(least_seam=0))
    assert one_scale_error(forced.backgrounds, true) < 0.004


def test_fine_pattern_is_taken_from_overlaps() -> None:
    """A dense specimen left its trace in the shape that all tiles were given."""
    trace = ndimage.gaussian_filter(np.random.default_rng(8).standard_normal((SIZE, SIZE)), 3)
    missing = np.broadcast_to(0.04 * trace / trace.std(), (16, SIZE, SIZE))
    scan, true, given = make_scan(missing, contrast=0.4)
    options = JointOptions()
    overview = survey(scan, given)
    overview = replace(overview, others=overview.others[:0])
    overview = replace(overview, shape=np.log(given[0]) - np.float32(np.log(given[0]).mean()),
                       raw=(overview.raw + (overview.shape - np.log(given[0]) + np.float32(
                           np.log(given[0]).mean())).astype(np.float16)))  # fmt: skip
    done = joint(scan, given, scan.positions_px, overview=overview, options=options)
    error = np.std(np.log(np.asarray(done.backgrounds[:])) - true, axis=0)
    left = np.mean((np.log(np.asarray(done.backgrounds[:])) - true), axis=0)
    rim = np.zeros((SIZE, SIZE), bool)
    rim[4:16, 24:72] = rim[-16:-4, 24:72] = rim[24:72, 4:16] = rim[24:72, -16:-4] = True
    assert error.max() < 0.1
    assert np.std(left[rim]) < 0.85 * np.std(missing[0][rim])


def test_fine_pattern_fades_where_few_overlaps_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles jitter, so the overlaps end at different places: no edge may stay there."""
    rng = np.random.default_rng(3)
    trace = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 3)
    tiles = np.broadcast_to(np.float32(0.05) * trace / trace.std(), (36, SIZE, SIZE))
    places = raster_positions((6, 6), (STEP, STEP)) + rng.integers(-6, 7, (36, 2))
    lit = np.ones((SIZE, SIZE), bool)
    overview = Overview(
        np.zeros((SIZE, SIZE), np.float32), lit, tiles.astype(np.float16), np.zeros(36),
        np.zeros((36, 1, 1), np.float32), 1, np.zeros(5),
    )  # fmt: skip

    def found() -> np.ndarray:
        return overlap_pattern(overview, places, lambda i: np.zeros((SIZE, SIZE), np.float32))

    faded = found()
    monkeypatch.setattr("napari_txm_bgcorr.core.overlap_pattern.FULL", 1e-6)
    whole = found()
    edge = ndimage.binary_dilation(whole == 0) & (whole != 0)
    assert edge.sum() > 50
    assert np.abs(faded[edge]).mean() < 0.5 * np.abs(whole[edge]).mean()
    np.testing.assert_array_equal(faded[:12], whole[:12])  # where all of them tell it


def test_the_corner_behind_the_aperture_reads_the_same_in_every_tile() -> None:
    missing = np.broadcast_to(polynomial({(0, 1): 0.05, (2, 0): 0.03}), (16, SIZE, SIZE))
    scan, _, given = make_scan(missing, contrast=0.3)
    y, x = np.mgrid[:SIZE, :SIZE]
    closed = (SIZE - 1 - x) + y < 30
    tiles = np.where(closed, 2000.0, np.asarray(scan.tiles[:]) + 2000.0).astype(np.float32)
    done = joint(replace(scan, tiles=tiles), given + 2000.0, scan.positions_px)
    assert done.applied
    inner = ndimage.binary_erosion(closed, iterations=4, border_value=1)
    np.testing.assert_allclose(np.asarray(done.backgrounds[:])[:, inner], 2000, rtol=0.01)


def test_median_level_stays() -> None:
    off = np.linspace(-0.05, 0.05, 16)[:, None, None] * np.ones((SIZE, SIZE))
    scan, _, given = make_scan(off)
    done = joint(scan, given, scan.positions_px)
    assert np.median(done.levels) == pytest.approx(float(np.median(np.log(given))), abs=0.03)


def test_outlier_of_the_specimen_is_ignored() -> None:
    """One tile that changed between exposures must not bend the others."""
    missing = np.broadcast_to(polynomial({(0, 1): 0.05}), (16, SIZE, SIZE))
    scan, true, given = make_scan(missing)
    tiles = np.array(scan.tiles[:])
    tiles[5, :, :20] *= 0.6
    done = joint(replace(scan, tiles=tiles), given, scan.positions_px)
    others = np.arange(16) != 5
    found = np.log(np.asarray(done.backgrounds[:]))[others] - true[others]
    assert np.std(found) < 0.015


def test_a_mask_of_the_dark_is_kept_out_of_the_logarithm() -> None:
    missing = np.broadcast_to(polynomial({(0, 1): 0.05, (2, 0): 0.03}), (16, SIZE, SIZE))
    scan, true, given = make_scan(missing)
    dark = np.full((1, SIZE, SIZE), 3000, np.float32)
    lifted = replace(scan, tiles=np.asarray(scan.tiles[:]) + dark, darks=dark)
    plain = joint(scan, given, scan.positions_px)
    done = joint(lifted, given + dark, scan.positions_px)
    off = np.asarray(done.backgrounds[:]) - dark - np.asarray(plain.backgrounds[:])
    assert np.abs(off).max() < 2e-3 * np.exp(true).mean()


@pytest.mark.parametrize(
    ("grid", "places", "said"),
    [
        ((1, 3), (STEP, STEP), "3 tiles"),
        ((3, 3), (2 * SIZE, 2 * SIZE), "0 usable overlaps"),
        ((3, 3), (STEP, 2 * SIZE), "6 usable overlaps for 9 tiles"),
    ],
)
def test_steps_aside_with_a_reason(
    grid: tuple[int, int], places: tuple[int, int], said: str
) -> None:
    count = grid[0] * grid[1]
    scan, _, given = make_scan(np.zeros((count, SIZE, SIZE)), grid=grid)
    done = joint(scan, given, raster_positions(grid, places))
    assert not done.applied
    assert said in done.reason
    assert done.backgrounds is given


def test_backgrounds_of_another_number_are_refused() -> None:
    scan, _, given = make_scan(np.zeros((16, SIZE, SIZE)))
    with pytest.raises(MethodError, match="one background for each tile"):
        survey(scan, given[:3])


def test_pattern_is_believed_only_where_halves_agree() -> None:
    rng = np.random.default_rng(3)
    lit = np.ones((SIZE, SIZE), bool)
    noise = 0.03 * rng.standard_normal((12, SIZE, SIZE))
    _, none = shared_pattern(noise.astype(np.float16), lit)
    assert none.max() < 0.1
    pattern = 0.03 * rng.standard_normal((SIZE, SIZE))
    found, kept = shared_pattern((noise + pattern).astype(np.float16), lit)
    assert kept[0] > 0.8
    assert np.std(found - pattern) < 0.5 * np.std(pattern)
    few, untouched = shared_pattern((noise + pattern)[:3].astype(np.float16), lit)
    assert not few.any()
    assert not untouched.any()


def drawn(seed: int, **given: object) -> SimulatedScan:
    settings: dict = {
        "size": 128, "hours_per_tile": 85 / 3600, "references": 1, "reference_hours": 8.0,
        "darks": 1, "family": "bl01b", "seed": seed,
    } | given  # fmt: skip
    made = simulate_mosaic(3, 4, **settings)
    return replace(made, scan=replace(made.scan, tiles=np.asarray(made.scan.tiles[:])))


def errors_of(made: SimulatedScan, method: BackgroundMethod) -> dict[str, np.ndarray]:
    fitted = method.fit(made.scan)
    index = np.arange(len(made.scan))
    beams = fitted.background(made.scan.tiles, index) - made.scan.dark()
    lit = ndimage.binary_erosion(made.session.aperture, iterations=2, border_value=1)
    return quality.mosaic_errors(beams, made.backgrounds[:], [lit] * len(index))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("method", [Captured, Smooth])
def test_errors_fall_on_simulated_mosaics(method: type, seed: int) -> None:
    """With drift, jitter, noise and a specimen: not the seams alone, the errors."""
    made = drawn(seed)
    before, after = errors_of(made, method()), errors_of(made, Joint(method()))
    assert after["sf"].mean() < 0.7 * before["sf"].mean()
    assert after["mosaic"].mean() < 0.7 * before["mosaic"].mean()


def test_wrapper_is_a_background_method() -> None:
    made = drawn(3)
    method = Joint(TileMedian())
    assert isinstance(method, BackgroundMethod)
    assert method.fit(made.scan) is method
    assert method.name == "tile-median+joint"
    assert method.reason == ""
    whole = method.background(made.scan.tiles, np.arange(12))
    results = list(correct_tiles(made.scan, method, indices=[7, 2]))
    for result in results:
        np.testing.assert_array_equal(result.background, whole[result.index])
    told = method.describe()["joint"]
    assert told["applied"]
    assert told["seam_after"] < told["seam_before"]


def test_wrapper_passes_through_what_it_cannot_help() -> None:
    made = drawn(4)
    single = replace(made.scan, kind="single", grid=None, positions_px=None)
    wrapped, bare = Joint(TileMedian()).fit(single), TileMedian().fit(single)
    index = np.arange(12)
    np.testing.assert_array_equal(
        wrapped.background(single.tiles, index), bare.background(single.tiles, index)
    )
    assert "single image" in wrapped.reason
    known = Joint(TileMedian()).fit(made.scan)
    np.testing.assert_array_equal(
        known.background(made.scan.tiles[:2]), TileMedian().fit(made.scan).background(
            made.scan.tiles[:2])
    )  # fmt: skip
    with pytest.raises(MethodError, match="not fitted"):
        Joint(TileMedian()).background(made.scan.tiles)


def test_same_bits_for_any_number_of_threads() -> None:
    made = drawn(5)
    given = TileMedian().fit(made.scan).background(made.scan.tiles, np.arange(12))
    one, three = (survey(made.scan, given, workers=n) for n in (1, 3))
    np.testing.assert_array_equal(one.raw, three.raw)
    np.testing.assert_array_equal(one.shape, three.shape)


def test_tiles_are_not_held() -> None:
    """100 tiles of 256 px are 26 MB as float32; far less may stay in memory at any time."""
    count, size = 100, 256
    rng = np.random.default_rng(0)
    pattern = rng.integers(900, 1100, (size, size)).astype(np.uint16)
    tiles = LazyTiles((count, size, size), np.uint16, lambda i: pattern + np.uint16(i % 7))
    places = raster_positions((10, 10), (205, 205))
    scan = Scan(
        tiles=tiles, kind="mosaic", source=Source(Path("made"), "made"), positions_px=places,
        names=tuple(map(str, range(count))), grid=(10, 10),
    )  # fmt: skip
    flat = LazyTiles(
        tiles.shape,
        np.float32,
        lambda i: np.linspace(900, 1000, size, dtype=np.float32) + np.zeros((size, 1), np.float32),
    )
    tracemalloc.start()
    overview = survey(scan, flat, work_px=64)
    done = joint(scan, flat, places, overview=overview)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.applied
    assert peak < 24e6


def test_terms_begin_with_the_constant_and_are_orthogonal() -> None:
    order = terms(3)
    assert order[0] == (0, 0)
    assert len(order) == 10
    axis = (np.arange(400) + 0.5) / 200 - 1
    values = legendre(order, np.repeat(axis, 400), np.tile(axis, 400))
    products = values.T @ values / len(values)
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-4


def test_blend_weights_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(0.5, 1, (100, 130)).astype(np.float32)
    corners = np.array([[0, 0], [0, 50], [40, 3], [40, 50]], np.float64)
    tiles = np.stack([image[int(y) : int(y) + 60, int(x) : int(x) + 80] for y, x in corners])
    whole = blend(tiles, corners)
    assert whole.shape == (100, 130)
    seen = np.isfinite(whole)
    np.testing.assert_allclose(whole[seen], image[seen], rtol=1e-5)
    valid = np.ones(tiles.shape, bool)
    valid[1, :, :40] = False
    broken = tiles.copy()
    broken[1, :, :40] = np.nan
    masked = blend(broken, corners, valid)
    shown = np.isfinite(masked)
    np.testing.assert_allclose(masked[shown], image[shown], rtol=1e-5)
    assert shown.sum() <= seen.sum()


def test_steps_aside_where_one_shape_does_not_fit() -> None:
    drawn = simulate_mosaic(7, 6, size=64, specimen="empty", drift=2.0, seed=11)
    scan = replace(drawn.scan, tiles=np.asarray(drawn.scan.tiles[:]))
    given = scan.tiles.astype(np.float32).mean(axis=0, keepdims=True).repeat(len(scan), axis=0)
    helped = joint(scan, given, drawn.positions_px)
    assert helped.applied
    left = float(helped.facts["seam_after"])
    options = JointOptions(greatest_seam=0.9 * left)
    done = joint(scan, given, drawn.positions_px, options=options)
    assert not done.applied
    assert "the overlaps of 42 tiles still differ by" in done.reason
    assert done.backgrounds is given
