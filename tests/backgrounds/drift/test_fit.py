"""Levels, drift and pattern of frames that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.fit import fit_drift
from napari_txm_bgcorr.backgrounds.drift.types import DriftFit, FitOptions, Frames
from napari_txm_bgcorr.core.progress import Progress
from napari_txm_bgcorr.errors import StoppedError
from tests.backgrounds.drift.frames import SIZE, Known, blocks, known, reordered


@pytest.fixture(scope="module")
def mosaic() -> tuple[Known, DriftFit]:
    """16 tiles, two thirds of their area sample."""
    one = known()
    assert one.free.mean() < 0.4
    return one, fit_drift(one.frames)


def levels_of(one: Known) -> np.ndarray:
    """True levels: medians of the true beams."""
    return np.median(one.beams, axis=(1, 2))


def test_levels_drift_and_pattern_are_recovered_under_dense_sample(
    mosaic: tuple[Known, DriftFit],
) -> None:
    one, found = mosaic
    before = one.beams - np.median(one.beams)
    assert before.std() > 0.02
    assert one.errors(found).std() < 0.15 * before.std()
    shapes = before - np.median(before, axis=(1, 2), keepdims=True)
    assert one.shape_errors(found).std() < 0.15 * shapes.std()
    off = np.median(found.model(), axis=(1, 2)) - levels_of(one)
    assert np.ptp(off) < 0.005
    assert abs(np.median(off)) < 0.005  # and free places say where the open beam is


def test_free_places_are_found(mosaic: tuple[Known, DriftFit]) -> None:
    one, found = mosaic
    assert found.free[one.free].mean() > 0.9
    assert found.free[~one.free].mean() < 0.05
    np.testing.assert_allclose(found.free_share, one.free.mean(axis=(1, 2)), atol=0.06)
    np.testing.assert_allclose(found.free.mean(axis=(1, 2)), found.free_share, rtol=1e-5)


def test_the_seams_come_down_to_the_noise(mosaic: tuple[Known, DriftFit]) -> None:
    one, found = mosaic
    before = np.concatenate([o.difference for o in one.frames.overlaps])
    assert np.median(np.abs(before)) > 0.01
    assert found.seam == pytest.approx(np.sqrt(2) * 0.003, rel=0.15)


def test_the_stated_deviation_holds(mosaic: tuple[Known, DriftFit]) -> None:
    one, found = mosaic
    assert (found.sd > 0).all() and np.isfinite(found.sd).all()
    assert (found.level_sd > 0).all()
    assert (np.abs(one.shape_errors(found)) < 2 * found.sd).mean() > 0.95
    # Noise here is independent; the model allows for free places that err together.
    assert found.sd.mean() < 12 * one.shape_errors(found).std()


def test_it_is_less_sure_where_there_is_more_sample() -> None:
    some, dense = (fit_drift(known(covered=share).frames) for share in (0.3, 0.85))
    assert dense.sd.mean() > some.sd.mean()
    assert (dense.level_sd > some.level_sd).all()


def test_what_passes_for_free_is_in_the_deviation_and_not_in_the_solution() -> None:
    one = known()
    none, some = (fit_drift(one.frames, FitOptions(veil_sd=sd)) for sd in (1e-6, 0.05))
    np.testing.assert_array_equal(none.model(), some.model())
    assert (some.sd > 1.2 * none.sd).mean() > 0.8


def test_overlaps_that_disagree_widen_the_deviation() -> None:
    one = known()
    rng = np.random.default_rng(0)
    rough = [
        replace(o, difference=o.difference + rng.normal(0, 0.02, len(o.difference)))
        for o in one.frames.overlaps
    ]
    plain, worse = fit_drift(one.frames), fit_drift(replace(one.frames, overlaps=rough))
    assert worse.seam > 2 * plain.seam
    assert worse.sd.mean() > 1.5 * plain.sd.mean()


def test_free_places_far_below_the_level_that_references_tell_are_sample() -> None:
    left = np.full((1, 32, 32), -0.3, np.float32) + np.linspace(-0.05, 0.05, 32, dtype=np.float32)
    frames = Frames(left, np.ones((32, 32), bool), np.zeros(1), level=0.0, level_sd=0.04)
    found = fit_drift(frames, FitOptions(shared_sd=0.02))
    assert found.free_share[0] == 0
    assert np.abs(found.model()).max() < 0.01
    vague = fit_drift(replace(frames, level_sd=0.5), FitOptions(shared_sd=0.02))
    assert vague.levels[0] == pytest.approx(-0.3, abs=0.02) and vague.free_share[0] > 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_tiles_and_their_overlap(seed: int) -> None:
    one = known((1, 2), seed=seed)
    found = fit_drift(one.frames)
    before = one.beams - np.median(one.beams)
    assert one.errors(found).std() < 0.4 * before.std()


def test_overlaps_alone_tell_levels_apart() -> None:
    """All is sample: only the difference of the two tiles says that one of them is brighter."""
    rng = np.random.default_rng(0)
    sample = -0.5 - 0.4 * rng.random((SIZE[0], 2 * SIZE[1]))
    places = np.array([[0, 0], [0, 24]])
    step = 0.05
    tiles = np.stack([sample[:, :32], sample[:, 24:56] + step])
    both = Frames(
        tiles.astype(np.float32), np.ones(SIZE, bool), np.zeros(2), [blocks(tiles, places, 0, 1)]
    )
    found = fit_drift(both, FitOptions(level_rate=1.0, level_jitter=1.0))
    assert found.levels[1] - found.levels[0] == pytest.approx(step, abs=0.01)


def test_one_tile_is_its_level_and_a_smooth_error() -> None:
    one = known((1, 1), covered=0.3)
    found = fit_drift(one.frames)
    assert np.isnan(found.seam)
    assert one.errors(found).std() < 0.5 * (one.beams - np.median(one.beams)).std()
    assert (np.abs(one.shape_errors(found)) < 2 * found.sd).mean() > 0.95


def test_a_level_that_references_tell_is_taken_where_all_is_sample() -> None:
    rng = np.random.default_rng(1)
    tiles = (-0.6 - 0.5 * rng.random((4, *SIZE))).astype(np.float32)
    told = replace(known((2, 2)).frames, residual=tiles, overlaps=(), level=0.0, level_sd=0.001)
    free = replace(told, level=None)
    assert abs(np.median(fit_drift(told).levels)) < 0.1
    assert np.median(fit_drift(free).levels) < -0.4  # the brightest sample looks like the beam


def test_the_order_of_the_tiles_does_not_matter(mosaic: tuple[Known, DriftFit]) -> None:
    one, found = mosaic
    order = np.random.default_rng(4).permutation(16)
    again = fit_drift(reordered(one, order).frames)
    np.testing.assert_allclose(again.levels, found.levels[order], atol=1e-4)
    np.testing.assert_allclose(again.cells, found.cells[order], atol=1e-4)
    np.testing.assert_allclose(again.sd, found.sd[order], rtol=0.01)
    np.testing.assert_allclose(again.level_sd, found.level_sd[order], rtol=0.01)


def test_the_same_frames_give_the_same_bits(mosaic: tuple[Known, DriftFit]) -> None:
    one, found = mosaic
    again = fit_drift(one.frames)
    np.testing.assert_array_equal(again.model(), found.model())
    np.testing.assert_array_equal(again.sd, found.sd)


@pytest.mark.parametrize("covered", [0.0, 0.65])
@pytest.mark.parametrize("slab", [0, 5])
def test_a_tile_of_nothing_but_sample_takes_its_level_from_its_neighbours(
    slab: int, covered: float
) -> None:
    one = known(slab=slab, covered=covered)
    found = fit_drift(one.frames)
    off = np.median(found.model() - one.beams, axis=(1, 2))
    assert abs(off[slab] - np.median(off)) < 0.02
    assert found.level_sd[slab] > fit_drift(known(covered=covered).frames).level_sd[slab]


def test_a_changed_overlap_is_no_witness(mosaic: tuple[Known, DriftFit]) -> None:
    """Something moved between two exposures."""
    one, found = mosaic
    spoiled = list(one.frames.overlaps)
    wrong = spoiled[3].difference.copy()
    wrong[: len(wrong) // 3] += 0.3
    spoiled[3] = replace(spoiled[3], difference=wrong)
    again = fit_drift(replace(one.frames, overlaps=spoiled))
    assert one.errors(again).std() < 1.5 * one.errors(found).std()


def test_cells_behind_the_aperture_are_not_looked_at(mosaic: tuple[Known, DriftFit]) -> None:
    one, _ = mosaic
    usable = np.ones(SIZE, bool)
    usable[:8, :8] = False
    residual = one.frames.residual.copy()
    residual[:, :8, :8] = 3.0
    overlaps = [
        replace(o, place_first=o.place_first[keep], place_second=o.place_second[keep],
                difference=o.difference[keep])
        for o in one.frames.overlaps
        for keep in [~_corner(o.place_first) & ~_corner(o.place_second)]
    ]  # fmt: skip
    found = fit_drift(replace(one.frames, residual=residual, usable=usable, overlaps=overlaps))
    off = found.model() - one.beams
    off -= np.median(off)
    assert off[:, usable].std() < 0.004
    assert (found.free[:, ~usable] == 0).all()
    assert found.sd[:, 2, 2].mean() > found.sd[:, 16, 16].mean()


def _corner(place: np.ndarray) -> np.ndarray:
    return (place < -0.5).all(axis=1)


def test_probabilities_that_a_network_tells_are_used() -> None:
    """Weak sample over half of the tile, which no mixture can tell from the beam."""
    one = known((1, 1), covered=0.0, pattern=0.0, drift=0.0)
    weak = np.zeros((1, *SIZE), bool)
    weak[:, :, 16:] = True
    residual = (one.frames.residual - 0.02 * weak).astype(np.float32)
    frames = replace(one.frames, residual=residual)
    told = fit_drift(replace(frames, free=np.where(weak, 0.02, 0.98).astype(np.float32)))
    alone = fit_drift(frames)
    doubt = [1 - found.free[weak].mean() for found in (alone, told)]
    assert doubt[1] > 2 * doubt[0]
    assert told.free[~weak].mean() > 0.95


def test_frames_are_asked_for_anew_once() -> None:
    one = known((2, 2))
    asked = []

    def anew(model: np.ndarray, width: float) -> Frames:
        asked.append((model.shape, width))
        return one.frames

    same, plain = fit_drift(one.frames, refresh=anew), fit_drift(one.frames)
    assert len(asked) == 1 and asked[0][0] == (4, *SIZE)
    np.testing.assert_array_equal(same.model(), plain.model())


def test_it_tells_its_rounds_and_stops_when_asked() -> None:
    frames, told = known((1, 2)).frames, []
    fit_drift(frames, progress=Progress(lambda *step: told.append(step)))
    rounds = FitOptions().rounds
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert {total for _, _, total in told} == {rounds}
    seen: list[int] = []
    progress = Progress(lambda *step: seen.append(1), lambda: len(seen) == 2)
    with pytest.raises(StoppedError):
        fit_drift(frames, progress=progress)
    assert len(seen) == 2
