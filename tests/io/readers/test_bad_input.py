"""Bad input: one line naming the file, soon, in little memory, and nothing else."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io import READERS, read
from tests.io.output.outputs import make_scan, write_all

REAL = "bl01b_sb_2x2/20230222_Sb_m6-1-b2-60s-0.88V_0001.tif"
BUDGET = 400 * 2**20  # bytes; the aim is 500 MB for the whole process


def one_line(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    assert "no such file" in one_line(tmp_path / "gone.tif")
    (tmp_path / "empty.tif").touch()
    assert "0 bytes" in one_line(tmp_path / "empty.tif")
    (tmp_path / "text.tif").write_text("not an image at all")
    assert "neither Xradia, TIFF nor HDF5" in one_line(tmp_path / "text.tif")
    (tmp_path / "folder").mkdir()
    assert "no tiles" in one_line(tmp_path / "folder")


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    pixels = np.ones((7, 8), np.uint16)
    tifffile.imwrite(tmp_path / "image.h5", pixels)
    assert read(tmp_path / "image.h5").source.format == "tiff"
    with h5py.File(tmp_path / "image.xrm", "w") as h5:
        h5["data"] = pixels
    assert read(tmp_path / "image.xrm").source.format == "hdf5"
    assert list(READERS) == ["xradia", "tiff", "hdf5", "omezarr", "folder"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX links and pipes")
def test_loops_pipes_and_devices(tmp_path: Path) -> None:
    os.symlink(tmp_path / "a", tmp_path / "b")
    os.symlink(tmp_path / "b", tmp_path / "a")
    one_line(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe.tif")
    assert "not a plain file" in one_line(tmp_path / "pipe.tif")
    assert "not a plain file" in one_line(Path("/dev/zero"))
    (tmp_path / "loop").mkdir()
    os.symlink(tmp_path / "loop", tmp_path / "loop" / "again")
    assert "no tiles" in one_line(tmp_path / "loop")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read anything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((4, 4), np.uint16))
    path.chmod(0)
    assert "no permission" in one_line(path)


@pytest.mark.parametrize("pixel_nm", [0.0, -3.0, float("nan"), float("inf")])
def test_pixel_size_that_is_none(tmp_path: Path, pixel_nm: float) -> None:
    with pytest.raises(ReadError, match="positive"):
        read(tmp_path, pixel_nm=pixel_nm)


def seeds(pixels: np.ndarray, folder: Path) -> dict[str, bytes]:
    """Small files of several layouts with the pixels of a real tile."""
    stack = np.stack([pixels, pixels + 1])
    options: dict[str, dict[str, object]] = {
        "plain": {},
        "zlib": {"compression": "zlib"},
        "big": {"bigtiff": True},
        "tiled": {"tile": (16, 16), "compression": "zstd"},
        "imagej": {"imagej": True, "resolution": (30.0, 30.0), "metadata": {"unit": "micron"}},
        "ome": {"ome": True, "metadata": {"axes": "TYX", "PhysicalSizeX": 0.03}},
    }
    files = {}
    for name, option in options.items():
        path = folder / f"{name}.seed.tif"
        tifffile.imwrite(path, stack, photometric="minisblack", **option)
        files[name] = path.read_bytes()
    for name, packed in (("h5", None), ("h5gz", "gzip")):
        path = folder / f"{name}.seed.h5"
        with h5py.File(path, "w", libver="latest" if packed else "earliest") as h5:
            h5.create_dataset("exchange/data", data=stack, compression=packed)
            h5["exchange/data_white"] = stack
        files[name] = path.read_bytes()
    return files


@pytest.fixture(scope="module")
def tile_files(txm_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return seeds(
        tifffile.imread(txm_data / REAL)[100:124, 200:224], tmp_path_factory.mktemp("seeds")
    )


SEEDS = ("plain", "zlib", "big", "tiled", "imagej", "ome", "h5", "h5gz")
WORDS = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0", b"\x01", b"\xff")


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("name", SEEDS)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.one_of(st.sampled_from(WORDS), st.binary(min_size=1))),
        min_size=1,
        max_size=8,
    ),
    front=st.sampled_from([64, 512, 10**6]),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_changed_bytes_give_an_image_or_one_line(
    tile_files: dict[str, bytes],
    tmp_path: Path,
    name: str,
    changes: list[tuple[float, bytes]],
    front: int,
    keep: float,
) -> None:
    content = bytearray(tile_files[name])
    for where, what in changes:
        at = int(where * (min(front, len(content)) - 1))
        content[at : at + len(what)] = what
    path = tmp_path / ("f.h5" if name.startswith("h5") else "f.tif")
    path.write_bytes(content[: max(1, int(keep * len(content)))])
    tracemalloc.start()
    try:
        scan = read(path)
        assert scan.tiles[0].shape == scan.tiles.shape[1:]
        assert scan.tiles[len(scan) - 1].dtype == scan.tiles.dtype
    except ReadError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < BUDGET


def mutations() -> list[Callable[[str], str]]:
    """Changes of one JSON text that another program or a bad copy may make."""
    return [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("[", "{", 1),
        lambda text: text.replace("3", "-3"),
        lambda text: text.replace("1", "null"),
        lambda text: text.replace("20", "1e400"),
        lambda text: text.replace("26", "99999999999999999999"),
        lambda text: text.replace('"0"', '"../../.."'),
        lambda text: text.replace("uint16", "complex64"),
        lambda text: text.replace("uint16", "nothing"),
        lambda text: text.replace("blosc", "unheard-of"),
        lambda text: text.replace("names", "shape"),
        lambda text: text.replace("Sb-b2_0001", "\u0000"),
        lambda text: text.replace("2023-02-22", "yesterday"),
        lambda text: json.dumps([text]),
        lambda text: "null",
        lambda text: "",
    ]


@pytest.mark.parametrize("form", ["omezarr", "tiff"])
def test_changed_metadata_of_our_outputs_give_an_image_or_one_line(
    tmp_path: Path, form: str
) -> None:
    out = write_all(tmp_path / "out", form, make_scan(), save=["raw"])
    for file in list(out.rglob("*.json")) + list(out.rglob("Tile*.txt")):
        whole = file.read_text()
        for mutate in mutations():
            file.write_text(mutate(whole))
            try:
                scan = read(out / "raw")
                assert scan.tiles[0].shape == scan.tiles.shape[1:]
            except ReadError as error:
                assert "\n" not in str(error)
        file.write_text(whole)
    assert read(out / "raw").tiles.shape == (6, 20, 26)


def test_nothing_of_the_libraries_reaches_the_user(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((30, 30), np.uint16), description="x" * 300)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        entry = tif.pages[0].tags["ImageDescription"].offset
    content[entry + 8 : entry + 12] = b"\xff\xff\xff\x7f"  # tifffile logs this and goes on
    path.write_bytes(content)
    with caplog.at_level(logging.DEBUG, logger="tifffile"):
        read(path).tiles[:]
        assert caplog.records == []
        with tifffile.TiffFile(path) as tif:
            _ = tif.pages[0]
        assert caplog.records  # others still get their messages
    assert capfd.readouterr().err == ""


def test_reading_a_tiff_loads_neither_zarr_nor_hdf5_nor_qt(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((5, 5), np.uint16))
    code = (
        "import sys; from napari_txm_bgcorr.io import read; read(sys.argv[1]).tiles[0]; "
        "bad = {'zarr', 'h5py', 'qtpy', 'napari', 'torch'} & set(sys.modules); "
        "sys.exit(' '.join(bad) or 0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
