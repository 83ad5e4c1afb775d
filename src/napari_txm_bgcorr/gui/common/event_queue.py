"""Work for the window, cut into short steps so that the window stays responsive."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from qtpy.QtCore import QObject, QTimer

__all__ = ["Steps"]


class Steps:
    """Queue of work that messages ask for: one step per pass of the event loop, in order.

    Parameters
    ----------
    parent : QObject
        The panel.
    """

    def __init__(self, parent: QObject) -> None:
        self._waiting: deque[Iterator[None]] = deque()
        self._beat = QTimer(parent)
        self._beat.setInterval(0)
        self._beat.timeout.connect(self._do_one)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, steps: Iterator[None]) -> None:
        """Do these after those that wait."""
        self._waiting.append(steps)
        if len(self._waiting) == 1:
            self._beat.start()

    def drop(self) -> None:
        """Do nothing more."""
        self._beat.stop()
        self._waiting.clear()

    def _do_one(self) -> None:
        try:
            next(self._waiting[0])
            return
        except StopIteration:
            pass
        except BaseException:
            self._end_first()
            raise
        self._end_first()

    def _end_first(self) -> None:
        if self._waiting:  # a step may have closed the panel
            self._waiting.popleft()
        if not self._waiting:
            self._beat.stop()
