"""Differences in overlaps: they are those of the backgrounds, whatever the sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.overlap_blocks import find_overlaps
from napari_txm_bgcorr.backgrounds.drift.types import OverlapBlocks
from napari_txm_bgcorr.core.progress import Progress
from napari_txm_bgcorr.errors import StoppedError
from napari_txm_bgcorr.mosaic.overview import MethodBackgrounds, Overview, bin_mean, survey
from tests.backgrounds.drift.scans import GRID, SIZE, Given, make_scan, polynomial

LEVELS = np.linspace(-0.1, 0.1, GRID[0] * GRID[1])
TILT = polynomial({(0, 1): 0.04})


@pytest.fixture(scope="module")
def seen() -> tuple[Overview, np.ndarray]:
    """A mosaic whose levels differ and whose given pattern lacks a tilt, and its places."""
    scan, _, given = make_scan(LEVELS[:, None, None] + TILT)
    assert scan.positions_px is not None
    return survey(scan, MethodBackgrounds(scan, Given(given))), scan.positions_px


def found(overview: Overview, places: np.ndarray, workers: int = 1) -> list[OverlapBlocks]:
    return find_overlaps(
        overview, places, bin_mean(overview.pattern, overview.bin_px), workers=workers
    )


def test_every_two_tiles_that_share_an_edge_are_compared_once(
    seen: tuple[Overview, np.ndarray],
) -> None:
    pairs = [(o.first, o.second) for o in found(*seen)]
    rows, columns = GRID
    assert len(pairs) == rows * (columns - 1) + (rows - 1) * columns
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)


def test_differences_are_those_of_the_levels_and_of_what_the_pattern_lacks(
    seen: tuple[Overview, np.ndarray],
) -> None:
    for o in found(*seen):
        told = LEVELS[o.first] - LEVELS[o.second]
        told = told + 0.04 * (o.place_first[:, 1] - o.place_second[:, 1])
        assert np.std(o.difference - told) < 1.2 * np.sqrt(2) * 0.003  # the noise of two pixels
        assert abs(np.median(o.difference - told)) < 0.001


def test_places_are_those_of_one_point_of_the_sample(
    seen: tuple[Overview, np.ndarray],
) -> None:
    overview, places = seen
    for o in found(overview, places):
        apart = (o.place_first - o.place_second) * SIZE / 2
        np.testing.assert_allclose(
            apart, np.tile(places[o.second] - places[o.first], (len(apart), 1)), atol=1
        )
        assert (np.abs(o.place_first) < 1).all() and (np.abs(o.place_second) < 1).all()


def test_what_lies_behind_the_aperture_is_left_out(seen: tuple[Overview, np.ndarray]) -> None:
    overview, places = seen
    lit = np.ones((SIZE, SIZE), bool)
    lit[:, SIZE // 2 :] = False
    for o in found(replace(overview, lit=lit), places):
        assert (o.place_first[:, 1] < 0.1).all() and (o.place_second[:, 1] < 0.1).all()
    assert found(replace(overview, lit=np.zeros_like(lit)), places) == []


def test_the_number_of_threads_changes_nothing_and_a_stop_is_heeded(
    seen: tuple[Overview, np.ndarray],
) -> None:
    for one, two in zip(found(*seen), found(*seen, workers=3), strict=True):
        assert (one.first, one.second) == (two.first, two.second)
        np.testing.assert_array_equal(one.difference, two.difference)
    overview, places = seen
    with pytest.raises(StoppedError):
        find_overlaps(overview, places, overview.pattern, Progress(should_stop=lambda: True))
