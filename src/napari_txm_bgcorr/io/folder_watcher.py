"""Polling of a folder for new, complete images; files still being written are left to wait.

Folders are polled because network shares, on which microscopes write, send no change events to
other machines. There is no Qt and no thread in this module; the command line and the panel
call `Watcher.poll`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from napari_txm_bgcorr.errors import ReadError, TxmError

from .readers.dispatch import read
from .readers.filename_metadata import is_dark, is_flat, natural_key

__all__ = ["SUFFIXES", "Arrival", "State", "Watcher", "readable"]

SUFFIXES = (".xrm", ".txrm", ".txm", ".tif", ".tiff", ".h5", ".hdf5", ".nxs")
_INTERRUPTED = "the scan was interrupted"  # said by the reader of a scan that lacks images


@dataclass(frozen=True)
class State:
    """Size in bytes and time of last change; equal states: nothing was written between.

    Attributes
    ----------
    size : int
    mtime_ns : int
    count : int
        Files, where a folder of tiles is watched as one.
    """

    size: int
    mtime_ns: int
    count: int = 1


@dataclass(frozen=True)
class Arrival:
    """A file (or folder of tiles) that is whole and has not been handed out in this state.

    Attributes
    ----------
    path : Path
    state : State
    since : float
        When this state was first seen, on the watcher's clock (s): the file was complete then.
    """

    path: Path
    state: State
    since: float


@dataclass
class _SeenFile:
    state: State
    since: float
    judged: bool = False  # handed out in this state


class Watcher:
    """Looks through a folder and its sub-folders for images that are whole and new.

    An image is whole when its size and time of change have stood still for `settle_s` and it
    can be read. A scan whose header tells that images are missing is still being taken: it
    waits `patience_s`, after which it counts as interrupted. Each state of a file is handed out
    once, so a file that could not be corrected comes again when it changes.

    Parameters
    ----------
    folder : Path
    pattern : str or None
        Of file names, such as ``*.txrm``; None: every known image format.
    settle_s, patience_s : float
    ignore : sequence of Path
        Folders that are not looked into, such as the output.
    whole_folders : bool
        Hand out folders of single tiles, each as one scan, instead of their files.
    handled : mapping of Path to State
        Handed out by an earlier watcher.
    only_new : bool
        Leave alone what the first look finds, unless it changes afterwards.
    clock : callable
        Seconds, monotonic.

    Attributes
    ----------
    waiting : dict of Path to str
        Files that are not whole yet, and why.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pattern: str | None = None,
        settle_s: float = 5.0,
        patience_s: float = 600.0,
        ignore: Sequence[Path] = (),
        whole_folders: bool = False,
        handled: Mapping[Path, State] | None = None,
        only_new: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.waiting: dict[Path, str] = {}
        self._pattern, self._settle_s, self._patience_s = pattern, settle_s, patience_s
        self._ignore = frozenset(os.path.realpath(path) for path in ignore)
        self._whole_folders, self._clock = whole_folders, clock
        self._only_new, self._looked = only_new, False
        self._seen: dict[Path, _SeenFile] = {
            path: _SeenFile(state, clock(), judged=True) for path, state in (handled or {}).items()
        }

    def poll(self) -> Iterator[Arrival]:
        """Look once, and hand out what is whole and new, in natural order of the names.

        Raises
        ------
        ReadError
            If the folder itself cannot be looked through; it may come back.
        """
        found = self._look()
        now, first = self._clock(), not self._looked
        self._looked = True
        self.waiting = {path: why for path, why in self.waiting.items() if path in found}
        for path in sorted(found, key=lambda p: natural_key(str(p))):
            state, seen = found[path], self._seen.get(path)
            if seen is None or seen.state != state:
                seen = self._seen[path] = _SeenFile(state, now, judged=self._only_new and first)
            if seen.judged:
                continue
            why = self._why_not(path, now - seen.since)
            if why is None:
                seen.judged = True
                self.waiting.pop(path, None)
                yield Arrival(path, state, seen.since)
            else:
                self.waiting[path] = why

    @property
    def settled(self) -> bool:
        """True if no waiting file has changed within the settling time."""
        now = self._clock()
        return all(
            self._seen[path].judged or now - self._seen[path].since >= self._settle_s
            for path in self.waiting
        )

    def _why_not(self, path: Path, still_s: float) -> str | None:
        """Reason why a file is not complete yet; None: it is."""
        if still_s < self._settle_s:
            return "still changing"
        try:
            interrupted = not readable(path)
        except TxmError as error:
            return str(error)
        if interrupted and still_s < self._patience_s:
            return f"images are still to come; taken as it is after {self._patience_s:g} s"
        return None

    def _look(self) -> dict[Path, State]:
        """State of every image below the folder."""
        files: dict[Path, State] = {}
        try:
            for path, status in _walk(self.folder, self._ignore, top=True):
                if self._wanted(path.name):
                    files[path] = State(status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise ReadError(
                f"{self.folder}: {error.strerror or error}; check the folder and its share"
            ) from error
        return _by_folder(files, self.folder) if self._whole_folders else files

    def _wanted(self, name: str) -> bool:
        stem, suffix = os.path.splitext(name)
        if self._pattern is not None:
            return fnmatch(name.lower(), self._pattern.lower())
        return suffix.lower() in SUFFIXES and not is_flat(stem) and not is_dark(stem)


def readable(path: Path) -> bool:
    """Return True if a file has all the images that it was planned to have.

    Raises
    ------
    ReadError
        If it cannot be read, to the last pixel of its last tile.
    """
    scan = read(path)
    scan.tiles[len(scan) - 1]  # what is copied from the front lacks its end
    return not any(_INTERRUPTED in note for note in scan.notes)


def _walk(
    folder: Path, ignore: frozenset[str], *, top: bool
) -> Iterator[tuple[Path, os.stat_result]]:
    """Files below a folder; not in hidden ones, outputs of ours, or stores."""
    try:
        with os.scandir(folder) as entries:
            listed = [entry for entry in entries if not entry.name.startswith((".", "~"))]
    except OSError:
        if top:
            raise
        return  # removed meanwhile, or not ours to read
    if not top and any(e.name in ("zarr.json", ".zattrs", "provenance.json") for e in listed):
        return
    for entry in listed:
        try:
            if entry.is_dir():
                inner = Path(entry.path)
                if os.path.realpath(inner) not in ignore and inner.suffix != ".part":
                    yield from _walk(inner, ignore, top=False)
            elif entry.is_file():
                # not entry.stat(): what Windows lists of an open file is old until it is closed
                yield Path(entry.path), os.stat(entry.path)
        except OSError:
            continue  # removed between two looks


def _by_folder(files: Mapping[Path, State], top: Path) -> dict[Path, State]:
    """Folders in place of their files; files right in the watched folder stay themselves."""
    groups: dict[Path, list[State]] = {}
    for path, state in files.items():
        groups.setdefault(path if path.parent == top else path.parent, []).append(state)
    return {path: _joined(states) for path, states in groups.items()}


def _joined(states: Iterable[State]) -> State:
    listed = list(states)
    return State(sum(state.size for state in listed), max(s.mtime_ns for s in listed), len(listed))
