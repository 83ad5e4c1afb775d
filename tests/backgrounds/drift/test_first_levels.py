"""Levels to begin with, where some tiles are all sample."""

from __future__ import annotations

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.first_levels import first_levels

RIGHT, DOWN = (0, 1), (1, 0)


def steps(levels: np.ndarray, tilt: float = 0.0, seed: int = 0) -> list:
    """Pairs of a grid `(rows, columns)`; the prior pattern is off by a tilt along x."""
    rng = np.random.default_rng(seed)
    number = np.arange(levels.size).reshape(levels.shape)
    flat, out = levels.ravel(), []
    for i, j, kind in [
        *((i, j, RIGHT) for i, j in zip(number[:, :-1].flat, number[:, 1:].flat, strict=True)),
        *((i, j, DOWN) for i, j in zip(number[:-1].flat, number[1:].flat, strict=True)),
    ]:
        off = rng.normal(0, 0.005) + (tilt if kind == RIGHT else 0)
        out.append((int(i), int(j), kind, float(flat[i] - flat[j] + off)))
    return out


@pytest.mark.parametrize("tilt", [0.0, 0.2, -0.2])
@pytest.mark.parametrize("covered", [np.s_[2:3, 3:4], np.s_[2:4], np.s_[:, 0], np.s_[1:4, 1:5]])
def test_tiles_of_sample_are_brought_to_their_neighbours_level(
    covered: tuple, tilt: float
) -> None:
    rng = np.random.default_rng(3)
    levels = 9 + rng.normal(0, 0.02, (6, 7))
    modes = levels.copy()
    modes[covered] -= 0.6
    found = first_levels(modes.ravel(), steps(levels, tilt)).reshape(levels.shape)
    np.testing.assert_allclose(found, levels, atol=0.03)


def test_rows_under_an_uneven_slab_take_the_level_of_those_beyond_it() -> None:
    """Not that of a neighbour in the slab that is a little brighter."""
    rng = np.random.default_rng(3)
    levels = 9 + rng.normal(0, 0.02, (7, 7))
    modes = levels.copy()
    modes[2:5] -= rng.uniform(0.3, 0.9, (3, 7))
    found = first_levels(modes.ravel(), steps(levels)).reshape(levels.shape)
    np.testing.assert_allclose(found, levels, atol=0.06)


def test_without_covered_tiles_the_modes_stand() -> None:
    levels = 9 + np.random.default_rng(4).normal(0, 0.02, (5, 5))
    np.testing.assert_array_equal(first_levels(levels.ravel(), steps(levels)), levels.ravel())
    np.testing.assert_array_equal(first_levels(levels.ravel(), []), levels.ravel())


def test_a_level_that_falls_is_no_sample() -> None:
    """Overlaps show it, too."""
    levels = np.linspace(9, 8.2, 25).reshape(5, 5)
    np.testing.assert_array_equal(first_levels(levels.ravel(), steps(levels)), levels.ravel())


def test_a_tile_without_beam_tells_nothing() -> None:
    levels = 9 + np.random.default_rng(4).normal(0, 0.02, (3, 3))
    modes = levels.ravel().copy()
    modes[4] = -6.9
    shown = levels.copy()
    shown[1, 1] = -6.9
    for told in ([], steps(shown)):
        found = first_levels(modes, told)
        assert found[4] == pytest.approx(9, abs=0.05)
        np.testing.assert_array_equal(np.delete(found, 4), np.delete(modes, 4))


def test_pairs_may_be_told_either_way_round() -> None:
    levels = 9 + np.random.default_rng(4).normal(0, 0.02, (4, 4))
    modes = levels.ravel().copy()
    modes[5] -= 0.5
    told = steps(levels, 0.2)
    turned = [
        (j, i, (-kind[0], -kind[1]), -off) if k % 3 else (i, j, kind, off)
        for k, (i, j, kind, off) in enumerate(told)
    ]
    np.testing.assert_allclose(first_levels(modes, turned), first_levels(modes, told))
