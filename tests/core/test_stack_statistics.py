"""Medians by bands are those of NumPy, for any number of bands and threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.core.stack_statistics import (
    BAND_PX,
    masked_median,
    median_of,
)

# one band; several with a short last one; wider than a band
SIZES = [(3, 4), (70, 130), (2, BAND_PX + 5), (1, 1)]


def stack(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 2, (count, *size)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_median_is_that_of_numpy(count: int, size: tuple[int, int]) -> None:
    layers = stack(count, size)
    before = layers.copy()
    got = median_of(layers)
    assert got.dtype == np.float32 and got.shape == size
    np.testing.assert_allclose(got, np.median(layers, axis=0), rtol=1e-6)
    np.testing.assert_array_equal(layers, before)


def test_counts_of_integers_are_taken_too() -> None:
    layers = np.random.default_rng(1).integers(0, 65536, (4, 20, 30), np.uint16)
    np.testing.assert_array_equal(median_of(layers), np.median(layers, axis=0))


@pytest.mark.parametrize("workers", [2, 3])
def test_threads_change_no_bit(workers: int) -> None:
    layers = stack(7, (90, 130))
    kept = layers > 4
    one = (
        median_of(layers),
        masked_median(layers, lambda rows: kept[:, rows]),
    )
    many = (
        median_of(layers, workers),
        masked_median(layers, lambda rows: kept[:, rows], workers=workers),
    )
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 9),
    seed=st.integers(0, 10_000),
    share=st.floats(0, 1),
    least=st.integers(0, 4),
)
def test_masked_median_is_that_of_the_kept(
    count: int, seed: int, share: float, least: int
) -> None:
    layers = stack(count, (4, 5), seed)
    kept = np.random.default_rng(seed + 1).random(layers.shape) < share
    got = masked_median(layers, lambda rows: kept[:, rows], least=max(least, 1))
    for y, x in np.ndindex(4, 5):
        own = layers[kept[:, y, x], y, x]
        enough = len(own) >= max(least, 1)
        wanted = np.median(own if enough else layers[:, y, x])
        assert got[y, x] == pytest.approx(wanted, rel=1e-6)


def test_bands_of_a_mask_lie_over_those_of_the_stack() -> None:
    """A mask that keeps one tile a row gives that tile in that row, in every band."""
    rows, columns = 100, 130
    layers = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None], (4, rows, columns))
    owner = np.arange(rows) % 4

    def kept(part: slice) -> np.ndarray:
        mine = owner[part][None, :, None] == np.arange(4)[:, None, None]
        return np.broadcast_to(mine, (4, len(owner[part]), columns))

    got = masked_median(np.ascontiguousarray(layers), kept, least=1)
    np.testing.assert_array_equal(got, np.repeat(owner[:, None], columns, axis=1))
