"""Older references are trusted less, within bounds; without times a fixed guess stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.backgrounds.drift.prior_error import (
    AGE_H,
    FRESH,
    LEVEL_LEAST,
    LEVEL_MOST,
    STALE,
    TILE_H,
    prior_error,
    tile_hours,
)
from napari_txm_bgcorr.backgrounds.drift.types import DriftFit, FitOptions
from napari_txm_bgcorr.core import Scan

START = np.datetime64("2026-01-05T12:00:00", "s")
NAT = np.datetime64("NaT", "s")


def hours(*values: float) -> Any:
    return START + (3600 * np.array(values)).astype("timedelta64[s]")


def scan(tiles: Any = None, flats: Any = None, count: int = 3) -> Scan:
    made = Scan.from_array(np.ones((count, 4, 4), np.uint16))
    if flats is not None:
        made = replace(made, flats=np.ones((len(flats), 4, 4), np.uint16), flat_times=flats)
    return replace(made, times=tiles)


def at_age(age: float, **options: bool) -> Any:
    return prior_error(scan(hours(0, 0, 0), hours(age)), True, **options)


@settings(deadline=None, max_examples=60)
@given(one=st.integers(0, 2000), other=st.integers(0, 2000), followed=st.booleans())
def test_an_older_reference_is_never_trusted_more(one: int, other: int, followed: bool) -> None:
    young, old = (at_age(age, followed=followed) for age in sorted((one, other)))
    assert FRESH <= young.shared_sd <= old.shared_sd <= STALE
    assert FRESH <= young.field_sd <= old.field_sd <= FitOptions.field_sd
    assert LEVEL_LEAST <= young.level_sd <= old.level_sd <= LEVEL_MOST


def test_a_reference_after_the_scan_is_as_good_as_one_before() -> None:
    assert at_age(5.0) == at_age(-5.0) != at_age(50.0)


def test_shapes_that_were_fitted_are_trusted_more_and_levels_alike() -> None:
    plain, followed = at_age(10.0), at_age(10.0, followed=True)
    assert followed.shared_sd < plain.shared_sd and followed.level_sd == plain.level_sd


def test_each_tile_has_its_nearest_reference() -> None:
    both = prior_error(scan(hours(0, 8, 16), hours(16, 0, 8)), True)
    assert both == at_age(0.0)
    assert prior_error(scan(hours(0, 1, 90), hours(0)), True) == at_age(1.0)  # the median tile


def test_references_without_a_time_do_not_count_where_others_have_one() -> None:
    some = np.array([NAT, hours(5)[0]])
    assert prior_error(scan(hours(0, 0, 0), some), True) == at_age(5.0)


@pytest.mark.parametrize(
    ("tiles", "flats"),
    [
        (None, hours(0)),
        (hours(0, 1, 2), None),
        (np.array([NAT, START, START]), hours(0)),
        (hours(0, 1, 2), np.array([NAT, NAT])),
    ],
)
def test_without_times_a_usual_age_stands(tiles: Any, flats: Any) -> None:
    assert prior_error(scan(tiles, flats), True) == at_age(AGE_H)


def test_a_guess_states_no_level_and_is_worse_than_any_reference() -> None:
    guess = prior_error(scan(hours(0, 0, 0), hours(0)), False)
    assert guess.level_sd is None and guess.shared_sd >= at_age(10_000.0).shared_sd
    assert guess.field_sd >= at_age(10_000.0).field_sd


def test_hours_of_tiles_begin_at_the_earliest_in_any_order() -> None:
    np.testing.assert_allclose(tile_hours(scan(hours(2, 0.5, 7))), [1.5, 0, 6.5])
    for unknown in (None, np.array([START, NAT, START])):
        np.testing.assert_allclose(tile_hours(scan(unknown)), np.arange(3) * TILE_H)


def test_a_fit_is_cells_plus_levels() -> None:
    cells = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    levels = np.array([8.0, -1.0])
    fit = DriftFit(levels, cells, cells, levels, levels, cells, 0.1, 0.01)
    np.testing.assert_allclose(fit.model(), cells + levels[:, None, None], rtol=1e-6)
    assert fit.model().dtype == np.float32
