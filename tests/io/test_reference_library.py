"""A library keeps each image with its line, through interruptions and changes of mind."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.errors import ReadError, WriteError
from napari_txm_bgcorr.io import reference_library
from napari_txm_bgcorr.io.reference_library import JOURNAL, Library, can_read, open_library

SETTINGS = {"pattern": "*", "level": 100.0}


def image(k: int, size: tuple[int, int] = (5, 6), dtype: str = "uint16") -> np.ndarray:
    return (np.arange(size[0] * size[1]).reshape(size) + 1000 * k).astype(dtype)


def line(name: str, **facts: Any) -> dict[str, Any]:
    return {"name": name} | facts


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "library"


def filled(place: Path) -> Library:
    library = Library.begin(place, SETTINGS)
    library.note({"file": "a.xrm", "bytes": 7, "changed_ns": 99})
    library.add(image(0), line("a.xrm", date="2026-01-02T03:04:05", pixel_nm=29.3, binning=2))
    library.note({"file": "b.tif", "bytes": 8, "changed_ns": 98, "why": "dark"})
    library.add(image(1, (3, 4), "float32"), line("in/c.tif"))
    library.add(image(2), line("d.xrm", date="2026-01-03T00:00:00"))
    return library


def test_images_and_facts_come_back_by_size_and_type(place: Path) -> None:
    filled(place).finish()
    assert can_read(place)
    small, large = open_library(place)
    np.testing.assert_array_equal(small.images[:], image(1, (3, 4), "float32")[None])
    np.testing.assert_array_equal(large.images[:], np.stack([image(0), image(2)]))
    assert large.images.dtype == np.uint16 and large.names == ("a.xrm", "d.xrm")
    assert large.sessions == ("2026-01-02", "2026-01-03") and small.sessions == ("in",)
    assert small.times is None and large.times is not None
    assert (
        large.times.tolist()
        == np.array(["2026-01-02T03:04:05", "2026-01-03T00:00:00"], "datetime64[s]").tolist()
    )
    assert large.acquisition == ({"pixel_nm": 29.3, "binning": 2.0}, {})


def test_before_it_is_finished_it_is_whole_too(place: Path) -> None:
    filled(place)
    _, large = open_library(place)
    np.testing.assert_array_equal(large.images[1], image(2))
    again = pickle.loads(pickle.dumps(large.images))
    np.testing.assert_array_equal(again[:], large.images[:])


def test_what_is_dropped_later_is_not_given(place: Path) -> None:
    library = filled(place)
    library.note({"drop": "a.xrm", "why": "a sample"})
    library.finish()
    (large,) = [s for s in open_library(place) if s.images.dtype == np.uint16]
    assert large.names == ("d.xrm",)
    np.testing.assert_array_equal(large.images[0], image(2))
    assert [one["name"] for one in library.images()] == ["in/c.tif", "d.xrm"]


def test_it_goes_on_where_it_was_cut_off(place: Path) -> None:
    """After a line that was cut, and an image that has no line."""
    library = filled(place)
    library._arrays["5x6-uint16"][2] = image(9)
    with (place / JOURNAL).open("a") as stream:
        stream.write('{"name": "torn", "arr')
    later = Library.begin(place, SETTINGS)
    assert later.lines == library.lines
    assert list(later.done()) == [("a.xrm", 7, 99), ("b.tif", 8, 98)]
    later.add(image(3), line("e.xrm"))
    later.finish()
    large = next(s for s in open_library(place) if s.images.dtype == np.uint16)
    assert large.names == ("a.xrm", "d.xrm", "e.xrm")
    np.testing.assert_array_equal(large.images[:], np.stack([image(0), image(2), image(3)]))
    np.testing.assert_array_equal(later.read(later.lines[-1]), image(3))


def test_it_grows_beyond_its_first_size(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_library, "GROWTH", 2)
    library = Library.begin(place, SETTINGS)
    for k in range(5):
        library.add(image(k), line(f"{k}"))
    library.finish()
    (found,) = open_library(place)
    np.testing.assert_array_equal(found.images[:], np.stack([image(k) for k in range(5)]))


def test_other_settings_are_another_library(place: Path) -> None:
    filled(place)
    with pytest.raises(WriteError, match=r"other settings .*pattern.*--overwrite"):
        Library.begin(place, SETTINGS | {"level": 5.0})
    fresh = Library.begin(place, SETTINGS | {"level": 5.0}, overwrite=True)
    assert fresh.lines == [] and not list(place.glob("5x6*"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_library_is_never_touched(place: Path, overwrite: bool) -> None:
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    with pytest.raises(WriteError, match="something else is there"):
        Library.begin(place, SETTINGS, overwrite=overwrite)
    assert [p.name for p in place.iterdir()] == ["thesis.txt"]
    file = place / "thesis.txt"
    with pytest.raises(WriteError, match="something else is there"):
        Library.begin(file, SETTINGS, overwrite=overwrite)


def test_an_empty_folder_is_used(place: Path) -> None:
    place.mkdir()
    Library.begin(place, SETTINGS)
    assert can_read(place)


def test_an_empty_library_is_named(place: Path) -> None:
    Library.begin(place, SETTINGS)
    with pytest.raises(ReadError, match="holds no image"):
        open_library(place)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no library of this program"),
        ('{"txm_bgcorr_library": 99, "settings": {}}\n', "no library of this program"),
        ('{"a": 1}\n', "no library of this program"),
        ("{\n", "line 1 is damaged"),
        ('{"txm_bgcorr_library": 1, "settings": {}}\n{"x\n{"y": 1}\n', "line 2 is damaged"),
    ],
)
def test_a_damaged_journal_is_named(place: Path, text: str, words: str) -> None:
    filled(place)
    (place / JOURNAL).write_text(text)
    with pytest.raises(ReadError, match=words):
        open_library(place)


def test_arrays_tell_what_they_hold(place: Path) -> None:
    filled(place).finish()
    held = json.loads((place / "5x6-uint16" / "zarr.json").read_text())
    assert held["shape"] == [2, 5, 6]
    assert [one["name"] for one in held["attributes"]["kept"]] == ["a.xrm", "d.xrm"]
