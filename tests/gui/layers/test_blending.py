"""The corrected layer of a mosaic looks like the stitched picture, pixel for pixel."""

from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.core.correction import TileResult
from napari_txm_bgcorr.gui.correct.messages import Finished
from napari_txm_bgcorr.gui.correct.tasks import correct_job
from napari_txm_bgcorr.gui.layers import canvas
from napari_txm_bgcorr.gui.layers.blending import BlendedArray, BlendedTiles, own_part
from napari_txm_bgcorr.gui.layers.canvas import MosaicArray
from napari_txm_bgcorr.gui.layers.convert import scan_layer
from napari_txm_bgcorr.gui.layers.result import PicturePyramid, Result
from napari_txm_bgcorr.gui.layers.saved_result import open_result
from napari_txm_bgcorr.gui.layers.stitched import _stitch
from napari_txm_bgcorr.gui.session import CorrectionJob, JobInput
from napari_txm_bgcorr.io import read
from napari_txm_bgcorr.io.output.pyramid_reader import open_pyramid
from napari_txm_bgcorr.mosaic.blending import VALID, Box, feather, mix, share_out
from napari_txm_bgcorr.mosaic.blending import Layout as Places
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic
from tests.gui.helpers import chosen, make_scan
from tests.gui.layers.test_canvas import places, scattered
from tests.workflows.stitch_parts import make_result

STEPS = st.sampled_from([1, 2, 4])


def blend_of(tiles, layout, valid=None, unlit=None):
    """How these tiles are blended, with all pixels to be trusted unless it is said otherwise."""
    valid = np.ones(tiles.shape, bool) if valid is None else valid
    corners = SimpleNamespace(weight=feather(layout.tile, unlit), unlit=unlit)
    return BlendedTiles(layout, lambda i: valid[i], corners)


def shown(tiles, layout, valid=None, unlit=None, **more):
    return BlendedArray(tiles, blend_of(tiles, layout, valid, unlit), **more)


def holes(tiles, seed):
    """Trust in most pixels: not in some, and not in a corner."""
    valid = np.random.default_rng(seed).random(tiles.shape) > 0.1
    valid[:, :4, :4] = False
    return valid


@pytest.fixture
def small(monkeypatch):
    """Small mosaics are large ones: with levels in memory."""
    monkeypatch.setattr(canvas, "MULTISCALE_ABOVE_PX", 48)
    monkeypatch.setattr(canvas, "COARSEST_PX", 10)


@settings(max_examples=60, deadline=None)
@given(places, st.integers(0, 99))
def test_it_is_what_stitching_makes_of_the_same_tiles(corners, seed):
    tiles, layout = scattered(corners)
    valid, unlit = holes(tiles, seed), np.zeros(layout.tile, bool)
    unlit[:3, :3] = True
    stitching = Places(layout.corners, layout.tile, layout.shape)
    pieces, known = share_out(
        stitching, Box(0, 0, *layout.shape), feather(layout.tile, unlit),
        lambda i: np.where(valid[i], np.uint8(VALID), np.uint8(0)),
    )  # fmt: skip
    expected = mix(pieces, known, lambda i: tiles[i])
    got = shown(tiles, layout, valid, unlit)[:]
    np.testing.assert_allclose(got[known], expected[known], rtol=1e-6)
    seen = np.zeros(layout.shape, bool)  # by a tile, behind no aperture
    for y, x in layout.corners.tolist():
        seen[y : y + layout.tile[0], x : x + layout.tile[1]] |= ~unlit
    np.testing.assert_array_equal(got > 0, seen)  # what cannot be trusted is shown there, too


