"""Writes Xradia files (`.xrm`, `.txrm`): what a simulated session and the tests are made of.

Layout as `xradia` reads it; streams, types and order after the instrument's own files.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ole_writer import Blocks, Content, write_ole2

__all__ = ["CODES", "write_xradia", "xradia_streams"]

CODES = {
    "i1": 2,
    "u1": 3,
    "i2": 4,
    "u2": 5,
    "i4": 6,
    "u4": 7,
    "i8": 8,
    "u8": 9,
    "f4": 10,
    "f8": 11,
}


def xradia_streams(
    tiles: Any,
    *,
    grid: tuple[int, int] | None = None,
    canvas: bool = False,
    version: float = 3.0,
    reference: NDArray[Any] | None = None,
    pixel_um: float = 0.0293,
    energy_ev: Sequence[float] = (8000.0,),
    exposure_s: float = 60.0,
    reference_exposure_s: float = 60.0,
    binning: int = 2,
    dates: Sequence[str] | None = None,
    angles_deg: Sequence[float] | None = None,
    stage_um: NDArray[Any] | None = None,
    planned: int | None = None,
    rename: Callable[[str], str] = str,
    replaced: Mapping[str, bytes | None] | None = None,
) -> dict[str, Content]:
    """Streams of an Xradia file.

    Parameters
    ----------
    tiles : (T, Y, X) array or lazy stack
        Top row first, in order of acquisition; written bottom-up, as the instrument does.
    grid : (rows, columns), optional
        Of a mosaic.
    canvas : bool
        One stream for the whole mosaic (version 3) instead of one a tile (version 5).
    reference : (Y, X), optional
        Goes inside; version 5 puts its header under ``ReferenceData/ImageInfo``.
    stage_um : (T, 2), optional
        Stage position (y, x) of each image.
    planned : int, optional
        `NoOfImages` of an interrupted scan.
    rename : callable
        Changes the name of every stream, for example to lower case.
    replaced : mapping, optional
        Raw content of single streams; None leaves one out.
    """
    count, height, width = (int(n) for n in tiles.shape)
    rows, columns = grid or (0, 0)
    images = 1 if canvas else count
    code = CODES[np.dtype(tiles.dtype).str[1:]]
    size = (height * rows, width * columns) if canvas else (height, width)
    streams: dict[str, Content] = {"Version": _f4(version)}
    streams |= _info("ImageInfo", size, code, images, planned or images, rows, columns, binning)
    if version < 5:
        streams["ImageInfo/MosiacMode"] = _i4(int(bool(grid)))
    streams["ImageInfo/PixelSize"] = _f4(pixel_um)
    streams["ImageInfo/Energy"] = _f4(*energy_ev)
    streams["ImageInfo/ExpTimes"] = _f4(*[exposure_s] * images)
    if angles_deg is not None:
        streams["ImageInfo/Angles"] = _f4(*angles_deg)
    if stage_um is not None:
        streams["ImageInfo/YPosition"] = _f4(*stage_um[:, 0])
        streams["ImageInfo/XPosition"] = _f4(*stage_um[:, 1])
    dates = dates or [f"02/22/23 10:{i // 60 % 60:02d}:{i % 60:02d}" for i in range(images)]
    streams["ImageInfo/Date"] = b"".join(_date(text, i) for i, text in enumerate(dates))
    if canvas:
        streams["ImageData1/Image1"] = _canvas(tiles, rows, columns)
    else:
        streams |= {
            f"ImageData{i // 100 + 1}/Image{i + 1}": _image(tiles, i) for i in range(count)
        }
    if reference is not None:
        streams |= _reference(reference, version, reference_exposure_s, binning)
    streams |= {k: v for k, v in (replaced or {}).items() if v is not None}
    gone = {k for k, v in (replaced or {}).items() if v is None}
    return {rename(name): content for name, content in streams.items() if name not in gone}


def write_xradia(
    path: Path,
    tiles: Any,
    *,
    sector: int = 512,
    interleave: bool = False,
    shuffle: int | None = None,
    **facts: Any,
) -> Path:
    """Write an Xradia file; see `xradia_streams` and `write_ole2`."""
    streams = xradia_streams(tiles, **facts)
    return write_ole2(path, streams, sector=sector, interleave=interleave, shuffle=shuffle)


def _info(
    folder: str, size: tuple[int, ...], code: int, taken: int, planned: int, rows: int,
    columns: int, binning: int,
) -> dict[str, Content]:  # fmt: skip
    values = {
        "ImageHeight": size[0], "ImageWidth": size[1], "DataType": code, "ImagesTaken": taken,
        "NoOfImages": planned, "MosiacRows": rows, "MosiacColumns": columns,
        "HorizontalBin": binning, "VerticalalBin": binning,
    }  # fmt: skip
    return {f"{folder}/{name}": _i4(value) for name, value in values.items()}


def _reference(
    image: NDArray[Any], version: float, exposure_s: float, binning: int
) -> dict[str, Content]:
    """Streams of the reference `(Y, X)` inside a file."""
    folder, code = "ReferenceData", CODES[image.dtype.str[1:]]
    streams: dict[str, Content] = {
        f"{folder}/Image": np.ascontiguousarray(image[::-1]).tobytes(),
        f"{folder}/DataType": _i4(code),
        f"{folder}/ExpTime": _f4(exposure_s),
    }
    if version >= 5:
        streams |= _info(f"{folder}/ImageInfo", image.shape, code, 1, 1, 0, 0, binning)
        streams[f"{folder}/ImageInfo/ExpTimes"] = _f4(exposure_s)
        streams[f"{folder}/ImageInfo/Date"] = _date("02/22/2023 09:30:00.25", 0)
    return streams


def _i4(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def _f4(*values: float) -> bytes:
    return np.asarray(values, "<f4").tobytes()


def _date(text: str, i: int) -> bytes:
    """A record of 40 bytes: the text, a zero, then whatever the memory held."""
    garbage = np.random.default_rng(i).integers(0, 256, 40, np.uint8).tobytes()
    return (text.encode() + b"\0" + garbage)[:40]


def _image(tiles: Any, i: int) -> Content:
    size = int(np.prod(tiles.shape[1:])) * np.dtype(tiles.dtype).itemsize

    def pieces() -> Iterator[bytes]:
        yield np.ascontiguousarray(np.asarray(tiles[i])[::-1]).tobytes()

    return b"".join(pieces()) if size < 4096 else Blocks(size, pieces)


def _canvas(tiles: Any, rows: int, columns: int) -> Content:
    """All tiles abutted, lowest row of tiles first; tiles that are missing are zeros."""
    count, height, width = tiles.shape
    itemsize = np.dtype(tiles.dtype).itemsize

    def pieces() -> Iterator[bytes | int]:
        for row in range(rows):
            band = np.zeros((height, columns * width), tiles.dtype)
            for column in range(columns):
                if row * columns + column < count:
                    tile = np.asarray(tiles[row * columns + column])
                    band[:, column * width : (column + 1) * width] = tile[::-1]
            yield band.tobytes()

    size = rows * columns * height * width * itemsize
    if size < 4096:
        return b"".join(p for p in pieces() if isinstance(p, bytes))
    return Blocks(size, pieces)
