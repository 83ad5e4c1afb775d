"""An archive of references becomes a library, whatever lies in it and however often it stops."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_txm_bgcorr.errors import ReadError, WriteError
from napari_txm_bgcorr.io.reference_library import JOURNAL, can_read, open_library
from napari_txm_bgcorr.io.training_images import read_training_data
from napari_txm_bgcorr.workflows import reference_harvest as module
from napari_txm_bgcorr.workflows.reference_harvest import HarvestOptions, harvest
from tests.helpers.ole2 import write_xradia

PX = 64


def beam(seed: int, level: float = 9000, size: int = PX) -> np.ndarray:
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    rng = np.random.default_rng(seed)
    shape = np.exp(-0.3 * (y - 0.1) ** 2 - 0.4 * (x + 0.2) ** 2 + rng.normal(0, 0.02) * x)
    return rng.poisson(level * shape).astype(np.uint16)


def specimen(image: np.ndarray) -> np.ndarray:
    dimmed = image.astype(np.float64)
    dimmed[10:30, 20:45] *= 0.6
    return dimmed.astype(np.uint16)


def put(path: Path, image: np.ndarray, date: str = "02/22/23 10:00:00", **facts: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_xradia(path, image[None], dates=[date], **facts)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    day = root / "2023" / "02" / "22"
    for k in range(6):
        put(day / "run1" / f"ref_{k}.xrm", beam(k), f"02/22/23 1{k}:00:00", exposure_s=30 + k)
    put(root / "2023" / "03" / "01" / "Ref_b4.XRM", beam(20, size=32), binning=4)
    put(day / "ref_copy.xrm", beam(2))
    put(day / "ref_dark.xrm", np.random.default_rng(0).normal(3000, 8, (PX, PX)).astype(np.uint16))
    put(day / "ref_low.xrm", (beam(7) // 400).astype(np.uint16))
    put(day / "ref_burnt.xrm", np.minimum(beam(8), 8000).astype(np.uint16))
    put(day / "ref_sample.xrm", specimen(beam(9)), "02/22/23 12:30:00")
    put(day / "sample_1.xrm", specimen(beam(10)))
    (day / "ref_torn.xrm").write_bytes((day / "run1" / "ref_0.xrm").read_bytes()[:3000])
    (day / "ref_empty.xrm").touch()
    return root


def names(library: Path) -> list[str]:
    return sorted(Path(n).name for stack in open_library(library) for n in stack.names)


GOOD = ["Ref_b4.XRM", *(f"ref_{k}.xrm" for k in range(6))]


def test_good_references_are_kept_and_the_others_named_with_the_reason(archive, tmp_path):
    told: list[str] = []
    result = harvest(archive, tmp_path / "lib.zarr", HarvestOptions(), tell=told.append)
    # of two equal images the first in order of names stays
    kept = [("ref_copy.xrm" if n == "ref_2.xrm" else n) for n in GOOD]
    assert names(tmp_path / "lib.zarr") == sorted(kept)
    assert result.kept == 7
    assert result.dropped == {
        "duplicate": 1, "dark": 2, "saturated": 1, "sample": 1, "unreadable": 2
    }  # fmt: skip
    assert result.unchecked == 1  # the only one of its size
    for word, name in (
        ("duplicate", "ref_2"), ("dark", "ref_dark"), ("dark", "ref_low"),
        ("saturated", "ref_burnt"), ("sample", "ref_sample"), ("unreadable", "ref_torn"),
        ("unreadable", "ref_empty"),
    ):  # fmt: skip
        assert [s for s in told if name in s and word in s], (word, name)


def test_pixels_and_facts_come_back(archive, tmp_path):
    library = tmp_path / "lib"
    harvest(archive, library, HarvestOptions())
    assert can_read(library)
    stack = next(s for s in open_library(library) if s.images.shape[1] == PX)
    at = [Path(n).name for n in stack.names].index("ref_4.xrm")
    np.testing.assert_array_equal(stack.images[at], beam(4))
    assert stack.times is not None
    assert str(stack.times[at]) == "2023-02-22T14:00:00"
    assert stack.sessions[at] == "2023-02-22"
    again = pickle.loads(pickle.dumps(stack.images))
    np.testing.assert_array_equal(again[at], beam(4))
    lines = zarr.open_array(library / f"{PX}x{PX}-uint16").attrs["kept"]
    line = next(line for line in lines if line["name"].endswith("ref_4.xrm"))
    assert line["exposure_s"] == 34 and line["binning"] == 2 and line["energy_ev"] == 8000
    assert zarr.open_group(library).attrs["txm_bgcorr_library"] == 1


def test_a_library_is_training_data(archive, tmp_path):
    harvest(archive, tmp_path / "lib", HarvestOptions())
    data = read_training_data([tmp_path / "lib"])
    assert data.counts()["references"] == 7
    assert {s.images.shape[1:] for s in data.references} == {(PX, PX), (32, 32)}


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4, 9])
def test_an_interrupted_harvest_goes_on_to_the_same_library(archive, tmp_path, after):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    harvest(archive, whole, HarvestOptions())
    read: list[str] = []

    def stop(done: int, total: int) -> None:
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        harvest(archive, cut, HarvestOptions(), progress=stop)
    with (cut / JOURNAL).open("a") as stream:
        stream.write('{"name": "torn by a ki')
    examine = module._examine

    def counted(path: Path, *rest: object):
        read.append(path.name)
        return examine(path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_examine", counted)
        result = harvest(archive, cut, HarvestOptions())
    assert names(cut) == names(whole)
    assert len(read) == 14 - after  # nothing is read twice
    assert result.dropped == harvest(archive, whole, HarvestOptions()).dropped
    for one, other in zip(open_library(cut), open_library(whole), strict=True):
        assert one.names == other.names
        np.testing.assert_array_equal(one.images[:], other.images[:])


def test_a_later_harvest_adds_what_is_new(archive, tmp_path):
    root = shutil.copytree(archive, tmp_path / "archive")
    harvest(root, tmp_path / "lib", HarvestOptions())
    put(root / "2023" / "02" / "23" / "ref_new.xrm", beam(30), "02/23/23 10:00:00")
    result = harvest(root, tmp_path / "lib", HarvestOptions())
    assert result.kept == 8 and "ref_new.xrm" in names(tmp_path / "lib")


def test_a_pattern_of_any_case_finds_other_files(archive, tmp_path):
    result = harvest(archive, tmp_path / "lib", HarvestOptions(pattern="2023/*/*/SAMPLE*.xrm"))
    assert result.kept == 1 and result.unchecked == 1


def test_the_date_may_come_from_the_folders(tmp_path):
    path = tmp_path / "2024" / "3" / "9" / "ref.xrm"
    put(path, beam(1), replaced={"ImageInfo/Date": None})
    harvest(tmp_path, tmp_path / "lib", HarvestOptions())
    (stack,) = open_library(tmp_path / "lib")
    assert stack.sessions == ("2024-03-09",)


def test_what_cannot_be_harvested_is_refused_in_one_line(archive, tmp_path):
    with pytest.raises(ReadError, match="no file matches"):
        harvest(archive, tmp_path / "a", HarvestOptions(pattern="*.nothing"))
    with pytest.raises(ReadError, match="no such folder"):
        harvest(archive / "none", tmp_path / "a", HarvestOptions())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.docx").touch()
    with pytest.raises(WriteError, match="something else"):
        harvest(archive, tmp_path / "full", HarvestOptions())
    harvest(archive, tmp_path / "lib", HarvestOptions())
    with pytest.raises(WriteError, match="other settings"):
        harvest(archive, tmp_path / "lib", HarvestOptions(least_level=5))
    again = harvest(archive, tmp_path / "lib", HarvestOptions(least_level=5), overwrite=True)
    assert again.dropped["dark"] == 1  # the dim one may stay now
    assert (tmp_path / "full" / "thesis.docx").exists()


def test_references_of_two_energies_are_no_samples(tmp_path):
    for k in range(3):
        put(tmp_path / f"ref_{k}.xrm", beam(k), f"02/22/23 1{k}:00:00", energy_ev=[8353])
        turned = beam(10 + k)[:, ::-1]  # another energy, another shape
        put(tmp_path / f"ref_{k}_8250_0eV.xrm", turned, f"02/22/23 1{k}:30:00", energy_ev=[0])
    put(tmp_path / "ref_sample.xrm", specimen(beam(9)), "02/22/23 12:30:00", energy_ev=[8353])
    result = harvest(tmp_path, tmp_path / "lib", HarvestOptions())
    assert result.kept == 6 and result.dropped == {"sample": 1} and not result.unchecked
    assert "ref_sample.xrm" not in names(tmp_path / "lib")
    (stack,) = open_library(tmp_path / "lib")
    assert {facts["energy_ev"] for facts in stack.acquisition} == {8353, 8250}


def test_most_images_with_a_sample_spoil_no_reference(tmp_path):
    for k in range(2):
        put(tmp_path / f"ref_{k}.xrm", beam(k), f"02/22/23 1{k}:00:00")
    rng = np.random.default_rng(4)
    for k in range(5):
        image = np.roll(specimen(beam(20 + k)), rng.integers(-20, 20, 2), (0, 1))
        put(tmp_path / f"ref_s{k}.xrm", image, f"02/22/23 1{k}:20:00")
    harvest(tmp_path, tmp_path / "lib", HarvestOptions())
    assert names(tmp_path / "lib") == ["ref_0.xrm", "ref_1.xrm"]


@pytest.mark.parametrize("pattern", ["ref*.xrm", "*.xrm"])
def test_real_references_are_kept_and_real_images_are_not(txm_data, tmp_path, pattern):
    """Two energies, and 5.5 h at one of them; four images with a sample among them."""
    told: list[str] = []
    options = HarvestOptions(pattern=pattern)
    result = harvest(txm_data / "aps8bm", tmp_path / "lib", options, tell=told.append)
    assert names(tmp_path / "lib") == [
        "ref_xanesocv_8250_0eV.xrm", "ref_xanesocv_8353_0eV.xrm", "ref_xanessoc01_8353_0eV.xrm"
    ]  # fmt: skip
    assert result.unchecked == 1  # the only one of its energy
    assert result.dropped == ({"sample": 4} if pattern == "*.xrm" else {})


def test_real_empty_tiles_are_told_from_those_with_a_sample(txm_data, tmp_path):
    options = HarvestOptions(pattern="*.tif")
    harvest(txm_data / "bl01b_lm_4x2", tmp_path / "lib", options)
    assert [name[-8:] for name in names(tmp_path / "lib")] == ["0009.tif", "0013.tif"]


def test_a_damaged_journal_is_named(archive, tmp_path):
    harvest(archive, tmp_path / "lib", HarvestOptions())
    journal = tmp_path / "lib" / JOURNAL
    lines = journal.read_text().splitlines()
    assert json.loads(lines[0])["txm_bgcorr_library"] == 1
    journal.write_text("\n".join([lines[0], "{broken", *lines[2:]]) + "\n")
    with pytest.raises(ReadError, match="line 2 is damaged"):
        open_library(tmp_path / "lib")