@settings(max_examples=40, deadline=None)
@given(places, STEPS, st.integers(0, 99))
def test_one_value_stays_that_value_everywhere(corners, step, seed):
    tiles, layout = scattered(corners)
    valid = holes(tiles, seed)
    tiles = np.where(valid, np.float32(0.7), np.float32(9))  # 9 is not to be trusted
    covered = MosaicArray(tiles, layout, step=step)[:] > 0
    trusted = MosaicArray(valid.astype(np.float32), layout, step=step)[:] > 0.999
    got = shown(tiles, layout, valid, step=step)[:]
    np.testing.assert_array_equal(got > 0, covered)
    np.testing.assert_allclose(got[trusted], 0.7, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(places, st.slices(60), st.slices(60), STEPS)
def test_any_part_equals_that_part_of_the_whole(corners, rows, columns, step):
    tiles, layout = scattered(corners)
    mosaic = shown(tiles, layout, holes(tiles, 3), step=step)
    np.testing.assert_array_equal(mosaic[rows, columns], np.asarray(mosaic)[rows, columns])


@settings(max_examples=60, deadline=None)
@given(places)
def test_what_a_tile_has_to_itself_no_other_touches(corners):
    _, layout = scattered(corners)
    boxes = [Box(y, x, y + 13, x + 11) for y, x in layout.corners.tolist()]
    count = np.zeros(layout.shape, int)
    for top, left, bottom, right in boxes:
        count[top:bottom, left:right] += 1
    for k, box in enumerate(boxes):
        top, left, bottom, right = own_part(box, boxes[:k] + boxes[k + 1 :])
        assert (count[top:bottom, left:right] == 1).all()


def test_no_line_is_left_at_the_edges_of_tiles():
    scan = make_scan(grid=(3, 3), size=64, overlap=16)
    layout = canvas.CanvasLayout.of(scan)
    tiles = np.empty((9, 64, 64), np.float32)
    tiles[:] = (1 + 0.03 * np.arange(9) % 0.05)[:, None, None]
    for step in (1, 2, 4):
        pasted = MosaicArray(tiles, layout, step=step)[:]
        blended = shown(tiles, layout, step=step)[:]
        for axis in (0, 1):
            line = np.abs(np.diff(blended, axis=axis)).max()
            assert line < np.abs(np.diff(pasted, axis=axis)).max() * step / 12  # over 16 px


def test_pixels_not_to_be_trusted_show_where_there_is_nothing_better():
    layout = canvas.CanvasLayout((8, 12), np.array([[0, 0], [0, 4]]), (8, 8))
    tiles = np.stack([np.full((8, 8), v, np.float32) for v in (1, 2)])
    valid = np.ones(tiles.shape, bool)
    valid[0, :4] = valid[1, 2:6] = False
    got = shown(tiles, layout, valid, fill=lambda: np.nan)[:]
    assert (got[:2, 4:8] == 2).all() and (got[4:6, 4:8] == 1).all()  # one can be trusted
    assert (got[2:4, 4:8] == 2).all()  # none: the later one, as everywhere
    assert (got[:4, :4] == 1).all() and (got[2:6, 8:] == 2).all()  # alone


def test_a_tile_that_cannot_be_read_takes_nothing_from_its_neighbours():
    scan = make_scan(grid=(1, 3), size=32, overlap=8)
    layout = canvas.CanvasLayout.of(scan)
    tiles = np.ones((3, 32, 32), np.float32)
    tiles[1] = np.nan
    got = shown(tiles, layout)[:]
    assert (got[:, :32] == 1).all() and (got[:, -32:] == 1).all()
    assert np.isnan(got[:, 32:-32]).all()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(9)), st.integers(0, 99))
def test_levels_that_grow_are_those_that_are_read(order, seed):
    layout = canvas.CanvasLayout.of(make_scan(grid=(3, 3), size=32, overlap=10))
    rng = np.random.default_rng(seed)
    tiles = rng.random((9, 32, 32), np.float32)
    valid, done = holes(tiles, seed), np.zeros(9, bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "MULTISCALE_ABOVE_PX", 48)
        patch.setattr(canvas, "COARSEST_PX", 10)
        blend = blend_of(tiles, layout, valid)
        pyramid = PicturePyramid(tiles, layout, done=done, gap=np.nan, blend=blend)
    assert pyramid.steps == (1, 2, 4, 8)

    def check():
        for step, level in zip(pyramid.steps, pyramid.levels, strict=True):
            read = BlendedArray(tiles, blend, step=step, done=done, fill=lambda: np.nan)[:]
            level, masks = np.asarray(level), valid.astype(np.float32)
            # where none can be trusted the latest shows
            trusted = MosaicArray(masks, layout, step=step, done=done)[:] > 0.999
            np.testing.assert_array_equal(np.isnan(read), np.isnan(level))
            np.testing.assert_allclose(read[trusted], level[trusted], rtol=1e-5)

    for k, i in enumerate(order):
        done[i] = True
        pyramid.put(i, tiles[i])
        if k in (2, 5, 8):
            check()
    for i in order[:3]:  # corrected again: other values, other pixels to trust
        tiles[i], valid[i] = rng.random((32, 32)), rng.random((32, 32)) > 0.2
        pyramid.put(i, tiles[i])
    check()


