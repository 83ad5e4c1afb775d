"""Take the pictures of the training panel for the documentation, from a short real training.

Run on a screen of 1366 x 768 pixels (`Xvfb :1 -screen 0 1366x768x24` will do):

    txm-bgcorr simulate series --projections 2 --family bl01b --references 5 -o /tmp/today
    python docs/images/take_training_screenshots.py /tmp/today/references [MINUTES]
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

HERE = Path(__file__).parent
LONGEST_S = 900


def wait(done) -> None:
    """Let the window live until `done()`, and a moment longer."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end and not done():
        QApplication.processEvents()
        time.sleep(0.02)
    for _ in range(50):
        QApplication.processEvents()
        time.sleep(0.02)


def session(references: Path, minutes: float) -> None:
    """Fine-tune for a while, stop, use the model; take a picture at each stage."""
    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    _, panel = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Train background model")

    def take(name: str) -> None:
        place = HERE / f"train-{name}.png"
        viewer.screenshot(str(place), canvas_only=False, flash=False)
        print(name, panel.status_label.text())

    wait(lambda: not (panel.busy or panel.finder.busy))
    panel.add_paths([references])
    wait(lambda: not panel.busy)
    take("start")
    panel.form.minutes.setValue(minutes)
    panel.form.more.setText("validate_every=4 log_every=1")  # curves within few steps
    panel.start_button.click()

    def half_way() -> bool:
        status = panel.control.status
        return not panel.control.live or (status is not None and status.progress > 0.5)

    wait(half_way)
    take("running")
    panel.stop_button.click()
    wait(lambda: not panel.control.live)
    take("stopped")
    panel.use_model_button.click()
    wait(lambda: True)
    take("used")
    viewer.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TXM_BGCORR_RUNS"] = folder
        session(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 5.0)
