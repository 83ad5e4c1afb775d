"""A place is refused before any work where something would be lost or nothing could be made."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from napari_txm_bgcorr.core import Source
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io.output.out_place import check_place
from tests.io.output.outputs import make_scan, write_all

SAVE = ("raw", "corrected")


def place(out: Path, *, overwrite: bool = False, source: Path | None = None) -> None:
    scan = make_scan()
    if source is not None:
        scan = replace(scan, source=Source(source, "tiff", (source / "t.tif",)))
    check_place(out, scan, SAVE, overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["out", "deep/er/out", "out.ome.zarr"])
def test_a_new_or_empty_place_is_taken_and_left_as_it_is(
    tmp_path: Path, name: str, overwrite: bool
) -> None:
    place(tmp_path / name, overwrite=overwrite)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    place(tmp_path / "empty", overwrite=overwrite)


def test_an_output_is_replaced_only_when_wanted(tmp_path: Path) -> None:
    for form in ("omezarr", "ometiff", "tiff"):
        out = write_all(tmp_path / form, form, make_scan())
        with pytest.raises(WriteError, match="exists; choose another place or pass --overwrite"):
            place(out)
        place(out, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_output_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    folder, file = tmp_path / "thesis", tmp_path / "file"
    folder.mkdir()
    (folder / "a.txt").write_text("mine")
    file.write_text("mine")
    for out in (folder, file):
        with pytest.raises(WriteError, match="exists"):
            place(out, overwrite=overwrite)
    assert (folder / "a.txt").read_text() == file.read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_input_is_never_in_the_way(tmp_path: Path, overwrite: bool) -> None:
    source = tmp_path / "data" / "scan"
    source.mkdir(parents=True)
    (tmp_path / "way").symlink_to(tmp_path / "data")
    for out in (
        source,
        source / "t.tif",
        source.parent,
        source / ".." / "scan",
        tmp_path / "way" / "scan",  # the same folder under another name
    ):
        with pytest.raises(WriteError, match=r"is or holds the input"):
            place(out, overwrite=overwrite, source=source)
    place(source / "out", source=source)
    place(source.parent / "scan2", source=source)


def test_a_link_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    for name in ("link", "dead"):
        with pytest.raises(WriteError, match="is a link"):
            place(tmp_path / name, overwrite=True)


@pytest.mark.parametrize("form", ["omezarr", "tiff"])
def test_no_output_lies_in_another(tmp_path: Path, form: str) -> None:
    out = write_all(tmp_path / "first", form, make_scan())
    for inside in (out / "second", out / "corrected" / "x" / "y"):
        with pytest.raises(WriteError, match="lies inside the output"):
            place(inside)


def test_a_parent_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match=r"is a file, not a folder|choose another"):
        place(tmp_path / "file" / "out")


def test_a_folder_without_permission_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WriteError, match="no permission to write in"):
        place(tmp_path / "deep" / "out")


@pytest.mark.parametrize("save", [(), ("raw", "dreams")])
def test_parts_that_are_none_are_named(tmp_path: Path, save: tuple[str, ...]) -> None:
    with pytest.raises(WriteError, match="dreams" if save else "nothing"):
        check_place(tmp_path / "out", make_scan(), save, overwrite=False)
