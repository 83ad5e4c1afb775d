"""Places from shifts between neighbours: exact where all agree, wrong shifts dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.mosaic.placement import Edge, Trust, reconcile

TRUST = Trust(place=1e-6, step=1e-3)
ROWS, COLUMNS = 3, 4


def grid(step: float = 50.0) -> np.ndarray:
    y, x = np.mgrid[:ROWS, :COLUMNS]
    return np.stack([y.ravel() * step, x.ravel() * step], axis=1).astype(np.float64)


def pairs() -> list[tuple[int, int]]:
    out = []
    for k in range(ROWS * COLUMNS):
        if k % COLUMNS + 1 < COLUMNS:
            out.append((k, k + 1))
        if k + COLUMNS < ROWS * COLUMNS:
            out.append((k, k + COLUMNS))
    return out


def edges_of(true: np.ndarray) -> list[Edge]:
    found = []
    for a, b in pairs():
        y, x = (true[b] - true[a]).tolist()
        found.append(Edge(a, b, (y, x), 0.9, 8.0, True))
    return found


def strayed(seed: int, sd: float = 3.0) -> np.ndarray:
    return grid() + np.random.default_rng(seed).normal(0, sd, (ROWS * COLUMNS, 2))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_shifts_that_agree_give_the_true_places(seed: int) -> None:
    true = strayed(seed)
    placed, edges = reconcile(grid(), edges_of(true), 2.0, TRUST)
    off = placed - true
    np.testing.assert_allclose(off - off.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(placed.mean(axis=0), grid().mean(axis=0), atol=1e-6)
    assert edges == edges_of(true)


def test_without_shifts_everything_stays_where_it_is_expected() -> None:
    placed, edges = reconcile(grid(), [], 2.0, TRUST)
    np.testing.assert_allclose(placed, grid())
    assert edges == []
    unseen = [replace(e, used=False, shift_px=(1e6, -1e6)) for e in edges_of(grid())]
    placed, edges = reconcile(grid(), unseen, 2.0, TRUST)
    np.testing.assert_allclose(placed, grid(), atol=1e-6)
    for e in edges:  # they tell the shift between the places, not what they held
        np.testing.assert_allclose(e.shift_px, grid()[e.second] - grid()[e.first], atol=1e-6)


def spoiled(edges: list[Edge], k: int, size: float, angle: float) -> list[Edge]:
    """Edges of which number `k` is wrong by `size` pixels."""
    y, x = edges[k].shift_px
    wrong = (y + size * float(np.sin(angle)), x + size * float(np.cos(angle)))
    return [*edges[:k], replace(edges[k], shift_px=wrong), *edges[k + 1 :]]


@pytest.mark.parametrize("wrong", range(len(pairs())))
@pytest.mark.parametrize("angle", [0.0, 2.0])
def test_a_wrong_shift_is_dropped_and_moves_nothing(wrong: int, angle: float) -> None:
    true = strayed(wrong)
    placed, kept = reconcile(grid(), spoiled(edges_of(true), wrong, 8.0, angle), 2.0, TRUST)
    assert [k for k, e in enumerate(kept) if not e.used] == [wrong]
    off = placed - true
    np.testing.assert_allclose(off - off.mean(axis=0), 0, atol=0.05)
    dropped = kept[wrong]
    np.testing.assert_allclose(dropped.shift_px, placed[dropped.second] - placed[dropped.first])
    assert (dropped.correlation, dropped.peak) == (0.9, 8.0)


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    wrong=st.lists(st.integers(0, len(pairs()) - 1), max_size=3, unique=True),
    size=st.floats(20, 300),
)
def test_what_is_left_agrees(seed: int, wrong: list[int], size: float) -> None:
    rng, edges = np.random.default_rng(seed), edges_of(strayed(seed))
    for k in wrong:
        edges = spoiled(edges, k, size, rng.uniform(0, 2 * np.pi))
    placed, kept = reconcile(grid(), edges, 2.0, TRUST)
    for given_edge, e in zip(edges, kept, strict=True):
        if e.used:
            assert e == given_edge
            off = placed[e.second] - placed[e.first] - e.shift_px
            assert np.hypot(*off) <= 2.0


def test_a_very_wrong_shift_does_not_cut_the_mosaic_in_two() -> None:
    true = strayed(0)
    middle = pairs().index((5, 6))
    placed, kept = reconcile(grid(), spoiled(edges_of(true), middle, 15.0, 0.0), 2.0, TRUST)
    off = placed - true
    np.testing.assert_allclose(off - off.mean(axis=0), 0, atol=0.05)
    assert [k for k, e in enumerate(kept) if not e.used] == [middle]


def test_shifts_within_the_limit_are_averaged_and_kept() -> None:
    true = grid()
    edges = edges_of(true)
    edges[0] = replace(edges[0], shift_px=(0.0, 51.0))
    placed, kept = reconcile(grid(), edges, 2.0, TRUST)
    assert all(e.used for e in kept)
    gap = placed[edges[0].second] - placed[edges[0].first]
    assert 50 < gap[1] < 51


def test_the_order_of_the_two_tiles_does_not_matter() -> None:
    true = strayed(3)
    turned = [
        Edge(e.second, e.first, (-e.shift_px[0], -e.shift_px[1]), used=True)
        for e in edges_of(true)
    ]
    one, _ = reconcile(grid(), edges_of(true), 2.0, TRUST)
    other, _ = reconcile(grid(), turned, 2.0, TRUST)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_tile_that_nothing_is_seen_of_follows_its_neighbours() -> None:
    """Its unmeasured pairs keep the expected step to neighbours that moved together."""
    true = grid() + np.array([7.0, -4.0]) + np.outer(np.arange(12) // COLUMNS, [2.0, 0.0])
    edges = [replace(e, used=False) if 5 in (e.first, e.second) else e for e in edges_of(true)]
    placed, _ = reconcile(grid(), edges, 2.0, Trust(1e-9, 1e-3))
    beside = [1, 4, 6, 9]
    expected = np.mean([placed[k] + grid()[5] - grid()[k] for k in beside], axis=0)
    np.testing.assert_allclose(placed[5], expected, atol=1e-3)


def test_a_single_tile_is_placed() -> None:
    placed, _ = reconcile(np.array([[3.0, 4.0]]), [], 2.0, TRUST)
    np.testing.assert_allclose(placed, [[3, 4]])


@pytest.mark.parametrize("weight", [1e-6, 1.0, 100.0])
def test_trust_in_places_weighs_against_shifts(weight: float) -> None:
    """Of two tiles a shift of 60 where 50 is expected: 50 + 10 / (1 + weight / 2)."""
    expected = np.array([[0.0, 0.0], [0.0, 50.0]])
    placed, _ = reconcile(expected, [Edge(0, 1, (0.0, 60.0), used=True)], 99, Trust(weight, 1))
    assert placed[1, 1] - placed[0, 1] == pytest.approx(50 + 10 / (1 + weight / 2), rel=1e-6)
