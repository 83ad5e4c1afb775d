"""Xradia files give the tiles that were written, and what an independent reader gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import olefile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.readers.xradia import DTYPES, can_read, read
from tests.helpers.ole2 import CODES, write_ole2, write_xradia

RNG = np.random.default_rng(7)
TILES = RNG.integers(1, 60_000, (6, 40, 48)).astype("u2")
GRID = (2, 3)
VERSIONS = pytest.mark.parametrize(
    "how", [{"canvas": True}, {"canvas": False, "version": 5.0}], ids=["version3", "version5"]
)


def stored(path: Path, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Pixels as olefile gives them, top row first."""
    with olefile.OleFileIO(str(path)) as ole:
        return np.frombuffer(ole.openstream(name).read(), "<u2").reshape(shape)[::-1]


def test_real_image_with_its_reference(txm_data: Path) -> None:
    path = txm_data / "xradia" / "test_chip00.xrm"
    assert can_read(path)
    scan = read(path)
    assert scan.kind == "single" and scan.grid is None and scan.names == ("test_chip00",)
    np.testing.assert_array_equal(scan.tiles[0], stored(path, "ImageData1/Image1", (512, 512)))
    assert scan.flats is not None and scan.flats.shape == (1, 512, 512)
    np.testing.assert_array_equal(scan.flats[0], stored(path, "ReferenceData/Image", (512, 512)))
    assert scan.pixel_nm == pytest.approx(77.9, abs=0.05)
    assert scan.energy_ev == pytest.approx(7191, abs=1)
    assert scan.exposure_s == pytest.approx(39.9, abs=0.05)
    assert scan.binning == 4
    assert [str(t) for t in scan.times] == ["2015-11-08T11:58:08"]
    assert scan.notes == ()
    json.dumps(scan.facts())


def test_real_series(txm_data: Path) -> None:
    path = txm_data / "xradia" / "txrm_test_chip_tomo.txrm"
    scan = read(path)
    assert scan.kind == "series" and scan.tiles.shape == (7, 256, 256)
    for i in range(7):
        expected = stored(path, f"ImageData1/Image{i + 1}", (256, 256))
        np.testing.assert_array_equal(scan.tiles[i], expected)
    np.testing.assert_allclose(scan.angles_deg, np.arange(-45, 50, 15), atol=0.1)
    assert scan.times is not None and (np.diff(scan.times) > np.timedelta64(5, "s")).all()
    assert scan.energy_ev == pytest.approx(9200, abs=1)  # stored as [9200, 0, 0, ...]
    assert scan.flats is None and scan.exposure_s == 5 and scan.binning == 8


@pytest.mark.parametrize("name", ["test_chip00.xrm", "txrm_test_chip_tomo.txrm"])
def test_real_files_equal_txrm2tiffs(txm_data: Path, name: str) -> None:
    txrm = pytest.importorskip("txrm2tiff.txrm")
    scan = read(txm_data / "xradia" / name)
    with txrm.open_txrm(txm_data / "xradia" / name, strict=False) as theirs:
        np.testing.assert_array_equal(scan.tiles[:], theirs.get_output(clear_images=False))
        if scan.flats is not None:
            np.testing.assert_array_equal(scan.flats[0], theirs.get_reference()[::-1])


@pytest.mark.parametrize("dtype", sorted(CODES))
def test_every_type_of_pixel(tmp_path: Path, dtype: str) -> None:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        tiles = RNG.normal(0, 1e4, (2, 33, 35)).astype(kind)
    else:
        info = np.iinfo(kind)
        tiles = RNG.integers(info.min, info.max, (2, 33, 35), kind, endpoint=True)
    scan = read(write_xradia(tmp_path / "a.txrm", tiles, reference=tiles[1]))
    assert scan.tiles.dtype == kind == DTYPES[CODES[dtype]]
    np.testing.assert_array_equal(scan.tiles[:], tiles)
    np.testing.assert_array_equal(scan.flats[0], tiles[1])


@settings(max_examples=30, deadline=None)
@given(
    tiles=arrays("u2", st.tuples(st.integers(1, 7), st.integers(1, 50), st.integers(1, 50))),
    facts=st.fixed_dictionaries(
        {"shuffle": st.none() | st.integers(0, 99), "sector": st.sampled_from([512, 4096])}
    ),
)
def test_any_size_of_series_comes_back(
    tmp_path_factory: pytest.TempPathFactory, tiles: np.ndarray, facts: dict[str, Any]
) -> None:
    path = write_xradia(tmp_path_factory.getbasetemp() / "size.txrm", tiles, **facts)
    scan = read(path)
    np.testing.assert_array_equal(scan.tiles[:], tiles)
    assert scan.kind == ("single" if len(tiles) == 1 else "series")


def test_more_than_a_hundred_images(tmp_path: Path) -> None:
    tiles = np.arange(203, dtype="u2")[:, None, None] + np.zeros((1, 5, 6), "u2")
    scan = read(write_xradia(tmp_path / "a.txrm", tiles))
    np.testing.assert_array_equal(scan.tiles[:], tiles)


@pytest.mark.parametrize("rename", [str.lower, str.upper, str.swapcase])
@VERSIONS
def test_case_of_names_does_not_matter(tmp_path: Path, how: dict[str, Any], rename: Any) -> None:
    plain = write_xradia(tmp_path / "a.xrm", TILES, grid=GRID, reference=TILES[0], **how)
    other = write_xradia(
        tmp_path / "b.xrm", TILES, grid=GRID, reference=TILES[0], rename=rename, **how
    )
    first, second = read(plain).facts(), read(other).facts()
    first.pop("source"), second.pop("source")
    assert first == second and can_read(other)


