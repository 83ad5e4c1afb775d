"""What is believed of a shift: prior and likeness together, and the step many pairs share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.mosaic.matching import Scores
from napari_txm_bgcorr.mosaic.step_belief import (
    LEAST_SD,
    MOST_SD,
    STRAYS,
    Belief,
    common_step,
    most_likely,
)

SIDE, REACH = 100, 15
NOMINAL = np.array([0.0, 80.0])
FIRST = np.array([-REACH, 80 - REACH])


def scores(*peaks: tuple[float, float, float], noise: float = 0.0, seed: int = 0) -> Scores:
    """Map of likeness with peaks (shift y, shift x, height) of two bins' width."""
    n = 2 * REACH + 1
    y, x = np.mgrid[:n, :n]
    values = np.random.default_rng(seed).normal(0, noise, (n, n)) if noise else np.zeros((n, n))
    for dy, dx, height in peaks:
        off = (y + FIRST[0] - dy) ** 2 + (x + FIRST[1] - dx) ** 2
        values = values + height * np.exp(-off / 4)
    correlation = np.clip(values / 20, -1, 1)
    return Scores(FIRST, values.astype(np.float16), correlation.astype(np.float16))


WIDE = Belief(NOMINAL, 8.0, STRAYS)


@settings(deadline=None)
@given(dy=st.integers(-10, 10), dx=st.integers(70, 90))
def test_a_high_peak_is_found_and_certain(dy: int, dx: int) -> None:
    found = most_likely(scores((dy, dx, 10.0)), WIDE)
    assert found is not None and found.sure
    assert tuple(FIRST + found.at) == (dy, dx)


def test_of_two_peaks_alike_the_believed_one_is_taken() -> None:
    both = scores((0, 80, 7.0), (0, 90, 7.0))
    near, far = (most_likely(both, Belief(np.array([0.0, x]), 2.0, STRAYS)) for x in (80, 90))
    assert near is not None and far is not None
    assert tuple(FIRST + near.at) == (0, 80) and tuple(FIRST + far.at) == (0, 90)


def test_two_peaks_alike_are_uncertain_where_nothing_is_believed() -> None:
    found = most_likely(scores((0, 76, 7.0), (0, 84, 7.0)), WIDE)
    assert found is not None and not found.sure


def test_a_much_higher_peak_beats_the_belief() -> None:
    found = most_likely(scores((0, 80, 4.0), (0, 92, 12.0)), Belief(NOMINAL, 2.0, STRAYS))
    assert found is not None and tuple(FIRST + found.at) == (0, 92)


def test_belief_alone_is_no_match() -> None:
    found = most_likely(scores(), Belief(NOMINAL, 0.5, STRAYS))
    assert found is not None and tuple(FIRST + found.at) == (0, 80) and not found.sure
    weak = most_likely(scores((0, 80, 2.5)), Belief(NOMINAL, 0.5, 0.0))
    assert weak is not None and not weak.sure


@pytest.mark.parametrize("at", [(-REACH, 80), (REACH, 80), (0, 80 + REACH)])
def test_a_peak_at_the_border_is_not_certain(at: tuple[int, int]) -> None:
    found = most_likely(scores((*at, 12.0)), WIDE)
    assert found is not None and not found.sure


def test_unknown_shifts_are_never_taken() -> None:
    hidden = scores((0, 80, 12.0), (3, 85, 8.0))
    hidden.values[REACH - 3 : REACH + 4, REACH - 2 : REACH + 3] = np.nan
    found = most_likely(hidden, WIDE)
    assert found is not None and np.isfinite(hidden.values[found.at])
    nothing = scores()
    nothing.values[:] = np.nan
    assert most_likely(nothing, WIDE) is None


def test_without_maps_the_nominal_step_stands() -> None:
    for maps in ([], [None, None]):
        belief, step = common_step(maps, NOMINAL, SIDE)
        np.testing.assert_array_equal(step, NOMINAL)
        np.testing.assert_array_equal(belief.shift, NOMINAL)
        assert belief.sd == MOST_SD * SIDE and belief.strays == STRAYS


@settings(deadline=None, max_examples=20)
@given(dy=st.integers(-8, 8), dx=st.integers(72, 88), seed=st.integers(0, 99))
def test_pairs_that_agree_tell_the_step(dy: int, dx: int, seed: int) -> None:
    maps = [scores((dy, dx, 8.0), noise=0.7, seed=seed + k) for k in range(6)]
    belief, step = common_step([*maps, None], NOMINAL, SIDE)
    np.testing.assert_allclose(belief.shift, [dy, dx], atol=0.6)
    assert LEAST_SD * SIDE <= belief.sd < MOST_SD * SIDE / 2
    # towards what was found, and never beyond it
    off, whole = step - NOMINAL, belief.shift - NOMINAL
    assert 0 <= off @ whole <= whole @ whole + 1e-9
    if np.hypot(dy, dx - 80) > 5:
        np.testing.assert_allclose(step, [dy, dx], atol=1.5)


def test_many_weak_pairs_tell_what_none_tells_alone() -> None:
    weak = [scores((4, 84, 4.5), noise=1.0, seed=k) for k in range(12)]
    alone, step = common_step(weak[:1], NOMINAL, SIDE)
    np.testing.assert_array_equal(step, NOMINAL)
    together, _ = common_step(weak, NOMINAL, SIDE)
    np.testing.assert_allclose(together.shift, [4, 84], atol=1.0)
    assert together.sd < alone.sd


def test_a_single_wrong_pair_moves_little() -> None:
    right = [scores((3, 83, 8.0), noise=0.5, seed=k) for k in range(6)]
    belief, _ = common_step([*right, scores((-9, 72, 14.0))], NOMINAL, SIDE)
    np.testing.assert_allclose(belief.shift, [3, 83], atol=0.6)


def test_steps_that_scatter_are_believed_less() -> None:
    rng = np.random.default_rng(2)
    close = [scores((3, 83, 9.0)) for _ in range(8)]
    wide = [scores((3 + a, 83 + b, 9.0)) for a, b in rng.integers(-4, 5, (8, 2))]
    tight, loose = (common_step(maps, NOMINAL, SIDE)[0].sd for maps in (close, wide))
    assert LEAST_SD * SIDE <= tight < loose <= MOST_SD * SIDE


def test_what_is_seen_at_the_nominal_step_leaves_it_exactly() -> None:
    maps = [scores((0, 80, 9.0)) for _ in range(5)]
    _, step = common_step(maps, NOMINAL, SIDE)
    np.testing.assert_allclose(step, NOMINAL, atol=1e-9)
