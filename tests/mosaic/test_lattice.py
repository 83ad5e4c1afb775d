"""A regular lattice is told from measured places, and stretched without losing its shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.mosaic.lattice import Lattice

SIZE = (100, 120)


def places(rows: int, columns: int, step: tuple[float, float]) -> np.ndarray:
    return np.array(
        [(r * step[0], c * step[1]) for r in range(rows) for c in range(columns)], np.float64
    )


@settings(deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    step=st.tuples(st.floats(20, 110), st.floats(20, 110)),
    seed=st.integers(0, 1000),
)
def test_steps_are_found_in_any_order_and_from_any_corner(
    rows: int, columns: int, step: tuple[float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(places(rows, columns, step)) + rng.uniform(-50, 50, 2)
    found = Lattice.of(shuffled, SIZE)
    assert found is not None
    assert found.rows_px == pytest.approx(step[0] if rows > 1 else 0)
    assert found.columns_px == pytest.approx(step[1] if columns > 1 else 0)


def test_whole_pixels_of_a_table_average_to_the_true_step() -> None:
    found = Lattice.of(np.rint(places(5, 9, (81.3, 90.7))), SIZE)
    assert found is not None
    assert found.rows_px == pytest.approx(81.3, abs=0.2)
    assert found.columns_px == pytest.approx(90.7, abs=0.2)


def test_missing_tiles_leave_the_lattice() -> None:
    kept = np.delete(places(4, 5, (80.0, 90.0)), [1, 7, 13], axis=0)
    assert Lattice.of(kept, SIZE) == Lattice(80.0, 90.0)


@pytest.mark.parametrize("axis", [0, 1])
def test_measured_places_form_no_lattice(axis: int) -> None:
    strayed = places(4, 5, (80.0, 90.0))
    strayed[7, axis] += 4
    assert Lattice.of(strayed, SIZE) is None


def steps(rows_bins: float, columns_bins: float) -> list[tuple[int, int]]:
    return [(round(rows_bins), 0), (0, round(columns_bins))]


def test_the_steps_it_has_change_nothing() -> None:
    at, bin_px = places(3, 4, (80.0, 96.0)), 4
    lattice = Lattice(80.0, 96.0)
    down, right = steps(20, 24)
    same = {down: np.array([20.0, 0.0]), right: np.array([0.0, 24.0])}
    np.testing.assert_allclose(lattice.stretched(at, same, bin_px), at)
    np.testing.assert_array_equal(lattice.stretched(at, {}, bin_px), at)


@settings(deadline=None)
@given(
    down=st.tuples(st.floats(18, 22), st.floats(-2, 2)),
    right=st.tuples(st.floats(-2, 2), st.floats(22, 26)),
    sign=st.sampled_from([1, -1]),
)
def test_found_steps_become_those_of_the_lattice(
    down: tuple[float, float], right: tuple[float, float], sign: int
) -> None:
    """Each row is off the one before by what was found, whatever way the pair was measured."""
    bin_px, lattice = 4, Lattice(80.0, 96.0)
    at = places(3, 4, (80.0, 96.0))
    found = {
        (20 * sign, 0): np.array(down) * sign,
        (0, 24 * sign): np.array(right) * sign,
        (20, 24): np.array([99.0, 99.0]),  # diagonal pairs say nothing of either step
    }
    grid = lattice.stretched(at, found, bin_px).reshape(3, 4, 2)
    assert np.abs(np.diff(grid, axis=0) - np.multiply(down, bin_px)).max() < 1e-9
    assert np.abs(np.diff(grid, axis=1) - np.multiply(right, bin_px)).max() < 1e-9


def test_a_step_over_two_rows_counts_twice() -> None:
    at = places(3, 1, (80.0, 0.0))
    out = Lattice(80.0, 0.0).stretched(at, {(40, 0): np.array([42.0, 1.0])}, 4)
    np.testing.assert_allclose(np.diff(out, axis=0), [[84, 2], [84, 2]])
