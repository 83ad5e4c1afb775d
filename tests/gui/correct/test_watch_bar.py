"""The watch switch: new files are opened and corrected, one after the other."""

from __future__ import annotations

import shutil
from threading import Event

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_txm_bgcorr.gui.correct.watch_bar import KEPT, Arrived, Waits, watch_folder
from napari_txm_bgcorr.io.folder_watcher import Watcher

WAIT = 30_000


def write(path, seed=0):
    image = np.random.default_rng(seed).poisson(1000, (32, 32)).astype(np.uint16)
    part = path.with_name(f".{path.name}")
    tifffile.imwrite(part, image)
    part.rename(path)


@pytest.fixture
def watching(panel, tmp_path, monkeypatch, qtbot):
    monkeypatch.setattr("napari_txm_bgcorr.gui.correct.watch_bar.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(watch_folder, "__defaults__", (0.05,))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(tmp_path))
    write(tmp_path / "old.tif")
    panel.watch_bar.settle_s = 0.1
    qtbot.mouseClick(panel.watch_bar.button, Qt.MouseButton.LeftButton)
    qtbot.wait(300)
    yield panel
    panel.watch_bar.end()


def until(qtbot, panel, count):
    qtbot.waitUntil(lambda: panel.watch_bar.corrected >= count and not panel.busy, timeout=WAIT)


def test_new_files_are_corrected_and_old_ones_left_alone(watching, tmp_path, qtbot):
    assert watching.watch_bar.button.isChecked()
    write(tmp_path / "new.tif", 1)
    until(qtbot, watching, 1)
    names = [layer.name for layer in watching.viewer.layers]
    assert names == ["new raw", "new background", "new corrected"]
    said = watching.watch_bar.label.text()
    assert "1 corrected" in said and "s after it was complete" in said
    assert watching.watch_bar.latency_s >= 0


def test_older_layers_make_room(watching, tmp_path, qtbot):
    for k in range(KEPT + 2):
        write(tmp_path / f"tile{k}.tif", k)
        until(qtbot, watching, k + 1)
    names = {layer.name.split()[0] for layer in watching.viewer.layers}
    assert names == {f"tile{k}" for k in range(2, KEPT + 2)}


def test_a_bad_file_does_not_end_the_watch(watching, tmp_path, qtbot):
    (tmp_path / "broken.tif").write_bytes(b"II*\0 not an image")
    qtbot.waitUntil(lambda: "broken" in watching.watch_bar.label.text(), timeout=WAIT)
    write(tmp_path / "good.tif", 2)
    until(qtbot, watching, 1)


def test_switched_off_it_leaves_new_files_alone(watching, tmp_path, qtbot):
    qtbot.mouseClick(watching.watch_bar.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not watching.watch_bar.runner.busy, timeout=WAIT)
    write(tmp_path / "late.tif", 3)
    qtbot.wait(400)
    assert not watching.viewer.layers and watching.watch_bar.label.text() == ""


def test_a_folder_that_goes_away_is_said_once_and_comes_back(tmp_path):
    folder = tmp_path / "share"
    folder.mkdir()
    stop = Event()
    steps = watch_folder(Watcher(folder, settle_s=0.0, only_new=True), stop, 0.01)
    shutil.rmtree(folder)
    said = next(steps)
    assert isinstance(said, Waits) and "share" in said.text
    folder.mkdir()
    assert next(steps) == Waits("")  # what the first look finds is old
    write(folder / "new.tif")
    found = next(step for step in steps if isinstance(step, Arrived))
    assert found.arrival.path.name == "new.tif"
    stop.set()
    assert list(steps) == []
