"""The drift model on scans of every size and kind: one tile to many, references or none."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel, prior_error
from napari_txm_bgcorr.backgrounds.smooth import Captured, Smooth
from napari_txm_bgcorr.core.background_method import TilePrediction
from napari_txm_bgcorr.core.progress import Progress
from napari_txm_bgcorr.core.scan import Kind, Scan, Source, raster_positions
from napari_txm_bgcorr.errors import MethodError, StoppedError
from tests.backgrounds.drift.scans import Given

NOON = np.datetime64("2024-03-01T12:00:00", "s")
LEVEL = 9.0


def shape_of(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Log illumination: smooth, and a fine pattern; median 0."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    image = 0.1 * x - 0.15 * y * y + 0.01 * rng.standard_normal(size)
    return image - np.median(image)


def particles(size: tuple[int, int], seed: int = 3, share: float = 0.4) -> np.ndarray:
    """Log transmission of a specimen that leaves the rest free."""
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.standard_normal(size), max(2, max(size) / 40))
    return np.where(rough < np.quantile(rough, share), -0.3, 0)


def scan_of(
    grid: tuple[int, int] = (1, 1),
    size: tuple[int, int] = (64, 64),
    *,
    kind: Kind = "mosaic",
    share: float = 0.4,
    **facts: object,
) -> tuple[Scan, np.ndarray]:
    """A scan whose beam is `shape_of`, and the log beams."""
    step = tuple(max(1, round(0.8 * n)) for n in size)
    places = raster_positions(grid, step)
    count = len(places)
    whole = tuple(int(n) + m for n, m in zip(places.max(axis=0), size, strict=True))
    sample, shape = particles(whole, share=share), shape_of(size)
    rng = np.random.default_rng(1)
    true = np.broadcast_to(LEVEL + shape, (count, *size))
    corners = places.astype(int)
    tiles = np.exp(true + np.stack([
        sample[y : y + size[0], x : x + size[1]] for y, x in corners
    ])) * (1 + 0.003 * rng.standard_normal((count, *size)))  # fmt: skip
    mosaic = kind == "mosaic" and count > 1
    scan = Scan(
        tiles.astype(np.float32), "single" if count == 1 else kind, Source(Path("made"), "made"),
        tuple(f"t{k}" for k in range(count)), grid=grid if mosaic else None,
        positions_px=places if mosaic else None, times=NOON + 85 * np.arange(count),
    )  # fmt: skip
    return replace(scan, **facts), true


def tilted(true: np.ndarray, tilt: float = 0.05) -> np.ndarray:
    """Backgrounds that are off by a tilt, in counts."""
    x = np.linspace(-1, 1, true.shape[-1])
    return np.exp(true + tilt * x).astype(np.float32)


def off(model: DriftModel, true: np.ndarray) -> np.ndarray:
    """Log error, one scale left out."""
    found = np.log(np.asarray(model.backgrounds[:])) - true
    return found - np.median(found)


def sound(model: DriftModel, scan: Scan) -> None:
    """All is finite and above 0, of the right shape, and says so."""
    count = len(scan)
    backgrounds = model.background(scan.tiles, np.arange(count))
    assert backgrounds.shape == scan.tiles.shape and backgrounds.dtype == np.float32
    assert np.isfinite(backgrounds).all() and (backgrounds > 0).all()
    for i in {0, count // 2, count - 1}:
        sd = model.uncertainty(i)
        assert sd.shape == scan.tiles.shape[1:]
        assert np.isfinite(sd).all() and (sd > 0).mean() > 0.8 and (sd < 1).all()
    told = model.describe()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert len(told["joint"]["level_errors"]) == count


@pytest.mark.parametrize("kind", ["mosaic", "series"])
@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 2), (1, 5), (5, 1), (3, 3)])
def test_a_tilt_of_what_is_given_is_taken_out(grid: tuple[int, int], kind: Kind) -> None:
    scan, true = scan_of(grid, kind=kind)
    model = DriftModel(Given(tilted(true)), scan.positions_px).fit(scan)
    sound(model, scan)
    before = np.std(np.log(tilted(true)) - true)
    assert off(model, true).std() < 0.5 * before
    assert (model.positions is not None) == (kind == "mosaic" and len(scan) > 1)


@pytest.mark.parametrize(
    "size", [(22, 26), (2, 640), (640, 2), (40, 130), (65, 63), (1, 50), (3, 3), (200, 200)]
)
@pytest.mark.parametrize("grid", [(1, 1), (2, 2)])
def test_tiles_of_any_size(grid: tuple[int, int], size: tuple[int, int]) -> None:
    scan, true = scan_of(grid, size)
    model = DriftModel(Given(tilted(true)), scan.positions_px).fit(scan)
    sound(model, scan)
    assert off(model, true).std() < 0.2


class Seeing(Given):
    """A method that also says what is free, and how far off it may be."""

    def __init__(self, backgrounds: np.ndarray, free: np.ndarray, sd: float) -> None:
        super().__init__(backgrounds)
        self.free, self.sd = free, sd

    def predict_tiles(self, tiles: np.ndarray, index: np.ndarray) -> TilePrediction:
        sd = np.full(tiles.shape, self.sd, np.float32)
        return TilePrediction(self.background(tiles, index), self.free[index], sd)


@pytest.mark.parametrize("grid", [(1, 1), (2, 2)])
def test_the_word_of_a_network_on_what_is_free_is_heeded(grid: tuple[int, int]) -> None:
    """It is one witness more: places that it takes for sample count less, the others more."""
    scan, true = scan_of(grid)
    faint = np.where(np.linspace(-1, 1, 64) < 0, 1, 0.97).astype(np.float32)
    uneven = replace(scan, tiles=scan.tiles * faint)
    free = np.broadcast_to((faint == 1).astype(np.float32), scan.tiles.shape)
    blind = DriftModel(Given(tilted(true, 0.0)), scan.positions_px).fit(uneven).solution
    told = (
        DriftModel(Seeing(tilted(true, 0.0), free, 0.01), scan.positions_px).fit(uneven).solution
    )
    left, right = np.s_[:, :, :32], np.s_[:, :, 32:]
    assert told.free[right].mean() < blind.free[right].mean()
    gain = told.free[left].mean() / told.free[right].mean()
    assert gain > 1.02 * blind.free[left].mean() / blind.free[right].mean()


@pytest.mark.parametrize("sd", [0.001, 0.3])
def test_a_lone_tile_is_no_surer_than_the_network_of_itself(sd: float) -> None:
    scan, true = scan_of()
    free = np.ones(scan.tiles.shape, np.float32)
    blind = DriftModel(Given(tilted(true))).fit(scan).uncertainty(0)
    told = DriftModel(Seeing(tilted(true), free, sd)).fit(scan).uncertainty(0)
    if sd > 0.1:
        np.testing.assert_allclose(told[told > 0], sd, rtol=0.02)
    else:
        assert np.median(told) == pytest.approx(np.median(blind), rel=0.2)


def test_tiles_without_noise_and_sample_are_solved() -> None:
    """Their overlaps agree to the last digit."""
    scan, _ = scan_of((2, 2))
    even = replace(scan, tiles=np.full(scan.tiles.shape, 4000, np.uint16))
    model = DriftModel(Given(np.full(scan.tiles.shape, 4000, np.float32)), scan.positions_px)
    found = model.fit(even).background(even.tiles, np.arange(4))
    np.testing.assert_allclose(found, 4000, rtol=1e-3)


def test_many_tiles_use_coarser_cells() -> None:
    scan, true = scan_of((9, 9), (64, 64))
    model = DriftModel(Given(tilted(true)), scan.positions_px).fit(scan)
    sound(model, scan)
    assert model.solution.cells.shape == (81, 32, 32)
    assert off(model, true).std() < 0.3 * np.std(np.log(tilted(true)) - true)


def referenced(age_h: float, error: float = 0.0, count: int = 1, **facts: object) -> tuple:
    """A scan with references of that age, off by a tilt."""
    scan, true = scan_of((2, 2), energy_ev=9000.0, **facts)
    flats = np.repeat(tilted(true, error)[:1], count, axis=0)
    when = np.repeat(NOON - np.timedelta64(round(3600 * age_h), "s"), count)
    return replace(scan, flats=flats, flat_times=when), true


def test_fresh_references_are_believed_and_stale_ones_less() -> None:
    errors = []
    for age in (0.1, 1, 10, 1000):
        model = DriftModel(Captured()).fit(referenced(age)[0])
        told = model.describe()["joint"]["prior"]
        errors.append((told["shared_sd"], told["field_sd"], told["level_sd"]))
    for stronger, weaker in pairwise(errors):
        assert all(a <= b for a, b in zip(stronger, weaker, strict=True))
    assert errors[0][0] < 0.5 * errors[-1][0]
    guess = prior_error(referenced(1)[0], from_references=False)
    assert guess.level_sd is None and guess.shared_sd >= errors[-1][0] / 2


def test_where_nothing_is_free_references_stand() -> None:
    """Overlaps alone tell no pattern."""
    scan, _ = referenced(0.1)
    rough = np.random.default_rng(4).uniform(-1.5, -0.5, scan.tiles.shape)
    hidden = replace(scan, tiles=(scan.tiles * np.exp(rough)).astype(np.float32))
    model = DriftModel(Captured(), scan.positions_px).fit(hidden)
    given = Captured().fit(hidden).background(hidden.tiles, np.arange(4))
    np.testing.assert_allclose(model.background(hidden.tiles, np.arange(4)), given, rtol=0.01)
    assert model.describe()["joint"]["level"]["from"] == "references"


@pytest.mark.parametrize("age_h", [0.1, 1000.0])
def test_a_reference_that_is_right_is_not_harmed(age_h: float) -> None:
    scan, true = referenced(age_h)
    model = DriftModel(Captured(), scan.positions_px).fit(scan)
    sound(model, scan)
    assert off(model, true).std() < 0.004


def test_a_stale_reference_is_corrected() -> None:
    scan, true = referenced(1000, error=0.05)
    model = DriftModel(Captured(), scan.positions_px).fit(scan)
    assert off(model, true).std() < 0.3 * np.std(np.log(tilted(true)) - true)


def test_references_set_the_level_where_all_is_sample() -> None:
    scan, true = referenced(0.2)
    covered = replace(scan, tiles=(np.asarray(scan.tiles) * np.float32(0.4)))
    model = DriftModel(Captured(), scan.positions_px).fit(covered)
    found = np.log(np.asarray(model.backgrounds[:])) - true
    told = model.describe()["joint"]
    assert told["level"]["from"] == "references"
    assert np.median(found) == pytest.approx(0, abs=0.05)
    assert model.notes == ()


def test_a_level_without_empty_areas_and_references_is_relative() -> None:
    scan, true = scan_of((2, 2))
    rough = particles((64, 64), seed=8, share=0.5) + ndimage.gaussian_filter(
        np.random.default_rng(5).standard_normal((64, 64)), 1.5
    )  # fmt: skip
    covered = replace(scan, tiles=(scan.tiles * np.exp(2 * rough - 2)).astype(np.float32))
    model = DriftModel(Given(tilted(true, 0)), scan.positions_px).fit(covered)
    assert model.describe()["joint"]["level"]["from"] == "relative"
    assert "relative" in model.notes[0]
    known = DriftModel(Given(tilted(true, 0)), scan.positions_px, i0=np.exp(LEVEL)).fit(covered)
    assert known.describe()["joint"]["level"]["from"] == "I0" and known.notes == ()


@pytest.mark.parametrize("grid", [(1, 1), (2, 2)])
def test_i0_is_the_median_over_the_lit_field(grid: tuple[int, int]) -> None:
    scan, true = scan_of(grid)
    i0 = 12_345.0
    model = DriftModel(Given(tilted(true, 0)), scan.positions_px, i0=i0).fit(scan)
    found = np.median(np.asarray(model.backgrounds[:]), axis=(1, 2))
    assert np.median(found) == pytest.approx(i0, rel=0.01)
    for wrong in (0.0, -3.0, float("nan"), float("inf")):
        with pytest.raises(MethodError, match="i0"):
            DriftModel(Given(tilted(true, 0)), i0=wrong)


def test_references_of_another_energy_are_not_believed() -> None:
    pytest.importorskip("torch")
    from napari_txm_bgcorr.backgrounds.auto_source import AutoSource

    scan, _ = referenced(0.1)
    wrong = replace(scan, flat_energies_ev=np.array([8000.0]))
    bare = replace(scan, flats=None, flat_times=None)
    model, alone = (
        DriftModel(AutoSource(device="cpu"), scan.positions_px).fit(s) for s in (wrong, bare)
    )
    told = model.describe()
    assert told["prior"] == "generator" and told["joint"]["prior"]["level_sd"] is None
    assert any("8000 eV" in note for note in told["notes"])
    np.testing.assert_array_equal(model.backgrounds[1], alone.backgrounds[1])


def test_a_tile_of_nothing_but_sample() -> None:
    """A slab halves all of the middle tile, and what its neighbours share with it."""
    scan, true = scan_of((3, 3), share=0.2)
    y, x = scan.positions_px[4].astype(int)
    slab = np.zeros(tuple(int(n) + 64 for n in scan.positions_px.max(axis=0)))
    slab[y : y + 64, x : x + 64] = -0.7
    dimmed = np.stack([
        tile * np.exp(slab[b : b + 64, a : a + 64])
        for tile, (b, a) in zip(scan.tiles, scan.positions_px.astype(int), strict=True)
    ]).astype(np.float32)  # fmt: skip
    covered = replace(scan, tiles=dimmed)
    model = DriftModel(Given(tilted(true)), scan.positions_px).fit(covered)
    sound(model, covered)
    error = off(model, true)
    assert abs(np.median(error[4])) < 0.03
    assert error.std() < 0.03


def test_a_dead_half_of_one_tile() -> None:
    scan, true = scan_of((3, 3))
    tiles = np.array(scan.tiles)
    tiles[4, :, :32] = 0
    model = DriftModel(Given(tilted(true)), scan.positions_px).fit(replace(scan, tiles=tiles))
    sound(model, scan)
    others = np.delete(off(model, true), 4, axis=0)
    assert others.std() < 0.5 * np.std(np.log(tilted(true)) - true)


def test_a_tile_without_beam() -> None:
    scan, true = scan_of((3, 3))
    tiles = np.array(scan.tiles)
    tiles[7] = 0
    model = DriftModel(Given(tilted(true)), scan.positions_px).fit(replace(scan, tiles=tiles))
    backgrounds = np.asarray(model.backgrounds[:])
    assert np.isfinite(backgrounds).all() and (backgrounds > 0).all()
    others = np.delete(off(model, true), 7, axis=0)
    assert others.std() < 0.5 * np.std(np.log(tilted(true)) - true)


def test_hot_and_missing_pixels_do_not_spread() -> None:
    scan, true = scan_of((2, 2))
    tiles = np.array(scan.tiles)
    tiles[:, 5, 7] = np.nan
    tiles[1, 20, 20:22] = 6e4 * 30
    model = DriftModel(Given(tilted(true)), scan.positions_px).fit(replace(scan, tiles=tiles))
    sound(model, scan)
    away = np.ones((64, 64), bool)
    away[3:8, 5:10] = away[18:23, 18:24] = False
    assert off(model, true)[:, away].std() < 0.5 * np.std(np.log(tilted(true)) - true)


def test_unknown_times_are_those_of_one_tile_after_the_other() -> None:
    scan, true = scan_of((2, 2))
    known, unknown, partly = (
        DriftModel(Given(tilted(true)), scan.positions_px).fit(replace(scan, times=times))
        for times in (
            scan.times, None, np.where(np.arange(4) == 2, np.datetime64("NaT"), scan.times)
        )
    )  # fmt: skip
    np.testing.assert_array_equal(known.backgrounds[3], unknown.backgrounds[3])
    np.testing.assert_array_equal(partly.backgrounds[3], unknown.backgrounds[3])


def test_it_is_fitted_to_one_scan_after_another() -> None:
    one, true = scan_of((2, 2))
    other, _ = scan_of((1, 1))
    model = DriftModel(Smooth())
    first = np.asarray(model.fit(one).backgrounds[:])
    assert model.fit(other).positions is None and model.backgrounds.shape == (1, 64, 64)
    np.testing.assert_array_equal(np.asarray(model.fit(one).backgrounds[:]), first)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.background(one.tiles, np.arange(4)), first)
    assert again.describe() == model.describe()
    assert true.shape == first.shape


@pytest.mark.parametrize("after", ["looking at tiles", "solving for all tiles"])
def test_a_fit_that_is_stopped_leaves_nothing(after: str) -> None:
    scan, true = scan_of((2, 2))
    model = DriftModel(Given(tilted(true)), scan.positions_px).fit(scan)
    told: list[str] = []
    progress = Progress(lambda stage, *_: told.append(stage), lambda: after in told)
    with pytest.raises(StoppedError):
        model.fit(scan, progress)
    assert told.count(after) == 1
    assert model.backgrounds is None and model.solution is None and model.positions is None
    with pytest.raises(MethodError, match="not fitted"):
        model.background(scan.tiles, np.arange(4))
