"""The quality panel: measure, sort, choose a tile by table or canvas, redo it, export."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_txm_bgcorr.core.provenance import make_provenance
from napari_txm_bgcorr.gui.layers.convert import result_layers
from napari_txm_bgcorr.gui.layers.result import Result
from napari_txm_bgcorr.gui.layers.view import camera_of
from napari_txm_bgcorr.gui.quality.overlays import CELLS, CHOSEN, OUTLINES
from napari_txm_bgcorr.gui.quality.widget import DEFAULT_COLOUR, QualityWidget
from tests.gui.helpers import Steady, make_scan

WAIT = 30_000
LIMITS = (0.0, 2000.0)
ODD = 4  # the tile in the middle, whose background is wrong


def corrected(kind="mosaic", name="sample"):
    """A result whose middle tile has a tilted background."""
    from napari_txm_bgcorr.core.correction import TileResult, divide

    scan = make_scan(kind, grid=(3, 3), size=64, overlap=16, name=name)
    result = Result(scan, name)
    y, x = np.mgrid[:64, :64] / 64
    background = (1000 * (1 + 0.3 * np.sin(3 * x) * np.cos(2 * y))).astype(np.float32)
    for i in range(len(scan)):
        own = (
            background * (1 + 0.4 * x if i == ODD else 1).astype("f4") if i == ODD else background
        )
        done = divide(np.asarray(scan.tiles[i]), own.astype(np.float32))
        result.put(TileResult(i, scan.tiles[i], own, done.transmission, done.valid))
    result.finish(make_provenance(scan, Steady(), "cpu").to_dict())
    return result


def show(viewer, result):
    from napari.layers import Layer

    place = {"scale": (0.0293, 0.0293), "units": ("um", "um")}
    if result.scan.kind == "series":
        place = {"scale": (1, 0.0293, 0.0293)}
    for layer in result_layers(result, place, LIMITS):
        viewer.add_layer(Layer.create(*layer))


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def panel(viewer, qtbot, steady):
    widget = QualityWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Mosaic quality")
    yield widget
    steady.hold.set()
    widget.shut_down()


def until_idle(qtbot, panel):
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)


def press(qtbot, panel, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    until_idle(qtbot, panel)


@pytest.fixture
def measured(panel, viewer, qtbot):
    show(viewer, corrected())
    press(qtbot, panel, panel.measure_button)
    return panel


def test_without_a_result_it_says_what_to_do(panel):
    assert "Correct a mosaic" in panel.status_label.text()
    assert not panel.measure_button.isEnabled() and not panel.redo_button.isEnabled()


def test_measuring_fills_the_table_and_colours_the_tiles(measured, viewer):
    quality = measured.model.quality
    assert measured.sorted.rowCount() == 9 and quality.measured.all()
    worst = int(np.nanargmax(quality.seam_shape))
    assert worst == ODD
    assert measured.colour_combo.currentData() == DEFAULT_COLOUR and CELLS in viewer.layers
    picture = viewer.layers[CELLS].data
    middle = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    assert middle == pytest.approx(100 * quality.seam_after[ODD], rel=1e-5)
    assert "tiles are flagged" in measured.status_label.text()


def test_rows_sort_by_value_not_by_text(measured):
    column = 2 + measured.model.columns.index("seam_after")
    measured.table.sortByColumn(column, Qt.SortOrder.DescendingOrder)
    order = [measured.sorted.mapToSource(measured.sorted.index(r, 0)).row() for r in range(9)]
    values = measured.model.quality.seam_after[order]
    assert (np.diff(values) <= 0).all() and values[0] > values[-1]


def test_flagged_only_hides_the_others(measured):
    flagged = sum(bool(measured.model.flagged(i)) for i in range(9))
    measured.flagged_box.setChecked(True)
    assert measured.sorted.rowCount() == flagged
    measured.flagged_box.setChecked(False)
    assert measured.sorted.rowCount() == 9


def test_a_click_on_the_canvas_selects_the_row_and_frames_the_tile(measured, viewer):
    class Event:
        type, pos = "mouse_press", (100, 100)

    viewer.window._qt_window.show()
    viewer.cursor.position = tuple(c * 0.0293 for c in (56 + 24, 56 + 24))
    event = Event()
    steps = measured._clicked(viewer, event)
    next(steps)
    event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(steps)
    assert measured.selected() == [4]  # the middle of the canvas is the middle tile
    assert viewer.layers[CHOSEN].data.shape == (4, 2, 2)
    dragged = measured._clicked(viewer, event := Event())
    next(dragged)
    event.type, event.pos = "mouse_release", (150, 100)
    viewer.cursor.position = (0.1, 0.1)
    with pytest.raises(StopIteration):
        next(dragged)
    assert measured.selected() == [4]  # a drag moves the picture and chooses nothing
    viewer.window._qt_window.hide()


def test_a_chosen_row_brings_its_tile_into_view(measured, viewer):
    camera = camera_of(viewer)
    camera.center = (0, 99, 99)
    measured.overlay.jump_to(0)
    corner = measured.overlay._layout.corners[0] + 31.5
    np.testing.assert_allclose(camera.center[-2:], corner * 0.0293, atol=0.0293)


def test_other_tiles_and_figures_take_the_layers_that_are_there(viewer, qtbot, steady):
    show(viewer, corrected())
    _, panel = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Mosaic quality")
    press(qtbot, panel, panel.measure_button)
    panel.select(4)
    cells, chosen = viewer.layers[CELLS], viewer.layers[CHOSEN]
    before, frame = np.array(cells.data), np.array(chosen.data)
    panel.select(0)
    panel.colour_combo.setCurrentIndex(1 + (panel.colour_combo.currentIndex() == 1))
    assert viewer.layers[CELLS] is cells and viewer.layers[CHOSEN] is chosen
    assert not np.array_equal(cells.data, before, equal_nan=True)
    assert not np.array_equal(chosen.data, frame) and chosen.data.shape == frame.shape
    assert cells.metadata["figure"] in panel.colour_combo.currentText()
    panel.table.clearSelection()
    assert CHOSEN not in viewer.layers
    panel.shut_down()


def test_outlines_come_and_go(measured, viewer):
    measured.outline_box.setChecked(True)
    assert viewer.layers[OUTLINES].data.shape == (36, 2, 2)
    measured.outline_box.setChecked(False)
    assert OUTLINES not in viewer.layers


def test_redone_tiles_are_replaced_and_no_others(measured, viewer, qtbot):
    result = measured.result
    before = np.array(result.background)
    measured.select(ODD)
    measured.method_combo.setCurrentIndex(measured.method_combo.findData("smooth"))
    press(qtbot, measured, measured.redo_button)
    changed = [i for i in range(9) if not np.array_equal(before[i], result.background[i])]
    assert changed == [ODD]
    note = result.provenance["redone"][0]
    assert note["tiles"] == [ODD] and note["method"] == "smooth"
    assert measured.model.quality is None and CELLS not in viewer.layers  # figures of old tiles
    old_bend = 0.05
    press(qtbot, measured, measured.measure_button)
    assert measured.model.quality.seam_shape[ODD] < old_bend


def test_redoing_with_the_joint_stage_goes_over_all_tiles(measured, qtbot):
    result = measured.result
    measured.select(ODD)
    measured.method_combo.setCurrentIndex(measured.method_combo.findData("smooth"))
    measured.joint_box.setChecked(True)
    press(qtbot, measured, measured.redo_button)
    assert [len(row["tiles"]) for row in result.provenance["redone"]] == [1, 9]
    assert "joint" in result.provenance["redone"][1]["parameters"]


def test_redoing_takes_the_model_that_is_in_use(measured, viewer, qtbot, monkeypatch):
    from napari_txm_bgcorr.gui.correct import widget as correct_widget
    from napari_txm_bgcorr.gui.quality import widget as quality_widget

    asked = []
    monkeypatch.setattr(quality_widget, "redo_tiles", lambda redo, *_: asked.append(redo) or ())
    monkeypatch.setattr(correct_widget, "find_choices", lambda stop: iter([]))
    measured.result.provenance["parameters"]["model"] = "mine"
    measured.select(ODD)
    press(qtbot, measured, measured.redo_button)
    panel = correct_widget.CorrectWidget(viewer)
    viewer.window.add_dock_widget(panel)
    panel.session.model, panel.session.device = "today", "cpu"
    press(qtbot, measured, measured.redo_button)
    assert [(redo.model, redo.indices) for redo in asked] == [("mine", (ODD,)), ("today", (ODD,))]
    assert asked[1].device == "cpu"
    panel.shut_down()


def test_a_method_that_fails_is_said_and_changes_nothing(measured, qtbot):
    before = np.array(measured.result.background)
    measured.select(ODD)
    measured.method_combo.setCurrentIndex(measured.method_combo.findData("captured"))
    press(qtbot, measured, measured.redo_button)  # there is no reference
    assert "reference" in measured.status_label.text()
    np.testing.assert_array_equal(before, measured.result.background)
    assert measured.model.quality is not None and measured.redo_button.isEnabled()


def test_export_writes_table_and_page(measured, qtbot, tmp_path):
    measured.export(tmp_path / "quality.csv")
    until_idle(qtbot, measured)
    with (tmp_path / "quality.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 10
    measured.export(tmp_path / "quality.html")
    until_idle(qtbot, measured)
    page = (tmp_path / "quality.html").read_text(encoding="utf-8")
    assert "data:image/png" in page and "steady" in page
    measured.export(tmp_path / "no" / "such" / "quality.csv")
    until_idle(qtbot, measured)
    assert "quality.csv" in measured.status_label.text()


def test_removing_the_layers_empties_the_panel(measured, viewer):
    measured.outline_box.setChecked(True)
    for name in ("sample background", "sample corrected"):
        viewer.layers.remove(name)
    assert measured.result is None and measured.sorted.rowCount() == 0
    assert not [n for n in (CELLS, CHOSEN, OUTLINES) if n in viewer.layers]


def test_a_series_has_a_table_and_no_canvas_of_tiles(panel, viewer, qtbot):
    show(viewer, corrected_series())
    press(qtbot, panel, panel.measure_button)
    assert panel.sorted.rowCount() == 5 and CELLS not in viewer.layers
    panel.overlay.jump_to(3)
    assert viewer.dims.current_step[0] == 3


def corrected_series():
    from napari_txm_bgcorr.core.correction import correct_tiles

    scan = make_scan("series", size=64)
    result = Result(scan, "turn")
    method = Steady()
    for tile in correct_tiles(scan, method):
        result.put(tile)
    result.finish(make_provenance(scan, method, "cpu").to_dict())
    return result


def test_cancelling_keeps_the_panel_usable(panel, viewer, qtbot):
    show(viewer, corrected())
    panel.measure()
    panel.runner.cancel()
    until_idle(qtbot, panel)
    assert panel.measure_button.isEnabled() and not panel.cancel_button.isEnabled()
    press(qtbot, panel, panel.measure_button)
    assert panel.model.quality is not None
