"""Outputs appear whole or not at all, and a killed run is taken up where it stopped."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io import WRITERS, guard, open_output, read
from napari_txm_bgcorr.io.output import job as job_module
from napari_txm_bgcorr.io.output.job import JOB, LOCK

from . import outputs
from .outputs import PROVENANCE, make_scan, result, write_all

FORMATS = tuple(WRITERS)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("form", FORMATS)
def test_run_that_fails_is_resumed_and_equals_one_that_did_not(tmp_path: Path, form: str) -> None:
    scan, out = make_scan(), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), open_output(out, form, scan, PROVENANCE) as writer:
        assert writer.done == frozenset()
        for i in (0, 3):
            writer.write(result(scan, i))
        raise KeyboardInterrupt
    assert not out.exists()
    later = {**PROVENANCE, "date": "2027-12-31T00:00:00+00:00"}  # the same job on another day
    with open_output(out, form, scan, later) as writer:
        assert writer.done == {0, 3}
        for i in (5, 2, 4, 1):
            writer.write(result(scan, i))
        assert not out.exists()
        assert writer.close_complete() == out
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    whole = write_all(tmp_path / "whole", form, scan)
    if form != "ometiff":  # an OME-TIFF has a random UUID
        assert content(out) == content(whole)
    for role in ("raw", "background", "corrected"):
        name = f"{role}.ome.tif" if form == "ometiff" else role
        np.testing.assert_array_equal(read(out / name).tiles[:], read(whole / name).tiles[:])


@pytest.mark.parametrize("form", FORMATS)
def test_killed_process_is_resumed(tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.io.output.outputs", str(out), form]
    root = Path(outputs.__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"three\n"
            with pytest.raises(WriteError, match=f"process {process.pid} is writing"):
                open_output(out, form, make_scan(), PROVENANCE)
        finally:
            process.send_signal(signal.SIGKILL)
    assert not out.exists()
    scan = make_scan()
    with open_output(out, form, scan, PROVENANCE) as writer:
        assert writer.done == {0, 1, 2}
        for i in (3, 4, 5):
            writer.write(result(scan, i))
        writer.close_complete()
    np.testing.assert_array_equal(read(out).tiles[:], scan.tiles[:])


def test_line_cut_off_by_a_kill_does_not_count(tmp_path: Path) -> None:
    scan, out = make_scan(), tmp_path / "out"
    with open_output(out, "tiff", scan, PROVENANCE) as writer:
        writer.write(result(scan, 0))
    with (tmp_path / "out.part" / job_module.DONE).open("a") as log:
        log.write("9\nx\n4")
    with open_output(out, "tiff", scan, PROVENANCE) as writer:
        assert writer.done == {0}


def test_a_line_cut_off_does_not_swallow_the_next(tmp_path: Path) -> None:
    scan, out = make_scan(), tmp_path / "out"
    log = tmp_path / "out.part" / job_module.DONE
    with pytest.raises(KeyboardInterrupt), open_output(out, "tiff", scan, PROVENANCE) as writer:
        writer.write(result(scan, 0))
        raise KeyboardInterrupt
    with log.open("a") as stream:
        stream.write("1")  # of 15, when the disk was full
    with pytest.raises(KeyboardInterrupt), open_output(out, "tiff", scan, PROVENANCE) as writer:
        writer.write(result(scan, 2))
        raise KeyboardInterrupt
    assert log.read_text() == "0\n2\n"


def test_nothing_done_yet_starts_afresh(tmp_path: Path) -> None:
    for form in FORMATS:
        with open_output(tmp_path / form, form, make_scan(), PROVENANCE):
            pass
        write_all(tmp_path / form, form, make_scan())


def test_unfinished_output_is_not_moved(tmp_path: Path) -> None:
    scan = make_scan()
    with open_output(tmp_path / "out", "tiff", scan, PROVENANCE) as writer:
        writer.write(result(scan, 0))
        with pytest.raises(WriteError, match="5 tiles are not written"):
            writer.close_complete()
    assert not (tmp_path / "out").exists()
    with pytest.raises(WriteError, match="closed"):
        writer.write(result(scan, 1))


@pytest.mark.parametrize("change", ["method", "save", "format", "scan"])
def test_other_job_is_refused_unless_overwritten(tmp_path: Path, change: str) -> None:
    scan, out = make_scan(), tmp_path / "out"
    with open_output(out, "tiff", scan, PROVENANCE) as writer:
        writer.write(result(scan, 0))
    form = "ometiff" if change == "format" else "tiff"
    other = make_scan(1, 2) if change == "scan" else scan
    provenance = {**PROVENANCE, "method": "x"} if change == "method" else PROVENANCE
    save = ["corrected"] if change == "save" else ["raw", "background", "corrected"]
    with pytest.raises(WriteError, match="another, unfinished job"):
        open_output(out, form, other, provenance, save=save)
    with open_output(out, "tiff", scan, PROVENANCE) as writer:
        assert writer.done == {0}  # the refusal changed nothing
    with open_output(out, form, other, provenance, save=save, overwrite=True) as writer:
        assert writer.done == frozenset()


@pytest.mark.parametrize("form", FORMATS)
def test_existing_output_is_replaced_only_when_complete(tmp_path: Path, form: str) -> None:
    scan, out = make_scan(), tmp_path / "out"
    write_all(out, form, scan)
    before = content(out)
    with pytest.raises(WriteError, match="exists; choose another place or pass --overwrite"):
        open_output(out, form, scan, PROVENANCE)
    new = make_scan(1, 2)
    with open_output(out, form, new, PROVENANCE, overwrite=True) as writer:
        writer.write(result(new, 0))
        assert content(out) == before
        writer.write(result(new, 1))
        writer.close_complete()
    assert read(out).tiles.shape[0] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("form", FORMATS)
def test_notes_left_by_a_kill_after_the_last_rename_are_removed(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = make_scan()
    write_all(tmp_path / "whole", form, scan)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(job_module, "discard", interrupted)
        write_all(tmp_path / "out", form, scan)
    left = content(tmp_path / "out").keys() - content(tmp_path / "whole").keys()
    assert left == {job_module.JOB, job_module.DONE, job_module.LOCK}
    with pytest.raises(WriteError, match="exists"):
        open_output(tmp_path / "out", form, scan, PROVENANCE)
    assert content(tmp_path / "out").keys() == content(tmp_path / "whole").keys()
    assert np.array_equal(read(tmp_path / "out").tiles, read(tmp_path / "whole").tiles)


def interrupted(path: Path) -> None:
    """In place of a function: the process ends here."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("left", [LOCK, f"{LOCK}.part", f"{JOB}.part"])
