"""What is open elsewhere on Windows is tried again; anything else fails at once."""

import os
from pathlib import Path

import pytest

from napari_txm_bgcorr.core import files


def denied(number=32):
    error = PermissionError(13, "The process cannot access the file")
    error.winerror = number
    return error


def failing(monkeypatch, name, times, error):
    """Let `os.<name>` fail so many times; the list of its calls."""
    real, calls = getattr(os, name), []

    def call(*arguments, **options):
        calls.append(arguments)
        if len(calls) <= times:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)
    return calls


@pytest.mark.parametrize("number", [5, 32, 33])
def test_a_file_that_is_open_elsewhere_is_replaced_once_it_is_closed(
    tmp_path, monkeypatch, number
):
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    calls = failing(monkeypatch, "replace", 3, denied(number))
    files.replace_file(tmp_path / "new", tmp_path / "old")
    assert len(calls) == 4 and (tmp_path / "old").read_text() == "new"


def test_what_stays_open_is_given_up(tmp_path, monkeypatch):
    calls = failing(monkeypatch, "rename", 10**9, denied())
    with pytest.raises(PermissionError):
        files.patiently(lambda: os.rename(tmp_path, tmp_path / "b"), 0.05)
    assert len(calls) > 2


def test_other_errors_are_not_tried_again(tmp_path, monkeypatch):
    calls = failing(monkeypatch, "replace", 1, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        files.replace_file(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 1


def test_opening_on_windows_tells_no_number(monkeypatch):
    assert not files.is_busy(PermissionError(13, "denied"))  # here it means what it says
    monkeypatch.setattr(files, "_WINDOWS", True)
    assert files.is_busy(PermissionError(13, "denied"))
    assert not files.is_busy(FileNotFoundError(2, "none"))


def test_discard_leaves_what_cannot_be_removed(tmp_path, monkeypatch):
    place = tmp_path / "open.log"
    place.write_text("in use")

    def refuse(self, missing_ok=False):
        raise denied()

    monkeypatch.setattr(Path, "unlink", refuse)
    files.discard(place)
    assert place.exists()


def test_nearest_folder_that_is_there(tmp_path, monkeypatch):
    assert files.standing(tmp_path / "a" / "b") == tmp_path
    monkeypatch.setattr(Path, "exists", lambda self: False)  # a drive letter without a drive
    assert files.standing(tmp_path / "a") is None
