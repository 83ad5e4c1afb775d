"""References keep what is known of each image through joining, choosing and attaching."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_txm_bgcorr.core import LazyTiles, References, Scan
from napari_txm_bgcorr.core.references import (
    concatenated,
    first_and_each,
    joined_facts,
    joined_times,
    one_or_each,
)

START = np.datetime64("2026-01-01T00:00:00", "s")
NAN = float("nan")


def bundle(count: int, level: int, **facts: Any) -> References:
    images = (
        np.full((count, 2, 3), level, np.uint16) + np.arange(count, dtype=np.uint16)[:, None, None]
    )
    return References(images, **facts)


def same(a: Any, b: Any) -> None:
    assert (a is None) == (b is None)
    if a is not None:
        np.testing.assert_array_equal(a, b)


def assert_alike(one: References, other: References) -> None:
    np.testing.assert_array_equal(one.images[:], other.images[:])
    for name in ("times", "energies_ev", "exposures_s", "monitor"):
        same(getattr(one, name), getattr(other, name))


FULL = bundle(
    3,
    100,
    times=START + np.arange(3) * 60,
    energies_ev=np.array([700.0, 710.0, NAN]),
    exposures_s=np.array([1.0, 2.0, 3.0]),
    monitor=np.array([NAN, 5.0, 6.0]),
)


def scan() -> Scan:
    return Scan.from_array(np.ones((4, 2, 3), np.uint16))


def test_attaching_and_taking_off_change_nothing() -> None:
    assert References.of(scan()) is None
    found = References.of(FULL.attach(scan()))
    assert found is not None and len(found) == 3
    assert_alike(found, FULL)


def test_attaching_replaces_all_that_was_known_of_the_old_ones() -> None:
    found = References.of(bundle(2, 7).attach(FULL.attach(scan())))
    assert found is not None
    assert_alike(found, bundle(2, 7))


def test_no_image_is_no_reference() -> None:
    empty = replace(scan(), flats=LazyTiles((0, 2, 3), np.uint16, lambda i: np.zeros((2, 3))))
    assert References.of(empty) is None


@given(st.lists(st.integers(0, 2), max_size=5))
def test_chosen_ones_keep_their_facts(index: list[int]) -> None:
    got = FULL.chosen(np.array(index, np.intp))
    assert len(got) == len(index)
    np.testing.assert_array_equal(got.images[:], np.asarray(FULL.images)[index])
    assert got.images.dtype == np.uint16
    for name in ("times", "energies_ev", "exposures_s", "monitor"):
        np.testing.assert_array_equal(getattr(got, name), getattr(FULL, name)[index])
    assert bundle(2, 1).chosen(np.array([1])).times is None


def test_joined_bundles_are_one_after_another_and_unknown_facts_nan() -> None:
    plain = bundle(2, 50)
    both = References.joined([plain, FULL])
    assert len(both) == 5
    np.testing.assert_array_equal(both.images[:2], plain.images)
    np.testing.assert_array_equal(both.images[2:], FULL.images)
    assert both.times is None  # of some, not of all
    np.testing.assert_array_equal(both.energies_ev, [NAN, NAN, 700, 710, NAN])
    np.testing.assert_array_equal(both.exposures_s, [NAN, NAN, 1, 2, 3])
    assert References.joined([plain, plain]).exposures_s is None
    assert_alike(References.joined([FULL]), FULL)
    twice = References.joined([FULL, FULL]).times
    assert twice is not None and twice.tolist() == [*FULL.times.tolist()] * 2  # type: ignore


def test_joining_then_choosing_one_part_gives_it_back() -> None:
    both = References.joined([FULL, FULL.chosen(np.array([2, 0]))])
    assert_alike(both.chosen(np.arange(3)), FULL)
    assert_alike(both.chosen(np.array([4, 3])), FULL.chosen(np.array([0, 2])))


def test_stacks_of_different_types_lose_no_value() -> None:
    whole = concatenated([np.full((1, 2, 2), 65535, np.uint16), np.full((2, 2, 2), -1, np.int16)])
    assert whole.dtype == np.int32 and whole.shape == (3, 2, 2)
    assert [int(whole[i].max()) for i in range(3)] == [65535, -1, -1]
    single = np.zeros((2, 2, 2))
    assert concatenated([single]) is single


def test_tiles_as_references_bring_the_facts_of_the_scan() -> None:
    own = replace(
        scan(),
        times=START + np.arange(4),
        energy_ev=700.0,
        exposure_s=2.0,
        exposures_s=np.array([1.0, 2, 3, 4]),
        monitor=np.arange(4.0),
    )
    got = References.of_tiles(own)
    np.testing.assert_array_equal(got.images[:], np.asarray(own.tiles))
    np.testing.assert_array_equal(got.energies_ev, [700] * 4)
    np.testing.assert_array_equal(got.exposures_s, [1, 2, 3, 4])
    np.testing.assert_array_equal(got.monitor, [0, 1, 2, 3])
    same(got.times, own.times)
    bare = References.of_tiles(scan())
    assert (bare.energies_ev, bare.exposures_s, bare.monitor, bare.times) == (None,) * 4


def test_facts_of_parts() -> None:
    assert joined_times([]) is None and joined_facts([], []) is None
    assert joined_facts([np.array([NAN])], [1]) is None
    assert one_or_each(None, None, 3) is None
    np.testing.assert_array_equal(one_or_each(None, 2.0, 3), [2, 2, 2])
    np.testing.assert_array_equal(one_or_each(np.array([1.0, NAN]), 2.0, 2), [1, NAN])
    with pytest.raises(ValueError, match="zip"):
        joined_facts([None], [1, 2])


@given(st.lists(st.one_of(st.none(), st.just(NAN), st.sampled_from([-1.0, 0.0, 1.0, 2.0]))))
def test_the_first_known_fact_and_each_where_they_differ(values: list[float | None]) -> None:
    known = [v for v in values if v is not None and v > 0]
    first, each = first_and_each(values)
    assert first == (known[0] if known else None)
    assert (each is None) == (len(set(known)) < 2)
    if each is not None:
        wanted = [v if v is not None and v > 0 else NAN for v in values]
        np.testing.assert_array_equal(each, wanted)


def test_infinite_facts_are_unknown() -> None:
    assert first_and_each([float("inf"), 3.0, -float("inf")]) == (3.0, None)
    assert first_and_each(np.array([3.0, 3.0])) == (3.0, None)
