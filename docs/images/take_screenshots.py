"""Take the pictures of the panel for the documentation, from real tiles.

Run on a screen of 1366 x 768 pixels (`Xvfb :1 -screen 0 1366x768x24` will do):

    python docs/images/take_screenshots.py FOLDER_OF_REAL_DATA [METHOD]
    python docs/images/take_screenshots.py --large FOLDER_OF_TILES

The second takes those of a large mosaic, for example of

    txm-bgcorr simulate mosaic --grid 31x31 --size 256 --family bl01b --covered-rows 3 \\
        --seed 12 -o mosaic31
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


def large(path: Path) -> None:
    """Take pictures of a mosaic before, amid and after its correction, and of its quality."""
    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    _, panel = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Background correction")

    def take(name: str) -> None:
        viewer.screenshot(str(HERE / f"{name}.png"), canvas_only=False, flash=False)
        print(name, panel.status_label.text(), flush=True)

    panel.open_paths([path])
    wait(panel)
    take("mosaic31-raw")
    panel.correct_button.click()
    results = panel.book.results
    live(lambda: bool(results()) and results()[0].done.mean() > 0.5)
    take("mosaic31-running")
    wait(panel)
    take("mosaic31-corrected")
    _, quality = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Mosaic quality")
    quality.measure()
    live(lambda: not quality.busy and quality.model.quality is not None)
    quality.select(quality.sorted.mapToSource(quality.sorted.index(0, 0)).row())
    live(lambda: False, seconds=1)
    take("quality31")
    viewer.close()


def live(done, seconds: float = LONGEST_S) -> None:
    """Let the window live until `done()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not done():
        QApplication.processEvents()
        time.sleep(0.01)


def judge(viewer: napari.Viewer) -> None:
    """Measure the result in the panel "Mosaic quality" and take a picture."""
    _, panel = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Mosaic quality")
    panel.measure()
    live(lambda: not panel.busy and panel.model.quality is not None)
    panel.outline_box.setChecked(True)
    panel.select(0)
    for _ in range(40):
        QApplication.processEvents()
        time.sleep(0.02)
    viewer.screenshot(str(HERE / "quality.png"), canvas_only=False, flash=False)


if __name__ == "__main__":
    if sys.argv[1] == "--large":
        large(Path(sys.argv[2]))
        sys.exit()
    data = Path(sys.argv[1])
    chosen = sys.argv[2] if len(sys.argv) > 2 else "auto"
    session(data / "bl01b_sb_2x2", chosen, "mosaic")
    session(data / "xradia" / "txrm_test_chip_tomo.txrm", "auto", "series")
    session(data / "xradia" / "test_chip00.xrm", "captured", "single", theme="light")
