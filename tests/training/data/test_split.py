"""The split holds whole sessions out where it can, and says truly what it did."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.training.data.split import (
    ENOUGH_FILES,
    ENOUGH_SESSIONS,
    SHARE,
    split,
)

sessions_of = st.lists(st.integers(0, 8), min_size=1, max_size=60).map(
    lambda days: [f"2026-01-{10 + day}" for day in days]
)


@settings(deadline=None, max_examples=200)
@given(sessions=sessions_of, seed=st.integers(0, 50))
def test_both_sides_hold_every_image_once(sessions: list[str], seed: int) -> None:
    parts, count = split(sessions, seed), len(sessions)
    both = np.concatenate([parts.train, parts.validation])
    assert len(parts.train) and len(parts.validation)
    if len(set(sessions)) < ENOUGH_SESSIONS and count < ENOUGH_FILES:
        assert parts.train.tolist() == parts.validation.tolist() == list(range(count))
        assert "too few to hold any out" in parts.tells
        return
    assert sorted(both.tolist()) == list(range(count))
    told = re.match(r"validation: (\d+) of (\d+) references", parts.tells)
    assert told is not None
    assert (int(told[1]), int(told[2])) == (len(parts.validation), count)


@settings(deadline=None, max_examples=200)
@given(sessions=sessions_of, seed=st.integers(0, 50))
def test_sessions_are_not_torn_where_there_are_enough(sessions: list[str], seed: int) -> None:
    parts, names = split(sessions, seed), np.array(sessions)
    known = sorted(set(sessions))
    if len(known) < ENOUGH_SESSIONS:
        return
    held, kept = set(names[parts.validation]), set(names[parts.train])
    assert not held & kept and known[-1] in kept  # the newest is the one being tuned to
    assert len(held) == max(1, round(SHARE * len(known)))
    assert f"({len(held)} of {len(known)} sessions) held out" in parts.tells
    assert "sessions unseen" in parts.tells


@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3), seed=st.integers(0, 50))
def test_of_few_sessions_files_are_held_out_of_the_newest(sizes: list[int], seed: int) -> None:
    sessions = [f"day{k}" for k, size in enumerate(sizes) for _ in range(size)]
    parts = split(sessions, seed)
    if len(sessions) < ENOUGH_FILES:
        return
    newest = {k for k, s in enumerate(sessions) if s == sessions[-1]}
    pool = newest if len(newest) >= ENOUGH_FILES else set(range(len(sessions)))
    assert set(parts.validation.tolist()) <= pool
    assert len(parts.validation) == max(1, round(SHARE * len(pool)))
    assert "not of other sessions" in parts.tells


def test_the_seed_decides_and_the_order_of_files_does_not_tear_sessions() -> None:
    sessions = [f"day{k % 9}" for k in range(45)]
    one, again = split(sessions, 3), split(sessions, 3)
    assert one.validation.tolist() == again.validation.tolist() and one.tells == again.tells
    held = {tuple(sorted({sessions[k] for k in split(sessions, s).validation})) for s in range(9)}
    assert len(held) > 1
    shuffled = sorted(sessions)
    assert {shuffled[k] for k in split(shuffled, 3).validation} == {
        sessions[k] for k in one.validation
    }


def test_one_image_is_called_by_its_singular() -> None:
    assert split(["a"], 0, "pairs").tells.startswith("validation: 1 pair, too few")
    assert split(["a", "a"], 0, "samples").tells.startswith("validation: 2 samples, too few")
