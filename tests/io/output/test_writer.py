"""Outputs hold exactly the pixels and facts that went in, for us and for other readers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr

from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.core.provenance import Provenance, make_provenance, refuse_if_corrected
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.errors import AlreadyCorrectedError, ReadError, WriteError
from napari_txm_bgcorr.io import WRITERS, open_output, read
from napari_txm_bgcorr.io.output import tiff as write_tiff
from napari_txm_bgcorr.io.readers.tile_layout import parse_tile_configuration

from .outputs import PROVENANCE, make_scan, result, write_all

FORMATS = tuple(WRITERS)
FIELD = {"raw": "raw", "background": "background", "corrected": "transmission", "mask": "valid"}


def part_of(out: Path, form: str, role: str) -> Path:
    return out / (f"{role}.ome.tif" if form == "ometiff" else role)


def expected(scan: Scan, role: str) -> np.ndarray:
    return np.stack([getattr(result(scan, i), FIELD[role]) for i in range(len(scan))])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("role", list(FIELD))
def test_round_trip_through_our_readers(tmp_path: Path, form: str, role: str) -> None:
    scan = make_scan()
    out = write_all(tmp_path / "out", form, scan, save=list(FIELD))
    back = read(part_of(out, form, role))
    np.testing.assert_array_equal(back.tiles[:], expected(scan, role))
    kinds = {"raw": np.uint16, "mask": np.uint8}
    assert back.tiles.dtype == kinds.get(role, np.float32)
    assert (back.kind, back.grid, back.names) == ("mosaic", (2, 3), scan.names)
    np.testing.assert_array_equal(back.positions_px, scan.positions_px)
    np.testing.assert_array_equal(back.times, scan.times)
    assert back.pixel_nm == pytest.approx(scan.pixel_nm, rel=1e-9)
    assert (back.energy_ev, back.exposure_s, back.binning) == (9200, 60, 2)
    assert back.provenance == (PROVENANCE if role == "corrected" else None)


@pytest.mark.parametrize("form", FORMATS)
def test_output_opens_as_its_raw_tiles_or_else_the_corrected(tmp_path: Path, form: str) -> None:
    scan = make_scan()
    whole = read(write_all(tmp_path / "whole", form, scan))
    np.testing.assert_array_equal(whole.tiles[:], scan.tiles[:])
    assert whole.provenance is None
    rest = read(write_all(tmp_path / "rest", form, scan, save=["background", "corrected"]))
    np.testing.assert_array_equal(rest.tiles[:], expected(scan, "corrected"))
    assert rest.provenance == PROVENANCE


@pytest.mark.parametrize("form", FORMATS)
def test_series_and_single_images(tmp_path: Path, form: str) -> None:
    mosaic = make_scan()
    plain = replace(mosaic, kind="series", grid=None, positions_px=None, times=None)
    series = replace(plain, angles_deg=np.linspace(0, 180, 6), pixel_nm=None)
    back = read(write_all(tmp_path / "series", form, series))
    assert (back.kind, back.grid, back.pixel_nm) == ("series", None, None)
    np.testing.assert_array_equal(back.angles_deg, series.angles_deg)
    single = replace(plain, kind="single", tiles=plain.tiles[:1], names=("one",))
    back = read(part_of(write_all(tmp_path / "one", form, single), form, "corrected"))
    assert (back.kind, back.names, back.provenance) == ("single", ("one",), PROVENANCE)
    np.testing.assert_array_equal(back.tiles[0], result(single, 0).transmission)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
def test_raw_keeps_its_type(tmp_path: Path, form: str, dtype: str) -> None:
    scan = make_scan(dtype=dtype)
    back = read(write_all(tmp_path / "out", form, scan, save=["raw"]))
    assert back.tiles.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back.tiles[:], scan.tiles[:])
    assert back.pixel_nm == pytest.approx(scan.pixel_nm, rel=1e-6)


@pytest.mark.parametrize("form", FORMATS)
def test_interrupted_mosaic_keeps_its_grid(tmp_path: Path, form: str) -> None:
    full = make_scan(3, 3)
    assert full.positions_px is not None
    assert full.times is not None
    scan = replace(
        full,
        tiles=full.tiles[:4],
        names=full.names[:4],
        positions_px=full.positions_px[:4],
        times=full.times[:4],
    )
    back = read(write_all(tmp_path / "out", form, scan))
    assert (back.grid, len(back)) == ((3, 3), 4)
    np.testing.assert_array_equal(back.cells, scan.cells)


def test_tiff_is_read_by_others_and_stitched_by_fiji(tmp_path: Path) -> None:
    scan = make_scan()
    out = write_all(tmp_path / "out", "tiff", scan)
    assert sorted(p.name for p in out.iterdir()) == [
        "background",
        "corrected",
        "provenance.json",
        "raw",
    ]
    for k, name in enumerate(scan.names):
        path = out / "corrected" / f"{name}.tif"
        np.testing.assert_array_equal(tifffile.imread(path), result(scan, k).transmission)
    with tifffile.TiffFile(path) as tif:
        meta = tif.imagej_metadata
        assert meta is not None
        assert meta["unit"] == "micron"
        value = tif.pages.first.tags["XResolution"].value
        assert value[1] / value[0] == pytest.approx(0.029296875, rel=1e-6)
        assert json.loads(meta["Info"])["txm_bgcorr"]["provenance"] == PROVENANCE
    table = parse_tile_configuration(out / "corrected" / "TileConfiguration.txt")
    assert scan.positions_px is not None
    assert list(table) == [f"{name}.tif" for name in scan.names]
    assert list(table.values()) == [tuple(p) for p in scan.positions_px.tolist()]


def test_ome_tiff_is_read_by_others(tmp_path: Path) -> None:
    scan = make_scan()
    out = write_all(tmp_path / "out", "ometiff", scan)
    path = out / "background.ome.tif"
    np.testing.assert_array_equal(tifffile.imread(path), expected(scan, "background"))
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "TYX"
        assert len(tif.pages) == 6
        ome = tifffile.xml2dict(tif.ome_metadata or "")["OME"]
    pixels = ome["Image"]["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (0.029296875, "µm")
    assert pixels["Plane"][1]["PositionX"] == pytest.approx(20.5 * 0.029296875)
    note = ome["StructuredAnnotations"]["CommentAnnotation"]["Value"]
    assert json.loads(note)["txm_bgcorr"]["provenance"] == PROVENANCE


@pytest.mark.parametrize("size", [(20, 26), (1030, 17)])
def test_ome_zarr_is_valid_and_read_by_others(tmp_path: Path, size: tuple[int, int]) -> None:
    scan = make_scan(1, 2, size)
    out = write_all(tmp_path / "out.zarr", "omezarr", scan)
    for role in ("raw", "background", "corrected"):
        yaozarrs.validate_zarr_store(str(out / role))
        group = zarr.open_group(out / role, mode="r")
        array = group["0"]
        assert isinstance(array, zarr.Array)
        assert array.chunks == (1, *size)
        np.testing.assert_array_equal(array[...], expected(scan, role))
        assert group.attrs["txm_bgcorr"]["role"] == role  # type: ignore[index,call-overload]
        assert ("1" in group) == (max(size) > 1024)
        if "1" in group:
            half = expected(scan, role).astype(float).reshape(2, 515, 2, 17)
            half = np.pad(half, ((0, 0), (0, 0), (0, 0), (0, 1)), "edge")
            half = half.reshape(2, 515, 2, 9, 2).mean(axis=(2, 4))
            step = 0.5 if role == "raw" else 1e-4
            np.testing.assert_allclose(group["1"][...], half, atol=step)  # type: ignore[index]
        ome = group.attrs["ome"]["multiscales"][0]  # type: ignore[index,call-overload]
        assert [a.get("unit") for a in ome["axes"]] == [None, "micrometer", "micrometer"]
        scale = ome["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert scale == [1.0, 0.029296875, 0.029296875]


@pytest.mark.parametrize("form", FORMATS)
def test_tiles_may_come_in_any_order_and_only_what_is_asked_is_saved(
    tmp_path: Path, form: str
) -> None:
    scan = make_scan()
    with open_output(tmp_path / "out", form, scan, PROVENANCE, save=["corrected"]) as writer:
        for i in (4, 0, 5, 2, 1, 3):
            writer.write(result(scan, i))
        writer.close_complete()
    np.testing.assert_array_equal(read(tmp_path / "out").tiles[:], expected(scan, "corrected"))
    assert not part_of(tmp_path / "out", form, "raw").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


class Half:
    """Background method that takes half of each tile as its background."""

    name, workers = "half", 1

    def fit(self, scan: Scan, progress: object = None) -> Half:
        return self

    def background(self, tiles: np.ndarray, index: object = None) -> np.ndarray:
        return (np.asarray(tiles) / 2).astype(np.float32)

    def describe(self) -> dict[str, object]:
        return {"factor": 0.5}


@pytest.mark.parametrize("form", FORMATS)
def test_a_real_correction_is_written_and_not_corrected_again(tmp_path: Path, form: str) -> None:
    path = tmp_path / "in.tif"
    pixels = make_scan().tiles[:]
    tifffile.imwrite(path, pixels, photometric="minisblack")
    scan, method = read(path), Half()
    provenance = make_provenance(scan, method).to_dict()
    before = path.read_bytes()
    with open_output(tmp_path / "out", form, scan, provenance) as writer:
        for one in correct_tiles(scan, method):
            writer.write(one)
        writer.close_complete()
    back = read(part_of(tmp_path / "out", form, "corrected"))
    assert back.tiles[:].mean() == pytest.approx(2, rel=0.1)
    assert back.provenance is not None
    assert Provenance.from_dict(back.provenance).to_dict() == provenance
    assert back.provenance["source_sha256"] == scan.source.sha256
    with pytest.raises(AlreadyCorrectedError):
        refuse_if_corrected(back)
    refuse_if_corrected(read(tmp_path / "out"))
    assert path.read_bytes() == before


def test_large_ome_tiff_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_tiff, "_BIGTIFF_FROM", 1000)
    scan = make_scan()
    out = write_all(tmp_path / "out", "ometiff", scan)
    with tifffile.TiffFile(out / "raw.ome.tif") as tif:
        assert tif.is_bigtiff
    np.testing.assert_array_equal(read(out).tiles[:], scan.tiles[:])


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    scan = replace(make_scan(), names=("a/b", "a:b", "c;d", "..", "C;D", "x"))
    out = write_all(tmp_path / "out", "tiff", scan)
    files = list((out / "corrected").glob("*.tif"))
    assert len(files) == 6
    assert all(f.parent == out / "corrected" for f in out.rglob("*.tif") if "corrected" in str(f))
    np.testing.assert_array_equal(read(out).tiles[:], scan.tiles[:])


def test_incomplete_copy_of_an_output_is_refused(tmp_path: Path) -> None:
    out = write_all(tmp_path / "out", "tiff", make_scan())
    next((out / "corrected").glob("*.tif")).unlink()
    with pytest.raises(ReadError, match="lists 6"):
        read(out / "corrected")


def test_input_is_never_in_the_way(tmp_path: Path) -> None:
    made = write_all(tmp_path / "in", "tiff", make_scan())
    folder = tmp_path / "in" / "raw"
    scan = read(folder)
    for out in (folder, made, tmp_path):
        with pytest.raises(WriteError, match="is or holds the input"):
            open_output(out, "tiff", scan, PROVENANCE, overwrite=True)
    store = write_all(tmp_path / "in.zarr", "omezarr", make_scan())
    with pytest.raises(WriteError, match="lies inside the output"):
        open_output(store / "more", "omezarr", read(store / "raw"), PROVENANCE)
    assert read(folder).tiles.shape == (6, 20, 26)


def test_unknown_format_role_and_tile_are_refused(tmp_path: Path) -> None:
    scan = make_scan()
    with pytest.raises(WriteError, match="choose from omezarr, ometiff, tiff"):
        open_output(tmp_path / "o", "png", scan, PROVENANCE)
    for save in (["nothing"], []):
        with pytest.raises(WriteError, match="choose from raw"):
            open_output(tmp_path / "o", "tiff", scan, PROVENANCE, save=save)
    with open_output(tmp_path / "o", "tiff", scan, PROVENANCE) as writer:
        bad = replace(result(scan, 0), index=6)
        with pytest.raises(WriteError, match="tile 6"):
            writer.write(bad)
        small = replace(scan, tiles=scan.tiles[:, 1:])
        with pytest.raises(WriteError, match="expected"):
            writer.write(result(small, 0))


def test_source_with_own_path_is_not_followed(tmp_path: Path) -> None:
    scan = replace(make_scan(), source=Source(tmp_path / "x.tif", "tiff", (tmp_path / "x.tif",)))
    assert write_all(tmp_path / "out", "tiff", scan).is_dir()
