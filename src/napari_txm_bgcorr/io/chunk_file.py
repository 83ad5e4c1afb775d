"""Chunk files of our own Zarr arrays, read and written without zarr-python's event loop.

Each is one Blosc frame of little-endian pixels (docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs.blosc import Blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec

from napari_txm_bgcorr.core import discard, replace_file

__all__ = ["CODEC", "frame_reader", "read_chunk", "write_chunk"]

CODEC = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")
_BLOSC = Blosc(cname="lz4", clevel=1, shuffle=Blosc.SHUFFLE)


def write_chunk(path: Path, pixels: NDArray[Any]) -> None:
    """Write one chunk whole or not at all; any array shape.

    Raises
    ------
    OSError
        If it cannot be written; what was there before is then unharmed.
    """
    packed = _BLOSC.encode(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")))
    part = path.with_name(path.name + ".part")
    try:
        try:
            part.write_bytes(packed)
        except FileNotFoundError:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(packed)
        replace_file(part, path)
    except OSError:
        discard(part)
        raise


def read_chunk(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Pixels of one chunk, or None where there is no file: all of it is the fill value.

    Raises
    ------
    ValueError, RuntimeError
        If the file is damaged.
    """
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        return None
    little = np.dtype(dtype).newbyteorder("<")
    pixels = np.frombuffer(_BLOSC.decode(packed), little).reshape(shape)
    return pixels.astype(np.dtype(dtype).newbyteorder("="), copy=False)


def frame_reader(array: Any, folder: Path) -> Callable[[int], NDArray[Any]] | None:
    """Reader of frame `i` of a Zarr array `(T, Y, X)` laid out as this program does.

    Parameters
    ----------
    array : zarr.Array
    folder : Path
        Of the array.

    Returns
    -------
    callable or None
        ``read(i) -> (Y, X)``; None where the layout is another one.
    """
    plain = (
        array.metadata.zarr_format == 3
        and array.ndim == 3
        and tuple(array.chunks) == (1, *array.shape[1:])
        and array.shards is None
        and not array.filters
        and array.metadata.chunk_key_encoding.name == "default"
        and array.metadata.chunk_key_encoding.separator == "/"
        and array.dtype.kind in "uif"
        and [type(c) for c in array.metadata.codecs] == [BytesCodec, BloscCodec]
        and array.metadata.codecs[0].endian in (None, zarr.codecs.Endian.little)
    )
    if not plain:
        return None
    shape, dtype = tuple(int(n) for n in array.shape[1:]), np.dtype(array.dtype)

    def read(i: int) -> NDArray[Any]:
        found = read_chunk(folder / "c" / str(i) / "0" / "0", shape, dtype)
        return np.asarray(array[i]) if found is None else found

    return read
