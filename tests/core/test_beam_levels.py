"""Levels of the beam told from tiles that the specimen covers in part or whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.core.beam_levels import BeamLevels, Shown, beam_plane, shown_terms
from napari_txm_bgcorr.core.legendre import terms
from napari_txm_bgcorr.core.overview import Overview
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.simulate import simulate_mosaic
from napari_txm_bgcorr.core.tile_median import TileMedian
from napari_txm_bgcorr.engine.priors import log_counts, tile_median

COVERED = [3, 4, 11, 12, 17]


@pytest.fixture(scope="module")
def scan() -> Scan:
    """Six rows of four tiles, nothing in them."""
    drawn = simulate_mosaic(
        6, 4, size=64, drift=0.5, hours_per_tile=0.03, seed=5, specimen="empty"
    )
    return replace(drawn.scan, tiles=np.asarray(drawn.scan.tiles[:]))


def covered(scan: Scan, absorption: float = 0.7) -> Scan:
    """The same with some tiles covered all over."""
    tiles = scan.tiles[:].astype(np.float32)
    tiles[COVERED] *= np.exp(-absorption)
    return replace(scan, tiles=tiles)


def test_covered_tiles_get_the_level_of_the_beam(scan: Scan) -> None:
    whole = TileMedian().fit(scan)
    hidden = covered(scan)
    found = TileMedian().fit(hidden)
    for i in COVERED:
        true = whole.background(scan.tiles[i][None], np.array([i]))
        told = found.background(hidden.tiles[i][None], np.array([i]))
        assert np.median(told / true) == pytest.approx(1, abs=0.04)  # drift within the mosaic
        # A tile that the scan does not hold may be of another exposure: its own level counts.
        alone = found.background(hidden.tiles[i][None])
        assert np.median(alone / true) == pytest.approx(np.exp(-0.7), abs=0.03)


def test_tiles_that_show_the_beam_keep_their_own_level(scan: Scan) -> None:
    found = TileMedian().fit(covered(scan))
    for i in set(range(len(scan))) - set(COVERED):
        kept = found.background(scan.tiles[i][None], np.array([i]))
        alone = found.background(scan.tiles[i][None])
        assert np.median(kept / alone) == pytest.approx(1, abs=0.015)


def test_a_slow_fall_of_the_beam_is_no_specimen(scan: Scan) -> None:
    fall = np.exp(-0.15 * np.arange(len(scan)) / len(scan)).astype(np.float32)
    hours = np.arange(len(scan)) * 1.0
    own = np.log(fall).astype(np.float64)
    dated = replace(scan, times=np.datetime64("2026-01-01", "s") + (3600 * hours).astype(int))
    levels = BeamLevels.of(dated, list(range(len(scan))), own)
    kept = [levels.believed(level, i) for i, level in enumerate(own)]
    assert np.abs(np.array(kept) - own).max() < 0.01


def test_tiles_between_those_looked_at_are_told_by_time(scan: Scan) -> None:
    chosen = list(range(0, len(scan), 2))
    levels = BeamLevels.of(scan, chosen, np.zeros(len(chosen)))
    assert levels.levels.shape == (len(scan),)
    assert levels.believed(-0.9, 5) == pytest.approx(0, abs=0.01)
    assert levels.believed(-0.01, 5) == pytest.approx(-0.01, abs=0.002)


def test_series_keep_the_level_of_each_projection(scan: Scan) -> None:
    series = replace(covered(scan), kind="series", grid=None, positions_px=None)
    assert TileMedian().fit(series).levels is None


def test_the_prior_knows_the_levels_too(scan: Scan) -> None:
    hidden = covered(scan)
    prior = tile_median(hidden, None)
    assert prior.levels is not None
    own = float(np.median(log_counts(hidden.tiles[3], None) - prior.of(3)))
    beam = float(np.median(log_counts(scan.tiles[3], None) - prior.of(3)))
    assert prior.levels.believed(own, 3) == pytest.approx(beam, abs=0.04)


@pytest.mark.parametrize("tilt", [-0.08, 0.0, 0.08])
def test_plane_follows_the_tiles_that_show_the_beam(tilt: float) -> None:
    generator = np.random.default_rng(3)
    places = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), axis=-1).reshape(-1, 2)
    off = 0.3 + tilt * (places[:, 0] - 4) / 4 + generator.normal(0, 0.01, len(places))
    dense = generator.random(len(places)) < 0.3
    off[dense] -= generator.exponential(0.4, dense.sum()) + 0.1
    trust, middle = beam_plane(off, places)
    assert trust[dense].max() < 0.3
    assert np.median(trust[~dense]) > 0.9
    assert middle == pytest.approx(0.3, abs=0.02)


def small_overview(raw: np.ndarray) -> Overview:
    """Tiles `(T, y, x)` of log counts about a flat shape, all lit."""
    size = raw.shape[1:]
    return Overview(
        shape=np.zeros(size, np.float32), lit=np.ones(size, bool), raw=raw.astype(np.float16),
        raw_level=np.full(len(raw), 8.0), rest=np.full((len(raw), 1, 1), np.nan, np.float32),
        bin_px=1, pattern_kept=np.zeros(1),
    )  # fmt: skip


def test_terms_of_tiles_are_those_of_their_empty_parts() -> None:
    y = np.linspace(-1, 1, 64)[:, None] * np.ones(64)
    tilted = 0.1 + 0.05 * y
    holding = tilted.copy()
    holding[10:40, 5:40] -= 0.5  # a quarter of the field absorbs
    shown = shown_terms(small_overview(np.stack([tilted, holding])), terms(2))
    order = terms(2)
    down = order.index((1, 0))
    np.testing.assert_allclose(shown.terms[:, 0], 8.1, atol=0.004)
    np.testing.assert_allclose(shown.terms[:, down], 0.05, atol=0.004)
    assert shown.share[0] > 0.9
    assert shown.share[1] == pytest.approx(1 - 30 * 35 / 64**2, abs=0.1)


def test_what_neighbours_contradict_is_not_believed() -> None:
    generator = np.random.default_rng(4)
    count, usual = 60, np.full(3, 0.02)
    slow = 0.02 * np.sin(np.arange(count) / 9)[:, None] * np.ones(3)
    places = np.stack([np.arange(count) // 10, np.arange(count) % 10], axis=1).astype(float)
    precise, wild = (
        Shown(8 + slow + generator.normal(0, noise, slow.shape), np.ones(count))
        for noise in (0.001, 0.1)
    )
    found, precision = precise.evidence(np.zeros_like(slow), places, usual)
    np.testing.assert_allclose(found[:, 1], slow[:, 1] - np.median(slow[:, 1]), atol=0.005)
    weak = wild.evidence(np.zeros_like(slow), places, usual)[1]
    assert np.median(weak[:, 1]) < 0.1 * np.median(precision[:, 1])
    few = Shown(precise.terms, np.full(count, 0.1))  # little of each tile explained
    assert not few.evidence(np.zeros_like(slow), places, usual)[1][:, 1:].any()
