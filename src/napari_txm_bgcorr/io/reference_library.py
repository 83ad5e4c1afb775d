"""A library of references: one Zarr store, and what is known of every file looked at.

Layout: for each size and type of image an array ``<Y>x<X>-<type>`` `(N, Y, X)`, one chunk an
image; ``files.jsonl``, one line for each file looked at, in that order. A line is complete
only after its image is in the store, so a library whose making was cut off is whole up to
there. When it is complete the arrays' attributes repeat the lines of their images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from napari_txm_bgcorr.core import ACQUISITION, ImageStack, LazyTiles, remove_folder, replace_file
from napari_txm_bgcorr.errors import ReadError, WriteError

from .guard import reading, writing

__all__ = ["JOURNAL", "KEY", "Library", "can_read", "open_library"]

KEY = "txm_bgcorr_library"
VERSION = 1
JOURNAL = "files.jsonl"
GROWTH = 256  # images an array grows by
_CODEC = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")

Line = dict[str, Any]


def can_read(path: Path) -> bool:
    """Return True if a folder is a library of references."""
    return (path / JOURNAL).is_file() and (path / "zarr.json").is_file()


def open_library(path: Path) -> list[ImageStack]:
    """Kept images of a library, one stack a size and type, read when asked for.

    Raises
    ------
    ReadError
        If it is damaged or holds no image.
    """
    _, lines = _journal(path)
    by_array: dict[str, list[Line]] = {}
    for line in _images(lines):
        by_array.setdefault(line["array"], []).append(line)
    if not by_array:
        raise ReadError(f"{path}: the library holds no image; harvest references into it")
    return [_stack(path, name, kept) for name, kept in sorted(by_array.items())]


def _images(lines: list[Line]) -> list[Line]:
    """Lines of images that are kept; later verdicts count."""
    dropped = {line["drop"] for line in lines if "drop" in line}
    return [line for line in lines if "array" in line and line["name"] not in dropped]


def _stack(path: Path, name: str, kept: list[Line]) -> ImageStack:
    with reading(path, name):
        array = zarr.open_array(path / name, mode="r")
        _, height, width = array.shape
    places = [int(line["index"]) for line in kept]
    dates = [line.get("date") for line in kept]
    times = None
    if all(dates):
        times = np.array(dates, "datetime64[s]")
    reader = _Reader(path, name, tuple(places))
    return ImageStack(
        LazyTiles((len(kept), height, width), array.dtype, reader),
        tuple(str(line["name"]) for line in kept),
        tuple(_session(line) for line in kept),
        times,
        acquisition=tuple(_acquisition(line) for line in kept),
    )


def _acquisition(line: Line) -> dict[str, float]:
    return {name: float(line[name]) for name in ACQUISITION if line.get(name) is not None}


def _session(line: Line) -> str:
    """Day of an image; without a date the folder it lay in."""
    date = line.get("date")
    return str(date)[:10] if date else str(Path(line["name"]).parent)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads image `i`; holds no open file and can be pickled."""

    path: Path
    name: str
    places: tuple[int, ...]

    def __call__(self, i: int) -> NDArray[Any]:
        with reading(self.path, f"{self.name}, image {self.places[i]}"):
            array = zarr.open_array(self.path / self.name, mode="r")
            return np.asarray(array[self.places[i]])


def _journal(path: Path) -> tuple[Line, list[Line]]:
    """Settings and lines of the journal; a last line that was cut off is left out."""
    with reading(path / JOURNAL, "lines"):
        texts = (path / JOURNAL).read_text(encoding="utf-8").split("\n")
    lines: list[Line] = []
    for number, text in enumerate(texts[:-1]):  # what follows the last newline is cut off
        try:
            line = json.loads(text)
        except ValueError as error:
            raise ReadError(
                f"{path / JOURNAL}: line {number + 1} is damaged; harvest again with --overwrite"
            ) from error
        lines.append(line)
    if not lines or lines[0].get(KEY) != VERSION:
        raise ReadError(f"{path}: no library of this program; harvest again with --overwrite")
    return lines[0], lines[1:]


