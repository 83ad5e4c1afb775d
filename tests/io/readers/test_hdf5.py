"""HDF5: Data Exchange, NXtomo with links, plain stacks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io import read, read_references

RNG = np.random.default_rng(3)
STACK = RNG.integers(0, 60000, (9, 12, 14)).astype(np.uint16)


def exchange(path: Path) -> Path:
    with h5py.File(path, "w") as h5:
        h5["exchange/data"] = STACK
        h5["exchange/data_white"] = STACK[:2] + 1
        h5["exchange/data_dark"] = STACK[:3] // 9
        h5["exchange/theta"] = np.linspace(0, 180, 9)
        h5["measurement/instrument/detector/pixel_size"] = [0.5]
        h5["measurement/instrument/detector/pixel_size"].attrs["units"] = "um"
        h5["measurement/instrument/monochromator/energy"] = 9.2
        h5["measurement/instrument/monochromator/energy"].attrs["units"] = b"keV"
    return path


KEY = np.array([2, 1, 0, 0, 0, 3, 0, 1, 2])


def nxtomo(path: Path, *, linked: bool = False, key: np.ndarray = KEY) -> Path:
    with h5py.File(path, "w") as h5:
        group = h5.create_group("entry1/tomo_entry/instrument/detector")
        if linked:
            (path.parent / "parts").mkdir(exist_ok=True)
            with h5py.File(path.parent / "parts/pixels.h5", "w") as other:
                other["deep/data"] = STACK
            group["data"] = h5py.ExternalLink("parts/pixels.h5", "/deep/data")
        else:
            group["data"] = STACK
        group["image_key"] = key
        group["x_pixel_size"] = 3e-8
        group["count_time"] = np.full(9, 60.0)
        h5["entry1/tomo_entry/sample/rotation_angle"] = np.arange(9.0) * 10
        # soft links to the same data, and a loop, as real files have them
        h5["entry1/tomo_entry/data"] = h5py.SoftLink("/entry1/tomo_entry/instrument/detector")
        h5["entry1/loop"] = h5["entry1"]
    return path


def test_data_exchange(tmp_path: Path) -> None:
    scan = read(exchange(tmp_path / "a.h5"))
    assert (scan.kind, scan.tiles.shape, scan.tiles.dtype) == ("series", (9, 12, 14), np.uint16)
    np.testing.assert_array_equal(scan.tiles[:], STACK)
    assert scan.flats is not None
    np.testing.assert_array_equal(scan.flats[:], STACK[:2] + 1)
    assert scan.darks is not None
    np.testing.assert_array_equal(scan.darks[:], STACK[:3] // 9)
    assert scan.angles_deg is not None
    np.testing.assert_array_equal(scan.angles_deg, np.linspace(0, 180, 9))
    assert scan.pixel_nm == pytest.approx(500)
    assert scan.energy_ev == pytest.approx(9200)
    flats = read_references([tmp_path / "a.h5"], like=scan)
    np.testing.assert_array_equal(flats.images[:], STACK[:2] + 1)
    assert flats.energies_ev is not None and flats.energies_ev.tolist() == [9200] * 2
    darks = read_references([tmp_path / "a.h5"], like=scan, role="darks")
    np.testing.assert_array_equal(darks.images[:], STACK[:3] // 9)


@pytest.mark.parametrize("linked", [False, True])
def test_nxtomo(tmp_path: Path, linked: bool) -> None:
    scan = read(nxtomo(tmp_path / "a.nxs", linked=linked))
    np.testing.assert_array_equal(scan.tiles[:], STACK[KEY == 0])
    np.testing.assert_array_equal(scan.tiles[3], STACK[6])
    assert scan.flats is not None
    np.testing.assert_array_equal(scan.flats[:], STACK[[1, 7]])
    assert scan.darks is not None
    np.testing.assert_array_equal(scan.darks[:], STACK[[0, 8]])
    assert scan.angles_deg is not None
    assert scan.angles_deg.tolist() == [20, 30, 40, 60]
    assert scan.pixel_nm == pytest.approx(30)
    assert scan.exposure_s == 60
    assert any("invalid" in note for note in scan.notes)
    assert len(scan.source.files) == 1 + linked


def test_missing_linked_file_is_named(tmp_path: Path) -> None:
    path = nxtomo(tmp_path / "a.nxs", linked=True)
    (tmp_path / "parts/pixels.h5").unlink()
    with pytest.raises(ReadError, match=r"pixels\.h5 is missing; copy it beside"):
        read(path)


def test_link_to_what_is_not_there_is_named(tmp_path: Path) -> None:
    path = nxtomo(tmp_path / "a.nxs", linked=True)
    with h5py.File(tmp_path / "parts/pixels.h5", "w") as other:
        other["elsewhere"] = 1
    with pytest.raises(ReadError, match="/deep/data is not in the linked file"):
        read(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [(KEY[:5], "5 values for 9 images"), (np.ones(9, int), "no projection")],
)
def test_image_key_that_does_not_fit_is_refused(
    tmp_path: Path, key: np.ndarray, message: str
) -> None:
    with pytest.raises(ReadError, match=message):
        read(nxtomo(tmp_path / "a.nxs", key=key))


@pytest.mark.parametrize("name", ["data", "entry/data/data", "anything"])
def test_plain_stack_in_chunks_and_filters(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.create_dataset(name, data=STACK, chunks=(1, 12, 14), **hdf5plugin.Bitshuffle())
    scan = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(scan.tiles[:], STACK)


def test_one_image_and_user_block(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as h5:
        h5["data"] = STACK[0].astype(">f4")
    scan = read(tmp_path / "a.h5")
    assert scan.kind == "single"
    assert scan.tiles.dtype.isnative
    np.testing.assert_array_equal(scan.tiles[0], STACK[0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("exchange/data", np.zeros((2, 3, 4, 5)), "shape"),
        ("exchange/data", np.zeros((0, 3, 4)), "shape"),
        ("exchange/data", np.zeros((2, 3, 4), complex), "complex"),
        ("exchange/data", np.zeros((2, 3, 4), "S3"), "type"),
        ("exchange/other", np.zeros((2, 3, 4)), "exchange/data missing"),
        ("title", "nothing here", "no /exchange/data"),
    ],
)
def test_what_is_no_stack_is_refused(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5[name] = value
    with pytest.raises(ReadError, match=message) as caught:
        read(tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


def test_frame_of_2_to_31_pixels_is_refused_without_reading_it(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.create_dataset("exchange/data", (3, 2**16, 2**15), "u2", chunks=(1, 512, 512))
    with pytest.raises(ReadError, match="exceeds"):
        read(tmp_path / "a.h5")


def test_flats_of_another_size_are_refused(tmp_path: Path) -> None:
    path = exchange(tmp_path / "a.h5")
    with h5py.File(path, "r+") as h5:
        del h5["exchange/data_white"]
        h5["exchange/data_white"] = STACK[:, 1:]
    with pytest.raises(ReadError, match="flats of"):
        read(path)


def test_wrong_number_of_angles_is_a_note(tmp_path: Path) -> None:
    path = exchange(tmp_path / "a.h5")
    with h5py.File(path, "r+") as h5:
        del h5["exchange/theta"]
        h5["exchange/theta"] = np.arange(4.0)
    scan = read(path)
    assert scan.angles_deg is None
    assert "4 angles for 9 images" in scan.notes


def test_real_data_exchange(txm_data: Path) -> None:
    path = txm_data / "hdf5/tooth.h5"
    scan = read(path)
    with h5py.File(path) as h5:
        np.testing.assert_array_equal(scan.tiles[7], h5["exchange/data"][7])
        assert scan.flats is not None
        np.testing.assert_array_equal(scan.flats[:], h5["exchange/data_white"][:])
    assert scan.tiles.shape == (181, 2, 640)
    assert scan.facts()["flats"] == scan.facts()["darks"] == 10


def test_real_nxtomo_with_external_links(txm_data: Path) -> None:
    scan = read(txm_data / "hdf5/k11-18014.nxs")
    assert scan.tiles.shape == (3001, 22, 26)
    assert scan.facts()["flats"] == scan.facts()["darks"] == 100
    assert scan.angles_deg is not None
    assert np.ptp(scan.angles_deg) == pytest.approx(180, abs=2)
    dark, flat = scan.dark(), scan.flats
    assert dark is not None
    assert flat is not None
    assert dark.mean() < scan.tiles[1500].mean() < flat[0].mean()
