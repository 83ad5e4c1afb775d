"""Reading a finished output whole, and replacing tiles of it without touching the others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr import io
from napari_txm_bgcorr.core.correction import TileResult
from napari_txm_bgcorr.errors import ReadError, WriteError
from napari_txm_bgcorr.io.output import patch as finished_output
from napari_txm_bgcorr.io.output.patch import Patch, open_finished

from .outputs import make_scan, result, write_all

ALL = ("raw", "background", "corrected", "mask")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_all(tmp_path / "out.ome.zarr", "omezarr", make_scan(), save=ALL)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def other(index: int) -> TileResult:
    """Another result for a tile."""
    tile = result(make_scan(), index)
    return replace(
        tile,
        background=tile.background * np.float32(1.25),
        transmission=tile.transmission / np.float32(1.25),
        valid=~tile.valid,
        raw=tile.raw + 1,  # never written
    )


def test_finished_output_is_read_whole(store: Path):
    scan = make_scan()
    for path in (store, store / "corrected"):
        found = open_finished(path)
        assert found.path == store
        assert found.scan.grid == scan.grid and found.scan.names == scan.names
        for i in (0, 5):
            tile = result(scan, i)
            np.testing.assert_array_equal(found.scan.tiles[i], tile.raw)
            np.testing.assert_array_equal(found.background[i], tile.background)
            np.testing.assert_array_equal(found.corrected[i], tile.transmission)
            np.testing.assert_array_equal(found.mask[i], tile.valid)
        assert found.provenance["method"] == "smooth"


@pytest.mark.parametrize("form", ["ometiff", "tiff"])
def test_tiff_outputs_are_read_whole_too(tmp_path: Path, form: str):
    scan = make_scan()
    store = write_all(tmp_path / "out", form, scan, save=ALL)
    part = "corrected.ome.tif" if form == "ometiff" else "corrected"
    for path in (store, store / part):
        found = open_finished(path)
        assert (found.path, found.scan.kind, found.scan.grid) == (store, "mosaic", scan.grid)
        for i in range(len(scan)):
            tile = result(scan, i)
            np.testing.assert_array_equal(found.scan.tiles[i], tile.raw)
            np.testing.assert_array_equal(found.background[i], tile.background)
            np.testing.assert_array_equal(found.corrected[i], tile.transmission)
            np.testing.assert_array_equal(found.mask[i] > 0, tile.valid)
        assert found.provenance["method"] == "smooth" and found.scan.provenance is None
    with pytest.raises(WriteError, match="TIFF files are not replaced"):
        Patch(found, [0], {})


def test_only_the_announced_chunks_change(store: Path):
    before = files(store)
    patch = Patch(open_finished(store), [4, 1], {"method": "tile-median", "date": "later"})
    for i in (1, 4):
        patch.write(other(i))
    patch.close_complete()
    after = files(store)
    changed = {name for name in after if before.get(name) != after[name]}
    roles = ("background", "corrected", "mask")
    chunks = {f"{role}/0/c/{i}/0/0" for role in roles for i in (1, 4)}
    assert changed == chunks | {"zarr.json"} | {f"{role}/zarr.json" for role in roles}
    assert set(after) == set(before)
    again = open_finished(store)
    np.testing.assert_array_equal(again.corrected[4], other(4).transmission)
    np.testing.assert_array_equal(again.mask[1], other(1).valid)
    np.testing.assert_array_equal(again.scan.tiles[1], make_scan().tiles[1])


def test_record_says_which_tiles_were_made_by_what(store: Path):
    for tiles, method in (([1], "envelope"), ([2, 1], "captured")):
        patch = Patch(open_finished(store), tiles, {"method": method})
        for i in tiles:
            patch.write(other(i))
        patch.close_complete()
    for place in (store, store / "corrected"):
        content = json.loads((place / "zarr.json").read_text())
        redone = content["attributes"]["txm_bgcorr"]["provenance"]["redone"]
        assert [(r["tiles"], r["method"], r["complete"]) for r in redone] == [
            ([1], "envelope", True),
            ([1, 2], "captured", True),
        ]
    assert io.read(store / "corrected").provenance["redone"] == redone


def test_interrupted_redo_is_on_record_and_taken_up(store: Path):
    patch = Patch(open_finished(store), [1, 2], {"method": "envelope"})
    patch.write(other(1))
    with pytest.raises(WriteError, match="1 tiles not replaced"):
        patch.close_complete()
    (entry,) = open_finished(store).provenance["redone"]
    assert entry["complete"] is False
    patch = Patch(open_finished(store), [1, 2], {"method": "captured"})
    for i in (1, 2):
        patch.write(other(i))
    patch.close_complete()
    (entry,) = open_finished(store).provenance["redone"]
    assert (entry["method"], entry["complete"]) == ("captured", True)


def test_a_failing_write_leaves_the_old_chunk(store: Path, monkeypatch: pytest.MonkeyPatch):
    old = open_finished(store).corrected[1]
    patch = Patch(open_finished(store), [1], {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(finished_output.os, "replace", full)
    with pytest.raises(WriteError, match="disk full"):
        patch.write(other(1))
    monkeypatch.undo()
    np.testing.assert_array_equal(open_finished(store).corrected[1], old)
    assert not [name for name in files(store) if ".new-" in name]


def test_second_level_follows(tmp_path: Path):
    scan = make_scan(1, 2, size=(20, 1030))
    store = write_all(tmp_path / "out", "omezarr", scan)
    assert (store / "corrected" / "1").is_dir()
    tile = replace(result(scan, 1), transmission=np.full((20, 1030), 0.25, np.float32))
    patch = Patch(open_finished(store), [1], {})
    patch.write(tile)
    patch.close_complete()
    import zarr

    level = zarr.open(store=store / "corrected" / "1", mode="r")
    assert np.asarray(level[1]).tolist() == np.full((10, 515), 0.25).tolist()
    assert not np.array_equal(np.asarray(level[0]), np.asarray(level[1]))


def test_what_cannot_be_changed_is_refused(store: Path, tmp_path: Path):
    patch = Patch(open_finished(store), [1], {})
    with pytest.raises(WriteError, match="tile 2"):
        patch.write(other(2))
    with pytest.raises(WriteError, match="tile 1"):
        patch.write(replace(other(1), transmission=np.ones((3, 3), np.float32)))
    meta = store / "corrected" / "0" / "zarr.json"
    content = json.loads(meta.read_text())
    content["chunk_grid"]["configuration"]["chunk_shape"] = [6, 20, 26]
    meta.write_text(json.dumps(content))
    with pytest.raises(ReadError, match="not one chunk a tile"):
        Patch(open_finished(store), [1], {})


def test_incomplete_outputs_are_refused_in_one_line(store: Path, tmp_path: Path):
    with pytest.raises(ReadError, match="no output of txm-bgcorr"):
        open_finished(tmp_path)
    shutil.rmtree(store / "raw")
    with pytest.raises(ReadError, match="raw tiles are missing"):
        open_finished(store)
    shutil.rmtree(store / "background")
    with pytest.raises(ReadError, match="background is missing"):
        open_finished(store)
    (store / "zarr.json").write_text('{"attributes": {}}')
    with pytest.raises(ReadError, match="no txm_bgcorr record"):
        open_finished(store)
