"""The demonstration behind `make demo`: simulate, correct, look.

Simulates a 5 x 5 mosaic session of a drifting microscope, corrects it with the shipped model from
the command line, then opens napari on the raw mosaic and presses Correct in the panel. Without a
display napari runs under Xvfb and pictures of its window are left in `demo/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo"
MOSAIC = DEMO / "mosaic-m5x5"
CORRECTED = DEMO / "mosaic-corrected.ome.zarr"
COMMAND = [sys.executable, "-c", "from napari_txm_bgcorr.cli import main; main()"]
LONGEST_WAIT_S = 300


def prepare() -> None:
    """Simulate and correct, unless an earlier run has done it."""
    DEMO.mkdir(exist_ok=True)
    if not MOSAIC.exists():
        run("simulate", "mosaic", "--grid", "5x5", "--seed", "7", "-o", MOSAIC)
    if not CORRECTED.exists():
        run("correct", MOSAIC, "-o", CORRECTED)


def run(*arguments: object) -> None:
    """Run one txm-bgcorr command and show it as a user would type it."""
    words = [str(a.relative_to(ROOT)) if isinstance(a, Path) else str(a) for a in arguments]
    print("$ txm-bgcorr", *words, flush=True)
    done = subprocess.run([*COMMAND, *words], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def has_display() -> bool:
    """Whether a window can be shown here."""
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def under_xvfb() -> int:
    """Run this script again on a virtual screen."""
    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        sys.exit("demo: no display and no xvfb-run; run: sudo apt-get install xvfb xauth")
    environment = {**os.environ, "LIBGL_ALWAYS_SOFTWARE": "1", "TXM_DEMO_PICTURES": "1"}
    environment.pop("WAYLAND_DISPLAY", None)
    screen = ["-a", "-s", "-screen 0 1366x768x24"]
    return subprocess.run([xvfb, *screen, sys.executable, __file__], env=environment).returncode


def show(pictures: bool) -> None:
    """Open napari on the mosaic and press Correct; take pictures where nobody can look."""
    import napari
    from qtpy.QtWidgets import QPushButton

    viewer = napari.Viewer(title="napari-txm-bgcorr demo")
    viewer.window.resize(1366, 768)
    viewer.open(str(MOSAIC), plugin="napari-txm-bgcorr")
    _, panel = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Background correction")
    if not pictures:
        panel.findChild(QPushButton, "correct_button").click()
        napari.run()
        return
    take(viewer, "1-raw.png")
    panel.findChild(QPushButton, "correct_button").click()
    wait_until(panel.findChild(QPushButton, "correct_button").isEnabled)
    viewer.reset_view()
    take(viewer, "2-corrected.png")
    viewer.close()


def wait_until(done: object) -> None:
    """Serve the window's events until `done()` is true."""
    from qtpy.QtWidgets import QApplication

    started = time.monotonic()
    pause_until = started + 1.0  # the run has begun by then
    while time.monotonic() < pause_until or not done():  # type: ignore[operator]
        QApplication.processEvents()
        time.sleep(0.01)
        if time.monotonic() - started > LONGEST_WAIT_S:
            sys.exit(f"demo: the correction did not end within {LONGEST_WAIT_S} s")


def take(viewer: object, name: str) -> None:
    """Leave a picture of the whole window in demo/."""
    from qtpy.QtWidgets import QApplication

    for _ in range(20):
        QApplication.processEvents()
        time.sleep(0.05)
    path = DEMO / name
    viewer.screenshot(str(path), canvas_only=False, flash=False)  # type: ignore[attr-defined]
    print(path.relative_to(ROOT), flush=True)


if __name__ == "__main__":
    if os.environ.get("TXM_DEMO_PICTURES"):
        show(pictures=True)
    else:
        prepare()
        if has_display():
            show(pictures=False)
        else:
            sys.exit(under_xvfb())
