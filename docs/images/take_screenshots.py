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
    viewer.close()


if __name__ == "__main__":
    data = Path(sys.argv[1])
    chosen = sys.argv[2] if len(sys.argv) > 2 else "auto"
    session(data / "bl01b_sb_2x2", chosen, "mosaic")
    session(data / "xradia" / "txrm_test_chip_tomo.txrm", "tile-median", "series")
    session(data / "xradia" / "test_chip00.xrm", "captured", "single", theme="light")
