"""OME-Zarr of others: versions, axes, units, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io import read
from tests.io.output.outputs import make_scan, write_all

STACK = np.random.default_rng(5).integers(0, 60000, (6, 10, 14)).astype(np.uint16)
KINDS = {"t": "time", "z": "space", "c": "channel", "y": "space", "x": "space"}


def store(
    path: Path, pixels: np.ndarray, axes: str, *, version: str = "0.5", unit: str = "micrometer"
) -> Path:
    """An OME-Zarr image as another program may write it."""
    form = 3 if version == "0.5" else 2
    group = zarr.open_group(path, mode="w", zarr_format=form)
    options = {"dimension_names": list(axes)} if form == 3 else {}
    chunks = (*([1] * (pixels.ndim - 2)), 7, 9)
    array = group.create_array(
        "s0", shape=pixels.shape, dtype=pixels.dtype, chunks=chunks, **options
    )
    array[...] = pixels
    scale = [1.0] * (len(axes) - 2) + [0.05, 0.05]
    multiscale: dict[str, Any] = {
        "name": "image",
        "axes": [
            {"name": a, "type": KINDS[a], **({"unit": unit} if a in "yx" and unit else {})}
            for a in axes
        ],
        "datasets": [
            {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        ],
    }
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
    yaozarrs.validate_zarr_store(str(path))
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("shape", "axes", "count"),
    [
        ((10, 14), "yx", 1),
        ((6, 10, 14), "tyx", 6),
        ((6, 10, 14), "zyx", 6),
        ((1, 1, 1, 10, 14), "tczyx", 1),
        ((6, 1, 1, 10, 14), "tczyx", 6),
        ((1, 1, 6, 10, 14), "tczyx", 6),
    ],
)
def test_axes_and_versions(
    tmp_path: Path, version: str, shape: tuple[int, ...], axes: str, count: int
) -> None:
    scan = read(store(tmp_path / "a.zarr", STACK[:count].reshape(shape), axes, version=version))
    assert scan.kind == ("single" if count == 1 else "series")
    assert scan.tiles.shape == (count, 10, 14)
    np.testing.assert_array_equal(scan.tiles[:], STACK[:count])
    np.testing.assert_array_equal(scan.tiles[count - 1], STACK[count - 1])
    assert scan.pixel_nm == pytest.approx(50)
    assert scan.provenance is None


@pytest.mark.parametrize(("unit", "pixel"), [("nanometer", 0.05), ("millimeter", 5e4), ("", None)])
def test_units(tmp_path: Path, unit: str, pixel: float | None) -> None:
    scan = read(store(tmp_path / "a.zarr", STACK, "tyx", unit=unit))
    assert scan.pixel_nm == (None if pixel is None else pytest.approx(pixel))


def refused(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read(path).tiles[:]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_stacks_and_channels_are_refused(tmp_path: Path) -> None:
    assert "one stack" in refused(store(tmp_path / "a", STACK.reshape(2, 3, 10, 14), "tzyx"))
    assert "one stack" in refused(store(tmp_path / "b", STACK, "cyx"))


def test_plate_array_and_foreign_group_are_refused(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "plate", mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "plate": {"columns": [{"name": "1"}]}}
    assert "plate; give one of the images" in refused(tmp_path / "plate")
    zarr.create_array(tmp_path / "array", shape=(3, 4, 5), dtype="u2")
    assert "without OME metadata" in refused(tmp_path / "array")
    zarr.open_group(tmp_path / "group", mode="w", zarr_format=3)
    assert "no OME-Zarr image" in refused(tmp_path / "group")


def test_invalid_metadata_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "a", STACK, "tyx")
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"]["ome"]["multiscales"][0]["axes"][1]["type"] = "time"
    (path / "zarr.json").write_text(json.dumps(meta))
    assert "OME-Zarr metadata" in refused(path)


def test_missing_level_damaged_json_and_damaged_chunk_are_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "a", STACK, "tyx")
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "gone"
    (path / "zarr.json").write_text(json.dumps(meta))
    refused(path)
    (path / "zarr.json").write_text("{")
    refused(path)
    path = store(tmp_path / "b", STACK, "tyx")
    chunk = next(p for p in sorted((path / "s0/c").rglob("*")) if p.is_file())
    chunk.write_bytes(b"junk")
    assert "damaged" in refused(path)


def test_frame_of_2_to_31_pixels_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "a", STACK, "tyx")
    meta = json.loads((path / "s0/zarr.json").read_text())
    meta["shape"] = [3, 2**16, 2**15]
    (path / "s0/zarr.json").write_text(json.dumps(meta))
    assert "exceeds" in refused(path)


def test_colour_types_are_refused(tmp_path: Path) -> None:
    assert "complex" in refused(store(tmp_path / "a", STACK.astype("complex64"), "tyx"))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_chunks_that_others_left_out_are_counted_in_a_note(tmp_path: Path, version: str) -> None:
    pixels = STACK.copy()
    pixels[2] = 0  # 2 x 2 chunks, which zarr does not store
    scan = read(store(tmp_path / "a.zarr", pixels, "tyx", version=version))
    np.testing.assert_array_equal(np.asarray(scan.tiles[:]), pixels)
    assert [n for n in scan.notes if "4 of 24 chunks are not stored and read as 0" in n]
    assert not read(store(tmp_path / "b.zarr", STACK, "tyx", version=version)).notes


def test_a_chunk_missing_in_our_own_output_is_an_error(tmp_path: Path) -> None:
    scan = make_scan()
    out = write_all(tmp_path / "out", "omezarr", scan)
    assert len(read(out)) == len(scan)
    (out / "raw/0/c/3/0/0").unlink()
    with pytest.raises(ReadError, match=r"0/c/3/0/0: missing, 1 of 6 chunks"):
        read(out)
