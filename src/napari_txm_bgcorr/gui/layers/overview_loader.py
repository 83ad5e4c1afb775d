"""Overviews of what napari itself opens: drawn beside the window, while layers are on show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from napari.utils.notifications import show_error
from napari.viewer import Viewer, current_viewer
from qtpy.QtCore import QObject, QTimer

from napari_txm_bgcorr.gui.common.blocking_call import somebody_looks
from napari_txm_bgcorr.gui.common.messages import Failed
from napari_txm_bgcorr.gui.common.worker import Runner

from .convert import draw_thumbnail, owner_of
from .overview import draw_overview

__all__ = ["FillIn", "fill_in"]

REFRESH_S = 0.2
SHARE = 8  # so many times longer than a refresh takes passes until the next one

_at_work: set[FillIn] = set()


def fill_in(owners: tuple[Any, ...], subject: str, count: int, fill: Iterator[int]) -> None:
    """Draw an overview: in a thread if an event loop serves the window, else before returning.

    Parameters
    ----------
    owners : tuple
        Scans and results whose layers show it, as `convert.owner_of` gives them.
    subject : str
        What an error is about.
    count : int
        Steps of `fill`.
    fill : iterator
        Draws a tile at each step.

    Raises
    ------
    TxmError
        Without an event loop, as `fill` raises it; with one it is shown as a notification.
    """
    if somebody_looks():
        _at_work.add(FillIn(owners, subject, count, fill))
        return
    for _ in fill:
        pass


class FillIn(QObject):
    """Draws one overview in a thread and refreshes its layers; ends with the last of them.

    Parameters are those of `fill_in`.
    """

    def __init__(
        self, owners: tuple[Any, ...], subject: str, count: int, fill: Iterator[int]
    ) -> None:
        super().__init__()
        self._owners = owners
        self._viewer: Viewer | None = None
        self._window: QObject | None = None
        self._due_s = 0.0
        self._runner = Runner(self)
        self._runner.message.connect(self._hear)
        self._runner.ended.connect(self._ended)
        self._task = lambda stop, tell: draw_overview(subject, count, fill, stop)
        # when napari has made the layers: the two would fight for Python's lock
        QTimer.singleShot(0, self._start)

    def _start(self) -> None:
        if self in _at_work:
            self._runner.start(self._task)

    def _layers(self) -> list[Any]:
        """Layers that show the overview."""
        viewer = self._viewer or current_viewer()
        if viewer is None:
            return []
        found = [
            layer
            for layer in viewer.layers
            if any(owner_of(layer) is owner for owner in self._owners)
        ]
        if found and self._viewer is None:
            self._viewer = viewer
            viewer.layers.events.removed.connect(self._look)
            window = self._window = viewer.window._qt_window
            window.destroyed.connect(self._end)
        return found

    def _look(self, event: Any = None) -> None:
        if not self._layers():
            self._end()

    def _hear(self, message: object) -> None:
        if isinstance(message, Failed):
            show_error(str(message.error))
        layers = self._layers()
        if time.monotonic() < self._due_s:
            return
        began = time.monotonic()
        for layer in layers:
            if layer.visible:
                layer.refresh()
        spent = time.monotonic() - began
        self._due_s = began + max(REFRESH_S, SHARE * spent)

    def _ended(self, broken: bool) -> None:
        for layer in self._layers():
            if layer.visible:
                layer.refresh()
            draw_thumbnail(layer)
        self._end()

    def _end(self, *ignored: Any) -> None:
        """Stop, and let go of viewer and layers."""
        if self._viewer is not None:
            self._viewer.layers.events.removed.disconnect(self._look)
        if self._window is not None:
            with suppress(RuntimeError, TypeError):  # Qt has deleted the window
                self._window.destroyed.disconnect(self._end)
        self._viewer = self._window = None
        self._runner.close()
        _at_work.discard(self)
