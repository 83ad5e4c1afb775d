"""Which of several equal processes does what all of them need, without locks.

Each has a file beside the output that it touches as long as it lives: ``s`` in it says that it is
at work, ``w`` that it waits. Where nobody is at work, the lowest number begins. Two that begin at
the same time do the same work twice, no more; one that falls silent is given up.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from napari_txm_bgcorr.io.output.fit_file import NEW_FLAGS, READ_FLAGS, FitPlace

__all__ = ["PACE", "Pace", "Turn"]

WAITING, AT_WORK = b"w", b"s"
Order = tuple[int, str]


@dataclass(frozen=True)
class Pace:
    """How often, in seconds.

    Attributes
    ----------
    beat_s : float
        Between two touches of the own file.
    dead_s : float
        A process that was silent for so long is given up.
    look_s : float
        Between two looks of one that waits.
    settle_s : float
        Between saying "at work" and a last look whether others say so, too.
    """

    beat_s: float = 5.0
    dead_s: float = 60.0
    look_s: float = 0.5
    settle_s: float = 0.5


PACE = Pace()


class Turn:
    """One process among those that wait for a fit; a context in which its file is touched.

    Parameters
    ----------
    place : FitPlace
        Its folder exists.
    number : int
        Of this process: the lowest goes first.
    pace : Pace

    Attributes
    ----------
    worker : int or None
        Number of the process that was seen at work, or else is next.
    """

    def __init__(self, place: FitPlace, number: int, pace: Pace = PACE) -> None:
        self._place, self._pace = place, pace
        self._order: Order = (number, uuid.uuid4().hex[:8])
        self._path = self._file(self._order)
        self._pattern = re.compile(
            re.escape(place.path.name) + r"\.solving-(\d{1,9})-([0-9a-f]{8})"
        )
        self._state = WAITING
        self._seen: dict[Order, tuple[int, float]] = {}  # touched when, and seen first when
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="turn", daemon=True)
        self.worker: int | None = None

    def _file(self, order: Order) -> Path:
        path = self._place.path
        return path.with_name(f"{path.name}.solving-{order[0]}-{order[1]}")

    def __enter__(self) -> Self:
        """Begin to be seen.

        Raises
        ------
        OSError
            If no file can be made.
        """
        descriptor = os.open(self._path, NEW_FLAGS, 0o600)
        try:
            os.write(descriptor, self._state)
        finally:
            os.close(descriptor)
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._beating.join(self._pace.beat_s)
        with suppress(OSError):
            self._path.unlink()

    def take(self) -> bool:
        """Whether it is this process's turn to do the work.

        Raises
        ------
        OSError
            If the folder cannot be written or listed.
        """
        others = dict(self._others())
        busy = [order for order, state in others.items() if state == AT_WORK]
        first = min(busy or others, default=self._order)
        if busy or first < self._order:
            self.worker = first[0]
            return False
        self._say(AT_WORK)
        time.sleep(self._pace.settle_s)
        first = min((o for o, state in self._others() if state == AT_WORK), default=self._order)
        if first < self._order:  # both began at once
            self._say(WAITING)
            self.worker = first[0]
            return False
        return True

    def wait(self) -> None:
        """Let some time go by before the next look."""
        time.sleep(self._pace.look_s)

    def _others(self) -> Iterator[tuple[Order, bytes]]:
        """Other processes of this user that are alive, and what they say."""
        ours = self._place.probe()
        with os.scandir(self._path.parent) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            if not (found := self._pattern.fullmatch(name)):
                continue
            order = (int(found[1]), found[2])
            if order == self._order:
                continue
            try:
                status, state = _look(self._path.with_name(name))
            except OSError:  # it has ended by now, or is another user's
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_uid != ours.st_uid:
                continue
            if self._alive(order, status, ours):
                yield order, state

    def _alive(self, order: Order, status: os.stat_result, ours: os.stat_result) -> bool:
        """Touched lately by the file system's clock, and, should that have jumped, by ours."""
        now, touched = time.monotonic(), status.st_mtime_ns
        if order not in self._seen or self._seen[order][0] != touched:
            self._seen[order] = (touched, now)
        silent = now - self._seen[order][1]
        return max(silent, (ours.st_mtime_ns - touched) / 1e9) <= self._pace.dead_s

    def _say(self, state: bytes) -> None:
        self._state = state
        self._touch()

    def _touch(self) -> None:
        """Write what this process says; the time is then the file server's."""
        # gone: the output is complete, and nobody waits any more
        with suppress(FileNotFoundError), self._path.open("r+b", buffering=0) as stream:
            stream.write(self._state)

    def _beat(self) -> None:
        while not self._over.wait(self._pace.beat_s):
            with suppress(OSError):  # a file server that is away for a while
                self._touch()


def _look(path: Path) -> tuple[os.stat_result, bytes]:
    """What a file says, and when it was touched; opened, since names may be remembered."""
    descriptor = os.open(path, READ_FLAGS)
    try:
        return os.fstat(descriptor), os.read(descriptor, 1)
    finally:
        os.close(descriptor)
