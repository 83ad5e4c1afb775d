"""Parts of a file that belong together: read them without loading the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ReadError

__all__ = ["ByteMap", "fill"]


@dataclass(frozen=True, eq=False)
class ByteMap:
    """Runs of contiguous bytes that make up one stream of a file.

    Holds no open file: it is opened for each read, so threads and processes may share a map.

    Attributes
    ----------
    path : Path
        The file.
    name : str
        The stream, for messages.
    starts : (R,) int64
        Offset of each run in the file (bytes).
    ends : (R,) int64
        Offset in the stream at which each run ends (bytes); the last one is the size.
    """

    path: Path
    name: str
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def size(self) -> int:
        """Length of the stream (bytes)."""
        return int(self.ends[-1]) if self.ends.size else 0

    def read(self, first: int = 0, length: int | None = None) -> bytearray:
        """Read `length` bytes from offset `first`, or all that follow."""
        rest = max(self.size - first, 0)
        return self.read_rows(first, 1, rest if length is None else min(length, rest), 1)

    def read_rows(self, first: int, stride: int, width: int, rows: int) -> bytearray:
        """Read `rows` pieces of `width` bytes, `stride` bytes apart, and nothing else.

        Parameters
        ----------
        first : int
            Offset of the first piece in the stream (bytes).
        stride, width, rows : int
            Distance and length of the pieces (bytes), and their number.

        Returns
        -------
        bytearray
            `rows * width` bytes.

        Raises
        ------
        ReadError
            If the file cannot be read or has become shorter.
        """
        buffer = bytearray(width * rows)
        view, done = memoryview(buffer), 0
        if stride == width:
            width, rows = width * rows, 1
        try:
            with self.path.open("rb", buffering=0) as file:
                for offset, length in self.pieces(first, stride, width, rows):
                    file.seek(offset)
                    if fill(file, view[done : done + length]) != length:
                        raise ReadError(
                            f"{self.path}: {self.name}: the file has become shorter; open it again"
                        )
                    done += length
        except OSError as error:
            raise ReadError(
                f"{self.path}: {self.name}: cannot be read ({error.strerror}); "
                "check that the drive is still connected"
            ) from error
        return buffer

    def pieces(self, first: int, stride: int, width: int, rows: int) -> Iterator[tuple[int, int]]:
        """Yield (offset in the file, length) of what `read_rows` needs, in order."""
        begin = first + stride * np.arange(rows, dtype=np.int64)
        if not width or not rows:
            return
        if first < 0 or int(begin[-1]) + width > self.size:
            raise ReadError(
                f"{self.path}: {self.name}: {self.size} bytes, but byte "
                f"{int(begin[-1]) + width} is asked for; copy the file again from the instrument"
            )
        runs = np.searchsorted(self.ends, begin, side="right").tolist()
        for at, run in zip(begin.tolist(), runs, strict=True):
            left = width
            while left:
                end = int(self.ends[run])
                offset = int(self.starts[run]) + at - (int(self.ends[run - 1]) if run else 0)
                length = min(left, end - at)
                yield offset, length
                at, left, run = at + length, left - length, run + 1


def fill(file: Any, view: memoryview) -> int:
    """Read until `view` is full or the file ends; the number of bytes read."""
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            break
        done += count
    return done
