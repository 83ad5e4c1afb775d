"""The canvas shows exactly the tiles it is made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.gui.layers import canvas
from napari_txm_bgcorr.gui.layers.canvas import CachedTiles, CanvasLayout, MosaicArray, StackArray
from napari_txm_bgcorr.gui.layers.result import PicturePyramid, raw_picture
from tests.gui.helpers import make_scan

places = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6)


def scattered(corners, size=(13, 11)):
    """Tiles of distinct constant-plus-ramp values at the given corners."""
    ramp = np.arange(size[0] * size[1]).reshape(size)
    tiles = np.stack([ramp + 1000 * (i + 1) for i in range(len(corners))]).astype(np.float32)
    array = np.array(corners, np.int64)
    array -= array.min(axis=0)
    height, width = array.max(axis=0) + size
    return tiles, CanvasLayout((int(height), int(width)), array, size)


def painted(tiles, layout):
    """The whole canvas, painted tile after tile."""
    out = np.zeros(layout.shape, tiles.dtype)
    for tile, (y, x) in zip(tiles, layout.corners, strict=True):
        out[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return out


@settings(max_examples=40, deadline=None)
@given(places)
def test_canvas_is_the_tiles_painted_in_order(corners):
    tiles, layout = scattered(corners)
    np.testing.assert_array_equal(MosaicArray(tiles, layout)[:], painted(tiles, layout))


@settings(max_examples=60, deadline=None)
@given(places, st.slices(60), st.slices(60), st.integers(1, 3))
def test_any_part_equals_that_part_of_the_whole(corners, rows, columns, step):
    tiles, layout = scattered(corners)
    mosaic = MosaicArray(tiles, layout, step=step)
    whole = np.asarray(mosaic)
    np.testing.assert_array_equal(mosaic[rows, columns], whole[rows, columns])
    np.testing.assert_array_equal(mosaic[..., columns], whole[..., columns])
    np.testing.assert_array_equal(mosaic[rows], whole[rows])


@settings(max_examples=60, deadline=None)
@given(places, st.sampled_from([2, 4, 8]))
def test_coarse_levels_leave_no_gap_and_no_shift(corners, step):
    tiles, layout = scattered(corners)
    whole = painted(tiles, layout)
    coarse = MosaicArray(tiles, layout, step=step)[:]
    assert coarse.shape == layout.level_shape(step)
    np.testing.assert_array_equal(coarse > 0, whole[::step, ::step] > 0)
    # A block of one tile differs from its first pixel by less than the ramp across the block.
    same = (coarse > 0) & (coarse // 1000 == whole[::step, ::step] // 1000)
    assert np.abs(coarse - whole[::step, ::step])[same].max() <= (step - 1) * 12
    assert same.sum() == (coarse > 0).sum()


def test_coarse_pixels_are_means_of_blocks():
    rng = np.random.default_rng(1)
    tiles = rng.random((1, 32, 32)).astype(np.float32)
    layout = CanvasLayout((32, 32), np.zeros((1, 2), np.int64), (32, 32))
    expected = tiles[0].reshape(8, 4, 8, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(MosaicArray(tiles, layout, step=4)[:], expected, rtol=1e-6)


def test_single_pixels_and_bounds():
    tiles, layout = scattered([(0, 0), (5, 9)])
    mosaic, whole = MosaicArray(tiles, layout), painted(tiles, layout)
    assert mosaic[3, 4] == whole[3, 4] and mosaic[-1, -1] == whole[-1, -1]
    with pytest.raises(IndexError):
        mosaic[layout.shape[0], 0]


def test_only_the_tiles_in_sight_are_read():
    scan = make_scan(grid=(4, 4))
    read = []

    class Watched:
        shape, dtype = scan.tiles.shape, scan.tiles.dtype

        def __getitem__(self, i):
            read.append(i)
            return scan.tiles[i]

    mosaic = MosaicArray(Watched(), CanvasLayout.of(scan))
    assert read == []
    mosaic[:5, :5]
    assert read == [12]  # the top left tile is the first of the last row taken


def test_layout_without_positions_abuts_the_tiles_from_the_bottom():
    from dataclasses import replace

    scan = replace(make_scan(grid=(2, 3), size=8), positions_px=None)
    layout = CanvasLayout.of(scan)
    assert layout.shape == (16, 24)
    assert layout.corners[0].tolist() == [8, 0] and layout.corners[5].tolist() == [0, 16]


def test_absent_tiles_leave_the_canvas_empty():
    from dataclasses import replace

    whole, keep = make_scan(grid=(2, 3), size=8), np.array([0, 2, 4])
    scan = replace(
        whole, tiles=whole.tiles[keep], names=tuple(whole.names[i] for i in keep),
        raster_index=keep, positions_px=None,
    )  # fmt: skip
    mosaic = MosaicArray(scan.tiles, CanvasLayout.of(scan))
    assert mosaic.shape == (16, 24)
    picture = np.asarray(mosaic[:, :])
    np.testing.assert_array_equal(picture[8:, 16:], whole.tiles[2])
    assert not picture[8:, 8:16].any() and not picture[:8, :8].any()


def test_pyramid_only_where_the_canvas_is_large(monkeypatch):
    scan = make_scan(grid=(3, 3), size=32, overlap=0)
    assert CanvasLayout.of(scan).steps() == (1,)
    monkeypatch.setattr(canvas, "MULTISCALE_ABOVE_PX", 64)
    monkeypatch.setattr(canvas, "COARSEST_PX", 10)
    layout = CanvasLayout.of(scan)
    assert layout.steps() == (1, 2, 4, 8, 16)
    pyramid = PicturePyramid(scan.tiles, layout)
    assert not any(level.any() for level in pyramid.levels[2:])
    assert len(list(pyramid.fill())) == 9
    for step, level in zip(layout.steps(), pyramid.levels, strict=True):
        np.testing.assert_array_equal(level, MosaicArray(scan.tiles, layout, step=step)[:])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), places, st.sampled_from([1, 2, 4, 8]))
def test_a_block_can_be_trusted_where_each_of_its_pixels_can(height, width, corner, step):
    at, rng = np.array(corner[0]), np.random.default_rng(height)
    valid = rng.random((height, width)) > 0.02
    skip = -at % step
    part = valid[skip[0] :, skip[1] :]
    blocks = [
        [part[y : y + step, x : x + step].all() for x in range(0, part.shape[1], step)]
        for y in range(0, part.shape[0], step)
    ]
    if part.size:
        np.testing.assert_array_equal(canvas.reduce_mask(valid, at, step), blocks)


def test_cache_reads_each_tile_once_and_keeps_its_bound():
    tiles = np.zeros((8, 16, 16), np.uint16)
    read = []

    class Watched:
        shape, dtype = tiles.shape, tiles.dtype

        def __getitem__(self, i):
            read.append(i)
            return tiles[i]

    cached = CachedTiles(Watched(), limit_bytes=2 * 512)
    for i in (0, 1, 0, 1, 2, 0):
        cached[i]
    assert read == [0, 1, 2, 0]


@pytest.mark.parametrize("key", [3, (2, slice(1, 4)), slice(0, 2), (slice(None), 1, 2), Ellipsis])
def test_stack_reads_like_its_array(key):
    tiles = make_scan("series").tiles
    np.testing.assert_array_equal(StackArray(tiles, flat=False)[key], tiles[key])


def test_single_image_has_two_axes():
    tiles = make_scan("single").tiles
    picture = StackArray(tiles, flat=True)
    assert picture.shape == (32, 32) and picture.ndim == 2 and picture.size == 1024
    np.testing.assert_array_equal(np.asarray(picture), tiles[0])
    np.testing.assert_array_equal(picture[3:5, ::2], tiles[0, 3:5, ::2])


@pytest.mark.parametrize("kind", ["mosaic", "series"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_tile_that_cannot_be_read_is_a_gap_and_is_said_once(kind, dtype):
    from dataclasses import replace

    from napari.utils.notifications import notification_manager

    from napari_txm_bgcorr.errors import ReadError

    scan = make_scan(kind, overlap=0)

    def read(i):
        if i == 1:
            raise ReadError("scan: image 1: damaged; copy it again")
        return np.asarray(scan.tiles[i]).astype(dtype)

    torn = LazyTiles(tuple(scan.tiles.shape), dtype, read)
    data, _ = raw_picture(replace(scan, tiles=torn))
    before = len(notification_manager.records)
    for _ in range(3):
        whole = np.asarray(data)
    gap = np.isnan(whole) if dtype == "float32" else whole == 0
    assert gap.sum() == 32 * 32  # the one tile and no other
    if kind == "series":
        assert gap[1].all() and (np.isnan(data[1]) | (data[1] == 0)).all()
    (record,) = notification_manager.records[before:]
    assert "damaged" in record.message
