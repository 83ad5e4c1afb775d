"""A lazy stack answers every index as the NumPy stack it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.core import LazyTiles, TileArray, as_tiles
from napari_txm_bgcorr.errors import ReadError

SHAPE = (5, 4, 3)
STACK = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)


def lazy(stack: np.ndarray = STACK, dtype: Any = None) -> LazyTiles:
    """The stack, read tile by tile."""
    count, y, x = stack.shape
    return LazyTiles((count, y, x), dtype or stack.dtype, lambda i: stack[i])


def one_axis(length: int) -> st.SearchStrategy[Any]:
    """Whole numbers and slices, also with negative ends and steps, that NumPy takes."""
    return st.one_of(st.integers(-length, length - 1), st.slices(length))


first_axis = st.one_of(
    one_axis(SHAPE[0]),
    st.lists(st.integers(-SHAPE[0], SHAPE[0] - 1), max_size=6).map(
        lambda places: np.array(places, np.intp)
    ),
    st.lists(st.booleans(), min_size=SHAPE[0], max_size=SHAPE[0]).map(np.array),
)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_index_gives_what_numpy_gives(data: st.DataObject) -> None:
    key: Any = [data.draw(first_axis)]
    for length in SHAPE[1 : data.draw(st.integers(1, 3))]:
        key.append(data.draw(one_axis(length)))
    if len(key) == 1 and data.draw(st.booleans()):
        key = key[0]
    else:
        if len(key) < 3 and data.draw(st.booleans()):
            key.insert(data.draw(st.integers(1, len(key))), Ellipsis)
        key = tuple(key)
    whole_axes = key if isinstance(key, tuple) else (key,)
    arrays = [k for k in whole_axes if isinstance(k, np.ndarray)]
    numbers = [k for k in whole_axes[1:] if isinstance(k, int)]
    if arrays and numbers:  # NumPy may move axes there; the stack reads tile by tile
        return
    try:
        wanted = STACK[key]
    except IndexError:  # the ellipsis has put a number on a shorter axis
        with pytest.raises(IndexError):
            lazy()[key]
        return
    got = lazy()[key]
    assert isinstance(got, np.ndarray) and got.dtype == STACK.dtype
    assert got.shape == np.shape(wanted)
    np.testing.assert_array_equal(got, wanted)


@settings(deadline=None)
@given(inner=st.tuples(one_axis(4), one_axis(3)))
def test_an_ellipsis_in_front_stands_for_the_tiles(inner: tuple[Any, Any]) -> None:
    np.testing.assert_array_equal(lazy()[(..., *inner)], STACK[(..., *inner)])
    np.testing.assert_array_equal(lazy()[..., inner[1]], STACK[..., inner[1]])
    np.testing.assert_array_equal(lazy()[...], STACK)


def test_an_ellipsis_that_stands_for_no_axis() -> None:
    np.testing.assert_array_equal(lazy()[..., 2, 1:, :], STACK[..., 2, 1:, :])


def test_an_empty_tuple_is_the_whole_stack() -> None:
    np.testing.assert_array_equal(lazy()[()], STACK)


@pytest.mark.parametrize("place", [5, -6, 100])
def test_a_tile_beyond_the_stack_is_no_tile(place: int) -> None:
    with pytest.raises(IndexError, match=f"tile {place} of a stack of 5 tiles"):
        lazy()[place]


def test_only_what_is_asked_for_is_read() -> None:
    read: list[int] = []

    def tile(i: int) -> np.ndarray:
        read.append(i)
        return STACK[i]

    stack = LazyTiles(SHAPE, np.uint16, tile)
    assert stack[-1].tolist() == STACK[-1].tolist() and read == [4]
    stack[1:4:2]
    assert read == [4, 1, 3]
    assert stack[3:3, 1:].shape == (0, 3, 3) and read == [4, 1, 3]
    assert (len(stack), stack.size, stack.nbytes, stack.ndim) == (5, 60, 120, 3)
    assert read == [4, 1, 3]


def test_pixels_come_in_the_type_that_was_announced() -> None:
    stack = lazy(dtype=np.float32)
    assert {stack[0].dtype, stack[1:3].dtype, np.asarray(stack).dtype} == {np.dtype("float32")}
    assert np.asarray(stack, np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.asarray(stack), STACK)


def test_a_tile_of_another_size_is_named() -> None:
    sizes = [(4, 3), (4, 3), (3, 4), (4, 3), (4, 3)]
    stack = LazyTiles(SHAPE, np.uint16, lambda i: np.zeros(sizes[i], np.uint16))
    assert stack[0:2].shape == (2, 4, 3)
    with pytest.raises(ReadError, match=r"tile 2: size \(3, 4\) differs from .* \(4, 3\)"):
        stack[:]


class Foreign:
    """An array of another package: indexed like NumPy's, with nothing else."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __getitem__(self, key: Any, /) -> Any:
        return self.values[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.values, dtype)


@pytest.mark.parametrize("form", [lambda a: a, Foreign, lambda a: list(a), lambda a: a.tolist()])
@pytest.mark.parametrize("values", [STACK, STACK[0], STACK.astype(np.float32) + 0.5])
def test_every_form_of_images_becomes_the_same_stack(form: Any, values: np.ndarray) -> None:
    stack = as_tiles(form(values), "tiles")
    wanted = values if values.ndim == 3 else values[None]
    assert isinstance(stack, TileArray) and stack.shape == wanted.shape
    np.testing.assert_array_equal(np.asarray(stack[:]), wanted)
    for i in range(len(wanted)):
        np.testing.assert_array_equal(stack[i], wanted[i])


def test_a_numpy_stack_is_not_copied() -> None:
    assert as_tiles(STACK, "tiles") is STACK
    assert np.shares_memory(as_tiles(STACK[0], "tiles"), STACK)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros(3), r"flats: shape \(3,\)"),
        (np.zeros((2, 2, 2, 2)), r"flats: shape \(2, 2, 2, 2\)"),
        (np.zeros((0, 4, 4)), r"flats: shape \(0, 4, 4\)"),
        (7.0, r"flats: shape \(\)"),
        (np.zeros((2, 2), complex), "flats: pixels of type complex128 are no counts"),
        (np.zeros((2, 2), bool), "flats: pixels of type bool are no counts"),
        ([["a", "b"], ["c", "d"]], "flats: pixels of type .*U1 are no counts"),
        ([np.zeros((2, 3)), np.zeros((3, 2))], "flats: images of different sizes"),
        (Foreign(np.zeros((2, 0, 3))), r"flats: shape \(2, 0, 3\)"),
    ],
)
def test_what_is_no_stack_of_counts_is_refused_by_name(images: Any, words: str) -> None:
    with pytest.raises(ReadError, match=words):
        as_tiles(images, "flats")
