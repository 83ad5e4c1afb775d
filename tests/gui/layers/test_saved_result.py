"""Finished outputs on disk, opened again: judged, redone and saved like the session's own."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.core.provenance import make_provenance
from napari_txm_bgcorr.gui.correct.messages import Opened, Reopened
from napari_txm_bgcorr.gui.correct.tasks import read_paths
from napari_txm_bgcorr.gui.hooks import get_reader, read_layers
from napari_txm_bgcorr.gui.layers import saved_result as opened_module
from napari_txm_bgcorr.gui.layers.convert import owner_of
from napari_txm_bgcorr.gui.layers.saved_result import OpenedResult, Revised, open_result
from napari_txm_bgcorr.gui.quality.overlays import CELLS, shown_results
from napari_txm_bgcorr.gui.quality.widget import QualityWidget
from napari_txm_bgcorr.io import open_output
from tests.gui.correct.test_widget import drop
from tests.gui.helpers import Steady, make_scan

WAIT = 30_000
FORMS = ("omezarr", "ometiff", "tiff")


class Free(Steady):
    """`Steady`, never held."""

    hold = Event()
    hold.set()


def write(folder: Path, form="omezarr", kind="mosaic", save=("raw", "background", "corrected"),
          **facts) -> Path:  # fmt: skip
    scan = make_scan(kind, grid=(3, 3), size=64, overlap=16, **facts)
    out = folder / ("sample corrected" + (".ome.zarr" if form == "omezarr" else ""))
    method = Free()
    provenance = make_provenance(scan, method, "cpu").to_dict()
    with open_output(out, form, scan, provenance, save=save) as writer:
        for tile in correct_tiles(scan, method):
            writer.write(tile)
        return writer.close_complete()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["mosaic", "series"])
def test_an_output_is_one_result_of_three_layers(tmp_path, form, kind):
    out = write(tmp_path, form, kind)
    (message,) = [m for m in read_paths([out], Event()) if isinstance(m, (Opened, Reopened))]
    result = message.result
    assert [layer[1]["name"] for layer in message.layers] == [
        f"sample {role}" for role in ("raw", "background", "corrected")
    ]
    assert result.complete and len(result) == len(result.scan) and result.scan.kind == kind
    for tile in correct_tiles(result.scan, Free()):
        mine = result.tile(tile.index)
        np.testing.assert_array_equal(mine.raw, tile.raw)
        np.testing.assert_array_equal(mine.background, tile.background)
        np.testing.assert_array_equal(mine.transmission, tile.transmission)
    assert np.isfinite(np.asarray(message.layers[2][0])).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_drop_on_the_canvas_gives_the_same_result(tmp_path, form, make_napari_viewer):
    out = write(tmp_path, form)
    assert get_reader(str(out)) is read_layers
    viewer = make_napari_viewer()
    viewer.open(str(out), plugin="napari-txm-bgcorr")
    (result,) = shown_results(viewer).values()
    assert isinstance(result, OpenedResult) and list(shown_results(viewer)) == ["sample, on disk"]


def test_what_is_incomplete_is_shown_part_by_part(tmp_path):
    out = write(tmp_path, save=("raw", "corrected"))
    found = [m for m in read_paths([out], Event()) if isinstance(m, (Opened, Reopened))]
    assert [type(m) for m in found] == [Opened, Opened]


def test_replaced_tiles_are_kept_here_and_not_on_the_disk(monkeypatch):
    stored = np.zeros((4, 5, 6), np.float32)
    monkeypatch.setattr(opened_module, "IN_MEMORY_BYTES", 5 * 6 * 4)  # more than one: the room
    tiles = Revised(stored)
    for i in (3, 0, 2):
        tiles[i] = np.full((5, 6), i + 1.0)
    assert [float(tiles[i].mean()) for i in range(4)] == [1, 0, 3, 4]
    assert tiles.replaced.tolist() == [True, False, True, True] and not stored.any()


def test_the_raw_layer_keeps_where_its_tiles_come_from(tmp_path):
    out = write(tmp_path)
    result = open_result(out)
    assert result.original.source.files and out in result.original.source.path.parents


def test_an_opened_output_can_be_saved_and_stitched(tmp_path):
    from napari.components import ViewerModel

    from napari_txm_bgcorr.gui.layers.manager import LayerBook

    book = LayerBook(ViewerModel())
    result = open_result(write(tmp_path))
    book.begin_opening()
    for _ in book.reopened(result.layers()):
        pass
    assert book.results() == [result]
    assert [layer.name for layer in book.viewer.layers.selection] == ["sample raw"]
    (info,) = book.selected_inputs()
    assert info.role == "raw" and info.scan is result.original
    ((raw, corrected),) = book.pairs()
    assert (raw.name, corrected.name) == ("sample raw", "sample corrected")


@pytest.fixture
def panel(make_napari_viewer, qtbot, steady):
    viewer = make_napari_viewer()
    widget = QualityWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Mosaic quality")
    yield widget
    widget.shut_down()


def until_idle(qtbot, panel):
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)


def press(qtbot, panel, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    until_idle(qtbot, panel)


@pytest.mark.parametrize("form", FORMS)
def test_a_dropped_output_is_judged_as_the_command_judges_it(panel, qtbot, tmp_path, form):
    from napari_txm_bgcorr.io.report import write_csv
    from napari_txm_bgcorr.workflows import measure_output

    out = write(tmp_path, form)
    drop(panel, out)
    until_idle(qtbot, panel)
    assert panel.result.path == out and panel.result_combo.currentText() == "sample, on disk"
    assert str(out) in panel.result_combo.toolTip()
    press(qtbot, panel, panel.measure_button)
    panel.export(tmp_path / "panel.csv")
    until_idle(qtbot, panel)
    _, gauge = measure_output(out)
    write_csv(tmp_path / "command.csv", gauge.table())
    assert (tmp_path / "panel.csv").read_bytes() == (tmp_path / "command.csv").read_bytes()
    panel.export(tmp_path / "page.html")
    until_idle(qtbot, panel)
    assert "steady" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_tiles_of_an_output_are_redone_here_and_saved_elsewhere(
    panel, qtbot, tmp_path, monkeypatch
):
    out = write(tmp_path)
    before = files(out)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(out))
    press(qtbot, panel, panel.open_button)
    press(qtbot, panel, panel.measure_button)
    panel.select(4)
    panel.method_combo.setCurrentIndex(panel.method_combo.findData("smooth"))
    assert "stays as it is" in panel.redo_button.toolTip()
    old = np.array(panel.result.background[:])
    press(qtbot, panel, panel.redo_button)
    assert "1 tile redone" in panel.status_label.text()
    changed = [i for i in range(9) if not np.array_equal(old[i], panel.result.background[i])]
    assert changed == [4] and files(out) == before
    from napari_txm_bgcorr.gui.correct.tasks import save_results

    list(save_results([panel.result], tmp_path / "new", "omezarr", False, Event()))
    saved = open_result(tmp_path / "new" / "sample corrected.ome.zarr")
    np.testing.assert_array_equal(saved.background[4], panel.result.background[4])
    assert saved.provenance["redone"][0]["tiles"] == [4]


def test_without_the_dark_of_the_correction_nothing_is_redone(panel, qtbot, tmp_path):
    out = write(tmp_path, darks=np.full((1, 64, 64), 20, np.uint16))
    drop(panel, out)
    until_idle(qtbot, panel)
    press(qtbot, panel, panel.measure_button)
    panel.select(4)
    assert not panel.redo_button.isEnabled() and "dark" in panel.redo_button.toolTip()


def test_every_overview_is_drawn_anew_when_it_is_complete(
    make_napari_viewer, qtbot, tmp_path, monkeypatch
):
    from napari_txm_bgcorr.gui.correct import widget as correct_widget
    from napari_txm_bgcorr.gui.layers import canvas

    monkeypatch.setattr(correct_widget, "find_choices", lambda stop: iter([]))
    monkeypatch.setattr(canvas, "MULTISCALE_ABOVE_PX", 48)
    monkeypatch.setattr(canvas, "COARSEST_PX", 10)
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Background correction")
    widget.open_paths([write(tmp_path)])
    qtbot.waitUntil(lambda: len(viewer.layers) == 3 and not widget.busy, timeout=WAIT)
    for layer in viewer.layers:
        assert layer.multiscale and np.asarray(layer.data[-1]).all()
        assert (layer.thumbnail[..., :3] > 0).any(), layer.name
    widget.shut_down()


def test_what_is_no_output_is_said(panel, qtbot, tmp_path):
    drop(panel, tmp_path)
    until_idle(qtbot, panel)
    assert "no output of txm-bgcorr correct" in panel.status_label.text()
    assert panel.result is None and panel.open_button.isEnabled()


def test_figures_go_when_another_result_is_chosen(panel, qtbot, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        drop(panel, write(tmp_path / name))
        until_idle(qtbot, panel)
    first, second = (panel.result_combo.itemText(i) for i in (0, 1))
    assert second == f"{first} (2)"
    press(qtbot, panel, panel.measure_button)
    assert CELLS in panel.viewer.layers
    panel.result_combo.setCurrentIndex(0)
    assert panel.model.quality is None and CELLS not in panel.viewer.layers
    assert owner_of(panel.overlay._corrected) is panel.result
