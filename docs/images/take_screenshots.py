"""Take the pictures of the panel for the documentation, from real tiles.

Run on a screen of 1366 x 768 pixels (`Xvfb :1 -screen 0 1366x768x24` will do):

    python docs/images/take_screenshots.py FOLDER_OF_REAL_DATA [METHOD]
"""

import sys
import time
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

HERE = Path(__file__).parent
LONGEST_S = 300


def wait(panel) -> None:
    """Let the window live until the panel has nothing left to do."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        QApplication.processEvents()
        if not (panel.busy or panel.finder.busy):
            break
        time.sleep(0.01)
    for _ in range(20):
        QApplication.processEvents()
        time.sleep(0.02)


def session(path: Path, method: str, name: str, theme: str = "dark") -> None:
    """Open a path, correct it, and take a picture before and after."""
    viewer = napari.Viewer()
    viewer.theme = theme
    viewer.window.resize(1366, 768)
    _, panel = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Background correction")
    panel.method_combo.setCurrentIndex(panel.method_combo.findData(method))
    panel.open_paths([path])
    wait(panel)
    viewer.screenshot(str(HERE / f"{name}-raw.png"), canvas_only=False, flash=False)
    panel.correct_button.click()
    wait(panel)
    viewer.screenshot(str(HERE / f"{name}-corrected.png"), canvas_only=False, flash=False)
    print(name, panel.status_label.text())
    if len(panel.book.results()[0]) > 2 and name == "mosaic":
        judge(viewer)
    viewer.close()


def judge(viewer: napari.Viewer) -> None:
    """Measure the result in the panel "Mosaic quality" and take a picture."""
    _, panel = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Mosaic quality")
    panel.measure()
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end and (panel.busy or panel.model.quality is None):
        QApplication.processEvents()
        time.sleep(0.01)
    panel.outline_box.setChecked(True)
    panel.select(0)
    for _ in range(40):
        QApplication.processEvents()
        time.sleep(0.02)
    viewer.screenshot(str(HERE / "quality.png"), canvas_only=False, flash=False)


if __name__ == "__main__":
    data = Path(sys.argv[1])
    chosen = sys.argv[2] if len(sys.argv) > 2 else "auto"
    session(data / "bl01b_sb_2x2", chosen, "mosaic")
    session(data / "xradia" / "txrm_test_chip_tomo.txrm", "auto", "series")
    session(data / "xradia" / "test_chip00.xrm", "captured", "single", theme="light")
