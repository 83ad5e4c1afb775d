"""File beside an output that hands a fitted method to other processes that fill the same output.

It holds arrays and JSON, nothing that can run. A file is accepted if it is complete and if its
owner and mode are those that the file system gives to files that the same user writes there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from napari_txm_bgcorr.core import replace_file
from napari_txm_bgcorr.errors import ReadError

__all__ = ["NEW_FLAGS", "READ_FLAGS", "Fit", "FitPlace", "FitRefusedError", "remove_fits"]

MAGIC = b"txm-bgcorr fit 1 "  # then the hash of all that follows the line
VALUES = "values.json"  # the array that holds the text
NAME = r"\.fit-[0-9a-f]{16}(\.(new-[0-9a-f]{8}|solving-\d{1,9}-[0-9a-f]{8}))?"
READ_FLAGS = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # as far as there are any
    READ_FLAGS |= getattr(os, _flag, 0)
NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class FitRefusedError(ReadError):
    """The file exists but is not accepted: wrong owner, mode or content."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Content of a fit file.

    Attributes
    ----------
    arrays : mapping of arrays
        Any shape but `()`.
    values : mapping
        JSON-ready.
    """

    arrays: Mapping[str, NDArray[Any]]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class FitPlace:
    """Path of the file that holds the fit of one output: ``OUT.fit-KEY``.

    Attributes
    ----------
    out : Path
        Absolute.
    key : str
        SHA-256 over everything that decides the fit.
    """

    out: Path
    key: str

    @property
    def path(self) -> Path:
        """The file; its folder may not exist yet."""
        return self.out.with_name(f"{self.out.name}.fit-{self.key[:16]}")

    def probe(self) -> os.stat_result:
        """Status of a file that this process creates in the folder now, and removes again.

        It tells owner, mode, and the time by the file system's own clock. Changing the folder
        also makes a network file system refresh its view of files from other machines.

        Raises
        ------
        OSError
            If nothing can be written.
        """
        path, descriptor = self._new()
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()

    def write(self, fit: Fit) -> None:
        """Write the file under another name, then rename it.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        text = json.dumps({"key": self.key, "values": fit.values}, default=str)
        arrays = {name: np.ascontiguousarray(one) for name, one in fit.arrays.items()}
        body = save(arrays | {VALUES: np.frombuffer(text.encode(), np.uint8)})
        path, descriptor = self._new()
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
                stream.flush()
                os.fsync(descriptor)
            replace_file(path, self.path)
        finally:
            with suppress(OSError):
                path.unlink()

    def read(self, ours: os.stat_result) -> Fit | None:
        """Read the file; None: there is none.

        Parameters
        ----------
        ours : os.stat_result
            From `probe`.

        Raises
        ------
        FitRefusedError
            If it is not accepted.
        """
        try:
            if self.path.is_symlink():  # for systems that cannot refuse a link on opening
                raise self._refused("it is a link")
            descriptor = os.open(self.path, READ_FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(f"it cannot be opened ({error.strerror})") from error
        try:  # what was opened is looked at, not what has this name by now
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self._refused("it is no plain file")
            if status.st_uid != ours.st_uid:
                raise self._refused("it belongs to another user")
            if stat.S_IMODE(status.st_mode) != stat.S_IMODE(ours.st_mode):
                raise self._refused(f"its mode is {stat.S_IMODE(status.st_mode):o}")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                data = stream.read()
        except OSError as error:
            raise self._refused(f"it cannot be read ({error.strerror})") from error
        finally:
            os.close(descriptor)
        return self._parse(data)

    def _parse(self, data: bytes) -> Fit:
        head, _, body = data.partition(b"\n")
        if head != MAGIC + hashlib.sha256(body).hexdigest().encode():
            raise self._refused("it is damaged, or no fit at all")
        try:
            arrays = {name: one.copy() for name, one in load(body).items()}
            told = json.loads(arrays.pop(VALUES).tobytes())
            key, values = told["key"], told["values"]
        except (SafetensorError, ValueError, LookupError, TypeError) as error:
            raise self._refused("it was made by another program") from error
        if key != self.key:
            raise self._refused("it is of another scan or of other options")
        return Fit(arrays, values)

    def _refused(self, why: str) -> FitRefusedError:
        return FitRefusedError(f"{self.path}: {why}; not used, this share fits for itself")

    def _new(self) -> tuple[Path, int]:
        """A new file of this user alone, open for writing."""
        path = self.path.with_name(f"{self.path.name}.new-{uuid.uuid4().hex[:8]}")
        return path, os.open(path, NEW_FLAGS, 0o600)


def remove_fits(out: Path) -> None:
    """Remove the fit files of a complete output, and temporary files of killed processes.

    Parameters
    ----------
    out : Path
    """
    ours = re.compile(re.escape(out.name) + NAME)
    with suppress(OSError), os.scandir(out.parent) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name) and not entry.is_dir(follow_symlinks=False):
                with suppress(OSError):  # open elsewhere, or another user's
                    os.unlink(entry.path)
