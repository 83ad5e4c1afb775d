"""What the tiles share, and the sample that they do not."""

from __future__ import annotations

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.static_pattern import static_pattern

SHAPE = (48, 64)
WIDTH = 0.02


def tiles(count: int, noise: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Tiles that share a fine pattern, with a specimen somewhere else in each."""
    rng = np.random.default_rng(5)
    pattern = 0.01 * rng.standard_normal(SHAPE)
    stack = pattern + noise * rng.standard_normal((count, *SHAPE))
    for tile in stack:
        y, x = rng.integers(0, SHAPE[0] - 16), rng.integers(0, SHAPE[1] - 16)
        tile[y : y + 16, x : x + 16] -= 0.5
    return stack.astype(np.float32), pattern


def found(stack: np.ndarray, workers: int = 1) -> np.ndarray:
    return static_pattern(stack.__getitem__, len(stack), SHAPE, WIDTH, workers)


def test_one_tile_tells_nothing() -> None:
    assert np.abs(found(tiles(1)[0])).max() < 1e-6


def test_many_tiles_give_what_they_share() -> None:
    stack, pattern = tiles(40)
    error = found(stack) - pattern
    assert error.std() < 0.25 * pattern.std()
    assert abs(error.mean()) < 1e-3  # a specimen in a tenth of the area leaves no trace


def test_more_tiles_tell_more() -> None:
    off = [np.std(found(tiles(n)[0]) - tiles(n)[1]) for n in (2, 8, 40)]
    assert off[0] > off[1] > off[2]


def test_two_tiles_give_half_of_their_mean() -> None:
    flat = np.full((2, *SHAPE), 0.004, np.float32)
    weight = 2 * np.exp(-0.5 * (0.004 / (1.5 * WIDTH)) ** 2)
    np.testing.assert_allclose(found(flat), (1 - 1 / weight) * 0.004, rtol=1e-4)


def test_where_all_tiles_show_sample_nothing_is_told() -> None:
    stack = np.full((30, *SHAPE), -0.4, np.float32)
    assert np.abs(found(stack)).max() < 1e-6


@pytest.mark.parametrize("workers", [2, 5])
def test_same_bits_for_any_number_of_threads(workers: int) -> None:
    stack, _ = tiles(9)
    np.testing.assert_array_equal(found(stack), found(stack, workers))
