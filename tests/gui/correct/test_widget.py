"""The panel as a user meets it: drop, Correct, three layers; cancel, errors, saving, closing."""

from dataclasses import replace

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QComboBox, QFileDialog, QMessageBox, QPushButton, QWidget

from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.core.pedestal import ASKED, with_pedestal
from napari_txm_bgcorr.gui.common import worker
from napari_txm_bgcorr.gui.layers.convert import owner_of
from napari_txm_bgcorr.io import from_aperture
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic
from tests.gui.helpers import make_scan

WAIT = 30_000


def drop(widget, *paths):
    """Drop paths as Qt delivers it."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    action, left, none = (
        Qt.DropAction.CopyAction,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    enter = QDragEnterEvent(QPoint(5, 5), action, mime, left, none)
    QApplication.sendEvent(widget, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(widget, QDropEvent(QPointF(5, 5), action, mime, left, none))


def press(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def until_idle(qtbot, panel):
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)


def layer(panel, name):
    return panel.viewer.layers[name]


def names(panel):
    return [each.name for each in panel.viewer.layers]


def messages_since(count):
    return [record.message for record in notification_manager.records[count:]]


def test_drop_a_folder_press_correct_get_three_layers(panel, qtbot, txm_data):
    drop(panel.drop_zone, txm_data / "bl01b_sb_2x2")
    until_idle(qtbot, panel)
    assert names(panel) == ["bl01b_sb_2x2 raw"]
    assert "mosaic of 2 x 2 tiles" in panel.input_label.text()
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert names(panel) == [f"bl01b_sb_2x2 {r}" for r in ("raw", "background", "corrected")]
    raw, background, corrected = panel.viewer.layers
    for each, role in zip(panel.viewer.layers, ("raw", "background", "corrected"), strict=True):
        assert each.metadata["txm_bgcorr"]["role"] == role
        np.testing.assert_array_equal(each.scale, raw.scale)
        np.testing.assert_array_equal(each.translate, raw.translate)
        assert each.units == raw.units and each.data.shape == (921, 921)
    assert str(raw.units[0]) == "micrometer" and raw.scale[0] == pytest.approx(0.0292969)
    assert background.contrast_limits == raw.contrast_limits
    assert corrected.contrast_limits == [0, 1.2]
    assert corrected.metadata["txm_bgcorr"]["provenance"]["method"] == "steady"
    assert panel.status_label.text() == "Done: 4 tiles corrected"
    assert list(panel.viewer.layers.selection) == [raw]  # Correct can be pressed again


def test_correct_pressed_while_a_drop_is_read_follows_the_reading(panel, qtbot, txm_data):
    drop(panel.drop_zone, txm_data / "bl01b_sb_2x2")
    panel.correct()
    qtbot.waitUntil(lambda: len(panel.viewer.layers) == 3, timeout=WAIT)
    until_idle(qtbot, panel)
    assert panel.status_label.text() == "Done: 4 tiles corrected"


@pytest.mark.parametrize("kind", ["single", "series", "mosaic"])
def test_layers_hold_what_correct_tiles_gives(panel, qtbot, add_scan, kind):
    scan = make_scan(kind, overlap=0)
    add_scan(scan)
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    tiles = list(correct_tiles(scan, make_method("steady").fit(scan)))
    result = owner_of(layer(panel, "sample corrected"))
    for tile in tiles:
        np.testing.assert_array_equal(result.corrected[tile.index], tile.transmission)
        np.testing.assert_array_equal(result.background[tile.index], tile.background)
    shown = np.asarray(layer(panel, "sample corrected").data)
    assert shown.dtype == np.float32 and np.isfinite(shown).all()
    if kind != "mosaic":
        expected = np.stack([tile.transmission for tile in tiles])
        np.testing.assert_array_equal(shown.reshape(expected.shape), expected)


def test_several_dropped_files_are_corrected_together(panel, qtbot, txm_data):
    tiles = sorted((txm_data / "bl01b_sb_2x2").glob("*.tif*"))[:2]
    drop(panel.drop_zone, *tiles)
    until_idle(qtbot, panel)
    assert panel.input_label.text() == "Input: 2 selected layers"
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert len(panel.viewer.layers) == 6
    assert panel.status_label.text() == "Done: 2 tiles corrected"


def test_a_plain_layer_is_corrected_and_left_as_it_was(panel, qtbot):
    data = np.random.default_rng(0).integers(500, 900, (3, 32, 32)).astype(np.uint16)
    mine = panel.viewer.add_image(data, name="mine", scale=(1, 2, 2), translate=(0, 5, 6))
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert names(panel) == ["mine", "mine raw", "mine background", "mine corrected"]
    assert layer(panel, "mine raw").data is data and mine.data is data and not mine.visible
    for part in ("raw", "background", "corrected"):
        np.testing.assert_array_equal(layer(panel, f"mine {part}").translate, (0, 5, 6))
        np.testing.assert_array_equal(layer(panel, f"mine {part}").scale, (1, 2, 2))
    assert layer(panel, "mine corrected").data.shape == (3, 32, 32)


def test_correcting_again_replaces_the_earlier_result(panel, qtbot, add_scan):
    add_scan(make_scan())
    for _ in range(2):
        press(qtbot, panel.correct_button)
        until_idle(qtbot, panel)
    assert names(panel) == ["sample raw", "sample background", "sample corrected"]


def test_corrected_layer_is_refused_until_the_box_is_ticked(panel, qtbot, add_scan):
    add_scan(make_scan("single"))
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    corrected = layer(panel, "sample corrected")
    panel.viewer.layers.selection = {corrected}
    before = len(notification_manager.records)
    press(qtbot, panel.correct_button)
    assert not panel.runner.running
    assert "already corrected" in panel.status_label.text()
    assert len(messages_since(before)) == 1
    assert not panel.form.again_box.isHidden()
    panel.form.again_box.setChecked(True)
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert "sample corrected corrected" in names(panel)


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda v: v.add_labels(np.zeros((8, 8), int), name="seg"), "a labels layer"),
        (lambda v: v.add_image(np.zeros((40, 40, 3), "u1"), rgb=True), "colour image"),
        (lambda v: v.add_image(np.zeros((2, 2, 8, 8)), name="four"), "4 axes"),
        (lambda v: v.add_image(np.eye(8, dtype=bool), name="mask"), "type bool are no counts"),
        (lambda v: None, "drop a file or folder here"),
    ],
)
def test_unusable_input_is_refused_in_words(panel, qtbot, add, words):
    add(panel.viewer)
    before = len(notification_manager.records)
    press(qtbot, panel.correct_button)
    assert words in panel.status_label.text()
    (message,) = messages_since(before)
    assert message == panel.status_label.text()
    assert panel.correct_button.isEnabled()


def test_bad_file_is_one_line_and_one_notification(panel, qtbot, tmp_path):
    bad = tmp_path / "bad.xrm"
    bad.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    before = len(notification_manager.records)
    drop(panel.drop_zone, bad)
    until_idle(qtbot, panel)
    (record,) = notification_manager.records[before:]
    assert "bad.xrm" in record.message and not hasattr(record, "exception")
    assert panel.status_label.text() == record.message
    assert not panel.viewer.layers and panel.correct_button.isEnabled()


def test_error_of_a_device_is_shown_and_the_tiles_done_stay(panel, qtbot, add_scan, steady):
    steady.fail, steady.fail_at = RuntimeError("CUDA error: launch failed"), 1
    add_scan(make_scan(grid=(4, 4), size=16))
    before = len(notification_manager.records)
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert "CUDA error" in panel.status_label.text()
    assert len(messages_since(before)) == 1
    assert 0 < owner_of(layer(panel, "sample corrected")).done.sum() < 16
    assert panel.correct_button.isEnabled() and not panel.cancel_button.isEnabled()


def test_cancel_keeps_what_is_done_and_another_run_is_possible(panel, qtbot, add_scan, steady):
    steady.hold.clear()
    steady.free = 1
    add_scan(make_scan(grid=(6, 6), size=16))
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: len(panel.viewer.layers) == 3, timeout=WAIT)
    first = owner_of(layer(panel, "sample corrected"))
    qtbot.waitUntil(lambda: first.done.any(), timeout=WAIT)
    assert panel.cancel_button.isEnabled() and not panel.correct_button.isEnabled()
    press(qtbot, panel.correct_button)  # disabled: must do nothing
    press(qtbot, panel.cancel_button)
    steady.hold.set()
    until_idle(qtbot, panel)
    result = owner_of(layer(panel, "sample corrected"))
    assert 0 < result.done.sum() <= 16  # the batch before, and the one under way
    assert panel.status_label.text() == f"Cancelled: {result.done.sum()} of 36 tiles corrected"
    assert layer(panel, "sample corrected").metadata["txm_bgcorr"]["provenance"]
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert panel.status_label.text() == "Done: 36 tiles corrected"


def test_layers_deleted_during_the_run(panel, qtbot, add_scan, steady):
    steady.hold.clear()
    add_scan(make_scan(grid=(4, 4), size=16))
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: len(panel.viewer.layers) == 3, timeout=WAIT)
    panel.viewer.layers.clear()
    steady.hold.set()
    until_idle(qtbot, panel)
    assert not panel.viewer.layers and not panel.save_button.isEnabled()


def test_input_removed_before_its_result_comes(panel, qtbot, add_scan, steady, monkeypatch):
    import threading

    ready = threading.Event()
    monkeypatch.setattr(steady, "fit", lambda self, *_: ready.wait(10) and self)
    raw = add_scan(make_scan())
    press(qtbot, panel.correct_button)
    panel.viewer.layers.remove(raw)
    ready.set()
    until_idle(qtbot, panel)
    assert names(panel) == ["sample background", "sample corrected"]


def test_result_removed_during_its_run_is_told(panel, qtbot, add_scan, steady):
    steady.hold.clear()
    add_scan(make_scan())
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: len(panel.viewer.layers) == 3, timeout=WAIT)
    panel.viewer.layers.clear()
    steady.hold.set()
    until_idle(qtbot, panel)
    assert "cannot be saved" in panel.status_label.text() and not panel.save_button.isEnabled()


def test_double_click_starts_one_run(panel, qtbot, add_scan):
    add_scan(make_scan())
    press(qtbot, panel.correct_button)
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert len(panel.viewer.layers) == 3


def test_tiles_appear_as_they_are_done(panel, qtbot, add_scan, steady):
    steady.hold.clear()
    add_scan(make_scan(grid=(4, 4), size=16, overlap=0))
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: len(panel.viewer.layers) == 3, timeout=WAIT)
    picture = layer(panel, "sample corrected").data
    assert np.isnan(np.asarray(picture)).all()
    steady.hold.set()
    until_idle(qtbot, panel)
    assert np.isfinite(np.asarray(picture)).all()


def test_before_and_after(panel, qtbot, add_scan):
    assert not panel.compare.isEnabled()
    add_scan(make_scan("single"))
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    corrected, raw = layer(panel, "sample corrected"), layer(panel, "sample raw")
    assert panel.compare.isEnabled() and corrected.visible and corrected.opacity == 1
    panel.compare.slider.setValue(40)
    assert corrected.opacity == pytest.approx(0.4) and raw.visible
    panel.compare.swap()
    assert corrected.visible and corrected.opacity == 1
    panel.compare.swap()
    assert not corrected.visible


@pytest.mark.parametrize("save_format", ["omezarr", "ometiff", "tiff"])
def test_save(panel, qtbot, txm_data, tmp_path, monkeypatch, save_format):
    drop(panel.drop_zone, txm_data / "bl01b_sb_2x2")
    until_idle(qtbot, panel)
    assert not panel.save_button.isEnabled()
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    formats = panel.save_bar.format_combo
    formats.setCurrentIndex(formats.findData(save_format))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    press(qtbot, panel.save_button)
    until_idle(qtbot, panel)
    (saved,) = tmp_path.iterdir()
    assert panel.status_label.text() == f"Saved {saved}"
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.No)
    press(qtbot, panel.save_button)
    assert not panel.runner.running
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    press(qtbot, panel.save_button)
    until_idle(qtbot, panel)
    assert panel.status_label.text() == f"Saved {saved}"


def test_closing_the_panel_during_a_run(panel, qtbot, add_scan, steady):
    add_scan(make_scan(grid=(20, 20), size=16))
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: len(panel.viewer.layers) == 3, timeout=WAIT)
    panel.viewer.window.remove_dock_widget(panel)
    assert not panel.runner.busy and not worker.threads_at_work()
    qtbot.wait(50)
    panel.viewer.layers.clear()  # the panel no longer listens


def test_closing_the_viewer_during_a_run(make_napari_viewer, qtbot, steady, monkeypatch):
    from napari_txm_bgcorr.gui.correct import widget as correct_widget

    monkeypatch.setattr(correct_widget, "find_choices", lambda stop: iter([]))
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Background correction")
    widget.method_combo.setCurrentIndex(widget.method_combo.findData("steady"))
    viewer.add_image(np.random.default_rng(0).random((400, 16, 16)))
    widget.correct()
    viewer.close()
    qtbot.waitUntil(lambda: not worker.threads_at_work(), timeout=WAIT)


# -- the look ---------------------------------------------------------------------------------


def test_object_names(panel):
    wanted = (
        "correct_button", "cancel_button", "method_combo", "model_combo", "device_combo",
        "drop_zone", "save_button", "progress_bar", "status_label",
    )  # fmt: skip
    for name in wanted:
        assert panel.findChild(QWidget, name) is getattr(panel, name), name


def test_panel_fits_a_small_screen(panel):
    assert panel.sizeHint().width() <= 340
    assert panel.sizeHint().height() <= 620  # of 768: menus, title and status bar need the rest
    assert panel.minimumWidth() <= 340


def test_no_text_is_cut_off(panel, qtbot):
    panel.resize(panel.sizeHint())
    panel.widget().layout().activate()
    for button in panel.findChildren(QPushButton):
        assert button.width() >= button.minimumSizeHint().width(), button.text()
        assert button.toolTip() or button.text().endswith("…"), button.text()


def test_devices_and_models_are_offered_by_their_real_names(panel):
    texts = [panel.device_combo.itemText(i) for i in range(panel.device_combo.count())]
    assert texts == ["Auto (CPU, 2 cores, 24 GB)", "CPU, 2 cores, 24 GB"]
    panel.device_combo.setCurrentIndex(1)
    assert panel.session.device == "cpu"


def test_model_is_offered_to_methods_that_use_one(panel):
    panel.method_combo.setCurrentIndex(panel.method_combo.findData("smooth"))
    assert not panel.model_combo.isEnabled() and panel.session.method == "smooth"
    combine = panel.findChild(QComboBox, "combine_combo")
    assert combine.isHidden()
    panel.method_combo.setCurrentIndex(panel.method_combo.findData("captured"))
    assert not combine.isHidden()
    combine.setCurrentIndex(combine.findData("mean"))
    assert panel.session.combine == "mean"
    panel.method_combo.setCurrentIndex(panel.method_combo.findData("auto"))
    assert panel.model_combo.isEnabled()


def test_a_closed_corner_stands_for_the_dark(panel):
    (button,) = [b for b in panel.form.darks.findChildren(QPushButton) if b.text() == "Corner"]
    button.click()
    assert from_aperture(panel.session.darks)
    assert panel.form.darks.words.text() == "aperture"
    (clear,) = [b for b in panel.form.darks.findChildren(QPushButton) if b.text() == "Clear"]
    assert button.isHidden() and not clear.isHidden()
    clear.click()
    assert panel.session.darks == () and clear.isHidden() and not button.isHidden()


def test_the_dark_of_a_closed_corner_is_taken_off(panel, qtbot, add_scan):
    drawn = simulate_mosaic(3, 3, size=96, specimen="cells", family="bl01b", seed=22)
    scan = replace(drawn.scan, tiles=np.asarray(drawn.scan.tiles[:]), darks=None)
    known, level = with_pedestal(scan, least=ASKED)
    assert level == pytest.approx(drawn.session.dark.mean(), rel=0.05)
    add_scan(scan)
    (button,) = [b for b in panel.form.darks.findChildren(QPushButton) if b.text() == "Corner"]
    press(qtbot, button)
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    result = owner_of(layer(panel, f"{scan.source.path.name} corrected"))
    for tile in correct_tiles(known, make_method("steady").fit(known)):
        np.testing.assert_array_equal(result.corrected[tile.index], tile.transmission)


def test_references_and_darks_are_listed_and_cleared(panel, tmp_path):
    from pathlib import Path

    drop(panel.form.references, tmp_path / "ref1.xrm", tmp_path / "ref2.xrm")
    assert panel.session.references == (tmp_path / "ref1.xrm", tmp_path / "ref2.xrm")
    assert panel.form.references.words.text() == "2 paths"
    panel.form.darks.add([Path("dark.tif")])
    assert panel.session.darks == (Path("dark.tif"),)
    assert panel.form.darks.words.text() == "dark.tif"
    panel.form.references.set_paths(())
    assert panel.session.references == () and panel.form.references.words.text() == "none"


def test_keyboard_reaches_everything_in_order(panel):
    order = [
        panel.drop_zone.file_button,
        panel.drop_zone.folder_button,
        panel.method_combo,
        panel.model_combo,
        panel.device_combo,
        panel.correct_button,
        panel.cancel_button,
        panel.compare.slider,
        panel.save_button,
    ]
    chain, widget = [], panel.drop_zone
    while panel.isAncestorOf(widget):
        chain.append(widget)
        widget = widget.nextInFocusChain()
    places = [chain.index(each) for each in order]
    assert places == sorted(places)
    assert all(each.focusPolicy() & Qt.FocusPolicy.TabFocus for each in order)


@pytest.mark.parametrize("moved", [False, True])
def test_the_view_follows_the_registered_places_unless_it_was_moved(
    panel, qtbot, add_scan, monkeypatch, moved
):
    from dataclasses import replace

    from napari_txm_bgcorr.gui.correct import tasks
    from napari_txm_bgcorr.gui.layers.view import camera_of, view_of

    def refine(result, *ignored):
        result.relocate(replace(result.scan, positions_px=result.scan.positions_px * 2))
        yield from ()

    monkeypatch.setattr(tasks, "refine", refine)
    panel.session.joint = True
    add_scan(make_scan())
    panel._fit()
    camera = camera_of(panel.viewer)
    if moved:
        camera.zoom *= 1.5
    before = view_of(panel.viewer)
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert layer(panel, "sample corrected").data.shape == (80, 80)
    assert (view_of(panel.viewer) == before) is moved


def test_the_first_layer_fits_the_canvas_beside_naparis_controls(panel, qtbot, txm_data):
    from napari_txm_bgcorr.gui.layers.view import view_of

    drop(panel.drop_zone, txm_data / "bl01b_sb_2x2")
    until_idle(qtbot, panel)
    seen = view_of(panel.viewer)
    panel.viewer.reset_view()
    assert view_of(panel.viewer) == seen
