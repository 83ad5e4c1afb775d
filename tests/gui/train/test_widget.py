"""The training panel as a user meets it: data, Start, curves, stop, attach, use, closing."""

import threading
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QLabel, QMessageBox, QPushButton, QWidget

from napari_txm_bgcorr.core.pixels import lit_field
from napari_txm_bgcorr.gui.common import worker
from napari_txm_bgcorr.gui.train import widget as train_widget
from napari_txm_bgcorr.gui.train.closing import ask_before_closing
from napari_txm_bgcorr.gui.train.data_step import LAYER_MIME
from napari_txm_bgcorr.gui.train.messages import Offers, Thumb
from napari_txm_bgcorr.gui.train.session import DataItem
from napari_txm_bgcorr.gui.train.validation_layers import tile_images
from napari_txm_bgcorr.simulation.acquisition import draw_session
from tests.gui.test_event_loop import Heart, one_layer_ms
from tests.gui.train.helpers import FakeRun, save_images

WAIT = 30_000
LONGEST_GAP_MS = 500


def found_offers(stop, runs):
    from napari_txm_bgcorr.gui.train.session import PRESETS
    from napari_txm_bgcorr.training.config import load_config

    yield Offers(
        devices=(("cpu", "CPU, 2 cores, 24 GB"),),
        models=(("default", "default"),),
        networks=("subpixel-unet", "subpixel4-unet"),
        presets={name: load_config(name).model_dump(mode="json") for name in PRESETS},
    )


