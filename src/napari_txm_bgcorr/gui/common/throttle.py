"""Rate limit for the messages of a worker: at most ten a second."""

from __future__ import annotations

import time
from threading import Event

from napari_txm_bgcorr.core import Progress

from .messages import Advanced, Preparing, Tell

__all__ = ["Pace", "Throttle", "telling"]

MESSAGE_INTERVAL_S = 0.1


class Throttle:
    """Decides if a message is due: ten times a second at most."""

    def __init__(self) -> None:
        self._spoke = 0.0

    def due(self) -> bool:
        """Return True if a message is due; the next one is then due a tenth of a second later."""
        now = time.monotonic()
        if now - self._spoke < MESSAGE_INTERVAL_S:
            return False
        self._spoke = now
        return True


class Pace:
    """Progress of a run: limits its messages, and estimates the time that is left.

    Parameters
    ----------
    total : int
        Tiles to do.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._began = time.monotonic()
        self._throttle = Throttle()

    def step(self, text: str = "") -> Advanced | None:
        """Count one tile; a message is due at most ten times a second, and at the end."""
        self.done += 1
        if not (self._throttle.due() or self.done >= self.total):
            return None
        left = (time.monotonic() - self._began) / self.done * (self.total - self.done)
        return Advanced(self.done, self.total, left, text)


def telling(stop: Event, tell: Tell, subject: str = "") -> Progress:
    """Progress over a fit: tells its stages now and then, and ends it when asked to stop."""
    throttle = Throttle()

    def progress(stage: str, done: int, total: int) -> None:
        if throttle.due():
            count = f"{done} of {total}" if total else f"{done} tiles read"
            tell(Preparing(f"{subject}{stage}, {count} …"))

    return Progress(progress, stop.is_set)
