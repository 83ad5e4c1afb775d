"""The window stays alive: the longest gap between two beats of its event loop during a run."""

import time

import numpy as np
import pytest
from qtpy.QtCore import QTimer

from tests.gui.helpers import make_scan

BEAT_MS = 10
LONGEST_GAP_MS = 500  # measured with one core to itself: 75 to 160
WAIT = 150_000


def one_layer_ms(viewer):
    """Time napari itself takes for one layer: the unit in which a loaded machine is slower."""
    began = time.perf_counter()
    viewer.add_image(np.zeros((8, 8)))
    spent = 1000 * (time.perf_counter() - began)
    viewer.layers.pop()
    return spent


class Heart:
    """A timer of 10 ms that notes the longest time between two of its beats."""

    def __init__(self, parent):
        self.longest_ms, self.beats = 0.0, 0
        self._last = time.perf_counter()
        self.timer = QTimer(parent)
        self.timer.setInterval(BEAT_MS)
        self.timer.timeout.connect(self._beat)
        self.timer.start()

    def _beat(self):
        now = time.perf_counter()
        self.longest_ms = max(self.longest_ms, 1000 * (now - self._last))
        self._last, self.beats = now, self.beats + 1


@pytest.mark.parametrize("method", ["tile-median", "network"])
def test_window_never_freezes_during_a_run(
    panel, qtbot, add_scan, method, monkeypatch, record_property
):
    import torch

    from napari_txm_bgcorr.backgrounds.registry import METHODS
    from tests.gui.helpers import Steady

    class Network(Steady):
        """Convolutions as heavy as the generator's, on every core torch takes."""

        name, workers = "network", 1

        def __init__(self):
            super().__init__()
            self.weights = torch.randn(24, 24, 3, 3)

        def fit(self, scan, progress=None):
            return self

        def background(self, tiles, index=None):
            with torch.inference_mode():
                for _ in tiles:
                    field = torch.randn(1, 24, 256, 256)
                    for _ in range(3):
                        field = torch.nn.functional.conv2d(field, self.weights, padding=1)
            return np.asarray(tiles, np.float32) + 1

    monkeypatch.setitem(METHODS, "network", Network)
    panel.session.method = method
    units = [one_layer_ms(panel.viewer) for _ in range(3)]
    add_scan(make_scan(grid=(6, 10), size=512, overlap=100))
    qtbot.wait(200)
    heart = Heart(panel)
    panel.correct_button.click()
    heart.longest_ms = 0.0  # the press itself is the user's doing
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    heart.timer.stop()
    record_property("longest_gap_ms", heart.longest_ms)
    print(f"{method}: longest gap {heart.longest_ms:.0f} ms over {heart.beats} beats")
    assert panel.status_label.text().startswith("Done: 60 tiles corrected")
    assert heart.longest_ms < max(LONGEST_GAP_MS, 5 * max(units))
