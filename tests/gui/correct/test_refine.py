"""The joint stage in the panel: the bits of the method itself, tiles at their places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.gui.common.throttle import Throttle
from napari_txm_bgcorr.gui.correct.messages import Finished
from napari_txm_bgcorr.gui.correct.tasks import correct_job
from napari_txm_bgcorr.gui.layers.canvas import CanvasLayout
from napari_txm_bgcorr.gui.session import CorrectionJob, JobInput
from napari_txm_bgcorr.models.checkpoint import load_model, resolve_model, save_model
from napari_txm_bgcorr.models.embedded_references import Carried
from napari_txm_bgcorr.mosaic.assembly import registered
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic
from tests.gui.helpers import chosen, make_scan

WAIT = 60_000


@pytest.fixture(scope="module")
def scan():
    return simulate_mosaic(3, 3, size=96, seed=5, specimen="cells", jitter_px=30).scan


def run(scan, stop=None, tell=lambda message: None, method="tile-median", **more):
    job = CorrectionJob((JobInput("m", 0, scan),), chosen(method, **more))
    messages = list(correct_job(job, stop or Event(), tell))
    return next(m.result for m in messages if isinstance(m, Finished))


@pytest.mark.parametrize(
    ("name", "full"), [("tile-median", "tile-median+joint"), ("auto", "auto")]
)
def test_the_panel_refines_to_the_bits_of_the_joint_method(scan, name, full):
    result = run(scan, joint=True, method=name)
    method = make_method(name, joint=True).fit(scan)
    for tile in correct_tiles(scan, method):
        got = result.tile(tile.index)
        np.testing.assert_array_equal(got.background, tile.background)
        np.testing.assert_array_equal(got.transmission, tile.transmission)
    assert result.provenance["method"] == method.name == full
    assert result.provenance["parameters"] == method.describe()
    places = registered(scan, method.describe()).positions_px
    np.testing.assert_array_equal(result.scan.positions_px, places)
    assert result.registered and result.original is scan


def test_the_panel_starts_from_the_references_inside_a_model(tmp_path):
    """Nothing given in the panel, and the bits are those of the references given by hand."""
    given = simulate_mosaic(3, 3, size=96, seed=5, specimen="cells", jitter_px=30, references=2)
    scan, model = given.scan, load_model(resolve_model("default"))
    carried = Carried(np.asarray(scan.flats[:]), scan.flat_times)
    path = str(tmp_path / "today.safetensors")
    save_model(Path(path), model.network, model.config, references=carried)
    alone = replace(scan, flats=None, flat_times=None)
    job = CorrectionJob((JobInput("m", 0, alone),), chosen("auto", model=path, joint=True))
    (result,) = [m.result for m in correct_job(job, Event()) if isinstance(m, Finished)]
    by_hand = make_method("auto", model=path, device="cpu", joint=True).fit(scan)
    for tile in correct_tiles(scan, by_hand):
        np.testing.assert_array_equal(result.tile(tile.index).background, tile.background)
    assert any("references of the model, 2 of" in note for note in result.notes)


def test_without_it_nothing_is_refined_or_moved(scan):
    result = run(scan, joint=False)
    assert result.scan is scan and not result.registered
    assert result.provenance["method"] == "tile-median"


def test_what_the_model_has_to_say_is_noted(steady):
    result = run(make_scan(grid=(1, 2), size=64), method="steady", joint=True)
    told = result.provenance["parameters"]["joint"]
    assert result.complete and told["level"]["from"] in ("empty areas", "relative")
    for note in told["notes"]:
        assert note in result.notes


def test_stopped_while_it_looks_the_result_stays_as_it_was(scan, monkeypatch):
    monkeypatch.setattr(Throttle, "due", lambda turn: True)  # a fast machine would tell nothing
    plain = run(scan, joint=False)
    stop, told = Event(), []

    def tell(message):
        told.append(message)
        if "survey" in message.text or "register" in message.text or "looking" in message.text:
            stop.set()

    result = run(scan, stop, tell, joint=True)
    assert stop.is_set()
    np.testing.assert_array_equal(result.background, plain.background)
    assert result.complete and result.provenance["method"] == "tile-median"
    assert not result.registered


def test_layers_show_the_tiles_at_the_places_found(panel, add_scan, qtbot, scan):
    add_scan(scan)
    panel.method_combo.setCurrentIndex(panel.method_combo.findData("tile-median"))
    assert not panel.form.joint_box.isChecked()
    panel.form.joint_box.setChecked(True)
    qtbot.mouseClick(panel.correct_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    (result,) = panel.book.results()
    layout = CanvasLayout.of(result.scan)
    assert (
        layout.shape != CanvasLayout.of(scan).shape
        or (layout.corners != CanvasLayout.of(scan).corners).any()
    )
    for layer in panel.viewer.layers:
        assert tuple(layer.data.shape) == layout.shape
    raw, _, corrected = panel.viewer.layers
    last = len(scan) - 1  # later tiles lie over earlier ones
    y, x = layout.corners[last] + 48
    assert np.asarray(raw.data[y, x]) == scan.tiles[last][48, 48]
    assert np.asarray(corrected.data[y, x]) == result.corrected[last, 48, 48]
    # the moved raw layer is still the input, and is corrected from its new places
    qtbot.mouseClick(panel.correct_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    assert len(panel.viewer.layers) == 3
    assert panel.status_label.text().startswith("Done: 9 tiles")


def test_auto_refines_unless_told_not_to(panel):
    panel.method_combo.setCurrentIndex(panel.method_combo.findData("auto"))
    assert panel.form.joint_box.isChecked() and panel.session.joint
    panel.form.joint_box.setChecked(False)
    assert not panel.session.joint
