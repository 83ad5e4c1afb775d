"""The switch that corrects what the microscope writes into a folder, scan after scan."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.gui.common.widgets import wrapped_label
from napari_txm_bgcorr.gui.common.worker import Runner
from napari_txm_bgcorr.io import Arrival, Watcher

__all__ = ["Arrived", "Waits", "WatchBar", "watch_folder"]

LOOK_EVERY_S = 1.0
TURN_MS = 200
KEPT = 3  # scans whose layers stay; older ones are removed


@dataclass(frozen=True, eq=False)
class Arrived:
    """A file is whole and new."""

    arrival: Arrival


@dataclass(frozen=True)
class Waits:
    """A file is incomplete, or the folder cannot be read: the reason; empty: neither."""

    text: str


def watch_folder(
    watcher: Watcher, stop: Event, every_s: float = LOOK_EVERY_S
) -> Iterator[Arrived | Waits]:
    """Look through a folder until stopped; what was there at the start is left alone."""
    told = ""
    while not stop.is_set():
        try:
            for arrival in watcher.poll():
                yield Arrived(arrival)
            waiting = next(iter(watcher.waiting.items()), None)
            text = "" if waiting is None else f"{waiting[0].name}: {waiting[1]}"
        except TxmError as error:  # a network share that is away for a while
            text = str(error)
        if text != told:
            told = text
            yield Waits(text)
        stop.wait(every_s)


class WatchBar(QWidget):
    """Button that starts and ends watching, and a line that says how it goes.

    Parameters
    ----------
    panel : CorrectWidget
        Opens and corrects what arrives; whatever is chosen in it applies.
    """

    def __init__(self, panel: Any) -> None:
        super().__init__()
        self.panel = panel
        self.folder: Path | None = None
        self.settle_s = 2.0
        self.runner = Runner(self)
        self.corrected = 0
        self.latency_s: float | None = None
        self._queue: deque[Arrival] = deque()
        self._current: Arrival | None = None
        self._layers: deque[list[Any]] = deque()
        self._before: set[int] = set()
        self._waits = ""
        self.button = QPushButton("Watch a folder…")
        self.button.setObjectName("watch_button")
        self.button.setCheckable(True)
        self.button.setToolTip(
            "Correct every new file in a folder, as soon as the microscope has written it"
        )
        self.label = wrapped_label("watch_label")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(self.label, 1)
        self.button.clicked.connect(self._clicked)
        self.runner.message.connect(self._hear)
        self._turn = QTimer(self)
        self._turn.setInterval(TURN_MS)
        self._turn.timeout.connect(self._next)
        self.destroyed.connect(self.runner.drop)

    def start(self, folder: Path) -> None:
        """Watch a folder; files that are in it already are not corrected."""
        self.folder = folder
        self.corrected, self.latency_s, self._waits = 0, None, ""
        self._queue.clear()
        watcher = Watcher(folder, settle_s=self.settle_s, only_new=True)
        self.runner.start(lambda stop, tell: watch_folder(watcher, stop))
        self.button.setChecked(True)
        self._turn.start()
        self._say()

    def end(self) -> None:
        """Stop watching; a correction under way goes on."""
        self.runner.cancel()
        self._turn.stop()
        self._queue.clear()
        self._current = None
        self.folder = None
        self.button.setChecked(False)
        self._say()

    def close_down(self) -> None:
        """Stop watching and wait for the thread."""
        self._turn.stop()
        self.runner.close()

    def _clicked(self, on: bool) -> None:
        if not on:
            self.end()
            return
        name = QFileDialog.getExistingDirectory(self, "Watch a folder")
        if name:
            self.start(Path(name))
        else:
            self.button.setChecked(False)

    def _hear(self, message: Arrived | Waits) -> None:
        if isinstance(message, Arrived):
            self._queue.append(message.arrival)
            self._next()
        else:
            self._waits = message.text
        self._say()

    def _next(self) -> None:
        """Note that a scan is done, and give the panel the next one."""
        if self.panel.busy:
            return
        if self._current is not None:
            self._done(self._current)
            self._current = None
        if self._queue:
            self._current = self._queue.popleft()
            self._make_room()
            self._before = {id(layer) for layer in self.panel.viewer.layers}
            self.panel.open_paths([self._current.path])
            self.panel.correct()
        self._say()

    def _done(self, arrival: Arrival) -> None:
        new = [each for each in self.panel.viewer.layers if id(each) not in self._before]
        self._layers.append(new)
        if any(each.name.endswith(" corrected") for each in new):
            self.corrected += 1
            self.latency_s = time.monotonic() - arrival.since

    def _make_room(self) -> None:
        layers = self.panel.viewer.layers
        while len(self._layers) >= KEPT:
            for layer in self._layers.popleft():
                if layer in layers:
                    layers.remove(layer)

    def _say(self) -> None:
        """Say how it goes in a line."""
        if self.folder is None:
            self.label.setText("")
            self.label.setToolTip("")
            return
        parts = [f"{self.folder.name}: {self.corrected} corrected"]
        if self.latency_s is not None:
            parts.append(f"the last {self.latency_s:.1f} s after it was complete")
        if self._queue:
            parts.append(f"{len(self._queue)} more to do")
        elif self._waits:
            parts.append(f"waiting for {self._waits}")
        self.label.setText(", ".join(parts))
        self.label.setToolTip(str(self.folder))
