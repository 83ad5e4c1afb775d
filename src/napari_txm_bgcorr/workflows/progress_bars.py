"""Progress of long work in the terminal: a bar for each stage, sentences above it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from napari_txm_bgcorr.core import SILENT, Progress

__all__ = ["Bars"]


class Bars:
    """Shows the stages of work while it lasts, on standard error.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._stage = ""
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the last bar."""
        self._close()

    @property
    def progress(self) -> Progress:
        """Progress that is shown by these bars."""
        return SILENT if self._quiet else Progress(self._tell, say=self._say)

    def _tell(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._close()
            self._stage = stage
            self._bar = tqdm(desc=stage, total=total or None, initial=done, leave=False)
        self._bar.total = total or None
        self._bar.update(done - self._bar.n)

    @staticmethod
    def _say(sentence: str) -> None:
        tqdm.write(sentence, file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