@dataclass(eq=False)
class Library:
    """A library being made.

    Attributes
    ----------
    path : Path
    lines : list of mapping
        The journal so far.
    """

    path: Path
    lines: list[Line] = field(default_factory=list)
    _arrays: dict[str, zarr.Array[Any]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> Self:
        """Make a library, or go on with the one that is there.

        Raises
        ------
        WriteError
            If something else is there, or a library made with other settings.
        """
        if overwrite and can_read(path):
            with writing(path):
                remove_folder(path)
        if can_read(path):
            head, lines = _journal(path)
            if head["settings"] != dict(settings):
                raise WriteError(
                    f"{path}: a library made with other settings {head['settings']}; "
                    "pass --overwrite or another -o"
                )
            library = cls(path, lines)
            library._cut_journal(head)
        else:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise WriteError(f"{path}: something else is there; choose another -o")
            library = cls(path)
            with writing(path):
                zarr.create_group(path, zarr_format=3, attributes={KEY: VERSION})
                library._append({KEY: VERSION, "settings": dict(settings)})
        for line in library.lines:
            if "array" in line:
                name = line["array"]
                library._counts[name] = max(library._counts.get(name, 0), line["index"] + 1)
        return library

    def _cut_journal(self, head: Line) -> None:
        """Write the journal anew without a last line that was cut off."""
        text = "".join(json.dumps(line) + "\n" for line in (head, *self.lines))
        part = self.path / f".{JOURNAL}.part"
        with writing(self.path):
            part.write_text(text, encoding="utf-8")
            replace_file(part, self.path / JOURNAL)

    def _append(self, line: Line) -> None:
        with writing(self.path), (self.path / JOURNAL).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def note(self, line: Line) -> None:
        """Add a line about a file or image that is not kept."""
        self._append(line)
        self.lines.append(line)

    def add(self, image: NDArray[Any], line: Line) -> None:
        """Add an image `(Y, X)` and its line."""
        name = f"{image.shape[0]}x{image.shape[1]}-{image.dtype.name}"
        index = self._counts.get(name, 0)
        with writing(self.path):
            array = self._array(name, image)
            if index >= array.shape[0]:
                array.resize((index + GROWTH, *image.shape))
            array[index] = image
        self._counts[name] = index + 1
        self.note(line | {"array": name, "index": index})

    def _array(self, name: str, like: NDArray[Any]) -> zarr.Array[Any]:
        if name not in self._arrays:
            if (self.path / name / "zarr.json").is_file():
                self._arrays[name] = zarr.open_array(self.path / name, mode="r+")
            else:
                self._arrays[name] = zarr.create_array(
                    self.path / name,
                    shape=(0, *like.shape),
                    chunks=(1, *like.shape),
                    dtype=like.dtype,
                    compressors=_CODEC,
                    dimension_names=("n", "y", "x"),
                    zarr_format=3,
                )
        return self._arrays[name]

    def images(self) -> list[Line]:
        """Lines of the images that are kept."""
        return _images(self.lines)

    def read(self, line: Line) -> NDArray[Any]:
        """Image of a line."""
        return _Reader(self.path, line["array"], (line["index"],))(0)

    def finish(self) -> None:
        """Cut arrays to their length and tell in their attributes what they hold."""
        kept = self.images()
        for name, count in self._counts.items():
            with writing(self.path):
                array = zarr.open_array(self.path / name, mode="r+")
                array.resize((count, *array.shape[1:]))
                array.attrs["kept"] = [line for line in kept if line["array"] == name]

    def done(self) -> Iterator[tuple[str, int, int]]:
        """Name, size and time of change of each file already looked at."""
        for line in self.lines:
            if "file" in line:
                yield line["file"], line["bytes"], line["changed_ns"]
