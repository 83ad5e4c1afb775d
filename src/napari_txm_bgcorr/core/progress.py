"""Progress reports and cancelling of long work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from napari_txm_bgcorr.errors import StoppedError

__all__ = ["SILENT", "Progress", "Report"]

Report = Callable[[str, int, int], Any]
"""`report(stage, done, total)`: name of the stage, and how far it is; total 0: not known."""


def _nothing(*_: object) -> None:
    """Tell nobody."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Progress:
    """Callbacks that report the progress of some work and may end it.

    Attributes
    ----------
    report : callable
        `report(stage, done, total)`, called after every tile, pair of tiles or round of a
        stage, one call at a time but from any thread. What it raises ends the work.
    should_stop : callable
        Called before every tile, pair or round; True ends the work.
    say : callable
        `say(sentence)`, called with remarks for the user while the work goes on.
    """

    report: Report = _nothing
    should_stop: Callable[[], bool] = _never
    say: Callable[[str], Any] = _nothing

    def step(self, stage: str, done: int, total: int) -> None:
        """Tell how far it is.

        Raises
        ------
        StoppedError
            If the work is to end.
        """
        self.check()
        self.report(stage, done, total)

    def part(self, k: int, count: int) -> Progress:
        """Progress of the k-th of `count` fits that take the same stages."""
        if count == 1:
            return self

        def report(stage: str, done: int, total: int) -> None:
            self.report(stage, k * total + done, count * total)

        return replace(self, report=report)

    def check(self) -> None:
        """Look whether the work is to end, and tell nothing.

        Raises
        ------
        StoppedError
            If so.
        """
        if self.should_stop():
            raise StoppedError("stopped before the first tile was corrected; start again")


SILENT = Progress()
