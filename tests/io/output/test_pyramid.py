"""Stitched pyramids: the scene comes back, levels fit, nothing unknown is shown, all is told."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr

from napari_txm_bgcorr.core.provenance import refuse_if_corrected
from napari_txm_bgcorr.errors import AlreadyCorrectedError, ReadError, TxmError, WriteError
from napari_txm_bgcorr.io import read
from napari_txm_bgcorr.io.output import pyramid as write_pyramid
from napari_txm_bgcorr.io.output.job import DONE
from napari_txm_bgcorr.io.output.pyramid_reader import open_pyramid
from napari_txm_bgcorr.io.output.result import open_parts
from napari_txm_bgcorr.io.output.tile_positions import Places, begun_places, find_places
from napari_txm_bgcorr.mosaic.blending import halve
from napari_txm_bgcorr.workflows.stitching import blocks as stitching
from napari_txm_bgcorr.workflows.stitching.blocks import StitchOptions, stitch_tiles
from tests.workflows.stitch_parts import (
    LIT,
    PROVENANCE,
    STEP,
    TILE,
    background,
    make_result,
    scene,
)

PARTS = ("raw", "background", "corrected")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_result(tmp_path_factory.mktemp("result") / "tiles.ome.zarr")


def stitched(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    parts = open_parts(source)
    chosen = StitchOptions(**{"parts": PARTS, "chunk": 32, **options})
    return stitch_tiles(parts, find_places(parts), out, chosen)


def known_pixels(rows: int = 3, columns: int = 4) -> np.ndarray:
    known = np.zeros(scene(rows, columns).shape, bool)
    for y in range(0, rows * STEP, STEP):
        for x in range(0, columns * STEP, STEP):
            known[y : y + TILE, x : x + TILE] |= LIT
    return known


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_scene_comes_back_and_only_what_no_tile_sees_is_unknown(
    result: Path, tmp_path: Path
) -> None:
    summary = stitched(result, tmp_path / "out.ome.zarr")
    assert summary["positions"] == "registered" and "9 of 9" in summary["note"]
    pyramid = open_pyramid(tmp_path / "out.ome.zarr")
    assert set(pyramid.levels) == set(PARTS)
    mosaic, whole, known = pyramid.levels["corrected"][0][:], scene(3, 4), known_pixels()
    assert mosaic.shape == whole.shape == pyramid.shape == tuple(summary["shape"])
    np.testing.assert_array_equal(np.isfinite(mosaic), known)
    assert not known.all()
    off = np.abs(mosaic - whole)
    stand_ins = off > 1e-5  # dead pixels that no other tile sees: at most one a tile
    assert 1 <= (stand_ins & known).sum() <= 12
    np.testing.assert_allclose(off[stand_ins & known], 0.123, rtol=1e-3)
    raw = pyramid.levels["raw"][0][:]
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal(raw[~known], 0)
    lit = background()[LIT]
    assert raw[known & (raw > 0)].max() <= (whole.max() * lit.max()) + 1
    beam = pyramid.levels["background"][0][:]
    assert np.nanmax(beam) <= lit.max() and np.nanmin(beam) >= lit.min()


def test_each_level_halves_the_one_before_and_the_last_is_small(
    result: Path, tmp_path: Path
) -> None:
    stitched(result, tmp_path / "out.ome.zarr")
    for part, levels in open_pyramid(tmp_path / "out.ome.zarr").levels.items():
        assert [max(level.shape) for level in levels] == [214, 107, 54, 27]
        for fine, coarse in pairwise(levels):
            expected = fine[:].astype(np.float32)
            if part == "raw":
                expected[expected == 0] = np.nan
                expected = np.nan_to_num(halve(expected))
                assert np.abs(coarse[:] - expected).max() <= 1  # rounded once more
            else:
                np.testing.assert_array_equal(coarse[:], halve(expected))


def test_optical_density_is_blended_as_such(result: Path, tmp_path: Path) -> None:
    stitched(result, tmp_path / "od.ome.zarr", parts=("corrected",), domain="od")
    pyramid = open_pyramid(tmp_path / "od.ome.zarr")
    assert pyramid.domain == "od"
    density, whole = pyramid.levels["corrected"][0][:], scene(3, 4)
    off = np.abs(density + np.log(whole))[known_pixels()]
    assert np.quantile(off, 0.999) < 1e-5


def test_formats_hold_the_same_pixels_and_levels(result: Path, tmp_path: Path) -> None:
    stitched(result, tmp_path / "z.ome.zarr")
    stitched(result, tmp_path / "t", format="ometiff")
    pyramid = open_pyramid(tmp_path / "z.ome.zarr")
    for part in PARTS:
        with tifffile.TiffFile(tmp_path / "t" / f"{part}.ome.tif") as tif:
            levels = tif.series[0].levels
            assert len(levels) == 4 and tif.is_ome
            assert 'PhysicalSizeX="0.02"' in (tif.ome_metadata or "")
            for mine, theirs in zip(levels, pyramid.levels[part], strict=True):
                np.testing.assert_array_equal(mine.asarray(), theirs[:])
    again = stitched(result, tmp_path / "t2", format="ometiff")
    assert content(Path(again["output"])) == content(tmp_path / "t")


def test_metadata_are_valid_and_carry_units_places_and_provenance(
    result: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.ome.zarr"
    stitched(result, out)
    for part in PARTS:
        yaozarrs.validate_zarr_store(str(out / part))
        attributes = zarr.open_group(out / part, mode="r").attrs.asdict()
        image = attributes["ome"]["multiscales"][0]
        assert [axis["unit"] for axis in image["axes"]] == ["micrometer"] * 2
        for k, one in enumerate(image["datasets"]):
            scale, shift = one["coordinateTransformations"]
            assert scale["scale"] == pytest.approx([0.02 * 2**k] * 2)
            assert shift["translation"] == pytest.approx([0.01 * (2**k - 1)] * 2)
        block = attributes["txm_bgcorr"]
        assert block["role"] == part and block["provenance"] == PROVENANCE
        assert block["scan"]["positions_px"][1][1] == STEP + 0.25
    pyramid = open_pyramid(out)
    assert pyramid.pixel_nm == 20.0 and pyramid.tile_px == (TILE, TILE)
    assert pyramid.names[0] == "tile_000" and len(pyramid.corners_px) == 12
    assert pyramid.tile_at(2 * STEP + 30, 30) == 0  # the first tile is bottom left
    assert pyramid.tile_at(30, 3 * STEP + 30) == 11
    assert pyramid.tile_at(-5, 0) is None


@pytest.mark.parametrize("form", ["omezarr", "ometiff"])
def test_a_stitched_mosaic_is_told_as_one_and_refused_for_correction(
    result: Path, tmp_path: Path, form: str
) -> None:
    out = tmp_path / "out"
    stitched(result, out, format=form, parts=("raw", "corrected"))
    name = "raw" if form == "omezarr" else "raw.ome.tif"
    for path in (out, out / name):
        scan = read(path)
        assert scan.kind == "single" and scan.pixel_nm == 20.0
        assert tuple(scan.tiles.shape) == (1, 164, 214)
        assert any("12 tiles stitched" in note for note in scan.notes)
        with pytest.raises(AlreadyCorrectedError, match=r"stitched mosaic.*somewhere/scan"):
            refuse_if_corrected(scan)
    with pytest.raises(ReadError, match="stitched already"):
        open_parts(out)


@pytest.mark.parametrize("form", ["omezarr", "ometiff", "tiff"])
def test_every_format_of_correct_can_be_stitched(tmp_path: Path, form: str) -> None:
    source = make_result(tmp_path / "source", 2, 2, form=form)
    stitched(source, tmp_path / "out", parts=("corrected",))
    mosaic = open_pyramid(tmp_path / "out").levels["corrected"][0][:]
    np.testing.assert_array_equal(np.isfinite(mosaic), known_pixels(2, 2))


@pytest.mark.parametrize("save", [("raw", "background", "corrected"), ("corrected",)])
def test_without_a_mask_corners_and_dead_pixels_are_still_left_out(
    tmp_path: Path, save: tuple[str, ...]
) -> None:
    source = make_result(tmp_path / "source", save=save)
    stitched(source, tmp_path / "out", parts=("corrected",))
    mosaic = open_pyramid(tmp_path / "out").levels["corrected"][0][:]
    known = known_pixels()
    assert (np.isfinite(mosaic) == known).mean() > 0.995  # the corner's edge to a pixel
    off = np.abs(mosaic - scene(3, 4))
    assert np.nanquantile(off, 0.99) < 1e-5  # no pedestal, no filling of 1


def test_threads_and_memory_limits_change_no_bit(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stitched(result, tmp_path / "a", workers=1)
    stitched(result, tmp_path / "b", workers=4)
    monkeypatch.setattr(stitching, "HELD", 1.0)  # strips one unit wide: tiles are read again
    stitched(result, tmp_path / "c", workers=2)
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")


def test_each_tile_is_read_once(result: Path, tmp_path: Path) -> None:
    parts = open_parts(result)
    scan, seen = parts.corrected, []
    inner = scan.tiles

    class Counting:
        shape, dtype = inner.shape, inner.dtype

        def __getitem__(self, i: int) -> Any:
            seen.append(i)
            return inner[i]

    object.__setattr__(scan, "tiles", Counting())
    stitch_tiles(parts, find_places(parts), tmp_path / "out", StitchOptions(chunk=16))
    counts = np.bincount(seen, minlength=12)
    assert counts.min() == 1 and counts.sum() == 12 + stitching.SAMPLES


class _Full:
    """Disk that is full after some chunks."""

    def __init__(self, write: Callable[..., None], room: int) -> None:
        self.write, self.room = write, room

    def __call__(self, *args: Any) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.write(*args)


def test_full_disk_says_so_leaves_a_valid_store_and_is_taken_up(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    stitched(result, whole)
    with monkeypatch.context() as patch:
        patch.setattr(write_pyramid, "write_chunk", _Full(write_pyramid.write_chunk, 100))
        with pytest.raises(WriteError, match=r"disk full .* what is written is kept"):
            stitched(result, out)
    part = tmp_path / "out.part"
    assert not out.exists() and (part / DONE).stat().st_size
    for role in PARTS:
        yaozarrs.validate_zarr_store(str(part / role))
        partial = zarr.open_array(part / role / "0", mode="r")[:]
        expected = zarr.open_array(whole / role / "0", mode="r")[:]
        there = partial > 0
        np.testing.assert_array_equal(partial[there], expected[there])
    assert stitched(result, out)["resumed"] > 0
    assert content(out) == content(whole)


def test_stop_keeps_what_is_done(result: Path, tmp_path: Path) -> None:
    parts, progress = open_parts(result), []
    places, options = find_places(parts), StitchOptions(PARTS, chunk=32)

    def report(done: int, total: int) -> None:
        progress.append((done, total))

    stop = stitch_tiles(
        parts, places, tmp_path / "out", options, report=report,
        should_stop=lambda: len(progress) > 4,
    )  # fmt: skip
    assert not stop["complete"] and not (tmp_path / "out").exists()
    done = progress[-1][0]
    assert 0 < done < progress[-1][1]
    again = stitch_tiles(parts, places, tmp_path / "out", options)
    assert again["complete"] and again["resumed"] == done
    stitched(result, tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_another_job_in_the_same_place_is_refused(result: Path, tmp_path: Path) -> None:
    parts, options = open_parts(result), StitchOptions(chunk=32)
    places = find_places(parts)
    stops = iter([False, True, True, True, True, True, True, True])
    stitch_tiles(parts, places, tmp_path / "out", options, should_stop=lambda: next(stops, True))
    moved = Places(places.positions_px * 1.1, "table", "")
    for other in (
        lambda: stitch_tiles(parts, moved, tmp_path / "out", options),
        lambda: stitched(result, tmp_path / "out"),
    ):
        with pytest.raises(WriteError, match="another, unfinished job"):
            other()
    stitch_tiles(parts, places, tmp_path / "out", options)
    with pytest.raises(WriteError, match="exists; choose another place or pass --overwrite"):
        stitch_tiles(parts, places, tmp_path / "out", options)
    stitched(result, tmp_path / "out", overwrite=True)
    assert set(open_pyramid(tmp_path / "out").levels) == set(PARTS)


@pytest.mark.parametrize("form", ["omezarr", "ometiff"])
def test_places_registered_before_an_interruption_are_kept(tmp_path: Path, form: str) -> None:
    plain = {**PROVENANCE, "parameters": {}}
    parts = open_parts(make_result(tmp_path / "source", 2, 2, provenance=plain))
    assert begun_places(tmp_path / "out", parts) is None
    places = Places(find_places(parts, "nominal").positions_px / 3, "registered here", "some")
    stops, options = iter([False]), StitchOptions(chunk=16, format=form)
    stitch_tiles(parts, places, tmp_path / "out", options, should_stop=lambda: next(stops, True))
    found = begun_places(tmp_path / "out", parts)
    assert found is not None and (found.source, found.note) == (places.source, places.note)
    np.testing.assert_array_equal(found.positions_px, places.positions_px)
    assert stitch_tiles(parts, found, tmp_path / "out", options)["resumed"] > 0
    other = open_parts(make_result(tmp_path / "other", 2, 2))
    stitch_tiles(parts, places, tmp_path / "two", options, should_stop=lambda: True)
    assert begun_places(tmp_path / "two", other) is None


def test_where_positions_come_from_is_told(tmp_path: Path) -> None:
    plain = {**PROVENANCE, "parameters": {}}
    parts = open_parts(make_result(tmp_path / "source", 2, 2, provenance=plain))
    assert find_places(parts, "nominal").source == "nominal"
    assert find_places(parts, "stored").source == "nominal"
    assert find_places(parts, "auto").source in ("registered here", "nominal")
    table = tmp_path / "TileConfiguration.registered.txt"
    rows = [f"tile_{k:03}.tif; ; ({10.5 * k}, {3 * k})" for k in range(4)]
    table.write_text("dim = 2\n" + "\n".join(rows))
    found = find_places(parts, str(table))
    assert found.source == "table"
    np.testing.assert_array_equal(found.positions_px[3], (9, 31.5))
    table.write_text("dim = 2\n" + "\n".join(rows[:3]))
    with pytest.raises(ReadError, match="tile_003 is not in it"):
        find_places(parts, str(table))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": ()}, "nothing to stitch"),
        ({"parts": ("mask",)}, "'mask'; choose from raw"),
        ({"domain": "log"}, "'log'; choose from transmission, od"),
        ({"format": "png"}, "'png'; choose from omezarr, ometiff"),
        ({"chunk": 100}, "multiple of 16"),
    ],
)
def test_options_outside_the_tables_are_named(
    result: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(WriteError, match=words):
        stitched(result, tmp_path / "out", **options)


def test_what_cannot_be_stitched_is_named(tmp_path: Path) -> None:
    source = make_result(tmp_path / "source", 2, 2, save=("corrected",))
    with pytest.raises(WriteError, match="no raw tiles in it"):
        stitched(source, tmp_path / "out", parts=("raw",))
    with pytest.raises(TxmError, match="lies inside the output"):
        stitched(source, source / "out", parts=("corrected",))
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(ReadError):
            open_parts(path)
    with pytest.raises(ReadError, match="not stitched"):
        open_pyramid(source)
    with pytest.raises(ReadError, match="no stitched"):
        open_pyramid(tmp_path / "empty")


def test_record_of_the_whole_is_json_beside_the_tiffs(result: Path, tmp_path: Path) -> None:
    stitched(result, tmp_path / "t", format="ometiff", parts=("corrected",))
    block = json.loads((tmp_path / "t" / "provenance.json").read_text())["txm_bgcorr"]
    assert block["stitched"]["tiles"] == 12 and block["provenance"] == PROVENANCE
