"""The notice: what in today's data is beyond the model, in one sentence, and the way out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_txm_bgcorr.core.scan import Source
from napari_txm_bgcorr.gui.correct import tasks
from napari_txm_bgcorr.gui.correct.model_warning import doubts, in_one, references
from napari_txm_bgcorr.gui.session import CorrectionJob, JobInput
from napari_txm_bgcorr.gui.train import widget as train_widget
from napari_txm_bgcorr.gui.train.widget import TrainWidget
from tests.gui.helpers import chosen, make_scan
from tests.gui.train.helpers import save_images

WAIT = 30_000
FOUND = [
    "Model m: trained at binning 2, this scan has 4; check the result, or fine-tune",
    "Model m: trained with dark images removed, this scan has none; give --dark",
    "Model m: trained on images unlike these (novelty 1.3); check the result, or fine-tune",
]


def test_facts_with_one_remedy_are_one_sentence():
    one, other = in_one(FOUND, "Model m")
    assert one.startswith(
        "Model m may not suit these images: trained at binning 2, this scan has 4;"
    )
    assert "novelty 1.3" in one and one.count("fine-tune") == 1
    assert other.endswith("add them under “Darks”") and "--" not in other
    assert in_one([], "Model m") == []


@pytest.mark.parametrize("method", ["captured", "eigen-flats"])
def test_references_of_another_energy_are_doubted(method):
    flats = np.ones((3, 32, 32), np.uint16)
    scan = replace(make_scan(), flats=flats, energy_ev=8353.0,
                   flat_energies_ev=np.full(3, 8250.0))  # fmt: skip
    job = CorrectionJob((JobInput("sample", 0, scan),), chosen(method))
    (sentence,) = doubts(job, scan)
    assert "8250 eV" in sentence and sentence[0].isupper() and sentence.endswith(".")
    assert doubts(job, replace(scan, energy_ev=8250.0)) == []
    assert (
        doubts(replace(job, config=job.config.replaced(method="smooth", combine=None)), scan) == []
    )


def test_references_of_another_energy_are_told_of_in_the_notice(panel, add_scan, qtbot):
    flats = np.asarray(make_scan().tiles[:1])
    add_scan(replace(make_scan(), flats=flats, energy_ev=8353.0, flat_energies_ev=np.array([8e3])))
    panel.method_combo.setCurrentIndex(panel.method_combo.findData("captured"))
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    assert not panel.notice.isHidden() and "references of 8000 eV" in panel.notice.words.text()
    assert panel.status_label.text() == "Done: 4 tiles corrected"  # said once


def test_references_are_those_given_or_the_scans_own(tmp_path):
    path = tmp_path / "scan.h5"
    path.write_bytes(b"")
    flats = np.ones((1, 32, 32), np.uint16)
    scan = replace(make_scan(), flats=flats, source=Source(path, "hdf5"))
    job = CorrectionJob((JobInput("sample", 0, scan),), chosen("auto"))
    assert references(job, scan) == (path,)
    assert references(job, replace(scan, flats=None)) == ()
    assert references(job, replace(scan, source=Source(tmp_path / "gone", "hdf5"))) == ()
    given = (tmp_path / "ref.tif",)
    assert references(replace(job, config=job.config.replaced(references=given)), scan) == given


@pytest.fixture
def doubtful(panel, add_scan, monkeypatch, tmp_path):
    """The panel with an input that the model does not know."""
    folder = tmp_path / "today"
    folder.mkdir()
    save_images(folder / "ref.npy", 2)
    monkeypatch.setenv("TXM_BGCORR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(tasks, "doubts", lambda job, scan: in_one(FOUND[:1], "Model m"))
    monkeypatch.setattr(tasks, "references", lambda job, scan: (folder,))
    monkeypatch.setattr(train_widget, "find_offers", lambda stop, runs: iter([]))
    add_scan(make_scan())
    return panel


def press(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_the_notice_comes_with_the_run_and_goes_with_the_next(doubtful, qtbot, monkeypatch):
    panel = doubtful
    assert panel.notice.isHidden()
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    assert not panel.notice.isHidden() and "binning 2" in panel.notice.words.text()
    assert panel.status_label.text() == "Done: 4 tiles corrected"  # said once
    panel.viewer.theme = "light"
    from napari_txm_bgcorr.gui.common.plots import theme_colours

    assert theme_colours("light")["warning"] in panel.notice.styleSheet()
    monkeypatch.setattr(tasks, "doubts", lambda job, scan: [])
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    assert panel.notice.isHidden()


def test_fine_tune_opens_the_training_panel_with_the_references(doubtful, qtbot):
    panel = doubtful
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    assert "today" in panel.notice.button.toolTip()
    for _ in range(2):  # opened, then found again
        press(qtbot, panel.notice.button)
        (training,) = panel.window().findChildren(TrainWidget)
        qtbot.waitUntil(lambda t=training: not t.busy and bool(t.session.items), timeout=WAIT)
        (item,) = training.session.items
        assert (item.role, item.count, training.session.preset) == ("references", 2, "fine-tune")
        training.preset_combo.setCurrentIndex(1)
    training.shut_down()
