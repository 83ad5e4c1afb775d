"""Progress and cancelling of what looks at a whole scan before the first tile is corrected."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from napari_txm_bgcorr.errors import StoppedError

from .correction import BackgroundMethod
from .scan import LazyTiles, Scan

__all__ = ["SILENT", "Progress", "Watch", "fit_method"]

Progress = Callable[[str, int, int], Any]
"""`progress(stage, done, total)`: name of the stage, and how far it is; total 0: not known."""


def _nothing(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Watch:
    """Who is told how far a fit is, and who may end it.

    Attributes
    ----------
    progress : callable
        `progress(stage, done, total)`, called after every tile, pair of tiles or round of a
        stage, one call at a time but from any thread. What it raises ends the fit.
    should_stop : callable
        Asked before every tile, pair or round.
    """

    progress: Progress = _nothing
    should_stop: Callable[[], bool] = _never

    def step(self, stage: str, done: int, total: int) -> None:
        """Tell how far it is.

        Raises
        ------
        StoppedError
            If the fit is to end.
        """
        self.check()
        self.progress(stage, done, total)

    def part(self, k: int, count: int) -> Watch:
        """Watch of the k-th of `count` fits that take the same stages."""
        if count == 1:
            return self

        def progress(stage: str, done: int, total: int) -> None:
            self.progress(stage, k * total + done, count * total)

        return replace(self, progress=progress)

    def check(self) -> None:
        """Look whether the fit is to end, and tell nothing.

        Raises
        ------
        StoppedError
            If so.
        """
        if self.should_stop():
            raise StoppedError("stopped before the first tile was corrected; start again")


SILENT = Watch()


def fit_method(method: BackgroundMethod, scan: Scan, watch: Watch = SILENT) -> BackgroundMethod:
    """Fit any background method under a watch.

    A method with `fit_watched(scan, watch)` tells its own stages. Any other is followed by the
    tiles that it reads.

    Parameters
    ----------
    method : BackgroundMethod
    scan : Scan
    watch : Watch

    Returns
    -------
    BackgroundMethod
        The same, fitted.

    Raises
    ------
    MethodError
        If the method cannot work on this scan.
    StoppedError
        If the watch ended it.
    """
    watched = getattr(method, "fit_watched", None)
    if watched is not None:
        fitted: BackgroundMethod = watched(scan, watch)
        return fitted
    if watch is SILENT:
        return method.fit(scan)
    read = _Reads(scan, watch, f"preparing {method.name}")
    shape = tuple(int(n) for n in scan.tiles.shape)
    tiles = LazyTiles((shape[0], shape[1], shape[2]), scan.tiles.dtype, read)
    done = method.fit(replace(scan, tiles=tiles))
    read.over = True
    return done


class _Reads:
    """Counts tiles as they are read."""

    def __init__(self, scan: Scan, watch: Watch, stage: str) -> None:
        self.over = False
        self._scan, self._watch, self._stage = scan, watch, stage
        self._count, self._lock = 0, threading.Lock()

    def __call__(self, i: int) -> NDArray[Any]:
        if not self.over:
            self._watch.check()
        tile: NDArray[Any] = self._scan.tiles[i]
        if not self.over:
            with self._lock:
                self._count += 1
                self._watch.step(self._stage, self._count, 0)
        return tile
