"""Stitching from the panel: one picture a part, saved, shown as multiscale, never corrected."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_txm_bgcorr.gui.layers.stitched import read_stitched
from tests.gui.helpers import make_scan

WAIT = 30_000
NAMES = [f"sample stitched {part}" for part in ("raw", "background", "corrected")]


def press(qtbot, panel, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(tmp_path))
    return tmp_path


@pytest.fixture
def stitched(panel, add_scan, qtbot, folder):
    add_scan(make_scan(grid=(2, 2), size=64, overlap=16))
    assert not panel.save_bar.stitch_button.isEnabled()
    press(qtbot, panel, panel.correct_button)
    press(qtbot, panel, panel.save_bar.stitch_button)
    return panel


def test_a_corrected_mosaic_becomes_one_picture_a_part(stitched, folder):
    layers = stitched.viewer.layers
    assert [name for name in NAMES if name in layers] == NAMES
    assert (folder / "sample stitched.ome.zarr" / "zarr.json").is_file()
    picture = layers[NAMES[2]]
    tiles = layers["sample corrected"]
    assert abs(np.subtract(picture.data.shape, tiles.data.shape)).max() <= 32  # registered
    np.testing.assert_allclose(picture.scale, tiles.scale)
    assert picture.visible and not layers[NAMES[0]].visible
    raw = np.asarray(layers[NAMES[0]].data)
    inner = np.asarray(picture.data)[20:-20, 20:-20]
    assert raw.dtype == np.uint16 and np.isfinite(inner).all() and 0.1 < inner.mean() < 2


def test_a_stitched_picture_is_refused_as_input(stitched):
    layers = stitched.viewer.layers
    layers.selection = {layers[NAMES[0]]}
    stitched.correct()
    assert "stitched picture" in stitched.status_label.text()


def test_dropping_a_stitched_mosaic_shows_its_parts(stitched, folder, qtbot):
    stitched.viewer.layers.clear()
    stitched.open_paths([folder / "sample stitched.ome.zarr"])
    qtbot.waitUntil(lambda: not stitched.busy, timeout=WAIT)
    assert [layer.name for layer in stitched.viewer.layers] == NAMES
    assert len(read_stitched(folder / "sample stitched.ome.zarr")) == 3


def test_nothing_is_replaced_without_asking(stitched, folder, qtbot, monkeypatch):
    place = folder / "sample stitched.ome.zarr" / "zarr.json"
    before = place.stat().st_mtime_ns
    asked = []
    answers = iter([QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes])
    monkeypatch.setattr(QMessageBox, "question", lambda *a: asked.append(a[-1]) or next(answers))
    press(qtbot, stitched, stitched.save_bar.stitch_button)
    assert "sample stitched" in asked[0] and place.stat().st_mtime_ns == before
    press(qtbot, stitched, stitched.save_bar.stitch_button)
    assert place.stat().st_mtime_ns != before
    assert [name for name in NAMES if name in stitched.viewer.layers] == NAMES


def test_a_series_has_nothing_to_stitch(panel, add_scan, qtbot):
    add_scan(make_scan("series"))
    press(qtbot, panel, panel.correct_button)
    assert panel.save_button.isEnabled() and not panel.save_bar.stitch_button.isEnabled()
