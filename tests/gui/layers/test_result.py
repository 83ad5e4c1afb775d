"""Results are kept exactly, wherever they are kept."""

import gc
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest

from napari_txm_bgcorr.core.correction import TileResult
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.gui.layers import canvas
from napari_txm_bgcorr.gui.layers import result as results
from napari_txm_bgcorr.gui.layers.canvas import CanvasLayout, MosaicArray
from napari_txm_bgcorr.gui.layers.result import Result, allocate
from tests.gui.helpers import make_scan


def tile_results(scan, seed=3):
    rng = np.random.default_rng(seed)
    shape = scan.tiles.shape[1:]
    for i in range(len(scan)):
        yield TileResult(
            index=i,
            raw=scan.tiles[i],
            background=rng.random(shape, np.float32) * 1000,
            transmission=rng.random(shape, np.float32),
            valid=rng.random(shape) > 0.1,
        )


@pytest.mark.parametrize("kind", ["single", "series", "mosaic"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_every_tile_comes_back_bit_for_bit(kind, on_disk, monkeypatch):
    if on_disk:
        monkeypatch.setattr(results, "IN_MEMORY_BYTES", 0)
    scan = make_scan(kind)
    result = Result(scan, "a")
    given = list(tile_results(scan))
    for tile in given:
        result.put(tile)
    assert result.complete
    assert isinstance(result.background, np.memmap) == on_disk
    for tile in given:
        back = result.tile(tile.index)
        for part in ("raw", "background", "transmission", "valid"):
            np.testing.assert_array_equal(getattr(back, part), getattr(tile, part))


@pytest.mark.parametrize("kind", ["single", "series", "mosaic"])
def test_pictures_show_what_is_done_and_nothing_else(kind):
    scan = make_scan(kind, overlap=0)
    result = Result(scan, "a")
    picture = result.pictures["corrected"]
    assert np.isnan(np.asarray(picture)).all()
    given = list(tile_results(scan))
    result.put(given[0])
    seen = np.asarray(picture)
    assert np.isfinite(seen).sum() == given[0].transmission.size
    for tile in given[1:]:
        result.put(tile)
    result.finish({"method": "x"})
    seen = np.asarray(picture)
    assert np.isfinite(seen).all()
    if kind == "mosaic":
        expected = MosaicArray(np.stack([t.transmission for t in given]), CanvasLayout.of(scan))[:]
        np.testing.assert_array_equal(seen, expected)
    else:
        np.testing.assert_array_equal(seen.ravel(), np.ravel([t.transmission for t in given]))


def test_coarse_levels_grow_with_the_tiles(monkeypatch):
    monkeypatch.setattr(canvas, "MULTISCALE_ABOVE_PX", 48)
    monkeypatch.setattr(canvas, "COARSEST_PX", 10)
    scan = make_scan(grid=(3, 3), size=32, overlap=4)
    result = Result(scan, "a")
    for tile in tile_results(scan):
        result.put(tile)
    result.finish(None)
    fine, *_, coarse = result.pictures["background"]
    assert coarse.shape[0] < 16 < fine.shape[0]
    step = CanvasLayout.of(scan).steps()[-1]
    expected = MosaicArray(result.background, CanvasLayout.of(scan), step=step)[:]
    np.testing.assert_array_equal(coarse, expected)
    assert np.isfinite(coarse).all()


def test_large_results_leave_no_file_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = Result(make_scan("series"), "a")
    result.background[:] = 7
    if os.name == "posix":
        assert list(tmp_path.iterdir()) == []
    del result
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_before_the_work(monkeypatch):
    monkeypatch.setattr(results, "IN_MEMORY_BYTES", 0)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    with pytest.raises(WriteError, match="TMPDIR"):
        allocate((1, 100, 100), np.float32)
