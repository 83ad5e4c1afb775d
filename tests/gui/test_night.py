"""The panel when things go wrong: what is no image, what comes in between, what has gone."""

import numpy as np
import pytest
import tifffile
from napari.utils.notifications import notification_manager

from napari_txm_bgcorr.gui.correct import tasks
from napari_txm_bgcorr.gui.layers.convert import owner_of
from tests.gui.correct.test_widget import WAIT, layer, names, press, until_idle
from tests.gui.helpers import make_scan

NO_COUNTS = {
    "not a number": np.full((32, 32), np.nan),
    "empty": np.zeros((32, 32), np.uint16),
    "optical density": np.full((3, 32, 32), -0.7, np.float32),
}


@pytest.mark.parametrize("name", NO_COUNTS)
def test_what_holds_no_counts_is_refused_in_words(panel, qtbot, name):
    mine = panel.viewer.add_image(NO_COUNTS[name], name=name, contrast_limits=(0, 1))
    before = len(notification_manager.records)
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    said = f"{name}: most pixels are zero, below zero or not a number"
    assert panel.status_label.text().startswith(said)
    assert len(notification_manager.records) == before + 1
    assert names(panel) == [name] and mine.visible and panel.correct_button.isEnabled()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1000.0])
def test_single_pixels_without_counts_do_no_harm(panel, qtbot, bad):
    image = np.random.default_rng(0).normal(1000, 10, (48, 48)).astype(np.float32)
    image[::7, ::5] = bad
    panel.viewer.add_image(image, name="mine", contrast_limits=(0, 2000))
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert panel.status_label.text() == "Done: 1 tile corrected"
    assert np.isfinite(np.asarray(layer(panel, "mine corrected").data)).all()


def test_lazy_layers_of_others_are_read_tile_by_tile(panel, qtbot):
    import dask
    import dask.array as da

    data = np.random.default_rng(0).integers(500, 900, (4, 32, 48)).astype(np.uint16)
    with dask.config.set(scheduler="synchronous"):  # dask's own threads would stay
        panel.viewer.add_image(da.from_array(data, chunks=(1, 16, 48)), name="lazy")
        press(qtbot, panel.correct_button)
        until_idle(qtbot, panel)
        result = owner_of(layer(panel, "lazy corrected"))
        np.testing.assert_array_equal(np.asarray(result.scan.tiles[:]), data)


@pytest.fixture
def held(panel, qtbot, add_scan, steady):
    """A correction under way that waits for `steady.hold`."""
    steady.hold.clear()
    steady.free = 1
    add_scan(make_scan(grid=(6, 6), size=16))
    press(qtbot, panel.correct_button)
    qtbot.waitUntil(lambda: len(panel.viewer.layers) == 3, timeout=WAIT)
    first = owner_of(layer(panel, "sample corrected"))
    qtbot.waitUntil(lambda: first.done.any(), timeout=WAIT)
    return panel


def test_a_file_opened_meanwhile_leaves_the_correction_alone(held, qtbot, steady, tmp_path):
    tifffile.imwrite(tmp_path / "other.tif", np.full((20, 20), 700, np.uint16))
    held.open_paths([tmp_path / "other.tif", tmp_path / "gone.xrm"])
    qtbot.waitUntil(lambda: not held.reader.busy and not held._steps, timeout=WAIT)
    assert "other raw" in names(held) and held.runner.running
    assert held.cancel_button.isEnabled() and not held.correct_button.isEnabled()
    steady.hold.set()
    until_idle(qtbot, held)
    done, unread = held.status_label.text().split("\n")
    assert done == "Done: 36 tiles corrected" and "gone.xrm: no such file" in unread
    assert held.save_button.isEnabled() and owner_of(layer(held, "sample corrected")).complete


def test_reading_that_outlasts_the_correction(held, qtbot, steady, tmp_path, monkeypatch):
    import threading

    go, read = threading.Event(), tasks.saved_result

    def slowly(path):
        go.wait(20)
        return read(path)

    monkeypatch.setattr(tasks, "saved_result", slowly)
    tifffile.imwrite(tmp_path / "other.tif", np.full((20, 20), 700, np.uint16))
    held.open_paths([tmp_path / "other.tif"])
    steady.hold.set()
    qtbot.waitUntil(lambda: not held.runner.busy and not held._steps, timeout=WAIT)
    assert held.status_label.text() == "Done: 36 tiles corrected"
    assert held.cancel_button.isEnabled() and held.reader.busy  # reading may be cancelled
    go.set()
    until_idle(qtbot, held)
    assert "other raw" in names(held)
    assert held.status_label.text() == "Done: 36 tiles corrected"
    assert not held.cancel_button.isEnabled() and held.save_button.isEnabled()


def test_an_error_amid_the_tiles_says_how_many_there_are(panel, qtbot, add_scan, steady):
    steady.fail, steady.fail_at = RuntimeError("CUDA error: launch failed"), 1
    add_scan(make_scan(grid=(6, 6), size=16))
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    error, came = panel.status_label.text().split("\n")
    done = owner_of(layer(panel, "sample corrected")).done.sum()
    assert "CUDA error" in error and came == f"Stopped: {done} of 36 tiles corrected"


def test_cancelled_before_anything_is_done(panel, qtbot, add_scan):
    add_scan(make_scan(grid=(6, 6), size=16))
    panel.correct()
    panel.cancel()
    until_idle(qtbot, panel)
    assert panel.status_label.text().startswith("Cancelled")
    press(qtbot, panel.correct_button)
    until_idle(qtbot, panel)
    assert panel.status_label.text() == "Done: 36 tiles corrected"


def test_closing_napari_amid_a_correction_is_quiet(held, steady, capfd):
    from napari_txm_bgcorr.gui.common import worker

    steady.hold.set()
    held.window().close()
    held.shut_down()
    assert not worker.threads_at_work()
    assert "Traceback" not in "".join(capfd.readouterr())
