"""The layer that shows how far backgrounds may be off."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.gui.layers.convert import owner_of, role_of
from napari_txm_bgcorr.gui.layers.saved_result import open_result
from napari_txm_bgcorr.gui.layers.uncertainty import StatedUncertainty
from napari_txm_bgcorr.gui.session import resolve
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic
from tests.gui.helpers import make_scan

WAIT = 120_000
LEFT = Qt.MouseButton.LeftButton


class States:
    """A method that states 0.01 times the tile's number and one."""

    name, workers = "states", 1

    def fit(self, scan, progress=None):
        return self

    def background(self, tiles, index=None):
        return np.ones(tiles.shape, np.float32)

    def describe(self):
        return {}

    def uncertainty(self, index):
        return np.full((4, 6), 0.01 * (index + 1), np.float32)


def test_it_is_per_cent_and_unknown_where_nothing_states_it():
    stated = StatedUncertainty((3, 4, 6))
    assert not stated.known and np.isnan(stated[0]).all()
    stated.take(States())
    assert stated.known
    np.testing.assert_allclose(stated[:, 0, 0], [1, 2, 3], rtol=1e-6)
    stated.take(None, [1])
    assert np.isnan(stated[1]).all() and stated.known
    stated.take_stored(np.full((3, 4, 6), 0.05, np.float32))
    np.testing.assert_allclose(stated[1], 5, rtol=1e-6)


@pytest.fixture
def correct(panel, add_scan, qtbot):
    def run(scan, joint=True):
        layer = add_scan(scan)
        panel.method_combo.setCurrentIndex(panel.method_combo.findData("smooth"))
        panel.form.joint_box.setChecked(joint)
        qtbot.mouseClick(panel.correct_button, LEFT)
        qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
        assert panel.book.results(), panel.status_label.text()
        return layer, panel.book.results()[0]

    return run


def shown(panel):
    return [layer for layer in panel.viewer.layers if role_of(layer) == "uncertainty"]


@pytest.mark.parametrize("kind", ["mosaic", "series", "single"])
def test_the_button_shows_and_hides_one_layer(panel, correct, qtbot, kind):
    scan = (
        simulate_mosaic(2, 2, size=64, seed=5).scan
        if kind == "mosaic"
        else make_scan(kind, size=64)
    )
    button = panel.uncertainty_button
    assert not button.isEnabled()
    _, result = correct(scan)
    assert button.isEnabled() and not button.isChecked() and not shown(panel)
    selected = set(panel.viewer.layers.selection)
    qtbot.mouseClick(button, LEFT)
    (layer,) = shown(panel)
    assert layer.name == f"{result.name} uncertainty" and layer.visible and button.isChecked()
    assert "per cent" in layer.metadata["txm_bgcorr"]["unit"]
    assert owner_of(layer) is result and set(panel.viewer.layers.selection) == selected
    told = 100 * result.method.uncertainty(0)
    got = np.asarray(layer.data)
    middle = np.s_[28:36, 28:36]
    if kind == "mosaic":
        y, x = np.rint(result.scan.positions_px - result.scan.positions_px.min(0)).astype(int)[-1]
        told, got = 100 * result.method.uncertainty(len(scan) - 1), got[y : y + 64, x : x + 64]
    elif kind == "series":
        got = got[0]
    np.testing.assert_allclose(got[middle], told[middle], rtol=1e-6)
    assert (got[middle] > 0).all()
    for pressed in (False, True, False):
        qtbot.mouseClick(button, LEFT)
        assert button.isChecked() is pressed and shown(panel) == [layer]
        assert layer.visible is pressed
    panel.viewer.layers.remove(layer)
    assert not button.isChecked()
    qtbot.mouseClick(button, LEFT)
    assert len(shown(panel)) == 1


def test_a_second_run_takes_the_layer_over(panel, correct, qtbot):
    scan = make_scan("series", size=64)
    raw, first = correct(scan)
    qtbot.mouseClick(panel.uncertainty_button, LEFT)
    (layer,) = shown(panel)
    panel.viewer.layers.selection = {raw}
    qtbot.mouseClick(panel.correct_button, LEFT)
    qtbot.waitUntil(lambda: not panel.busy, timeout=WAIT)
    (second,) = panel.book.results()
    assert second is not first and shown(panel) == [layer]
    assert owner_of(layer) is second and not layer.visible
    qtbot.mouseClick(panel.uncertainty_button, LEFT)
    assert layer.visible and shown(panel) == [layer]
    np.testing.assert_allclose(
        np.asarray(layer.data)[2], 100 * second.method.uncertainty(2), rtol=1e-6
    )


def test_without_refining_there_is_nothing_to_show(panel, correct):
    correct(make_scan("series", size=64), joint=False)
    assert not panel.uncertainty_button.isEnabled()


def test_the_layer_is_no_input(panel, correct, qtbot):
    correct(make_scan("series", size=64))
    qtbot.mouseClick(panel.uncertainty_button, LEFT)
    panel.viewer.layers.selection = set(shown(panel))
    with pytest.raises(ConfigError, match="an uncertainty, not raw data; select the raw layer"):
        resolve(panel.session)


def test_a_saved_result_that_has_it_shows_it(panel, qtbot, tmp_path):
    from napari_txm_bgcorr.backgrounds.registry import make_method
    from napari_txm_bgcorr.core.correction import correct_tiles
    from napari_txm_bgcorr.core.provenance import make_provenance
    from napari_txm_bgcorr.io import open_output

    scan = make_scan("series", size=64)
    method = make_method("smooth", joint=True).fit(scan)
    save = ("raw", "background", "corrected", "uncertainty")
    made = make_provenance(scan, method).to_dict()
    with open_output(tmp_path / "s.ome.zarr", "omezarr", scan, made, save=save) as writer:
        for tile in correct_tiles(scan, method, uncertainty=True):
            writer.write(tile)
        writer.close_complete()
    result = open_result(tmp_path / "s.ome.zarr")
    np.testing.assert_allclose(result.uncertainty[1], 100 * method.uncertainty(1), rtol=1e-6)
    panel.open_paths([tmp_path / "s.ome.zarr"])
    qtbot.waitUntil(lambda: not panel.busy and len(panel.viewer.layers) == 3, timeout=WAIT)
    qtbot.mouseClick(panel.uncertainty_button, LEFT)
    assert len(shown(panel)) == 1
