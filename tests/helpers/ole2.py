"""Writes valid OLE2 compound files, Xradia's among them, stream by stream in bounded memory.

Layout after [MS-CFB]: header, sectors of 512 bytes (version 3) or 4096 bytes (version 4), a
sector table (FAT) listed in the header and in DIFAT sectors, a mini stream for streams below
4096 bytes, and a directory whose siblings form a red-black tree.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

__all__ = ["Blocks", "write_ole2", "write_xradia", "xradia_streams"]

FREE, END, FAT, DIFAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFC
NO_STREAM = 0xFFFFFFFF
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


@dataclass(frozen=True)
class Blocks:
    """A stream too large for memory: its size, and its bytes piece by piece.

    An integer among the pieces stands for so many zeros, which are skipped over in the file.
    """

    size: int
    pieces: Callable[[], Iterable[bytes | int]]


Content = bytes | Blocks


@dataclass
class _Entry:
    """One directory entry."""

    name: str
    kind: int  # 1 storage, 2 stream, 5 root
    content: Content = b""
    kids: list[int] = field(default_factory=list)
    left: int = NO_STREAM
    right: int = NO_STREAM
    child: int = NO_STREAM
    black: bool = True
    start: int = 0
    size: int = 0

    def pack(self) -> bytes:
        raw = self.name.encode("utf-16-le") + b"\0\0"
        return struct.pack(
            "<64sHBBIII16sIQQIQ", raw, len(raw), self.kind, int(self.black), self.left,
            self.right, self.child, b"", 0, 0, 0, self.start, self.size,
        )  # fmt: skip


def write_ole2(
    path: Path,
    streams: Mapping[str, Content],
    *,
    sector: int = 512,
    interleave: bool = False,
    shuffle: int | None = None,
) -> Path:
    """Write an OLE2 compound file.

    Parameters
    ----------
    path : Path
    streams : mapping
        ``"storage/stream"`` to its content.
    sector : {512, 4096}
        Bytes of a sector: format version 3 or 4.
    interleave : bool
        Put each sector of the sector table before the sectors it describes, as Windows does;
        otherwise all follow the data.
    shuffle : int, optional
        Seed of a random order of the sectors, the worst fragmentation there is.
    """
    entries = _directory(streams)
    minis = [e for e in entries if e.kind == 2 and 0 < e.size < 4096]
    mini_stream, mini_table = _mini(minis)
    root = entries[0]
    root.size, root.content = len(mini_stream), mini_stream
    big = [e for e in entries if e.kind != 1 and e not in minis and e.size]
    counts = [-(-len(entries) * 128 // sector), -(-len(mini_table) // sector)]
    counts += [-(-e.size // sector) for e in big]
    place, fat_at, difat_at = _places(sum(counts), sector, interleave, shuffle)
    first = np.cumsum([0, *counts])
    total = len(place) + len(fat_at) + len(difat_at)
    table = np.full(len(fat_at) * (sector // 4), FREE, "<u4")
    chains = [place[a:b] for a, b in pairwise(first)]
    for chain in chains:
        table[chain[:-1]] = chain[1:]
        table[chain[-1:]] = END
    table[fat_at], table[difat_at] = FAT, DIFAT
    for entry, chain in zip(big, chains[2:], strict=True):
        entry.start = int(chain[0])
    if not root.size:
        root.start = END
    directory = b"".join(e.pack() for e in entries)
    blank = struct.pack("<64sHBBIII16sIQQIQ", b"", 0, 0, 0, *[NO_STREAM] * 3, b"", 0, 0, 0, 0, 0)
    directory += blank * ((counts[0] * sector - len(directory)) // 128)
    mini_table += struct.pack("<I", FREE) * ((counts[1] * sector - len(mini_table)) // 4)
    with path.open("wb") as file:
        file.write(_header(sector, chains, counts, fat_at, difat_at))
        file.truncate((total + 1) * sector)
        contents: list[Content] = [directory, mini_table, *(e.content for e in big)]
        for content, chain in zip(contents, chains, strict=True):
            _write(file, content, chain, sector)
        _write(file, table.tobytes(), fat_at, sector)
        _write(file, _difat(fat_at, difat_at, sector), difat_at, sector)
    return path


def _directory(streams: Mapping[str, Content]) -> list[_Entry]:
    """Entries in order of creation; siblings become balanced red-black trees."""
    entries = [_Entry("Root Entry", 5)]
    where = {"": 0}

    def add(path: str, kind: int, content: Content = b"") -> None:
        parent, _, name = path.rpartition("/")
        if parent not in where:
            add(parent, 1)
        where[path] = len(entries)
        entries[where[parent]].kids.append(len(entries))
        size = content.size if isinstance(content, Blocks) else len(content)
        entries.append(_Entry(name, kind, content, size=size, start=END if not size else 0))
        if kind == 1:
            entries[-1].start = 0

    for path, content in streams.items():
        add(path, 2, content)
    for entry in entries:
        kids = sorted(entry.kids, key=lambda k: (len(entries[k].name), entries[k].name.upper()))
        depth = len(kids).bit_length()
        entry.child = _tree(entries, kids, 1, depth if len(kids) + 1 < 1 << depth else 0)
    return entries


def _tree(entries: list[_Entry], kids: Sequence[int], depth: int, red: int) -> int:
    """Balanced tree of sorted siblings; only the lowest, incomplete level is red."""
    if not kids:
        return NO_STREAM
    middle = len(kids) // 2
    entry = entries[kids[middle]]
    entry.black = depth != red
    entry.left = _tree(entries, kids[:middle], depth + 1, red)
    entry.right = _tree(entries, kids[middle + 1 :], depth + 1, red)
    return kids[middle]


def _mini(entries: Sequence[_Entry]) -> tuple[bytes, bytes]:
    """Mini stream and its table; sets where each entry starts."""
    stream, table = bytearray(), []
    for entry in entries:
        content = entry.content
        data = content if isinstance(content, bytes) else b"".join(map(bytes, content.pieces()))
        entry.start = len(table)
        count = -(-len(data) // 64)
        table += [*range(len(table) + 1, len(table) + count), END]
        stream += data.ljust(count * 64, b"\0")
    return bytes(stream), struct.pack(f"<{len(table)}I", *table)


def _places(
    count: int, sector: int, interleave: bool, shuffle: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sector numbers of the content, of the sector table and of its list."""
    per = sector // 4
    fats, difats = 0, 0
    while True:
        wanted = -(-(count + fats + difats) // per)
        listed = -(-max(0, wanted - 109) // (per - 1))
        if (wanted, listed) == (fats, difats):
            break
        fats, difats = wanted, listed
    total = count + fats + difats
    every = np.arange(total)
    if shuffle is not None:
        every = np.random.default_rng(shuffle).permutation(total)
    fat_at = every[::per][:fats] if interleave else every[count : count + fats]
    rest = np.setdiff1d(every, fat_at, assume_unique=True) if interleave else np.concatenate(
        [every[:count], every[count + fats :]]
    )  # fmt: skip
    return rest[:count], fat_at, rest[count:]


def _header(
    sector: int, chains: list[np.ndarray], counts: list[int], fat: np.ndarray, difat: np.ndarray
) -> bytes:
    version = 3 if sector == 512 else 4
    listed = [*fat[:109].tolist(), *[FREE] * (109 - len(fat))][:109]
    head = struct.pack(
        "<8s16s6H10I109I", bytes.fromhex("d0cf11e0a1b11ae1"), b"", 0x3E, version, 0xFFFE,
        sector.bit_length() - 1, 6, 0, 0, counts[0] if version == 4 else 0, len(fat),
        int(chains[0][0]), 0, 4096, int(chains[1][0]) if counts[1] else END, counts[1],
        int(difat[0]) if len(difat) else END, len(difat), *listed,
    )  # fmt: skip
    return head.ljust(sector, b"\0")


def _difat(fat: np.ndarray, difat: np.ndarray, sector: int) -> bytes:
    """Content of the sectors that list the sector table beyond its first 109 sectors."""
    per = sector // 4 - 1
    data = b""
    for k in range(len(difat)):
        part = fat[109 + k * per : 109 + (k + 1) * per].tolist()
        following = int(difat[k + 1]) if k + 1 < len(difat) else END
        data += struct.pack(f"<{per + 1}I", *part, *[FREE] * (per - len(part)), following)
    return data


def _write(file: BinaryIO, content: Content, chain: np.ndarray, sector: int) -> None:
    """Write a stream into its sectors, run by run of neighbours."""
    pieces: Iterable[bytes | int] = content.pieces() if isinstance(content, Blocks) else [content]
    stops = np.append(np.flatnonzero(np.diff(chain) != 1), len(chain) - 1)
    done = 0
    for piece in pieces:
        length = piece if isinstance(piece, int) else len(piece)
        at = 0
        while at < length and not isinstance(piece, int):
            index, inside = divmod(done + at, sector)
            stop = stops[np.searchsorted(stops, index)]
            room = int(stop - index + 1) * sector - inside
            file.seek((int(chain[index]) + 1) * sector + inside)
            file.write(piece[at : at + room])
            at += room
        done += length


def xradia_streams(
    tiles: Any,
    *,
    grid: tuple[int, int] | None = None,
    canvas: bool = False,
    version: float = 3.0,
    reference: np.ndarray | None = None,
    pixel_um: float = 0.0293,
    energy_ev: Sequence[float] = (8000.0,),
    exposure_s: float = 60.0,
    reference_exposure_s: float = 60.0,
    binning: int = 2,
    dates: Sequence[str] | None = None,
    angles_deg: Sequence[float] | None = None,
    stage_um: np.ndarray | None = None,
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
        ref_code = CODES[reference.dtype.str[1:]]
        streams["ReferenceData/Image"] = np.ascontiguousarray(reference[::-1]).tobytes()
        streams["ReferenceData/DataType"] = _i4(ref_code)
        streams["ReferenceData/ExpTime"] = _f4(reference_exposure_s)
        if version >= 5:
            header = _info(
                "ReferenceData/ImageInfo", reference.shape, ref_code, 1, 1, 0, 0, binning
            )
            streams |= header | {
                "ReferenceData/ImageInfo/ExpTimes": _f4(reference_exposure_s),
                "ReferenceData/ImageInfo/Date": _date("02/22/2023 09:30:00.25", 0),
            }
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
