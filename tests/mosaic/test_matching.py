"""Likeness of two tiles: against brute force, known shifts, and where nothing is shared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_txm_bgcorr.mosaic.matching import Matcher, Scores, _Windows, around
from napari_txm_bgcorr.mosaic.overview import Overview

SIDE = 96


def brute(a: np.ndarray, b: np.ndarray, a_lit: np.ndarray, b_lit: np.ndarray, y: int, x: int):
    """Sum of products over the common lit part at one shift, and the bins in common."""
    rows, columns = a.shape
    top, left = max(0, y), max(0, x)
    bottom, right = min(rows, y + b.shape[0]), min(columns, x + b.shape[1])
    if bottom <= top or right <= left:
        return 0.0, 0
    one = (slice(top, bottom), slice(left, right))
    two = (slice(top - y, bottom - y), slice(left - x, right - x))
    both = a_lit[one] & b_lit[two]
    p, q = a[one][both].astype(float), b[two][both].astype(float)
    power = np.sqrt((p * p).sum() * (q * q).sum())
    return (float((p * q).sum() / power) if power else 0.0), int(both.sum())


@settings(deadline=None, max_examples=30)
@given(
    a_size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    b_size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    first=st.tuples(st.integers(-20, 14), st.integers(-20, 14)),
    count=st.integers(1, 25),
    seed=st.integers(0, 999),
)
def test_correlation_over_the_common_part_is_that_of_a_loop(
    a_size: tuple[int, int],
    b_size: tuple[int, int],
    first: tuple[int, int],
    count: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    a_lit, b_lit = rng.random(a_size) < 0.8, rng.random(b_size) < 0.8
    a, b = (rng.normal(size=lit.shape).astype(np.float32) * lit for lit in (a_lit, b_lit))
    windows = _Windows(a_lit, b_lit, np.array(first), count)
    got = windows.correlate(a, b)
    assert got.shape == windows.common.shape
    for row, column in np.ndindex(got.shape):
        y, x = windows.first + np.array([row, column])
        wanted, common = brute(a, b, a_lit, b_lit, int(y), int(x))
        assert windows.common[row, column] == pytest.approx(common, abs=1e-3)
        if common > 1:  # else the power is of the order of the transforms' rounding
            assert got[row, column] == pytest.approx(wanted, abs=2e-3)
    # of what was asked for only shifts without any common part are left out
    for y in range(first[0], first[0] + count):
        for x in range(first[1], first[1] + count):
            at = np.array([y, x]) - windows.first
            inside = (at >= 0).all() and (at < got.shape).all()
            assert inside or brute(a, b, a_lit, b_lit, y, x)[1] == 0


def scene(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.normal(size=(3 * SIDE, 3 * SIDE)), 1.5)
    return (0.1 * rough / rough.std()).astype(np.float32)


def matcher(corners: list[tuple[int, int]], lit: np.ndarray | None = None, **kw: Any) -> Matcher:
    picture = kw.get("picture", scene())
    raw = np.stack([picture[y : y + SIDE, x : x + SIDE] for y, x in corners])
    lit = np.ones((SIDE, SIDE), bool) if lit is None else lit
    return Matcher(cast(Overview, SimpleNamespace(raw=raw, lit_bins=lit, bin_px=4)))


def peak(scores: Scores) -> np.ndarray:
    at = np.unravel_index(int(np.nanargmax(scores.values)), scores.values.shape)
    return scores.top((int(at[0]), int(at[1])))


@pytest.mark.parametrize("shift", [(0, 80), (78, 3), (-81, -2), (4, -77), (60, 60)])
def test_a_known_shift_has_the_highest_score(shift: tuple[int, int]) -> None:
    start = (96, 96)
    found = matcher([start, (start[0] + shift[0], start[1] + shift[1])])
    guess = np.add(shift, (3, -4))
    scores = found.scores(0, 1, guess, 8)
    assert scores is not None
    np.testing.assert_allclose(peak(scores), shift, atol=0.1)
    back = found.scores(1, 0, -guess, 8)
    assert back is not None
    np.testing.assert_allclose(peak(back), np.negative(shift), atol=0.1)


def test_a_shift_of_half_a_bin_is_seen() -> None:
    picture = ndimage.shift(scene(), (0, 0.5), order=3)
    both = np.stack([scene()[96:192, 96:192], picture[96:192, 170:266]])
    lit = np.ones((SIDE, SIDE), bool)
    found = Matcher(cast(Overview, SimpleNamespace(raw=both, lit_bins=lit, bin_px=1)))
    scores = found.scores(0, 1, np.array([0, 74]), 5)
    assert scores is not None
    np.testing.assert_allclose(peak(scores), [0, 73.5], atol=0.2)


@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_level_and_slope_of_a_tile_do_not_matter(gain: float) -> None:
    """Logarithms: another exposure adds a constant, drift a slow slope."""
    corners = [(96, 96), (96, 172)]
    plain = matcher(corners)
    raw = plain._overview.raw.copy()
    raw[1] += np.log(gain) + np.linspace(-0.05, 0.05, SIDE)[:, None]
    changed = Matcher(
        cast(Overview, SimpleNamespace(raw=raw.astype(np.float32), lit_bins=plain._lit, bin_px=4))
    )
    one, other = (m.scores(0, 1, np.array([0, 75]), 6) for m in (plain, changed))
    assert one is not None and other is not None
    np.testing.assert_allclose(peak(one), peak(other), atol=0.05)


def test_unlit_bins_count_for_nothing() -> None:
    lit = np.ones((SIDE, SIDE), bool)
    lit[:20, 70:] = False
    corners = [(96, 96), (96, 172)]
    clean = matcher(corners, lit)
    spoiled = matcher(corners, lit)
    raw = spoiled._overview.raw.copy()
    raw[:, ~lit] = 50.0
    spoiled = Matcher(cast(Overview, SimpleNamespace(raw=raw, lit_bins=lit, bin_px=4)))
    one, other = (m.scores(0, 1, np.array([0, 76]), 6) for m in (clean, spoiled))
    assert one is not None and other is not None
    np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("guess", [(0, SIDE + 20), (-SIDE - 20, 0), (SIDE - 1, SIDE - 1)])
def test_tiles_that_share_nothing_have_no_scores(guess: tuple[int, int]) -> None:
    assert matcher([(96, 96), (96, 96)]).scores(0, 1, np.array(guess), 2) is None


def test_too_narrow_overlaps_are_unknown() -> None:
    scores = matcher([(96, 96), (180, 180)]).scores(0, 1, np.array([86, 86]), 6)
    assert scores is not None
    rows, columns = (
        SIDE - (scores.first[a] + np.arange(n)) for a, n in enumerate(scores.values.shape)
    )
    common = np.outer(rows, columns)
    narrow, wide = common < 0.0075 * SIDE**2, common > 0.0085 * SIDE**2
    assert narrow.any() and wide.any()
    assert np.isnan(scores.values[narrow]).all() and np.isfinite(scores.values[wide]).all()


def test_what_is_kept_of_tiles_changes_no_bit() -> None:
    corners = [(96, 96), (96, 172), (172, 96)]
    once = matcher(corners)
    guess = np.array([0, 75])
    first = once.scores(0, 1, guess, 5)
    once.scores(0, 2, np.array([75, 0]), 5)
    again, fresh = once.scores(0, 1, guess, 5), matcher(corners).scores(0, 1, guess, 5)
    assert first is not None and again is not None and fresh is not None
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.values, fresh.values)
    assert (once.bin_px, once.shape) == (4, (SIDE, SIDE))


def parabola(y0: float, x0: float) -> Scores:
    y, x = np.mgrid[:9, :9]
    like = 0.9 - 0.02 * (y - y0) ** 2 - 0.01 * (x - x0) ** 2
    return Scores(np.array([10, -20]), like.astype(np.float16), like.astype(np.float16))


@settings(deadline=None)
@given(y0=st.floats(3, 5), x0=st.floats(3, 5))
def test_the_top_of_a_parabola_is_its_vertex_from_any_bin_near(y0: float, x0: float) -> None:
    scores = parabola(y0, x0)
    np.testing.assert_allclose(scores.top((4, 4)), [10 + y0, x0 - 20], atol=0.1)
    np.testing.assert_allclose(scores.top((3, 5)), scores.top((4, 4)), atol=0.1)


def test_the_border_is_no_inside() -> None:
    scores = parabola(4, 4)
    assert scores.inner((1, 1)) and scores.inner((7, 7))
    assert not any(scores.inner(at) for at in [(0, 4), (4, 0), (8, 4), (4, 8), (8, 8)])
    scores.values[3, 3] = np.nan
    assert not scores.inner((4, 4)) and not scores.inner((2, 3)) and scores.inner((6, 6))


def test_around_is_a_view_cut_at_the_edges() -> None:
    image = np.arange(30).reshape(5, 6)
    np.testing.assert_array_equal(around(image, (2, 2), 1), image[1:4, 1:4])
    assert around(image, (0, 5), 2).shape == (3, 3)
    around(image, (4, 0), 1)[:] = -1
    assert (image[3:, :2] == -1).all() and (image == -1).sum() == 4
