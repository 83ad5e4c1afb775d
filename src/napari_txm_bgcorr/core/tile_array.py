"""Stacks of tiles that are read or computed tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ReadError

__all__ = ["LazyTiles", "TileArray", "as_tiles"]


@runtime_checkable
class TileArray(Protocol):
    """A stack of tiles `(T, Y, X)` that is read piece by piece; NumPy arrays qualify."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Stack size `(T, Y, X)`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one pixel."""

    def __getitem__(self, key: Any, /) -> Any:
        """Read the addressed part as a NumPy array."""


class LazyTiles:
    """A `(T, Y, X)` stack whose tiles are read or computed when they are asked for.

    Parameters
    ----------
    shape : tuple of int
        `(T, Y, X)`.
    dtype : dtype-like
        Type of one pixel.
    read : callable
        `read(i) -> (Y, X)` array for tile `0 <= i < T`. Must be safe to call from threads.
    """

    ndim = 3

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: Any,
        read: Callable[[int], NDArray[Any]],
    ) -> None:
        self.shape: tuple[int, int, int] = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._read = read

    @property
    def size(self) -> int:
        """Number of pixels in the stack."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the whole stack if it were in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        parts = list(key) if isinstance(key, tuple) else [key]
        dots = [k for k, part in enumerate(parts) if part is Ellipsis]
        if len(dots) == 1:  # stands for the axes that are not named
            parts[dots[0] : dots[0] + 1] = [slice(None)] * (4 - len(parts))
        first, *rest = parts or [slice(None)]
        inner = tuple(rest)
        if isinstance(first, (int, np.integer)):
            return np.asarray(self._tile(int(first))[inner], dtype=self.dtype)
        index = np.arange(self.shape[0])[first]
        if not index.size:
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *inner)]
        return np.stack([np.asarray(self._tile(int(i))[inner], self.dtype) for i in index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def _tile(self, i: int) -> NDArray[Any]:
        count = self.shape[0]
        if not -count <= i < count:
            raise IndexError(f"tile {i} of a stack of {count} tiles")
        tile = self._read(i % count)
        if tile.shape != self.shape[1:]:
            raise ReadError(
                f"tile {i}: size {tile.shape} differs from the scan's {self.shape[1:]}; "
                "remove the file or correct it on its own"
            )
        return tile


def as_tiles(images: Any, argument: str) -> TileArray:
    """Turn an image or a stack of images into a stack that is read tile by tile.

    Parameters
    ----------
    images : (Y, X) or (T, Y, X) array-like, or sequence of (Y, X)
        NumPy, dask, or anything that is indexed like them.
    argument : str
        What the caller calls it, for messages.

    Raises
    ------
    ReadError
        If it is no image or stack of real numbers.
    """
    if not isinstance(images, TileArray):
        try:
            images = np.asarray(images)
        except ValueError as error:
            raise ReadError(f"{argument}: images of different sizes; give one size") from error
    if isinstance(images, np.ma.MaskedArray):
        raise ReadError(f"{argument}: a masked array; give floats that are NaN where masked")
    try:
        shape = tuple(int(n) for n in images.shape)
        kind = np.dtype(images.dtype).kind
    except (TypeError, ValueError) as error:
        raise ReadError(
            f"{argument}: {type(images).__name__} of shape {tuple(images.shape)}, "
            f"{images.dtype}: its size or type is not known to NumPy; give a NumPy array"
        ) from error
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ReadError(f"{argument}: shape {shape}; give an image (Y, X) or a stack (T, Y, X)")
    if kind not in "uif":
        raise ReadError(
            f"{argument}: pixels of type {images.dtype} are no counts; give integers or floats"
        )
    if isinstance(images, np.ndarray):
        return images[None] if images.ndim == 2 else images
    if len(shape) == 2:
        return LazyTiles((1, *shape), images.dtype, lambda i: np.asarray(images))
    return LazyTiles((shape[0], shape[1], shape[2]), images.dtype, lambda i: np.asarray(images[i]))
