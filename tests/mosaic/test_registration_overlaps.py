"""Registration never harms: overlaps of 3 to 20 %, wrong steps, measured places, gaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr import io
from napari_txm_bgcorr.core.scan import Scan, raster_positions
from napari_txm_bgcorr.mosaic.lattice import Lattice
from napari_txm_bgcorr.mosaic.matching import Scores
from napari_txm_bgcorr.mosaic.registration import Positions, register
from napari_txm_bgcorr.mosaic.step_belief import Belief, common_step, most_likely
from napari_txm_bgcorr.simulation.acquisition import SimulatedScan, simulate_mosaic

SIZE = 256
OVERLAPS = (0.03, 0.05, 0.07, 0.1, 0.2)


def rms_off(positions: np.ndarray, true: np.ndarray) -> float:
    """Rms distance from the true places, the common shift removed."""
    off = positions - true
    return float(np.sqrt(np.mean(np.sum((off - off.mean(axis=0)) ** 2, axis=1))))


def made_mosaic(overlap: float, specimen: str | None, seed: int) -> SimulatedScan:
    made = simulate_mosaic(
        3, 3, size=SIZE, overlap=overlap, jitter_px=8, skew_px=4, specimen=specimen, seed=seed
    )
    return replace(made, scan=replace(made.scan, tiles=np.asarray(made.scan.tiles[:])))


def found_in(scan: Scan) -> Positions:
    """Registered by raw tiles, each at its own level."""
    level = np.median(scan.tiles[:], axis=(1, 2), keepdims=True)
    return register(scan, np.broadcast_to(level, scan.tiles.shape).astype(np.float32))


@pytest.mark.parametrize("specimen", [None, "fossil", "cells", "empty"])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_registered_places_are_no_worse_than_given_ones(overlap: float, specimen: str) -> None:
    made = made_mosaic(overlap, specimen, seed=11)
    true = made.positions_px
    given = made.scan.positions_px
    assert true is not None and given is not None
    found = found_in(made.scan)
    assert rms_off(found.positions_px, true) <= rms_off(given, true) + 1
    if specimen == "fossil" and overlap >= 0.05:  # structure everywhere
        assert rms_off(found.positions_px, true) < 0.5 * rms_off(given, true)
    if specimen == "empty":
        assert found.used <= 1
    noise = np.random.default_rng(5).normal(0, 1, true.shape)
    measured = found_in(replace(made.scan, positions_px=true + noise))
    assert rms_off(measured.positions_px, true) <= rms_off(noise, 0 * noise) + 1
    assert np.abs(measured.positions_px - true - noise).std() < 0.02 * SIZE


@pytest.mark.parametrize("overlap", [0.05, 0.1])
def test_a_step_other_than_the_nominal_one_is_found(overlap: float) -> None:
    """Tables say 20 % whatever was moved; tiles that show nothing take the step of the others."""
    made = made_mosaic(overlap, "fossil", seed=3)
    true = made.positions_px
    assert true is not None
    nominal = raster_positions((3, 3), (round(0.8 * SIZE),) * 2)
    found = found_in(replace(made.scan, positions_px=nominal))
    assert rms_off(nominal, true) > 20
    assert rms_off(found.positions_px, true) < 2
    blank = np.asarray(made.scan.tiles).copy()
    blank[8] = np.random.default_rng(0).poisson(np.median(blank[8]), blank[8].shape)
    found = found_in(replace(made.scan, positions_px=nominal, tiles=blank))
    assert not any(edge.used for edge in found.edges if 8 in (edge.first, edge.second))
    assert rms_off(found.positions_px, true) < 5


def test_tiles_side_by_side_that_overlap_are_found() -> None:
    """A grid without positions: tiles are laid out without overlap."""
    made = made_mosaic(0.07, "fossil", seed=6)
    true = made.positions_px
    assert true is not None
    found = found_in(replace(made.scan, positions_px=None))
    assert found.used >= 10
    assert rms_off(found.positions_px, true) < 1


def test_absent_tiles_leave_the_others_registered() -> None:
    made = made_mosaic(0.07, "fossil", seed=6)  # all four overlaps show the specimen
    keep = np.array([0, 1, 3, 5, 7, 8])
    scan, true = made.scan, made.positions_px
    assert true is not None and scan.positions_px is not None
    gaps = replace(
        scan, tiles=np.asarray(scan.tiles)[keep], names=tuple(scan.names[i] for i in keep),
        raster_index=keep, positions_px=scan.positions_px[keep], times=None,
    )  # fmt: skip
    found = found_in(gaps)
    assert len(found.edges) == 4
    assert rms_off(found.positions_px, true[keep]) < 0.5 * rms_off(gaps.positions_px, true[keep])


def scores(height: float, at: tuple[int, int], side: int = 21, seed: int = 0) -> Scores:
    """Noise of unit spread about shift (0, 40) with one peak."""
    y, x = np.mgrid[:side, :side]
    values = np.random.default_rng(seed).standard_normal((side, side))
    peak = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 4)
    values = (values * (1 - peak) + height * peak).astype(np.float16)
    return Scores(np.array([-10, 30]), values, (values / 20).astype(np.float16))


def test_a_peak_beside_the_border_is_no_match() -> None:
    belief = Belief(np.array([0.0, 40.0]), 5.0, 0.05)
    inside = most_likely(scores(12, (8, 11)), belief)
    assert inside is not None
    assert (inside.at, inside.sure) == ((8, 11), True)
    for at in ((0, 10), (10, 20), (20, 20)):
        beside = most_likely(scores(12, at), belief)
        assert beside is not None
        assert (beside.at, beside.sure) == (at, False)
    cut = scores(12, (8, 11))
    cut.values[:, 12:] = np.nan  # too little in common from there on
    beside = most_likely(cut, belief)
    assert beside is not None and not beside.sure


def test_a_match_must_stand_out_from_the_second_best() -> None:
    belief = Belief(np.array([0.0, 40.0]), 5.0, 0.05)
    twice = scores(9, (8, 11))
    twice.values[14, 6] = 8.9
    found = most_likely(twice, belief)
    assert found is not None and not found.sure
    nothing = most_likely(scores(0, (8, 11)), belief)
    assert nothing is not None and not nothing.sure
    narrow = most_likely(scores(0, (8, 11)), Belief(np.array([0.0, 40.0]), 0.5, 0.0))
    assert narrow is not None and not narrow.sure, "belief alone is no match"


def test_weak_pairs_tell_their_common_step_together() -> None:
    nominal = np.array([0.0, 40.0])
    maps = [scores(5, (14 + k % 2, 5), seed=k) for k in range(10)]
    loose = Belief(nominal, 10.0, 0.02)
    assert sum(f is not None and f.sure for f in (most_likely(s, loose) for s in maps)) < 5
    belief, step = common_step([*maps, None], nominal, 64)
    np.testing.assert_allclose(belief.shift, [4.5, 35], atol=1.5)
    np.testing.assert_allclose(step, [4.5, 35], atol=2)
    blind = [scores(0, (3, 3), seed=k) for k in range(10)]
    belief, step = common_step(blind, nominal, 64)
    assert step.tolist() == belief.shift.tolist() == nominal.tolist()


def test_a_step_within_its_own_error_stays_nominal() -> None:
    nominal = np.array([0.0, 40.0])
    _, step = common_step([scores(12, (10, 12)), scores(12, (10, 11), seed=1)], nominal, 256)
    np.testing.assert_array_equal(step, nominal)


def test_regular_places_are_told_from_measured_ones() -> None:
    raster = raster_positions((3, 4), (409.6, 430.2))
    size = (512, 512)
    found = Lattice.of(np.rint(raster), size)
    assert found is not None
    assert (found.rows_px, found.columns_px) == pytest.approx((409.6, 430.2), abs=0.3)
    assert Lattice.of(np.delete(np.rint(raster), [2, 5, 7], axis=0), size) is not None
    assert Lattice.of(raster[:1], size) == Lattice(0.0, 0.0)
    jitter = np.random.default_rng(0).uniform(-5, 5, raster.shape)
    assert Lattice.of(raster + jitter, size) is None
    assert Lattice.of(np.array([[0.0, 0.0], [3.0, 470.0]]), size) is None, "a tilted pair"
    assert Lattice.of(np.array([[0.0, 0.0], [0.0, 470.0]]), size) == Lattice(0.0, 470.0)


def test_a_lattice_takes_the_steps_that_were_found() -> None:
    raster = raster_positions((3, 4), (400.0, 420.0))
    lattice = Lattice.of(raster, (512, 512))
    assert lattice is not None
    found = {(0, 210): np.array([1.0, 220.0]), (-200, 0): np.array([-190.0, 3.0])}
    stretched = lattice.stretched(raster, found, 2)
    np.testing.assert_allclose(stretched[1] - stretched[0], [2, 440])
    np.testing.assert_allclose(stretched[4] - stretched[0], [-380, 6])


@pytest.mark.parametrize("name", ["bl01b_lm_4x2", "bl01b_lm_covered6", "bl01b_lm_covered4"])
def test_real_measured_places_are_believed(txm_data: Path, name: str) -> None:
    scan = io.read(txm_data / name)
    assert scan.positions_px is not None
    found = found_in(scan)
    assert found.used >= 2
    assert rms_off(found.positions_px, scan.positions_px) < 5
    assert "irregular" in found.note