@pytest.fixture
def panel(make_napari_viewer, qtbot, monkeypatch, tmp_path):
    """The panel in a viewer as a user opens it; its runs are in a folder of the test."""
    monkeypatch.setenv("TXM_BGCORR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(train_widget, "find_offers", found_offers)
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Train background model")
    qtbot.waitUntil(lambda: not (widget.finder.busy or widget.busy), timeout=WAIT)
    yield widget
    widget.shut_down()
    assert not worker.threads_at_work()


@pytest.fixture
def fake(tmp_path):
    return FakeRun(tmp_path / "some-run")


def press(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def until(qtbot, panel, state):
    qtbot.waitUntil(lambda: panel.control.state == state and not panel.busy, timeout=WAIT)


def drop(widget, mime):
    action, left, none = (
        Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    enter = QDragEnterEvent(QPoint(5, 5), action, mime, left, none)
    QApplication.sendEvent(widget, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(widget, QDropEvent(QPointF(5, 5), action, mime, left, none))


def drop_paths(widget, *paths):
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    drop(widget, mime)


def texts(panel):
    return panel.data_step.summary.text(), panel.data_step.warnings.text()


# -- data -------------------------------------------------------------------------------------


def test_dropped_files_are_counted_pictured_and_judged(panel, qtbot, tmp_path):
    good = save_images(tmp_path / "good.npy", 2)
    dark = save_images(tmp_path / "dark.npy", 1, level=10)
    drop_paths(panel.data_drop_zone, good, dark)
    drop_paths(panel.data_drop_zone, good)  # the same again counts once
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    assert texts(panel) == ("3 references, 32 x 32 px", "⚠ dark.npy: looks dark")
    assert panel.data_step.sheet.count() == 3 and not panel.data_step.sheet.isHidden()
    assert "looks dark" in panel.data_step.sheet.item(2).toolTip()
    panel.data_step.sheet.item(2).setSelected(True)
    panel.data_step.sheet.actions()[0].trigger()
    assert texts(panel) == ("2 references, 32 x 32 px", "") and panel.data_step.sheet.count() == 2
    press(qtbot, panel.data_step.clear_button)
    assert texts(panel) == ("No data yet", "") and panel.session.items == ()


def test_layers_are_dragged_out_of_the_list(panel, qtbot):
    stack = np.random.default_rng(0).poisson(900, (4, 32, 32)).astype(np.uint16)
    mine = panel.viewer.add_image(stack, name="flats")
    panel.viewer.add_labels(np.zeros((8, 8), int), name="no image")
    panel.viewer.layers.selection = {mine}
    mime = QMimeData()
    mime.setData(LAYER_MIME, b"never unpickled")
    drop(panel.data_drop_zone, mime)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    (item,) = panel.session.items
    assert (item.name, item.count, item.role) == ("flats", 4, "references")
    np.testing.assert_array_equal(item.array[:], stack)
    assert mine in panel.viewer.layers
    panel.viewer.layers.selection = {panel.viewer.layers["no image"]}
    press(qtbot, panel.data_drop_zone.layers_button)
    assert "no image: no grey image" in panel.status_label.text()


def test_role_is_taken_by_what_comes_next(panel, qtbot, tmp_path):
    combo = panel.data_step.role_combo
    combo.setCurrentIndex(combo.findData("samples"))
    panel.add_paths([save_images(tmp_path / "raw.npy", 1)])
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    summary, warning = texts(panel)
    assert summary == "1 clean sample, 32 x 32 px" and "looks like counts" in warning


def test_unreadable_data_is_one_line_and_one_notification(panel, qtbot, tmp_path):
    (tmp_path / "bad.tif").write_bytes(b"no image")
    before = len(notification_manager.records)
    panel.add_paths([tmp_path / "bad.tif"])
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    (record,) = notification_manager.records[before:]
    assert panel.status_label.text() == record.message and "bad.tif" in record.message
    assert "\n" not in record.message and texts(panel)[0] == "No data yet"


# -- settings ---------------------------------------------------------------------------------


def test_only_what_differs_from_the_preset_is_set(panel):
    form = panel.form
    assert panel.session.preset == "fine-tune" and panel.session.changes == {}
    assert form.minutes.value() == 5 and form.init_combo.currentData() == "default"
    assert not form.network_combo.isEnabled()  # that of the model it starts from
    form.minutes.setValue(2)
    form.weights["fft_l1"].setValue(0.25)
    assert panel.session.changes == {"minutes": 2, "loss_weights.fft_l1": 0.25}
    panel.preset_combo.setCurrentIndex(1)
    assert panel.session.preset == "from-nothing" and panel.session.changes == {}
    assert form.network_combo.isEnabled() and not form.init_combo.isEnabled()
    form.network_combo.setCurrentIndex(form.network_combo.findData("subpixel-unet"))
    assert panel.session.changes == {"network.name": "subpixel-unet"}
    form.device_combo.setCurrentIndex(form.device_combo.findData("cpu"))
    assert panel.session.device == "cpu"


def test_start_without_references_says_so(panel, qtbot):
    before = len(notification_manager.records)
    press(qtbot, panel.start_button)
    assert "no references: drop" in panel.status_label.text()
    assert len(notification_manager.records) == before + 1
    assert panel.start_button.isEnabled() and not panel.control.live


def test_the_command_can_be_copied(panel, qtbot, tmp_path):
    panel.preset_combo.setCurrentIndex(1)
    panel.form.set_run(tmp_path / "own")
    press(qtbot, panel.run_step.copy_button)
    copied = QApplication.clipboard().text()
    assert copied == f"txm-bgcorr train from-nothing --run {tmp_path / 'own'} --device auto"


# -- a run ------------------------------------------------------------------------------------


def test_a_dropped_run_is_watched_live(panel, qtbot, fake):
    fake.logs(3, error=0.05)
    fake.draws(error=0.05)
    fake.says("running", validation=0.05, validation_start=0.08, samples_per_s=12.0,
              device_memory_gb=1.25, left_s=125.0, progress=0.3, power_w=None)  # fmt: skip
    drop_paths(panel.data_drop_zone, fake.path)
    until(qtbot, panel, "running")
    status, figures = panel.status_label.text(), panel.run_step.figures_label.text()
    assert "some-run: running" in status and "error 5.00 % (at the start 8.00 %)" in status
    assert "12 samples/s, memory 1.2 GB, power not measured" in figures
    assert "2:05 left" in panel.run_step.progress_bar.format()
    losses = panel.run_step.loss_curves.series
    assert set(losses) == {"total", "l1", "fft", "discriminator"}
    assert losses["total"].y == [1, 1 / 2, 1 / 3]
    quality = panel.run_step.quality_curves
    assert quality.series["mean"].y == pytest.approx([5, 5, 5]) and quality._start == 8
    buttons = panel.start_button, panel.pause_button, panel.stop_button, panel.resume_button
    assert [b.isEnabled() for b in buttons] == [False, True, True, False]
    assert not panel.form.isEnabled() and not panel.use_model_button.isEnabled()
    fake.logs(1, error=0.04)
    fake.says("finished", validation=0.04, power_w=240.0, energy={"joules": 7.2e6})
    fake.has_weights()
    until(qtbot, panel, "finished")
    assert losses["total"].y[-1] == 1 / 4
    assert "power 240 W, energy 2 kWh" in panel.run_step.figures_label.text()
    assert panel.start_button.isEnabled() and panel.use_model_button.isEnabled()
    qtbot.waitUntil(lambda: not panel.control.watcher.busy)


def test_the_tile_is_redrawn_as_four_layers(panel, qtbot, fake):
    fake.logs()
    fake.draws(error=0.2)
    fake.says("running")
    panel.attach(fake.path)
    until(qtbot, panel, "running")
    layers = {layer.name: layer for layer in panel.viewer.layers}
    assert list(layers) == [f"training: {n}" for n in ("raw", "predicted", "true", "difference")]
    corners = {tuple(np.round(layer.translate)) for layer in layers.values()}
    assert len(corners) == 4  # side by side, none over another
    assert not panel.viewer.layers.selection  # no input for the correction panel
    assert np.allclose(
        getattr(panel.viewer, "scene", panel.viewer).camera.center[1:], 32.5, atol=1.5
    )  # all four in view
    difference = layers["training: difference"]
    assert difference.data.max() == pytest.approx(np.expm1(0.2), rel=1e-4)
    assert np.median(difference.data) == 0
    panel.viewer.layers.remove(layers["training: raw"])
    fake.logs()
    fake.draws(error=0.1)
    fake.says("stopped")
    until(qtbot, panel, "stopped")
    assert difference.data.max() == pytest.approx(np.expm1(0.1), rel=1e-4)
    assert "training: raw" not in panel.viewer.layers  # what the user removes stays away


def test_the_difference_is_nothing_behind_the_aperture():
    session = draw_session(np.random.default_rng(2), size=256, family="bl01b")
    assert 0.02 < np.mean(~session.aperture) < 0.5
    true = np.log(session.background(0.0) + session.dark).astype(np.float32)
    predicted = np.where(session.aperture, true + 0.5, true + 3)
    predicted[100:120, 100:120] += 0.03
    shown = tile_images({"raw": true, "predicted": predicted, "true": true})["difference"]
    assert shown.dtype == np.float32
    assert shown[110, 110] == pytest.approx(np.expm1(0.03), abs=1e-4)
    assert np.abs(shown[~lit_field(np.exp(true))]).max() == 0
    assert np.mean(np.abs(shown) > 1e-4) < 0.02  # the square, and the aperture's own edge


def test_wishes_are_files_in_the_folder(panel, qtbot, fake):
    fake.says("running")
    panel.attach(fake.path)
    until(qtbot, panel, "running")
    press(qtbot, panel.pause_button)
    assert (fake.path / "pause").exists() and not panel.pause_button.isEnabled()
    assert "Pausing" in panel.status_label.text()
    fake.says("paused")
    until(qtbot, panel, "paused")
    assert panel.resume_button.isEnabled() and panel.stop_button.isEnabled()
    press(qtbot, panel.resume_button)
    assert not (fake.path / "pause").exists()
    fake.says("running")
    until(qtbot, panel, "running")
    press(qtbot, panel.stop_button)
    assert (fake.path / "stop").exists() and not panel.stop_button.isEnabled()
    fake.says("running", step=1)  # the last step is still under way
    qtbot.wait(600)
    assert panel.control.state == "stopping"
    fake.says("stopped", step=1)
    until(qtbot, panel, "stopped")
    assert panel.resume_button.isEnabled() and panel.start_button.isEnabled()


def test_a_dead_run_is_told_and_resumed_by_its_own_folder(panel, qtbot, fake, monkeypatch):
    from napari_txm_bgcorr.gui.train import run_control as train_run

    fake.dies(step=7)
    panel.attach(fake.path)
    until(qtbot, panel, "died")
    assert "died on" in panel.status_label.text() and "step 7" in panel.status_label.text()
    assert not panel.stop_button.isEnabled() and panel.start_button.isEnabled()
    asked = []

    def launch(run, arguments, stop):
        asked.append((run, arguments))
        return iter(())

    monkeypatch.setattr(train_run, "launch", launch)
    press(qtbot, panel.resume_button)
    qtbot.waitUntil(lambda: bool(asked), timeout=WAIT)
    assert asked == [
        (fake.path, ["--run", str(fake.path), "--resume", "--device", panel.session.device])
    ]


def test_a_later_panel_finds_the_live_run_by_itself(panel, qtbot, fake):
    fake.says("running")
    list(panel._hear(Offers(live=fake.path)))
    until(qtbot, panel, "running")
    assert panel.control.run == fake.path


def test_a_folder_that_is_no_run_is_refused(panel, tmp_path):
    panel.attach(tmp_path)
    assert "no run's folder" in panel.status_label.text() and panel.control.run is None


def test_a_failed_run_says_why(panel, qtbot, fake):
    fake.says("failed", error="step 9: loss l1 is nan; lower lr", step=9)
    panel.attach(fake.path)
    until(qtbot, panel, "failed")
    assert panel.status_label.text().endswith("failed at step 9: step 9: loss l1 is nan; lower lr")


@pytest.mark.parametrize("opened", [True, False])
def test_use_this_model_reaches_the_correction_panel(panel, qtbot, fake, monkeypatch, opened):
    from napari_txm_bgcorr.gui.correct import widget as correct_widget
    from napari_txm_bgcorr.gui.correct.messages import Choices
    from napari_txm_bgcorr.gui.correct.widget import CorrectWidget

    found = Choices((("default", "default"),), (("cpu", "CPU"),))
    monkeypatch.setattr(correct_widget, "find_choices", lambda stop: iter([found]))
    if opened:
        panel.viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Background correction")
        (correct,) = panel.window().findChildren(CorrectWidget)
        correct.method_combo.setCurrentIndex(correct.method_combo.findData("smooth"))
        qtbot.waitUntil(lambda: not correct.finder.busy, timeout=WAIT)
    fake.has_weights()
    fake.says("stopped")
    panel.attach(fake.path)
    until(qtbot, panel, "stopped")
    press(qtbot, panel.use_model_button)
    (correct,) = panel.window().findChildren(CorrectWidget)
    qtbot.waitUntil(lambda: not (correct.finder.busy or correct.busy), timeout=WAIT)
    assert correct.session.model == str(fake.path / "model.safetensors")
    assert correct.session.method == "auto" == correct.method_combo.currentData()
    assert correct.model_combo.currentText() == "some-run"
    assert correct.model_combo.currentData() == correct.session.model
    assert "now uses some-run" in panel.status_label.text()
    correct.shut_down()


# -- closing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "stops"), [("stop", True), ("leave", False)])
def test_closing_napari_asks_and_obeys(
    make_napari_viewer, qtbot, monkeypatch, fake, answer, stops
):
    monkeypatch.setattr(train_widget, "find_offers", found_offers)
    asked = []

    def ask(parent, run):
        asked.append(run)
        return "stay" if len(asked) == 1 else answer

    monkeypatch.setattr(train_widget, "ask_before_closing", ask)
    viewer = make_napari_viewer(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Train background model")
    fake.says("running")
    widget.attach(fake.path)
    until(qtbot, widget, "running")
    widget._main_window.close()
    qtbot.wait(50)
    assert asked == [fake.path] and widget._main_window.isVisible()
    assert widget.control.live and not (fake.path / "stop").exists()
    viewer.close()
    qtbot.waitUntil(lambda: widget._closed and not worker.threads_at_work(), timeout=WAIT)
    assert len(asked) == 2 and (fake.path / "stop").exists() == stops


@pytest.mark.parametrize(
    ("button", "answer"), [("Stop it", "stop"), ("Leave it running", "leave"), (None, "stay")]
)
def test_the_question_has_three_answers(panel, qtbot, button, answer):
    def reply():
        (box,) = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox)]
        if button is None:
            box.reject()
            return
        next(b for b in box.buttons() if b.text().replace("&", "") == button).click()

    QTimer.singleShot(300, reply)
    assert ask_before_closing(panel, panel.runs) == answer


def test_taking_the_panel_away_leaves_the_run_alone(panel, qtbot, fake):
    fake.says("running")
    panel.attach(fake.path)
    until(qtbot, panel, "running")
    panel.viewer.window.remove_dock_widget(panel)
    assert not worker.threads_at_work() and not (fake.path / "stop").exists()
    panel.viewer.theme = "light"  # the panel no longer listens


# -- the look ---------------------------------------------------------------------------------


def test_object_names_and_tips(panel):
    wanted = (
        "data_drop_zone", "start_button", "pause_button", "stop_button", "resume_button",
        "use_model_button", "preset_combo", "loss_plot", "status_label",
    )  # fmt: skip
    for name in wanted:
        assert panel.findChild(QWidget, name) is getattr(panel, name), name
        assert name == "status_label" or getattr(panel, name).toolTip(), name
    for button in panel.findChildren(QPushButton):
        assert button.toolTip() or button.text().endswith("…"), button.text()


def test_everything_fits_a_small_screen(make_napari_viewer, qtbot, monkeypatch):
    """Whatever is shown, folded or not, beside another panel's tab: no more than 768 px."""
    monkeypatch.setattr(train_widget, "find_offers", found_offers)
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    dock, panel = viewer.window.add_plugin_dock_widget(
        "napari-txm-bgcorr", "Train background model"
    )
    viewer.window.add_dock_widget(QLabel("another"), tabify=True)
    qtbot.wait(50)  # tabs are laid out in the next turn
    dock.raise_()
    panel.data_step.add_thumbs("a", "references", [Thumb("a", np.zeros((40, 40), np.uint8))] * 9)
    item = DataItem(Path("a"), "references", "a", 9, (512, 512), ("9 images seen: look dark",) * 5)
    panel.data_step.show_items([item])
    panel.status_label.setText("a run: running on a machine, step 1234, error 1.23 % " * 9)
    panel.run_step.figures_label.setText("Some device: 123 samples/s, memory 12.3 of 80 GB, " * 3)
    qtbot.waitUntil(lambda: not (panel.finder.busy or panel.busy), timeout=WAIT)
    for _ in range(3):
        panel.form.advanced_button.toggle()
        qtbot.wait(50)
        assert panel.window().height() <= 768, panel.form.advanced_button.isChecked()
        assert panel.area.verticalScrollBar().maximum() == 0  # seen at once
        for label in (panel.run_step.figures_label, panel.data_step.warnings):
            room = label.contentsRect().height()
            assert room >= 2 * label.fontMetrics().lineSpacing() + 4  # two whole lines
    assert panel.minimumSizeHint().width() <= 350
    viewer.window.resize(910, 512)  # the same screen, everything drawn half as large again
    qtbot.wait(50)
    assert viewer.window._qt_window.height() <= 560  # napari's own left side needs that
    assert panel.area.verticalScrollBar().maximum() > 0
    panel.shut_down()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_text_is_cut_off_in_either_theme(panel, qtbot, theme):
    panel.viewer.theme = theme
    panel.resize(panel.sizeHint())
    panel.layout().activate()
    for button in panel.findChildren(QPushButton):
        if button.isVisibleTo(panel):
            assert button.width() >= button.minimumSizeHint().width(), button.text()
    background = panel.loss_plot.backgroundBrush().color().name()
    assert background == train_widget.theme_colours(theme)["background"]
    assert {label.text() for label in panel.findChildren(QLabel)} >= {"<b>1  Data</b>"}


def test_window_never_freezes_while_a_run_is_watched(panel, qtbot, fake, record_property):
    """Lines at a rate no training reaches, and a 256 px tile three times a second."""
    units = [one_layer_ms(panel.viewer) for _ in range(3)]
    fake.logs(1500)
    fake.draws(256)
    fake.says("running")
    panel.attach(fake.path)
    until(qtbot, panel, "running")
    stop = threading.Event()

    def train():
        for beat in range(60):
            if stop.wait(0.05):
                return
            fake.logs(5, error=0.05 if beat % 3 else None)
            if beat % 6 == 0:
                fake.draws(256, error=0.01 * beat)
            fake.says("running", validation_start=0.08, progress=beat / 60)
        fake.says("finished")

    heart = Heart(panel)
    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    until(qtbot, panel, "finished")
    heart.timer.stop()
    stop.set()
    thread.join()
    record_property("longest_gap_ms", heart.longest_ms)
    print(f"longest gap {heart.longest_ms:.0f} ms over {heart.beats} beats")
    redraws = panel.run_step.loss_curves.redraws
    assert redraws < 40  # at most four a second
    assert panel.run_step.loss_curves.series["total"].x[-1] > 1500
    assert heart.longest_ms < max(LONGEST_GAP_MS, 5 * max(units))


def test_a_complaint_goes_with_the_next_drop(panel, qtbot, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    drop_paths(panel.data_drop_zone, tmp_path / "notes.txt")
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    assert "notes.txt" in panel.status_label.text()
    drop_paths(panel.data_drop_zone, save_images(tmp_path / "ref.npy"))
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    assert panel.status_label.text() == "" and len(panel.session.items) == 1
