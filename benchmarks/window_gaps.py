"""How long napari's window waits at most while a large mosaic is opened, corrected and judged.

Run ``python benchmarks/window_gaps.py FOLDER_OF_TILES`` on a screen (Xvfb will do). A timer of
10 ms beats in the window's event loop; the longest gaps between two beats are printed for each
stage, with the time to the first corrected tiles. FOLDER_OF_TILES is for example of

    txm-bgcorr simulate mosaic --grid 31x31 --size 512 -o mosaic31
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

BEAT_MS = 10
LONGEST_S = 900


class Heart:
    """Beats in the event loop; remembers the gaps."""

    def __init__(self) -> None:
        self.timer = QTimer()
        self.timer.timeout.connect(self._beat)
        self.gaps: list[float] = []
        self.last = time.perf_counter()
        self.timer.start(BEAT_MS)

    def _beat(self) -> None:
        now = time.perf_counter()
        self.gaps.append(1000 * (now - self.last))
        self.last = now

    def during(self, stage: str, start: Callable[[], object], done: Callable[[], bool]) -> None:
        """Print the longest gaps from `start()` until `done()`."""
        self.gaps, self.last = [], time.perf_counter()
        began = self.last
        start()
        while not done() and time.perf_counter() - began < LONGEST_S:
            QApplication.processEvents()
            time.sleep(0.001)
        taken = time.perf_counter() - began
        for _ in range(30):
            QApplication.processEvents()
            time.sleep(0.01)
        worst = ", ".join(f"{gap:.0f}" for gap in sorted(self.gaps)[:-4:-1])
        print(f"| {stage} | {taken:.1f} | {worst} |", flush=True)


def main() -> None:
    """Open, correct, pan and zoom, measure the quality, choose tiles; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiles", type=Path)
    given = parser.parse_args()
    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    _, panel = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Background correction")
    heart = Heart()
    print("| stage | seconds | three longest gaps, ms |\n|---|---:|---|")
    heart.during("napari, idle", lambda: None, _after(3))
    busy = lambda: not (panel.busy or panel.finder.busy)  # noqa: E731
    heart.during("open in the panel", lambda: panel.open_paths([given.tiles]), busy)
    results = panel.book.results
    begun = lambda: bool(results()) and bool(results()[0].done.any())  # noqa: E731
    heart.during("Correct, until the first tiles", panel.correct_button.click, begun)
    heart.during("Correct, the rest", lambda: None, busy)
    heart.during("zoom and pan", lambda: _travel(viewer), _after(3))
    _, quality = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Mosaic quality")
    judged = lambda: not quality.busy and quality.model.quality is not None  # noqa: E731
    heart.during("measure the quality", quality.measure, judged)
    heart.during("sort the table", lambda: quality.table.sortByColumn(3, _down()), _after(1))
    heart.during("choose a tile", lambda: quality.select(480), _after(1))
    heart.during("remove all layers", viewer.layers.clear, _after(1))
    viewer.close()


def _down() -> object:
    from qtpy.QtCore import Qt

    return Qt.SortOrder.DescendingOrder


def _after(seconds: float) -> Callable[[], bool]:
    """True once so much time has passed since its first question."""
    end: list[float] = []

    def done() -> bool:
        end.append(time.perf_counter() + seconds)
        return time.perf_counter() >= end[0]

    return done


def _travel(viewer: napari.Viewer) -> None:
    """Zoom in by steps, with the window alive between."""
    for _ in range(12):
        viewer.camera.zoom *= 1.35
        QApplication.processEvents()


if __name__ == "__main__":
    main()
