"""Writes OLE2 compound files, stream by stream in bounded memory.

Layout after [MS-CFB]: header, sectors of 512 bytes (version 3) or 4096 bytes (version 4), a
sector table (FAT) listed in the header and in DIFAT sectors, a mini stream for streams below
4096 bytes, and a directory whose siblings form a red-black tree.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blocks", "Content", "write_ole2"]

Sectors = NDArray[np.int64]

FREE, END, FAT, DIFAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFC
NO_STREAM = 0xFFFFFFFF


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
    stream, table = bytearray(), list[int]()
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
) -> tuple[Sectors, Sectors, Sectors]:
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
    sector: int, chains: list[Sectors], counts: list[int], fat: Sectors, difat: Sectors
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


def _difat(fat: Sectors, difat: Sectors, sector: int) -> bytes:
    """Content of the sectors that list the sector table beyond its first 109 sectors."""
    per = sector // 4 - 1
    data = b""
    for k in range(len(difat)):
        part = fat[109 + k * per : 109 + (k + 1) * per].tolist()
        following = int(difat[k + 1]) if k + 1 < len(difat) else END
        data += struct.pack(f"<{per + 1}I", *part, *[FREE] * (per - len(part)), following)
    return data


def _write(file: BinaryIO, content: Content, chain: Sectors, sector: int) -> None:
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
