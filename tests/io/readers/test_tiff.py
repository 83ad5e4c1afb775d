"""TIFF files: every layout gives the pixels and the pixel size that were put in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io import read
from napari_txm_bgcorr.io.readers.acquisition_metadata import nanometres

RNG = np.random.default_rng(7)


def counts(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return RNG.integers(0, 120, shape).astype(dtype)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
def test_pixels_and_type_come_back_exactly(tmp_path: Path, dtype: str, compression: str) -> None:
    pixels = counts(3, 24, 37, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, photometric="minisblack")
    scan = read(tmp_path / "a.tif")
    assert scan.kind == "series"
    assert scan.tiles.shape == (3, 24, 37)
    assert scan.tiles.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(scan.tiles[:], pixels)
    np.testing.assert_array_equal(scan.tiles[1, 3:5], pixels[1, 3:5])
    assert scan.names == ("a_0001", "a_0002", "a_0003")


@pytest.mark.parametrize(
    "options",
    [
        {"byteorder": ">"},
        {"bigtiff": True},
        {"bigtiff": True, "byteorder": ">"},
        {"tile": (16, 16)},
        {"rowsperstrip": 5},
        {"predictor": True, "compression": "zlib"},
        {"contiguous": False},
    ],
)
def test_layouts_of_one_image(tmp_path: Path, options: dict[str, object]) -> None:
    pixels = counts(32, 48)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **options)
    scan = read(tmp_path / "a.tif")
    assert (scan.kind, scan.names, scan.grid) == ("single", ("a",), None)
    np.testing.assert_array_equal(scan.tiles[0], pixels)
    assert scan.tiles[0].dtype.isnative


def test_pages_written_one_by_one_are_a_series(tmp_path: Path) -> None:
    pixels = counts(5, 16, 20)
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        for page in pixels:
            out.write(page, contiguous=False, compression="zlib", photometric="minisblack")
    np.testing.assert_array_equal(read(tmp_path / "a.tif").tiles[:], pixels)


def test_ome_axes_pixel_size_and_exposure(tmp_path: Path) -> None:
    pixels = counts(6, 20, 30)
    metadata = {
        "axes": "TYX",
        "PhysicalSizeX": 29.3,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 29.3,
        "PhysicalSizeYUnit": "nm",
        "Plane": {"ExposureTime": [60.0] * 6, "ExposureTimeUnit": ["s"] * 6},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, ome=True, metadata=metadata)
    scan = read(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(scan.tiles[4], pixels[4])
    assert scan.pixel_nm == pytest.approx(29.3)
    assert scan.exposure_s == 60


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m", "nm", "mm"])
def test_imagej_unit(tmp_path: Path, unit: str) -> None:
    pixels = counts(4, 20, 30)
    size = {"nm": 58.6, "mm": 58.6e-6}.get(unit, 58.6e-3)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        imagej=True,
        resolution=(1 / size, 1 / size),
        metadata={"unit": unit, "axes": "ZYX"},
    )
    scan = read(tmp_path / "a.tif")
    assert scan.pixel_nm == pytest.approx(58.6, rel=1e-4)
    np.testing.assert_array_equal(scan.tiles[:], pixels)


def test_printers_resolution_is_no_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", counts(9, 9), resolution=(72, 72), resolutionunit="INCH")
    assert read(tmp_path / "a.tif").pixel_nm is None
    per_cm = 1e7 / 12.5  # a whole number: the file holds a fraction
    tifffile.imwrite(
        tmp_path / "b.tif", counts(9, 9), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER"
    )
    assert read(tmp_path / "b.tif").pixel_nm == pytest.approx(12.5, rel=1e-5)
    assert read(tmp_path / "b.tif", pixel_nm=20).pixel_nm == 20


@pytest.mark.parametrize("unit", ["pixel", "", "furlong"])
def test_no_length_is_no_pixel_size(unit: str) -> None:
    assert nanometres(1.0, unit) is None


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_no_size_is_no_pixel_size(value: float) -> None:
    assert nanometres(value, "nm") is None


def test_name_gives_binning_exposure_and_pixel_only_for_the_whole_camera(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "Sb-b8-60s.tif", counts(128, 128))
    scan = read(tmp_path / "Sb-b8-60s.tif")
    assert (scan.binning, scan.exposure_s) == (8, 60)
    assert scan.pixel_nm == pytest.approx(15_000 / 128, rel=1e-4)
    assert any("assumed" in note for note in scan.notes)
    tifffile.imwrite(tmp_path / "crop-b8-60s.tif", counts(100, 100))
    crop = read(tmp_path / "crop-b8-60s.tif")
    assert (crop.binning, crop.pixel_nm) == (8, None)


def test_stack_with_grid_is_a_mosaic(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", counts(6, 10, 12), photometric="minisblack")
    scan = read(tmp_path / "a.tif", grid=(2, 3))
    assert (scan.kind, scan.grid) == ("mosaic", (2, 3))
    assert scan.positions_px is not None
    assert scan.positions_px[0].tolist() == [10, 0]  # the first tile is bottom left
    assert scan.positions_px[5].tolist() == [0, 24]
    with pytest.raises(ReadError, match="6 tiles are no grid of 1 x 2"):
        read(tmp_path / "a.tif", grid=(1, 2))


def test_nan_is_read_as_it_is(tmp_path: Path) -> None:
    pixels = counts(8, 8, dtype="float32")
    pixels[2, 3] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").tiles[0], pixels)


def test_tiles_are_read_from_many_threads(tmp_path: Path) -> None:
    pixels = counts(12, 64, 64)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", photometric="minisblack")
    tiles = read(tmp_path / "a.tif").tiles
    with ThreadPoolExecutor(6) as pool:
        read_back = list(pool.map(lambda i: tiles[i], list(range(12)) * 3))
    np.testing.assert_array_equal(np.stack(read_back), np.concatenate([pixels] * 3))


def refused(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read(path).tiles[:]
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_colour_palette_and_complex_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", counts(9, 9, 3, dtype="uint8"), photometric="rgb")
    assert "grey" in refused(tmp_path / "rgb.tif")
    tifffile.imwrite(
        tmp_path / "rgba.tif", counts(9, 9, 4, dtype="uint8"), photometric="rgb", extrasamples=[2]
    )
    assert "grey" in refused(tmp_path / "rgba.tif")
    table = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(
        tmp_path / "map.tif", counts(9, 9, dtype="uint8"), photometric="palette", colormap=table
    )
    assert "grey" in refused(tmp_path / "map.tif")
    tifffile.imwrite(tmp_path / "c.tif", np.ones((9, 9), "complex64"))
    assert "complex64" in refused(tmp_path / "c.tif")


def test_two_axes_of_images_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", counts(2, 3, 9, 9), imagej=True, metadata={"axes": "TZYX"}
    )
    assert "one axis" in refused(tmp_path / "a.tif")


def test_pages_of_different_sizes_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        out.write(counts(9, 9))
        out.write(counts(9, 8))
    assert "(9, 9) and (9, 8)" in refused(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_at_any_length_is_refused(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.integers(0, 60000, (40, 40), np.uint16), compression=compression)
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        refused(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_header_of_2_to_31_pixels_is_refused(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, counts(40, 40), compression=compression)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tags = tif.pages[0].tags
        tags["ImageWidth"].overwrite(65536, dtype="I")
        tags["ImageLength"].overwrite(32768, dtype="I")
    assert "32768 x 65536" in refused(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_size_that_lies_is_refused(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, counts(40, 40), compression=compression)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(8000, dtype="H")
        tif.pages[0].tags["ImageLength"].overwrite(8000, dtype="H")
    refused(path)


def test_damaged_strips_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, counts(40, 40), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        start, length = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    refused(path)
