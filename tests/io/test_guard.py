"""Whatever goes wrong with a file is one line that names it, and nothing else is swallowed."""

from __future__ import annotations

import errno
import logging
import lzma
import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ConfigError, ReadError, WriteError
from napari_txm_bgcorr.io import guard
from napari_txm_bgcorr.io.guard import check_frame, one_line, reading, require_file, writing

PLACE = Path("data") / "tile.tif"


@given(st.text(), st.integers(4, 250))
def test_a_message_is_one_line_of_bounded_length(text: str, limit: int) -> None:
    got = one_line(text, limit)
    assert len(got) <= max(limit, len("str")) and len(got.splitlines()) <= 1 and got
    words = " ".join(text.split())
    assert got == words or got.endswith("...") or not words


def test_an_error_without_text_gives_its_name() -> None:
    assert one_line(ValueError()) == "ValueError" and one_line(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("bad\nbytes"), "bad bytes; the file is damaged or cut short"),
        (KeyError("shape"), "shape"),
        (IndexError("x"), "damaged"),
        (struct.error("unpack"), "damaged"),
        (zlib.error("inflate"), "damaged"),
        (lzma.LZMAError("corrupt"), "damaged"),
        (EOFError(), "EOFError"),
        (AssertionError(), "AssertionError"),
        (RecursionError("deep"), "deep"),
        (ZeroDivisionError("by zero"), "by zero"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), "damaged"),
        (OSError("truncated"), "truncated; the file is damaged"),
        (MemoryError(), "does not fit in memory"),
        (PermissionError(errno.EACCES, "denied"), "no permission to read"),
        (FileNotFoundError(errno.ENOENT, "gone"), "no such file; check the path"),
        (OSError(errno.ELOOP, "Too many levels"), "Too many levels; check the path"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "too long; check the path"),
    ],
)
def test_damage_of_any_kind_is_one_read_error(error: BaseException, words: str) -> None:
    with pytest.raises(ReadError) as caught, reading(PLACE, "header"):
        raise error
    said = str(caught.value)
    assert said.startswith(f"{PLACE}: ") and words in said and "\n" not in said
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_what_ends_the_program_passes(error: BaseException) -> None:
    with pytest.raises(type(error)), reading(PLACE, "header"):
        raise error


def test_our_own_errors_pass_unchanged() -> None:
    own = ConfigError("grid: give one")
    with pytest.raises(ConfigError) as caught, reading(PLACE, "a"), reading(PLACE, "b"):
        raise own
    assert caught.value is own


def test_the_library_is_quiet_inside_and_only_there(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("tifffile")
    with caplog.at_level(logging.WARNING, "tifffile"):
        with reading(PLACE, "a"):
            log.warning("inside")
            with pytest.raises(ReadError), reading(PLACE, "b"):
                raise ValueError
            log.warning("still inside")
        log.warning("outside")
    assert [r.getMessage() for r in caplog.records] == ["outside"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "full"), "disk full .* bytes free.*what is written is kept"),
        (OSError(errno.EDQUOT, "quota"), "disk full"),
        (PermissionError(errno.EACCES, "no"), "no permission to write; choose another folder"),
        (OSError(errno.EROFS, "read-only"), "no permission to write"),
        (OSError(errno.EIO, "I/O\nerror"), "I/O error; choose another folder"),
    ],
)
def test_a_failing_disk_is_one_write_error(error: OSError, words: str, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "er" / "out.tif"
    with pytest.raises(WriteError, match=words) as caught, writing(place):
        raise error
    assert str(caught.value).startswith(f"{place}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("free", "full"), [(1000, True), (2**40, False)])
def test_an_error_without_a_number_is_a_full_disk_only_where_it_is_full(
    free: int, full: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guard.shutil, "disk_usage", lambda p: SimpleNamespace(free=free))
    with pytest.raises(WriteError) as caught, writing(tmp_path / "x"):
        raise OSError("500 requested and 12 written")
    assert ("disk full (1000 bytes free)" in str(caught.value)) is full


def test_an_error_that_is_no_disks_passes_a_write() -> None:
    with pytest.raises(ValueError, match="mine"), writing(PLACE):
        raise ValueError("mine")


def test_only_plain_files_with_content_are_taken(tmp_path: Path) -> None:
    good, empty, pipe = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    good.write_bytes(b"x")
    empty.write_bytes(b"")
    os.mkfifo(pipe)
    require_file(good)
    for path, words in [
        (empty, "empty .0 bytes."),
        (pipe, "not a plain file"),
        (tmp_path, "not a plain file"),
        (tmp_path / "none", "no such file"),
    ]:
        with pytest.raises(ReadError, match=words):
            require_file(path)


@pytest.mark.parametrize("dtype", ["u1", ">u2", "i4", "f4", "f8"])
def test_grey_images_are_taken(dtype: str) -> None:
    check_frame(PLACE, (1, 1), np.dtype(dtype))
    check_frame(PLACE, (10, 10), np.dtype(dtype), limit=100)


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((4, 4), np.dtype(bool), "pixels of type bool"),
        ((4, 4), np.dtype("c8"), "pixels of type complex64"),
        ((4, 4), np.dtype("V3"), "pixels of type"),
        ((4, 4), None, "pixels of type None"),
        ((4,), np.dtype("u1"), r"frame of shape \(4,\)"),
        ((4, 4, 3), np.dtype("u1"), r"frame of shape \(4, 4, 3\)"),
        ((0, 4), np.dtype("u1"), r"frame of shape \(0, 4\)"),
        ((11, 10), np.dtype("u1"), "11 x 10 px exceeds 100 px"),
    ],
)
def test_what_is_no_grey_image_is_refused(
    shape: tuple[int, ...], dtype: object, words: str
) -> None:
    with pytest.raises(ReadError, match=words):
        check_frame(PLACE, shape, dtype, limit=100)
