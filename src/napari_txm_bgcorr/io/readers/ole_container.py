"""Map of the bytes of an OLE2 stream in the file, so that parts of it can be read.

`olefile` parses the header and the directory. It joins its sector table piece by piece and
loads every stream whole, which a mosaic canvas of 2 GB in sectors of 512 bytes makes
unusable; so here the table is one NumPy array and a stream becomes a `ByteMap`: a few runs of
contiguous bytes. Layout: [MS-CFB], "Compound File Binary File Format".
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import olefile
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ReadError

from .byte_map import ByteMap, fill

__all__ = ["OLE_MAGIC", "Container", "open_container"]

OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

_END_OF_CHAIN = 0xFFFFFFFE
_FREE = 0xFFFFFFFF
_MINI_SECTOR = 64
_MINI_CUTOFF = 4096  # streams below this size live in the mini stream
_MAX_TABLE_BYTES = 64 << 20  # directory or mini sector table: half a million streams
_AGAIN = "copy the file again from the instrument"


class _Chains:
    """A sector table, run-length coded: most sectors are followed by their neighbour.

    Parameters
    ----------
    table : (S,) uint32
        Number of the sector that follows each sector.
    """

    def __init__(self, table: NDArray[np.uint32]) -> None:
        self.count = table.size
        neighbour = np.arange(1, table.size + 1, dtype=np.uint32)
        stops = np.flatnonzero(table != neighbour)
        del neighbour
        if table.size and (not stops.size or stops[-1] != table.size - 1):
            stops = np.append(stops, table.size - 1)
        following = table[stops].astype(np.int64)
        # As memoryviews, whose items are Python integers: several times faster to step through.
        self._stops = stops.astype(np.int64, copy=False).data
        self._following = following.data
        self._runs = np.searchsorted(stops, following).astype(np.int64).data
        self._last = stops

    def walk(
        self, first: int, sectors: int | None, where: str, most: int = 1 << 62
    ) -> tuple[list[int], list[int]]:
        """Follow a chain.

        Parameters
        ----------
        first : int
            Its first sector.
        sectors : int or None
            How many sectors it must have; None: up to the end mark.
        where : str
            File and stream, for messages.
        most : int
            Refuse a chain of more sectors.

        Returns
        -------
        starts, lengths : list of int
            Runs of neighbouring sectors.

        Raises
        ------
        ReadError
            If it leaves the table, ends early, or runs in a circle.
        """
        starts: list[int] = []
        lengths: list[int] = []
        seen = bytearray(len(self._stops))
        left = most if sectors is None else sectors
        sector = first
        run = int(np.searchsorted(self._last, first)) if 0 <= first < self.count else 0
        while left > 0:
            if sectors is None and sector == _END_OF_CHAIN:
                return starts, lengths
            if not 0 <= sector < self.count:
                raise ReadError(f"{where}: sector {sector:#x} lies beyond the file; {_AGAIN}")
            if seen[run]:
                raise ReadError(f"{where}: its sectors run in a circle; {_AGAIN}")
            seen[run] = 1
            length = min(self._stops[run] - sector + 1, left)
            starts.append(sector)
            lengths.append(length)
            left -= length
            sector, run = self._following[run], self._runs[run]
        if sectors is None:
            raise ReadError(f"{where}: more than {most} sectors; {_AGAIN}")
        return starts, lengths


class _Loaded(io.BytesIO):
    """A small stream in memory, in the form that `olefile` expects."""

    size: int


class Container(olefile.OleFileIO):  # type: ignore[misc]
    """An open OLE2 file whose streams are mapped, not loaded. Made by `open_container`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self._mini: tuple[_Chains, ByteMap] | None = None
        super().__init__(file)
        self._entries = self._index()

    @property
    def names(self) -> frozenset[str]:
        """Names of all streams, as ``storage/stream`` in lower case."""
        return frozenset(self._entries)

    def stream(self, name: str) -> ByteMap | None:
        """Map a stream, whatever the case of its name; None where there is none.

        Raises
        ------
        ReadError
            If its sectors are damaged or lie beyond the end of the file.
        """
        entry = self._entries.get(name.lower())
        if entry is None:
            return None
        if entry.size >= _MINI_CUTOFF:
            return self._map(entry.isectStart, entry.size, name)
        return self._map_mini(entry.isectStart, entry.size, name)

    def field(self, name: str, most: int) -> bytes:
        """Read at most `most` bytes of a stream; empty where there is none."""
        found = self.stream(name)
        return b"" if found is None else bytes(found.read(0, most))

    # The four methods below replace olefile's, under the names by which it calls them.

    def loadfat(self, header: bytes) -> None:
        """Load the sector table into one array."""
        per_sector = self.sectorsize // 4
        numbers = self._table_sectors(header, -(-self.nb_sect // per_sector))
        table = np.empty(len(numbers) * per_sector, "<u4")
        view, done = table.view(np.uint8).data, 0
        where = f"{self.path}: sector table"
        bounds = np.flatnonzero(np.diff(numbers) != 1) + 1
        for run in np.split(numbers, bounds) if numbers.size else []:
            self.fp.seek((int(run[0]) + 1) * self.sectorsize)
            length = run.size * self.sectorsize
            if fill(self.fp, view[done : done + length]) != length:
                raise ReadError(f"{where}: the file ends within it; {_AGAIN}")
            done += length
        self.fat = table[: self.nb_sect].astype(np.uint32, copy=False)
        self._chains = _Chains(self.fat)

    def _check_duplicate_stream(self, first_sect: int, minifat: bool = False) -> None:
        """Skip a check whose time grows with the square of the number of streams."""

    def _open(self, start: int, size: int = -1, force_FAT: bool = False) -> _Loaded:
        """Load the directory, the one stream that `olefile` itself asks for."""
        loaded = _Loaded(self._table(start, "directory"))
        loaded.size = loaded.getbuffer().nbytes
        return loaded

    def loadminifat(self) -> None:
        """Load nothing: small streams are mapped as well."""

    def _table_sectors(self, header: bytes, wanted: int) -> NDArray[np.int64]:
        """Numbers of the sectors that hold the sector table (its DIFAT list)."""
        where = f"{self.path}: list of the sector table"
        found = _until_end(np.frombuffer(header[76:512], "<u4"))[:wanted]
        sector = self.first_difat_sector if self.num_difat_sectors else _END_OF_CHAIN
        for _ in range(wanted):
            if found.size >= wanted or sector in (_END_OF_CHAIN, _FREE):
                break
            if sector >= self.nb_sect:
                raise ReadError(f"{where}: sector {sector:#x} lies beyond the file; {_AGAIN}")
            self.fp.seek((sector + 1) * self.sectorsize)
            block = self.fp.read(self.sectorsize)
            if len(block) != self.sectorsize:
                raise ReadError(f"{where}: the file ends within it; {_AGAIN}")
            part = np.frombuffer(block, "<u4")
            found = np.concatenate([found, _until_end(part[:-1])])[:wanted]
            sector = int(part[-1])
        if found.size and int(found.max()) >= self.nb_sect:
            raise ReadError(
                f"{where}: sector {int(found.max()):#x} lies beyond the file; {_AGAIN}"
            )
        return found.astype(np.int64)

    def _table(self, start: int, name: str) -> bytearray:
        """Load a stream of unknown length that holds a table."""
        most = _MAX_TABLE_BYTES // self.sectorsize
        runs = self._chains.walk(start, None, f"{self.path}: {name}", most)
        size = sum(runs[1]) * self.sectorsize
        return self._from_runs(*runs, size, name).read()

    def _map(self, start: int, size: int, name: str) -> ByteMap:
        """Map a stream of ordinary sectors."""
        sectors = -(-size // self.sectorsize)
        where = f"{self.path}: {name}"
        if sectors > self._chains.count:
            raise ReadError(f"{where}: says {size} bytes, more than the file holds; {_AGAIN}")
        return self._from_runs(*self._chains.walk(start, sectors, where), size, name)

    def _from_runs(self, starts: list[int], lengths: list[int], size: int, name: str) -> ByteMap:
        """Turn runs of sectors into bytes, and see that the file holds them all."""
        begin = (np.asarray(starts, np.int64) + 1) * self.sectorsize
        ends = np.cumsum(np.asarray(lengths, np.int64) * self.sectorsize)
        if ends.size:
            ends[-1] = size
            last = int((begin + np.diff(ends, prepend=0)).max())
            if last > self._filesize:
                raise ReadError(
                    f"{self.path}: {name}: the file is cut off, {last - self._filesize} bytes "
                    f"are missing; {_AGAIN}"
                )
        return ByteMap(self.path, name, begin, ends)

    def _map_mini(self, start: int, size: int, name: str) -> ByteMap:
        """Map a stream below 4096 bytes: pieces of 64 bytes of the mini stream."""
        if not size:
            return ByteMap(self.path, name, np.empty(0, np.int64), np.empty(0, np.int64))
        if self._mini is None:
            whole = self._map(self.root.isectStart, self.root.size, "mini stream")
            table = np.frombuffer(self._table(self.first_mini_fat_sector, "mini table"), "<u4")
            used = -(-whole.size // _MINI_SECTOR)
            self._mini = _Chains(table[:used].astype(np.uint32)), whole
        chains, whole = self._mini
        sectors = -(-size // _MINI_SECTOR)
        begin: list[int] = []
        ends: list[int] = []
        done = 0
        runs = chains.walk(start, sectors, f"{self.path}: {name}")
        for first, count in zip(*runs, strict=True):
            want = min(count * _MINI_SECTOR, size - done)
            for offset, length in whole.pieces(first * _MINI_SECTOR, 1, want, 1):
                done += length
                begin.append(offset)
                ends.append(done)
        return ByteMap(self.path, name, np.asarray(begin, np.int64), np.asarray(ends, np.int64))

    def _index(self) -> dict[str, Any]:
        """Directory entries of the streams by lower-case path."""
        entries: dict[str, Any] = {}
        stack, seen = [("", self.root)], {self.root.sid}
        while stack:
            prefix, storage = stack.pop()
            for kid in storage.kids:
                if kid.sid in seen:  # a damaged directory may hold its own root
                    continue
                seen.add(kid.sid)
                path = f"{prefix}{kid.name}".lower()
                if kid.entry_type == olefile.STGTY_STREAM:
                    entries.setdefault(path, kid)
                stack.append((f"{path}/", kid))
        return entries


def _until_end(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Sector numbers before the first end mark."""
    marks = np.flatnonzero((numbers == _END_OF_CHAIN) | (numbers == _FREE))
    return numbers[: marks[0]] if marks.size else numbers


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Open an OLE2 file for mapping; it is closed on leaving, the maps stay valid.

    Parameters
    ----------
    path : Path

    Yields
    ------
    Container

    Raises
    ------
    ReadError
        If it is missing, no OLE2 file, or damaged.
    """
    try:
        with path.open("rb", buffering=0) as file:
            _check_header(path, file.read(512))
            file.seek(0)
            yield Container(file, path)
    except RecursionError as error:
        raise ReadError(f"{path}: directory: nested without end; {_AGAIN}") from error
    except OSError as error:  # includes olefile's own errors
        remedy = "check that it may be read" if error.strerror else _AGAIN
        reason = error.strerror or str(error)
        raise ReadError(f"{path}: cannot be opened ({reason}); {remedy}") from error


def _check_header(path: Path, header: bytes) -> None:
    """Refuse what `olefile` cannot digest (it takes any sector size for granted)."""
    if not header:
        raise ReadError(f"{path}: the file is empty; {_AGAIN}")
    if not header.startswith(OLE_MAGIC):
        raise ReadError(
            f"{path}: not an Xradia file (no OLE2 signature); "
            "give a .xrm, .txrm or .txm file, or a TIFF or HDF5 file under its own suffix"
        )
    if len(header) < 512:
        raise ReadError(f"{path}: header: only {len(header)} bytes are there; {_AGAIN}")
    order, shift, mini_shift = np.frombuffer(header[28:34], "<u2").tolist()
    if order != 0xFFFE or shift not in (9, 12) or mini_shift != 6:
        raise ReadError(
            f"{path}: header: byte order {order:#x}, sectors of 2^{shift} and 2^{mini_shift} "
            f"bytes, expected 0xfffe, 2^9 or 2^12, and 2^6; {_AGAIN}"
        )
