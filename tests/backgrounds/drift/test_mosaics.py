"""The mosaic as one object: what the drift model makes of backgrounds that are known."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.backgrounds.smooth import Captured, Smooth, TileMedian
from napari_txm_bgcorr.core.correction import BackgroundMethod, correct_tiles
from napari_txm_bgcorr.core.scan import Scan, Source, raster_positions
from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.mosaic.assembly import registered
from napari_txm_bgcorr.quality import metrics as quality
from napari_txm_bgcorr.simulation.acquisition import SimulatedScan, simulate_mosaic
from tests.backgrounds.drift.scans import (
    GRID,
    SIZE,
    STEP,
    Given,
    make_scan,
    one_scale_error,
    polynomial,
)

EVERY = (16, SIZE, SIZE)


def solved(scan: Scan, given: np.ndarray) -> DriftModel:
    """The model round backgrounds that are given, at the places that are known."""
    return DriftModel(Given(given), scan.positions_px).fit(scan)


def error(model: DriftModel, true: np.ndarray) -> float:
    """One scale for the mosaic left out."""
    assert model.backgrounds is not None
    return one_scale_error(model.backgrounds, true)


def test_a_known_shared_error_is_recovered() -> None:
    missing = polynomial({(0, 0): 0.0, (0, 1): 0.05, (1, 0): -0.03, (2, 0): 0.03, (1, 1): 0.02})
    scan, true, given = make_scan(np.broadcast_to(missing, EVERY))
    assert one_scale_error(given, true) > 0.035
    assert error(solved(scan, given), true) < 0.006


def test_levels_of_single_tiles_are_tied_through_the_overlaps() -> None:
    off = np.zeros(EVERY)
    off[5] += 0.08
    off[10] -= 0.05
    scan, true, given = make_scan(off)
    model = solved(scan, given)
    assert one_scale_error(given, true) > 0.02
    assert error(model, true) < 0.006
    assert model.solution is not None
    levels = model.solution.levels
    assert levels[5] - np.median(levels) == pytest.approx(0.08, abs=0.015)


def test_drift_of_single_tiles_is_followed() -> None:
    tilt = np.sin(np.arange(16) / 4)[:, None, None] * polynomial({(0, 1): 0.03, (1, 0): 0.02})
    scan, true, given = make_scan(tilt)
    assert error(solved(scan, given), true) < 0.45 * one_scale_error(given, true)


def test_a_level_that_falls_for_hours_is_not_taken_for_a_tilt() -> None:
    grid = (7, 7)
    fall = np.linspace(0.1, -0.1, 49)[:, None, None] * np.ones((SIZE, SIZE))
    scan, true, given = make_scan(fall + polynomial({(1, 0): 0.01}), grid=grid)
    start = np.datetime64("2026-01-01T00:00:00", "s")
    scan = replace(scan, times=start + np.arange(49) * np.timedelta64(1440, "s"))
    assert error(solved(scan, given), true) < 0.012


def test_good_backgrounds_are_not_harmed() -> None:
    scan, true, given = make_scan(np.zeros(EVERY))
    assert error(solved(scan, given), true) < 0.006  # what half a field free of sample allows


def test_a_fine_trace_of_the_specimen_is_taken_out() -> None:
    """A dense specimen left its trace in the shape that all tiles were given."""
    trace = ndimage.gaussian_filter(np.random.default_rng(8).standard_normal((SIZE, SIZE)), 3)
    missing = np.broadcast_to(0.04 * trace / trace.std(), EVERY)
    scan, true, given = make_scan(missing, contrast=0.4)
    assert error(solved(scan, given), true) < 0.85 * one_scale_error(given, true)


def test_the_corner_behind_the_aperture_reads_the_same_in_every_tile() -> None:
    missing = np.broadcast_to(polynomial({(0, 1): 0.05, (2, 0): 0.03}), EVERY)
    scan, _, given = make_scan(missing, contrast=0.3)
    y, x = np.mgrid[:SIZE, :SIZE]
    closed = (SIZE - 1 - x) + y < 30
    tiles = np.where(closed, 2000.0, np.asarray(scan.tiles[:]) + 2000.0).astype(np.float32)
    model = solved(replace(scan, tiles=tiles), given + 2000.0)
    inner = ndimage.binary_erosion(closed, iterations=4, border_value=1)
    found = np.asarray(model.backgrounds[:])
    np.testing.assert_allclose(found[:, inner], 2000, rtol=0.01)
    assert np.ptp(found[:, inner], axis=0).max() == 0
    assert (model.uncertainty(3)[inner] == 0).all()  # nothing is estimated there
    assert (model.uncertainty(3)[~closed][100:] > 0).all()


def test_outlier_of_the_specimen_is_ignored() -> None:
    """One tile that changed between exposures must not bend the others."""
    missing = np.broadcast_to(polynomial({(0, 1): 0.05}), EVERY)
    scan, true, given = make_scan(missing)
    tiles = np.array(scan.tiles[:])
    tiles[5, :, :20] *= 0.6
    model = solved(replace(scan, tiles=tiles), given)
    others = np.arange(16) != 5
    found = np.log(np.asarray(model.backgrounds[:]))[others] - true[others]
    assert np.std(found) < 0.015


def test_a_pedestal_is_kept_out_of_the_logarithm() -> None:
    missing = np.broadcast_to(polynomial({(0, 1): 0.05, (2, 0): 0.03}), EVERY)
    scan, true, given = make_scan(missing)
    dark = np.full((1, SIZE, SIZE), 3000, np.float32)
    lifted = replace(scan, tiles=np.asarray(scan.tiles[:]) + dark, darks=dark)
    plain, model = solved(scan, given), solved(lifted, given + dark)
    off = np.asarray(model.backgrounds[:]) - dark - np.asarray(plain.backgrounds[:])
    assert np.abs(off).max() < 2e-3 * np.exp(true).mean()


def test_few_tiles_and_none_that_overlap() -> None:
    """It never steps aside: what overlaps cannot tell, free places do."""
    for grid, step in (((1, 3), STEP), ((2, 2), 2 * SIZE)):
        count = grid[0] * grid[1]
        scan, _, given = make_scan(np.zeros((count, SIZE, SIZE)), grid=grid)
        scan = replace(scan, positions_px=raster_positions(grid, (step, step)))
        told = solved(scan, given).describe()["joint"]
        assert told["overlaps"] == (2 if step == STEP else 0)
        assert ("seam_after" in told) == (step == STEP)


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
    before, after = errors_of(made, method()), errors_of(made, DriftModel(method()))
    assert after["sf"].mean() < 0.8 * before["sf"].mean()
    # References tell levels well already.
    limit = 1.0 if method is Captured else 0.8
    assert after["mosaic"].mean() < limit * before["mosaic"].mean()


@pytest.mark.parametrize("overlap", [0.04, 0.1])
def test_errors_fall_where_tiles_hardly_overlap(overlap: float) -> None:
    made = drawn(6, overlap=overlap)
    before, after = errors_of(made, Smooth()), errors_of(made, DriftModel(Smooth()))
    assert after["mosaic"].mean() < 0.7 * before["mosaic"].mean()


@pytest.fixture(scope="module")
def fitted() -> tuple[SimulatedScan, DriftModel]:
    made = drawn(3)
    return made, DriftModel(TileMedian()).fit(made.scan)


def test_it_is_a_background_method(fitted: tuple[SimulatedScan, DriftModel]) -> None:
    made, model = fitted
    assert isinstance(model, BackgroundMethod)
    assert model.name == "tile-median+joint"
    assert model.positions is not None and model.positions.used > 4
    whole = model.background(made.scan.tiles, np.arange(12))
    for result in correct_tiles(made.scan, model, indices=[7, 2]):
        np.testing.assert_array_equal(result.background, whole[result.index])
    told = model.describe()
    assert json.loads(json.dumps(told)) == told
    places = registered(made.scan, told).positions_px
    np.testing.assert_allclose(places, model.positions.positions_px, atol=0.006)


def test_tiles_that_the_scan_does_not_hold_get_the_methods_own(
    fitted: tuple[SimulatedScan, DriftModel],
) -> None:
    made, model = fitted
    np.testing.assert_array_equal(
        model.background(made.scan.tiles[:2]),
        TileMedian().fit(made.scan).background(made.scan.tiles[:2]),
    )
    with pytest.raises(MethodError, match="not fitted"):
        DriftModel(TileMedian()).background(made.scan.tiles)
    with pytest.raises(MethodError, match="not fitted"):
        DriftModel(TileMedian()).uncertainty(0)


def test_uncertainty_is_positive_and_of_the_size_of_the_errors(
    fitted: tuple[SimulatedScan, DriftModel],
) -> None:
    made, model = fitted
    lit = ndimage.binary_erosion(made.session.aperture, iterations=4, border_value=1)
    inside = []
    for i in range(0, 12, 3):
        sd = model.uncertainty(i)
        assert sd.shape == lit.shape and sd.dtype == np.float32
        assert np.isfinite(sd).all() and (sd[lit] > 0).all() and sd.max() < 0.3
        beam = model.backgrounds[i] - made.scan.dark()
        off = ndimage.gaussian_filter(np.log(beam / made.backgrounds[i]), 3)
        inside.append((np.abs(off - np.median(off[lit])) < 2 * sd)[lit].mean())
    assert np.mean(inside) > 0.8


def test_the_same_bits_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    made = drawn(5, size=64)
    found = []
    for cores in (1, 3):
        for module in ("model", "scan_fit"):
            place = f"napari_txm_bgcorr.backgrounds.drift.{module}.cpu_cores"
            monkeypatch.setattr(place, lambda n=cores: n)
        found.append(np.asarray(DriftModel(TileMedian()).fit(made.scan).backgrounds[:]))
    np.testing.assert_array_equal(*found)


def test_the_order_of_the_tiles_does_not_matter() -> None:
    """Times and places come with them."""
    made = drawn(7, size=64)
    scan = replace(made.scan, grid=None)
    order = np.random.default_rng(2).permutation(12)
    moved = replace(
        scan, tiles=scan.tiles[order], positions_px=scan.positions_px[order],
        times=scan.times[order], names=tuple(scan.names[k] for k in order),
    )  # fmt: skip
    one, other = (
        DriftModel(Smooth(), made.positions_px[o]).fit(s).backgrounds
        for s, o in ((scan, np.arange(12)), (moved, order))
    )
    # sums over tiles are rounded in another order
    np.testing.assert_allclose(np.asarray(other[:]), np.asarray(one[:])[order], rtol=2e-3)


def test_tiles_are_not_held() -> None:
    """100 tiles of 256 px are 26 MB as float32, of which a third may stay.

    While it works, 48 tiles are held at full size in half precision, twice, to tell what all
    share, and all at up to 256 px: a bound that the size of the tiles does not move.
    """
    count, size = 100, 256
    rng = np.random.default_rng(0)
    pattern = rng.integers(900, 1100, (size, size)).astype(np.uint16)
    tiles = LazyTiles((count, size, size), np.uint16, lambda i: pattern + np.uint16(i % 7))
    places = raster_positions((10, 10), (205, 205))
    scan = Scan(
        tiles=tiles, kind="mosaic", source=Source(Path("made"), "made"), positions_px=places,
        names=tuple(map(str, range(count))), grid=(10, 10),
    )  # fmt: skip
    flat = np.linspace(900, 1000, size, dtype=np.float32) + np.zeros((size, 1), np.float32)
    method = Given(LazyTiles(tiles.shape, np.float32, lambda i: flat))
    tracemalloc.start()
    model = DriftModel(method, places).fit(scan)
    peak, kept = tracemalloc.get_traced_memory()[1], tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert model.solution is not None
    assert kept < 8e6  # less than a third of the tiles, most of it the fit on cells
    assert peak < 80e6


def test_the_grid_says_where_tiles_are_if_nothing_else_does() -> None:
    scan, _, given = make_scan(np.zeros(EVERY))
    model = DriftModel(Given(given)).fit(replace(scan, positions_px=None, grid=GRID))
    assert model.positions is not None and len(model.positions.positions_px) == 16
