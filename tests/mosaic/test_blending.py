"""Stitching: shares sum to 1, what is masked does not count, blocks fit together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.mosaic.blending import (
    FILLED,
    UNKNOWN,
    VALID,
    Box,
    common_unlit,
    feather,
    halve,
    lay_out,
    mix,
    share_out,
)

TILE = (24, 30)


def whole(shape: tuple[int, int]) -> Box:
    return Box(0, 0, *shape)


def statuses(count: int, seed: int = 0) -> np.ndarray:
    """Mostly valid pixels, some stand-ins, an unlit corner in every tile."""
    rng = np.random.default_rng(seed)
    out = rng.choice([VALID, VALID, VALID, VALID, FILLED, UNKNOWN], (count, *TILE))
    out[:, :8, :8] = UNKNOWN
    return out.astype(np.uint8)


places = st.lists(
    st.tuples(st.floats(0, 60, width=32), st.floats(0, 60, width=32)), min_size=1, max_size=6
)


@settings(max_examples=40, deadline=None)
@given(places=places, seed=st.integers(0, 9))
def test_shares_sum_to_one_wherever_something_is_known(
    places: list[tuple[float, float]], seed: int
) -> None:
    layout = lay_out(np.array(places), TILE)
    status = statuses(len(places), seed)
    pieces, known = share_out(layout, whole(layout.shape), feather(TILE), status.__getitem__)
    total = np.zeros(layout.shape)
    best = np.zeros(layout.shape, np.uint8)
    for piece in pieces:
        total[piece.outer] += piece.share
        part = status[piece.tile][piece.inner]
        best[piece.outer] = np.maximum(best[piece.outer], part)
        assert not piece.share[part == UNKNOWN].any()
    np.testing.assert_array_equal(known, best > UNKNOWN)
    np.testing.assert_allclose(total[known], 1, atol=1e-6)
    assert not total[~known].any()
    for piece in pieces:  # a stand-in counts only where no tile has a measured value
        part, top = status[piece.tile][piece.inner], best[piece.outer]
        assert not piece.share[(part == FILLED) & (top == VALID)].any()


def test_one_scene_comes_back_whatever_the_tiles_cut() -> None:
    scene = np.random.default_rng(0).uniform(0.2, 1.2, (60, 80)).astype(np.float32)
    corners = [(0, 0), (3, 22), (1, 50), (36, 4), (33, 27), (35, 49)]
    tiles = np.stack([scene[y : y + 24, x : x + 30] for y, x in corners])
    status = statuses(6)
    tiles = np.where(status == UNKNOWN, np.float32(1e6), tiles)  # must not be seen
    layout = lay_out(np.array(corners, np.float64) + 0.3, TILE)
    assert layout.shape == (60, 80)
    pieces, known = share_out(layout, whole(layout.shape), feather(TILE), status.__getitem__)
    mosaic = mix(pieces, known, tiles.__getitem__)
    np.testing.assert_allclose(mosaic[known], scene[known], rtol=1e-5)
    assert np.isnan(mosaic[~known]).all()


def test_alone_a_tile_keeps_its_very_values() -> None:
    tile = np.random.default_rng(1).uniform(0, 1.3, (1, *TILE)).astype(np.float32)
    status = np.full((1, *TILE), VALID, np.uint8)
    layout = lay_out(np.zeros((1, 2)), TILE)
    pieces, known = share_out(layout, whole(TILE), feather(TILE), status.__getitem__)
    np.testing.assert_array_equal(mix(pieces, known, tile.__getitem__), tile[0])


def test_overlap_of_equal_levels_is_neither_dark_nor_bright_and_ramps_linearly() -> None:
    layout = lay_out(np.array([(0.0, 0.0), (0.0, 20.0)]), TILE)
    status = np.full((2, *TILE), VALID, np.uint8)
    pieces, known = share_out(layout, whole(layout.shape), feather(TILE), status.__getitem__)
    even = mix(pieces, known, lambda i: np.full(TILE, 0.8, np.float32))
    np.testing.assert_allclose(even, 0.8, rtol=1e-6)
    ramp = mix(pieces, known, lambda i: np.full(TILE, float(i), np.float32))[12, 18:32]
    steps = np.diff(ramp)
    np.testing.assert_allclose(steps[2:-2], 1 / 11, rtol=1e-4)  # 10 px of overlap
    assert (steps >= 0).all() and ramp[0] == 0 and ramp[-1] == 1


def test_blocks_are_the_whole_cut_in_pieces() -> None:
    rng = np.random.default_rng(2)
    places = rng.uniform(0, 70, (7, 2))
    layout, status = lay_out(places, TILE), statuses(7, 3)
    tiles = rng.uniform(0, 1, (7, *TILE)).astype(np.float32)
    weight = feather(TILE, common_unlit(status))

    def block(box: Box) -> np.ndarray:
        pieces, known = share_out(layout, box, weight, status.__getitem__)
        return mix(pieces, known, tiles.__getitem__)

    full = block(whole(layout.shape))
    height, width = layout.shape
    for top in range(0, height, 32):
        for left in range(0, width, 32):
            box = Box(top, left, min(top + 32, height), min(left + 32, width))
            part = full[top : top + 32, left : left + 32]
            np.testing.assert_array_equal(block(box), part)


def test_corner_that_no_tile_sees_fades_and_dead_pixels_are_no_corner() -> None:
    status = statuses(9)
    unlit = common_unlit(status)
    assert unlit is not None
    expected = np.zeros(TILE, bool)
    expected[:8, :8] = True
    np.testing.assert_array_equal(unlit, expected)
    plain, faded = feather(TILE), feather(TILE, unlit)
    assert not faded[unlit].any()
    assert (faded[~unlit] > 0).all() and (faded <= plain).all()
    assert faded[4, 8] < 0.6 * plain[4, 8]  # beside the corner
    assert faded[20, 25] == plain[20, 25]  # far from it
    assert common_unlit([np.full(TILE, VALID, np.uint8)]) is None
    assert common_unlit([]) is None


@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (1, 1), (9, 5)])
def test_halved_is_the_mean_of_what_is_known(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    image = rng.uniform(0, 2, shape).astype(np.float32)
    image[rng.random(shape) < 0.3] = np.nan
    image[:2, :2] = np.nan
    small = halve(image)
    assert small.shape == (-(-shape[0] // 2), -(-shape[1] // 2)) and small.dtype == np.float32
    for y in range(small.shape[0]):
        for x in range(small.shape[1]):
            four = image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            four = four[np.isfinite(four)]
            if four.size:
                assert small[y, x] == pytest.approx(four.mean(), rel=1e-6)
            else:
                assert np.isnan(small[y, x])


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (np.zeros((0, 2)), "give"),
        (np.zeros((3, 3)), "give"),
        (np.array([[0.0, 0.0], [np.nan, 1.0]]), "tile 1"),
        (np.array([[0.0, 0.0], [1e7, 1e7]]), "positions in pixels"),
    ],
)
def test_impossible_positions_are_named(positions: np.ndarray, words: str) -> None:
    with pytest.raises(MethodError, match=words):
        lay_out(positions, TILE)