def test_killed_before_its_job_was_noted_it_starts_again(tmp_path: Path, left: str) -> None:
    (tmp_path / "o.part").mkdir()
    (tmp_path / "o.part" / left).write_text("{")  # cut off
    with open_output(tmp_path / "o", "tiff", make_scan(), PROVENANCE) as writer:
        assert not writer.done
    assert not (tmp_path / "o.part" / f"{LOCK}.part").exists()
    assert not (tmp_path / "o.part" / f"{JOB}.part").exists()


def test_what_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    scan = make_scan()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(WriteError, match="never replaced"):
        open_output(tmp_path / "home", "tiff", scan, PROVENANCE, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="never replaced"):
        open_output(tmp_path / "file", "tiff", scan, PROVENANCE, overwrite=True)
    (tmp_path / "o.part").mkdir()
    (tmp_path / "o.part" / "mine").write_text("x")
    with pytest.raises(WriteError, match="no unfinished output"):
        open_output(tmp_path / "o", "tiff", scan, PROVENANCE, overwrite=True)
    os.symlink(tmp_path / "home", tmp_path / "link")
    with pytest.raises(WriteError, match="is a link"):
        open_output(tmp_path / "link", "tiff", scan, PROVENANCE, overwrite=True)
    os.symlink(tmp_path / "home", tmp_path / "p.part")
    with pytest.raises(WriteError, match="in the way"):
        open_output(tmp_path / "p", "tiff", scan, PROVENANCE, overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


def test_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert read(write_all(tmp_path / "out", "tiff", make_scan())).tiles.shape[0] == 6


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError("65536 requested and 9 written")],
)
@pytest.mark.parametrize("form", FORMATS)
def test_full_disk_names_the_free_bytes_and_keeps_what_is_written(
    tmp_path: Path, form: str, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, out = make_scan(), tmp_path / "out"
    with open_output(out, form, scan, PROVENANCE) as writer:
        writer.write(result(scan, 0))

        def full(*_: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(writer._sink, "write", full)
            patch.setattr(guard, "_free", lambda path: 4711)
            with pytest.raises(WriteError, match=r"out\.part: disk full \(4711 bytes free\)"):
                writer.write(result(scan, 1))
    with open_output(out, form, scan, PROVENANCE) as writer:
        assert writer.done == {0}


def test_failing_rename_puts_the_old_output_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, out = make_scan(), tmp_path / "out"
    write_all(out, "tiff", scan)
    before, rename = content(out), os.rename

    def failing(source: Path, target: Path) -> None:
        if Path(source).suffix == ".part":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(job_module.os, "rename", failing)
    with pytest.raises(WriteError, match="Input/output error"):
        write_all(out, "tiff", scan, overwrite=True)
    assert content(out) == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(WriteError, match="no permission"):
        open_output(tmp_path / "shut" / "out", "tiff", make_scan(), PROVENANCE)


def test_lock_of_a_dead_process_does_not_hold(tmp_path: Path) -> None:
    scan, out = make_scan(), tmp_path / "out"
    with open_output(out, "tiff", scan, PROVENANCE) as writer:
        writer.write(result(scan, 0))
    lock = tmp_path / "out.part" / job_module.LOCK
    for text in ('{"pid": 1, "started": 5.0}', "{", json.dumps({"pid": os.getpid()})):
        lock.write_text(text)
        with open_output(out, "tiff", scan, PROVENANCE) as writer:
            assert writer.done == {0}
