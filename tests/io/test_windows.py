"""What Windows does otherwise, acted out: open files, reserved names, missing drives."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from napari_txm_bgcorr.core import files
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io import folder_watcher as watcher
from napari_txm_bgcorr.io import guard, open_output
from napari_txm_bgcorr.io.json_file import read_json, write_json
from napari_txm_bgcorr.io.output.job import LOCK, OutputJob
from napari_txm_bgcorr.io.output.out_place import check_place
from tests.io.output.outputs import PROVENANCE, make_scan, result, write_all


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long in these tests."""
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)


def failure(number: int) -> PermissionError:
    error = PermissionError(13, "Access is denied")
    error.winerror = number  # type: ignore[attr-defined, unused-ignore]
    return error


def test_json_that_a_reader_has_open_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, real, tries = tmp_path / "a.json", os.replace, [0]

    def replaced(*places: Any) -> None:
        tries[0] += 1
        if tries[0] < 3:
            raise failure(32)
        real(*places)

    monkeypatch.setattr(os, "replace", replaced)
    write_json(place, {"a": 1})
    assert read_json(place) == {"a": 1} and tries[0] == 3


@pytest.mark.parametrize("form", ["tiff", "omezarr"])
@pytest.mark.parametrize("which", ["out", "out.part"])
def test_finished_work_is_not_lost_where_a_file_in_it_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, which: str
) -> None:
    """The old output is shown in napari, or a scanner reads the new one: no folder is renamed."""
    scan, out, real = make_scan(), tmp_path / "out", os.rename
    write_all(out, form, scan)
    clock = iter(range(10**6))
    with monkeypatch.context() as patch:

        def renamed(source: Path, target: Path) -> None:
            if Path(source).name == which:
                raise failure(5)
            real(source, target)

        patch.setattr(os, "rename", renamed)
        patch.setattr(files.time, "monotonic", lambda: float(next(clock)))
        newer = {**PROVENANCE, "method": "another"}
        with (
            pytest.raises(WriteError, match="another program has it open"),
            open_output(out, form, scan, newer, overwrite=True) as writer,
        ):
            for i in writer.todo:
                writer.write(result(scan, i))
            writer.close_complete()
    assert out.is_dir() and not (tmp_path / "out.part" / LOCK).exists()
    with open_output(out, form, scan, newer, overwrite=True) as writer:
        assert not writer.todo  # nothing is done twice
        writer.close_complete()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert not list(out.rglob(".txm*"))


def test_names_that_windows_keeps_for_itself_get_another(tmp_path: Path) -> None:
    scan = replace(make_scan(), names=("con", "AUX.a", "nul", "com1.tif", "console", "end. "))
    names = OutputJob(tmp_path / "out", "tiff", scan, {}, ("raw",)).names
    assert names == ("con_", "AUX_.a", "nul_", "com1_.tif", "console", "end")


def test_a_drive_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(WriteError, match="drive or share is not there"):
        check_place(tmp_path / "out", make_scan(), ["raw"], overwrite=False)
    with pytest.raises(WriteError, match="disk full"), guard.writing(tmp_path):
        raise OSError(28, "No space left on device")


def test_a_path_too_long_for_windows_is_told(tmp_path: Path) -> None:
    error = FileNotFoundError(2, "The system cannot find the path specified")
    error.winerror = 3  # type: ignore[attr-defined, unused-ignore]
    with pytest.raises(WriteError, match="too long for Windows"), guard.writing(Path("x" * 200)):
        raise error
    with pytest.raises(WriteError, match="cannot find the path"), guard.writing(Path("short")):
        raise error


def test_watcher_asks_the_file_itself_how_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that is open for writing Windows' list of the folder keeps the old size."""
    (tmp_path / "a.tif").write_bytes(b"1234567")
    real = os.scandir

    class Entry:
        def __init__(self, entry: Any) -> None:
            self.name, self.path = entry.name, entry.path
            self.is_dir, self.is_file = entry.is_dir, entry.is_file

        def stat(self) -> os.stat_result:
            return os.stat_result((0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0))

    class Listed:
        def __init__(self, folder: Path) -> None:
            self.entries = real(folder)

        def __enter__(self) -> list[Entry]:
            return [Entry(e) for e in self.entries]

        def __exit__(self, *_: Any) -> None:
            self.entries.close()

    monkeypatch.setattr(watcher.os, "scandir", Listed)
    found = watcher.Watcher(tmp_path)._look()
    assert [state.size for state in found.values()] == [7]