def test_tiles_that_are_there_are_blended_among_themselves(small):
    """As they arrive, on every level, with a corner cut off that is seen in the first tile."""
    scan = make_scan(grid=(4, 4), size=32, overlap=12)
    result = Result(scan, "a")
    lit = np.add.outer(np.arange(32), np.arange(32)) >= 12
    for i in range(12):
        value = np.where(lit, np.float32(1 + 0.1 * (i % 2)), np.float32(1))
        result.put(TileResult(i, scan.tiles[i], value * 1000, value, lit))
        levels = [np.asarray(level) for level in result.pictures["corrected"]]
        assert all(np.nanmin(level) >= 1 for level in levels)
    np.testing.assert_array_equal(result._corners.unlit, ~lit)
    again = Result(scan, "a")  # which knew of the corners from the beginning
    again._corners = result._corners
    again.pictures = again._make_pictures()
    for i in reversed(range(12)):
        again.put(result.tile(i))
    for mine, other in zip(levels, again.pictures["corrected"], strict=True):
        np.testing.assert_allclose(mine, np.asarray(other), rtol=1e-5)


def test_raw_and_background_stay_as_they_are(small):
    scan = make_scan(grid=(2, 2), size=32, overlap=8)
    result = Result(scan, "a")
    for i in range(4):
        tile = np.full((32, 32), i + 1, np.float32)
        result.put(TileResult(i, scan.tiles[i], tile, tile, np.ones((32, 32), bool)))
    background, corrected = (result.pictures[k] for k in ("background", "corrected"))
    for level in background[:2]:
        np.testing.assert_array_equal(np.unique(level), [1, 2, 3, 4])
    assert len(np.unique(corrected[0])) > 20


def stitched(result, folder):
    """The stitched picture of a result, and where something is known in it."""
    out = folder / "stitched.ome.zarr"
    assert _stitch(result, out, False, Event(), lambda message: None)
    picture = np.asarray(open_pyramid(out).levels["corrected"][0][:])
    return picture, np.isfinite(picture)


def trusted_somewhere(result):
    masks = np.stack([result.valid(i) for i in range(len(result))]).astype(np.float32)
    layout = canvas.CanvasLayout.of(result.scan)
    seen = np.zeros(layout.shape, bool)
    for mask, (y, x) in zip(masks, layout.corners, strict=True):
        seen[y : y + mask.shape[0], x : x + mask.shape[1]] |= mask > 0
    return seen


def test_a_run_shows_its_stitched_picture(tmp_path):
    """Registered, with corners cut off by an aperture: what is shown is what is saved."""
    scan = simulate_mosaic(3, 3, size=96, seed=5, family="bl01b", specimen="cells").scan
    job = CorrectionJob((JobInput("m", 0, scan),), chosen("tile-median", joint=True))
    (result,) = [m.result for m in correct_job(job, Event()) if isinstance(m, Finished)]
    assert result.registered and result._corners.unlit is not None
    picture, known = stitched(result, tmp_path)
    layer = np.asarray(result.pictures["corrected"])
    known &= trusted_somewhere(result)
    assert known.mean() > 0.8 and layer.shape == picture.shape
    np.testing.assert_allclose(layer[known], picture[known], rtol=1e-6)


@pytest.mark.parametrize("mask", [(), ("mask",)])
def test_an_output_on_disk_shows_its_stitched_picture(tmp_path, mask):
    out = make_result(tmp_path / "a.ome.zarr", save=("raw", "background", "corrected", *mask))
    result = open_result(out)
    layer = np.asarray(result.pictures["corrected"])  # nothing has asked for a tile yet
    picture, known = stitched(result, tmp_path)
    known &= trusted_somewhere(result)
    assert known.mean() > 0.9
    np.testing.assert_allclose(layer[known], picture[known], rtol=1e-6)


def test_corrected_tiles_alone_are_blended_too(tmp_path, small):
    out = make_result(tmp_path / "a.ome.zarr", save=("corrected",))
    (data, arguments, _), pyramid = scan_layer(read(out / "corrected"), "corrected")
    assert arguments["multiscale"] and isinstance(data[0], BlendedArray)
    assert sum(1 for _ in pyramid.fill()) == 12
    whole = np.asarray(data[0])
    assert not np.isin(whole, np.float32(1)).all() and np.isfinite(whole).mean() > 0.95
    for k, level in enumerate(data):
        read_anew = BlendedArray(data[0]._tiles.tiles, data[0]._blend, step=2**k)[:]
        np.testing.assert_allclose(level, read_anew, rtol=1e-5)
