"""The dialog "Models": what it lists is what there is, and what it does is done to the files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMessageBox

from napari_txm_bgcorr.gui.common import worker
from napari_txm_bgcorr.gui.train.models_dialog import COLUMNS, ModelsDialog
from napari_txm_bgcorr.gui.train.use_model import use_model
from napari_txm_bgcorr.models.checkpoint import save_model
from napari_txm_bgcorr.models.embedded_references import Carried
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.training.config import NetworkConfig

WAIT = 60_000
TINY = NetworkConfig(field_px=16, features=(4, 4))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    place = tmp_path / "models"
    place.mkdir()
    monkeypatch.setenv("TXM_BGCORR_MODELS", str(place))
    save_model(place / "mine.safetensors", build_generator(TINY), TINY,
               metrics={"validation_error_sf": {"mean": 0.0123}})  # fmt: skip
    return place


@pytest.fixture
def dialog(qtbot, folder, tmp_path):
    run = tmp_path / "my-run"
    save_model(run / "model.safetensors", build_generator(TINY), TINY)
    made = ModelsDialog(None, lambda name: f"used {name}", run)
    qtbot.addWidget(made)
    idle(qtbot, made)
    yield made
    made.close()
    assert not worker.threads_at_work()


def idle(qtbot, dialog):
    qtbot.waitUntil(lambda: not dialog.runner.busy and bool(dialog.rows), timeout=WAIT)


def choose(dialog, name):
    (row,) = [k for k, row in enumerate(dialog.rows) if row.name == name]
    dialog.table.selectRow(row)


def names(dialog):
    return [row.name for row in dialog.rows]


def answer(monkeypatch, text):
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: (text, True))


def test_list_shows_names_errors_and_faults(dialog, folder, qtbot):
    assert names(dialog) == ["default", "mine"]
    texts = [dialog.table.item(1, column).text() for column in range(3)]
    assert texts == ["mine", "subpixel-unet", "1.23 %"]
    assert dialog.table.item(0, 0).text() == "default (shipped)"
    choose(dialog, "default")
    assert not dialog.rename_button.isEnabled() and dialog.export_button.isEnabled()
    (folder / "mine.json").write_text("{")
    dialog._do(lambda: "")
    idle(qtbot, dialog)
    choose(dialog, "mine")
    assert "card cannot be read" in dialog.label.text() and not dialog.use_button.isEnabled()


def test_references_inside_a_model_are_told(dialog, folder, qtbot):
    images = np.ones((2, 8, 8), np.uint16)
    carried = Carried(images, np.array(["2024-03-01T12:00", "2024-03-01T13:00"], "datetime64[s]"))
    path = folder / "today.safetensors"
    save_model(path, build_generator(TINY), TINY, references=carried)
    dialog._do(lambda: "")
    idle(qtbot, dialog)
    place = names(dialog).index("today")
    assert dialog.table.item(place, len(COLUMNS) - 1).text() == "2, 2024-03-01"
    assert dialog.table.item(names(dialog).index("mine"), len(COLUMNS) - 1).text() == ""
    session = SimpleNamespace(model="default", method="captured")
    said = use_model(session, str(path))
    assert "It carries 2 references of 2024-03-01T12:00:00" in said and session.method == "auto"
    assert "carries" not in use_model(session, str(folder / "mine.safetensors"))


def test_rename_use_and_remove(dialog, folder, qtbot, monkeypatch):
    choose(dialog, "mine")
    answer(monkeypatch, "today")
    dialog.rename_button.click()
    idle(qtbot, dialog)
    assert names(dialog) == ["default", "today"] and dialog.label.text() == "mine is now today"
    choose(dialog, "today")
    dialog.use_button.click()
    assert dialog.label.text() == "used today"
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.No)
    dialog.remove_button.click()
    assert (folder / "today.safetensors").exists()
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    dialog.remove_button.click()
    idle(qtbot, dialog)
    assert names(dialog) == ["default"] and not list(folder.iterdir())


def test_a_runs_weights_are_kept_and_exported(dialog, folder, qtbot, monkeypatch, tmp_path):
    answer(monkeypatch, "kept")
    dialog.keep_button.click()
    idle(qtbot, dialog)
    assert "kept" in names(dialog) and dialog.label.text() == "Taken in as kept"
    choose(dialog, "kept")
    chosen = (str(tmp_path / "out"), "Weights and card (*.safetensors)")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: chosen)
    dialog.export_button.click()
    idle(qtbot, dialog)
    written = tmp_path / "out.safetensors"
    assert written.read_bytes() == (folder / "kept.safetensors").read_bytes()
    assert json.loads(written.with_suffix(".json").read_text())["sha256"]
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(written), ""))
    dialog.import_button.click()
    idle(qtbot, dialog)
    assert "out" in names(dialog)


def test_what_cannot_be_done_is_one_line(dialog, qtbot, monkeypatch):
    choose(dialog, "mine")
    answer(monkeypatch, "default")
    dialog.rename_button.click()
    idle(qtbot, dialog)
    assert "default" in dialog.label.text() and "\n" not in dialog.label.text()
    assert names(dialog) == ["default", "mine"]
