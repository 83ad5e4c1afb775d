"""A real training of four steps through the panel: the same bits as by command, and no remains."""

import json
import os
import subprocess

import numpy as np
import psutil
import pytest

from napari_txm_bgcorr.gui.train.process import train_command
from napari_txm_bgcorr.models.checkpoint import load_model
from tests.gui.train.helpers import TINY
from tests.gui.train.test_widget import panel, press  # noqa: F401

WAIT = 170_000


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.timeout(400)
def test_panel_and_command_give_equal_weights(panel, qtbot, tmp_path):  # noqa: F811
    rng = np.random.default_rng(0)
    flats = rng.poisson(5000, (3, 32, 32)).astype(np.uint16)
    panel.viewer.add_image(flats, name="flats")
    panel.add_layers()
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    panel.preset_combo.setCurrentIndex(panel.preset_combo.findData("from-nothing"))
    panel.form.more.setText(" ".join(f"{key}={value}" for key, value in TINY.items()))
    panel.form.device_combo.setCurrentIndex(panel.form.device_combo.findData("cpu"))
    run = tmp_path / "by-panel"
    panel.form.set_run(run)
    press(qtbot, panel.start_button)
    assert panel.control.state == "starting" and not panel.start_button.isEnabled()
    qtbot.waitUntil(lambda: panel.control.state in ("finished", "failed", "none"), timeout=WAIT)
    assert panel.control.state == "finished", panel.status_label.text()
    qtbot.waitUntil(lambda: not (panel.control.watcher.busy or panel.busy), timeout=WAIT)
    assert panel.run_step.loss_curves.series["total"].x[-1] == TINY["steps"]
    assert len([layer for layer in panel.viewer.layers if "training" in layer.name]) == 4
    assert panel.use_model_button.isEnabled()
    pid = json.loads((run / "status.json").read_text())["pid"]
    assert pid not in (os.getpid(), *psutil.pids())  # and with it all that it held

    words = panel.control._arguments
    again = tmp_path / "by-command"
    words = [str(again) if word == str(run) else word for word in words]
    done = subprocess.run(train_command(*words), capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    first, second = (load_model(path / "model.safetensors").sha256 for path in (run, again))
    assert first == second


@pytest.mark.timeout(400)
def test_a_slip_in_the_settings_comes_back_as_one_line(panel, qtbot, tmp_path):  # noqa: F811
    panel.preset_combo.setCurrentIndex(panel.preset_combo.findData("from-nothing"))
    panel.form.more.setText("stepps=3")
    press(qtbot, panel.start_button)
    until_failed = lambda: panel.control.state == "failed"  # noqa: E731
    qtbot.waitUntil(until_failed, timeout=WAIT)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    assert "stepps: 3" in panel.status_label.text().replace("'", "")
    assert panel.start_button.isEnabled() and not panel.use_model_button.isEnabled()