def test_correctly_spelt_names_are_known_too(tmp_path: Path) -> None:
    respelt = {"MosiacRows": "MosaicRows", "MosiacColumns": "MosaicColumns",
               "MosiacMode": "MosaicMode", "VerticalalBin": "VerticalBin"}  # fmt: skip

    def rename(name: str) -> str:
        folder, _, last = name.rpartition("/")
        return f"{folder}/{respelt.get(last, last)}".lstrip("/")

    path = write_xradia(tmp_path / "a.xrm", TILES, grid=GRID, canvas=True, rename=rename)
    np.testing.assert_array_equal(read(path).tiles[:], TILES)


def test_interrupted_series(tmp_path: Path) -> None:
    scan = read(write_xradia(tmp_path / "a.txrm", TILES, planned=181))
    assert scan.tiles.shape[0] == 6
    assert "181 images were planned, 6 are there: the scan was interrupted" in scan.notes


def test_dates(tmp_path: Path) -> None:
    def times(dates: list[str], **facts: Any) -> list[str] | None:
        path = write_xradia(tmp_path / "a.txrm", TILES[: len(dates)], dates=dates, **facts)
        found = read(path).times
        return None if found is None else [str(t) for t in found]

    assert times(["02/22/23 10:00:01", "12/31/99 23:59:59"]) == [
        "2023-02-22T10:00:01",
        "1999-12-31T23:59:59",
    ]
    assert times(["02/22/2023 10:00:01.25"]) == ["2023-02-22T10:00:01"]
    assert times(["02/30/23 10:00:01"]) is None  # no such day
    packed = b"02/22/23 10:00:01\0\xff02/22/23 10:01:01\0"
    assert times(["", ""], replaced={"ImageInfo/Date": packed}) == [
        "2023-02-22T10:00:01",
        "2023-02-22T10:01:01",
    ]


def test_reference_of_version_5_has_its_own_header(tmp_path: Path) -> None:
    path = write_xradia(
        tmp_path / "a.xrm", TILES[:1], version=5.0, reference=TILES[1].astype("f4"),
        reference_exposure_s=30, replaced={"ReferenceData/DataType": None},
    )  # fmt: skip
    scan = read(path)
    assert scan.flats.dtype == np.float32
    np.testing.assert_array_equal(scan.flats[0], TILES[1])
    assert [str(t) for t in scan.flat_times] == ["2023-02-22T09:30:00"]
    assert scan.exposure_s == 60 and scan.flat_exposures_s.tolist() == [30]


@pytest.mark.parametrize(
    "changed", [{"ReferenceData/DataType": b"\x63\0\0\0"}, {"ReferenceData/Image": b"x" * 5000}]
)
def test_a_useless_reference_does_not_spoil_the_scan(
    tmp_path: Path, changed: dict[str, bytes]
) -> None:
    scan = read(write_xradia(tmp_path / "a.xrm", TILES[:1], reference=TILES[1], replaced=changed))
    np.testing.assert_array_equal(scan.tiles[0], TILES[0])
    assert scan.flats is None and any("left out" in note for note in scan.notes)


def test_reference_named_in_the_file_is_passed_on(tmp_path: Path) -> None:
    name = rb"D:\2023\ref_60s_b2.xrm" + b"\0" + b"\xfe\x07junk" * 20
    changed = {"ImageInfo/ReferenceFile": name}
    scan = read(write_xradia(tmp_path / "a.xrm", TILES[:1], replaced=changed))
    assert scan.notes == (r"no reference inside; at the instrument it was D:\2023\ref_60s_b2.xrm",)


OPTIONAL = ["PixelSize", "Energy", "ExpTimes", "Date", "HorizontalBin", "VerticalalBin",
            "DataType", "ImagesTaken", "NoOfImages"]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(missing=st.sets(st.sampled_from(OPTIONAL)))
def test_missing_streams_cost_only_themselves(
    tmp_path_factory: pytest.TempPathFactory, missing: set[str]
) -> None:
    path = write_xradia(
        tmp_path_factory.getbasetemp() / "miss.txrm", TILES,
        replaced={f"ImageInfo/{name}": None for name in missing},
    )  # fmt: skip
    scan = read(path)
    np.testing.assert_array_equal(scan.tiles[:], TILES)
    assert (scan.pixel_nm is None) == ("PixelSize" in missing)
    assert (scan.energy_ev is None) == ("Energy" in missing)
    assert (scan.exposure_s is None) == ("ExpTimes" in missing)
    assert (scan.times is None) == ("Date" in missing)
    assert (scan.binning is None) == ({"HorizontalBin", "VerticalalBin"} <= missing)
    assert any("pass --pixel-nm" in note for note in scan.notes) == ("PixelSize" in missing)
    assert any("DataType is missing" in note for note in scan.notes) == ("DataType" in missing)


def test_can_read_goes_by_content(tmp_path: Path) -> None:
    real = write_xradia(tmp_path / "named.dat", TILES)
    assert can_read(real) and read(real).tiles.shape == TILES.shape
    word = write_ole2(tmp_path / "word.xrm", {"WordDocument": b"x" * 5000})
    assert not can_read(word)
    text = tmp_path / "text.xrm"
    text.write_text("no image")
    assert not can_read(text)
    assert not can_read(tmp_path) and not can_read(tmp_path / "nothing.xrm")
    damaged = tmp_path / "damaged.txrm"
    damaged.write_bytes(real.read_bytes()[:600])
    assert can_read(damaged)  # so that `read` explains it
    with pytest.raises(ReadError, match=r"damaged\.txrm"):
        read(damaged)
