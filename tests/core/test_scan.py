import hashlib
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.core.scan import Scan, Source, raster_cells, raster_positions
from napari_txm_bgcorr.core.tile_array import LazyTiles, TileArray
from napari_txm_bgcorr.errors import ReadError

STACK = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)


def lazy(stack=STACK):
    read = []

    def tile(i):
        read.append(i)
        return stack[i]

    return LazyTiles(stack.shape, stack.dtype, tile), read


def scan(**facts):
    given = {"tiles": STACK, "kind": "series", "names": tuple("abcde"), **facts}
    return Scan(source=Source(Path("x.tif"), "tiff"), **given)


@pytest.mark.parametrize(
    "key",
    [0, -1, slice(None), slice(1, 4), slice(4, None, -2), (2, slice(1, 3)), ..., [0, 3],
     (slice(0, 2), 1, slice(2, 5)), np.array([True, False, True, False, False]), slice(3, 3)],
)  # fmt: skip
def test_lazy_tiles_index_like_numpy(key):
    tiles, _ = lazy()
    found = tiles[key]
    np.testing.assert_array_equal(found, STACK[key])
    assert found.dtype == STACK.dtype


def test_only_what_is_asked_for_is_read():
    tiles, read = lazy()
    assert isinstance(tiles, TileArray)
    tiles[3], tiles[1:3]
    assert read == [3, 1, 2]
    assert (len(tiles), tiles.size, tiles.nbytes, tiles.ndim) == (5, 210, 420, 3)
    np.testing.assert_array_equal(np.asarray(tiles), STACK)


@pytest.mark.parametrize("i", [5, -6])
def test_tiles_outside_the_stack(i):
    with pytest.raises(IndexError, match=f"tile {i} of a stack of 5"):
        lazy()[0][i]


def test_a_tile_of_another_size_is_named():
    tiles = LazyTiles((2, 6, 7), np.uint16, lambda i: np.zeros((6, 8), np.uint16))
    with pytest.raises(ReadError, match=r"tile 1: size \(6, 8\) differs"):
        tiles[1]


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"tiles": STACK[0]}, "expected"),
        ({"tiles": STACK[:, :0]}, "expected"),
        ({"names": tuple("abc")}, "3 names for 5 tiles"),
        ({"grid": (2, 2)}, "grid of 2 x 2"),
        ({"grid": (3, 2), "raster_index": np.array([0, 1, 2, 3, 6])}, "ascending"),
        ({"grid": (3, 2), "raster_index": np.array([0, 1, 3, 2, 5])}, "ascending"),
        ({"grid": (3, 2), "raster_index": np.arange(4)}, "cells .* for 5 tiles"),
        ({"raster_index": np.arange(5)}, "grid of None"),
        ({"positions_px": np.zeros((4, 2))}, "positions"),
        ({"flats": STACK[:, :3]}, "flats of .* same binning"),
        ({"darks": STACK[:, :, :3]}, "darks of .* same binning"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(facts, match):
    with pytest.raises(ReadError, match=match):
        scan(**facts)


def test_a_scan_is_frozen():
    with pytest.raises(FrozenInstanceError):
        scan().kind = "mosaic"


def test_dark_is_the_median_of_the_darks():
    darks = np.stack([np.full((6, 7), v, np.uint16) for v in (100, 104, 900)])
    dark = scan(darks=darks).dark()
    assert dark.dtype == np.float32 and (dark == 104).all()
    assert scan().dark() is None and scan(darks=darks[:0]).dark() is None


def test_raster_begins_bottom_left_and_goes_right_then_up():
    cells = raster_cells((2, 3))
    assert cells.tolist() == [[1, 0], [1, 1], [1, 2], [0, 0], [0, 1], [0, 2]]
    assert raster_positions((2, 3), (10, 20))[3].tolist() == [0, 0]
    assert raster_positions((2, 3), (10, 20))[2].tolist() == [10, 40]
    assert scan(kind="mosaic", grid=(2, 3)).cells.tolist() == cells[:5].tolist()
    assert scan().cells is None
    assert scan().abutted_positions() is None


def test_absent_tiles_leave_cells_empty():
    gaps = scan(kind="mosaic", grid=(2, 4), raster_index=np.array([0, 2, 3, 5, 6]))
    assert gaps.cells.tolist() == [[1, 0], [1, 2], [1, 3], [0, 1], [0, 2]]
    assert gaps.abutted_positions().tolist() == [[6, 0], [6, 14], [6, 21], [0, 7], [0, 14]]
    assert gaps.facts()["raster_index"] == [0, 2, 3, 5, 6]
    assert scan(kind="mosaic", grid=(2, 3)).abutted_positions()[3].tolist() == [0, 0]


def test_hash_of_one_file_and_of_several(tmp_path):
    paths = [tmp_path / name for name in ("a.tif", "b.tif")]
    for path in paths:
        path.write_bytes(path.name.encode())
    one = Source(paths[0], "tiff", (paths[0],)).sha256
    both = Source(tmp_path, "tiff", tuple(paths)).sha256
    assert one == hashlib.sha256(b"a.tif").hexdigest()
    assert both not in (one, Source(tmp_path, "tiff", tuple(paths[::-1])).sha256)
    paths[1].write_bytes(b"changed")
    assert Source(tmp_path, "tiff", tuple(paths)).sha256 != both
