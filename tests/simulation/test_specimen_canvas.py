"""Tiles of one specimen agree where they overlap, also beyond the canvas and under a slab."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_txm_bgcorr.simulation import specimen_canvas
from napari_txm_bgcorr.simulation.specimen_canvas import _cut, _mirrored, cut_out, once

SIZE, STEP = 48, 36
NONE = np.empty((0, 2))


def places(rows: int, columns: int) -> np.ndarray:
    return np.array([(r * STEP, c * STEP) for r in range(rows) for c in range(columns)], float)


def rngs(seed: int = 0) -> Any:
    return np.random.default_rng(seed), np.random.default_rng(seed + 1)


def assert_agree(cut: Any, at: np.ndarray) -> None:
    """Each pair of tiles is the same picture in what both show."""
    for i, a in enumerate(at.astype(int)):
        for j, b in enumerate(at.astype(int)):
            dy, dx = b - a
            if i < j and 0 <= dy < SIZE and 0 <= dx < SIZE:
                np.testing.assert_array_equal(cut(i)[dy:, dx:], cut(j)[: SIZE - dy, : SIZE - dx])


@pytest.mark.parametrize("kind", ["fossil", "particles"])
def test_overlaps_agree_and_tiles_are_transmissions(kind: str) -> None:
    at = places(2, 3)
    cut = cut_out(at, SIZE, kind, rngs(), NONE)
    assert_agree(cut, at)
    for i in range(len(at)):
        tile = cut(i)
        assert tile.shape == (SIZE, SIZE) and tile.dtype == np.float32
        assert tile.min() > 0 and tile.max() <= 1.6


def test_a_slab_lies_over_its_tiles_only_and_overlaps_agree() -> None:
    at = places(6, 2)
    under = at[at[:, 0] == 2 * STEP]
    plain = cut_out(at, SIZE, "empty", rngs(), NONE)
    covered = cut_out(at, SIZE, "empty", rngs(), under)
    assert_agree(covered, at)
    for i, corner in enumerate(at):
        darker = float((covered(i) / plain(i)).mean())
        if corner[0] == 2 * STEP:
            assert darker < 0.75
        elif corner[0] == 5 * STEP:
            np.testing.assert_array_equal(covered(i), plain(i))


def test_a_specimen_is_drawn_once_whoever_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, ...]] = []
    real = specimen_canvas.draw_specimen

    def draw(rng: Any, shape: Any, kind: Any, **options: Any) -> Any:
        drawn.append(shape)
        return real(rng, shape, kind, **options)

    monkeypatch.setattr(specimen_canvas, "draw_specimen", draw)
    cut = cut_out(places(2, 2), SIZE, "cells", rngs(), NONE)
    assert drawn == []
    threads = [threading.Thread(target=cut, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == [(SIZE + STEP, SIZE + STEP)]


def test_a_wide_mosaic_goes_on_as_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specimen_canvas, "CANVAS_PX", 2 * SIZE)
    at = places(1, 9)
    cut = cut_out(at, SIZE, "fossil", rngs(), NONE)
    assert_agree(cut, at)
    # canvas of 96 px: what lies at 96 + k is what lies at 95 - k
    np.testing.assert_array_equal(cut(4)[:, 0], _cut_column(cut, at, 96 - 1 - (4 * STEP - 96)))


def _cut_column(cut: Any, at: np.ndarray, x: int) -> np.ndarray:
    k = int(np.flatnonzero((at[:, 1] <= x) & (x < at[:, 1] + SIZE))[0])
    column: np.ndarray = cut(k)[:, x - int(at[k, 1])]
    return column


@given(length=st.integers(1, 20), start=st.integers(-60, 60))
def test_a_mirror_has_no_step_and_stays_inside(length: int, start: int) -> None:
    index = _mirrored(np.arange(start, start + 50), length)
    assert index.min() >= 0 and index.max() < length
    assert np.abs(np.diff(index)).max() <= 1
    np.testing.assert_array_equal(_mirrored(np.arange(length), length), np.arange(length))
    np.testing.assert_array_equal(
        index, _mirrored(np.arange(start, start + 50) + 2 * length, length)
    )


def test_a_cut_inside_is_a_slice() -> None:
    canvas = np.arange(80, dtype=np.float32).reshape(8, 10)
    np.testing.assert_array_equal(_cut(canvas, (2, 3), 4), canvas[2:6, 3:7])


def test_a_failed_first_call_is_tried_again() -> None:
    calls = iter([ValueError("first"), 5])

    def make() -> int:
        value = next(calls)
        if isinstance(value, Exception):
            raise value
        return value

    get = once(make)
    with pytest.raises(ValueError, match="first"):
        get()
    assert get() == get() == 5
