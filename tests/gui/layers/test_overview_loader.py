"""A large mosaic that napari opens: its layers are there at once, its overview fills meanwhile."""

import threading

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QTimer

from napari_txm_bgcorr.gui.common.worker import threads_at_work
from napari_txm_bgcorr.gui.layers import canvas
from napari_txm_bgcorr.gui.layers import overview_loader as fill_in
from napari_txm_bgcorr.gui.layers.blending import BlendedArray
from napari_txm_bgcorr.gui.layers.convert import owner_of
from napari_txm_bgcorr.gui.layers.result import PicturePyramid
from tests.gui.layers.test_saved_result import write

WAIT = 30_000
SIDE, GRID = 32, 3


@pytest.fixture
def gate(monkeypatch):
    """Small mosaics are large ones; their overviews wait until this is set."""
    monkeypatch.setattr(canvas, "MULTISCALE_ABOVE_PX", 48)
    monkeypatch.setattr(canvas, "COARSEST_PX", 10)
    gate, put = threading.Event(), PicturePyramid.put

    def slowly(*arguments):
        gate.wait(20)
        put(*arguments)

    monkeypatch.setattr(PicturePyramid, "put", slowly)
    yield gate
    gate.set()


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "many 3x3"
    where.mkdir()
    rng = np.random.default_rng(0)
    for k in range(GRID * GRID):
        tile = rng.integers(500, 900, (SIDE, SIDE)).astype(np.uint16)
        tifffile.imwrite(where / f"tile_{k + 1:04d}.tif", tile)
    return where


def drop_on_canvas(qtbot, viewer, path):
    """Open a path as napari does: called by its event loop."""
    opened = []
    QTimer.singleShot(0, lambda: opened.append(viewer.open(str(path), plugin="napari-txm-bgcorr")))
    qtbot.waitUntil(lambda: bool(opened), timeout=WAIT)
    return opened[0]


def whole(layer):
    """Every level as the tiles say it must be."""
    levels = [np.asarray(level) for level in layer.data]
    finest = layer.data[0]
    if isinstance(finest, BlendedArray):
        array, how = BlendedArray, finest._blend
    else:
        array, how = canvas.MosaicArray, finest._layout
    return levels, [array(finest._tiles.tiles, how, step=2**k)[:] for k in range(len(levels))]


def test_layers_are_there_before_their_overview(make_napari_viewer, qtbot, folder, gate):
    viewer = make_napari_viewer()
    (layer,) = drop_on_canvas(qtbot, viewer, folder)
    assert layer in viewer.layers and layer.multiscale and fill_in._at_work
    assert np.asarray(layer.data[0]).all() and not np.asarray(layer.data[-1]).any()
    drawn = []
    layer.events.set_data.connect(lambda: drawn.append(1))
    gate.set()
    qtbot.waitUntil(lambda: not fill_in._at_work, timeout=WAIT)
    for level, expected in zip(*whole(layer), strict=True):
        np.testing.assert_array_equal(level, expected)
    assert drawn and layer.thumbnail.any() and not threads_at_work()


def test_a_saved_output_fills_its_three_layers(make_napari_viewer, qtbot, tmp_path, gate):
    viewer = make_napari_viewer()
    layers = drop_on_canvas(qtbot, viewer, write(tmp_path))
    assert len(layers) == 3 and fill_in._at_work
    gate.set()
    qtbot.waitUntil(lambda: not fill_in._at_work, timeout=WAIT)
    assert owner_of(layers[1]) is owner_of(layers[2])
    blended = [isinstance(layer.data[0], BlendedArray) for layer in layers]
    assert blended == [False, False, True]
    for layer in layers:
        for level, expected in zip(*whole(layer), strict=True):
            np.testing.assert_allclose(level, expected, rtol=1e-6)


def test_a_script_gets_complete_layers(make_napari_viewer, folder, gate):
    gate.set()
    viewer = make_napari_viewer()
    (layer,) = viewer.open(str(folder), plugin="napari-txm-bgcorr")  # no event loop runs
    assert not threads_at_work()
    for level, expected in zip(*whole(layer), strict=True):
        np.testing.assert_array_equal(level, expected)


@pytest.mark.parametrize("end", ["layers", "viewer", "window"])
def test_it_ends_with_its_layers_and_with_the_window(make_napari_viewer, qtbot, folder, gate, end):
    viewer = make_napari_viewer()
    drop_on_canvas(qtbot, viewer, folder)
    qtbot.wait(50)
    gate.set()
    {"layers": viewer.layers.clear, "viewer": viewer.close, "window": viewer.window.close}[end]()
    qtbot.waitUntil(lambda: not threads_at_work() and not fill_in._at_work, timeout=WAIT)


def test_a_tile_that_cannot_be_read_is_said(make_napari_viewer, qtbot, folder, gate):
    from napari.utils.notifications import notification_manager

    torn = folder / "tile_0002.tif"
    torn.write_bytes(b"II*\0".ljust(torn.stat().st_size, b"\0"))
    viewer = make_napari_viewer()
    before = len(notification_manager.records)
    (layer,) = drop_on_canvas(qtbot, viewer, folder)
    gate.set()
    qtbot.waitUntil(lambda: not fill_in._at_work, timeout=WAIT)
    said = [record.message for record in notification_manager.records[before:]]
    assert layer in viewer.layers and any("tile_0002" in words for words in said)
