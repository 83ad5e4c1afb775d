"""Files are corrected once they are whole, whatever the microscope does meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.folder_watcher import Arrival, Watcher
from napari_txm_bgcorr.io.output.xradia import write_xradia
from napari_txm_bgcorr.workflows.config import CorrectionConfig
from napari_txm_bgcorr.workflows.watch import LOG, FolderCorrection, check_folders
from tests.workflows.runs import correct_paths

COMMAND = [sys.executable, "-c", "from napari_txm_bgcorr.cli import main; main()", "watch"]
OPTIONS = CorrectionConfig(method="smooth", overwrite=True)


class Clock:
    """Time that passes when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(9000, (48, 40)).astype(np.uint16)


def save(path: Path, seed: int = 0) -> bytes:
    """A TIFF whose header is at the front, as most programs write them; its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image(seed))
    return path.read_bytes()


def make(folder: Path, **options: object) -> tuple[Watcher, Clock]:
    clock = Clock()
    return Watcher(folder, settle_s=5, clock=clock, **options), clock  # type: ignore[arg-type]


def names(arrivals: list[Arrival]) -> list[str]:
    return [arrival.path.name for arrival in arrivals]


def test_a_file_is_handed_out_once_after_it_stood_still(tmp_path: Path) -> None:
    save(tmp_path / "a.tif")
    watcher, clock = make(tmp_path)
    assert list(watcher.poll()) == [] and not watcher.settled
    clock.now += 4
    assert list(watcher.poll()) == []
    clock.now += 1
    assert names(list(watcher.poll())) == ["a.tif"] and watcher.settled
    clock.now += 100
    assert list(watcher.poll()) == []


def test_a_growing_file_waits_until_it_is_whole(tmp_path: Path) -> None:
    data = save(tmp_path / "a.tif")
    path = tmp_path / "a.tif"
    path.write_bytes(data[:1000])
    watcher, clock = make(tmp_path)
    for end in (1000, 2000, 3000):
        path.write_bytes(data[:end])
        assert list(watcher.poll()) == []
        clock.now += 4  # never still for long enough
    clock.now += 100
    assert list(watcher.poll()) == []  # still, but half
    assert "cut short" in watcher.waiting[path]
    path.write_bytes(data)
    assert list(watcher.poll()) == []
    clock.now += 5
    (arrival,) = watcher.poll()
    assert arrival.since == clock.now - 5  # complete when its last byte was seen
    assert watcher.waiting == {}


def test_a_scan_that_lacks_images_is_waited_for_and_then_taken(tmp_path: Path) -> None:
    stack = np.stack([image(k) for k in range(3)])
    write_xradia(tmp_path / "t.txrm", stack, planned=5)
    watcher, clock = make(tmp_path, patience_s=60)
    list(watcher.poll())
    clock.now += 30
    assert list(watcher.poll()) == [] and "still to come" in watcher.waiting[tmp_path / "t.txrm"]
    write_xradia(tmp_path / "t.txrm", np.concatenate([stack, stack[:2]]), planned=5)
    list(watcher.poll())
    clock.now += 5
    assert names(list(watcher.poll())) == ["t.txrm"]  # complete: no patience needed
    write_xradia(tmp_path / "u.txrm", stack, planned=5)
    list(watcher.poll())
    clock.now += 60
    assert names(list(watcher.poll())) == ["u.txrm"]  # abandoned


def test_a_changed_file_comes_again_and_an_unchanged_one_does_not(tmp_path: Path) -> None:
    save(tmp_path / "a.tif")
    watcher, clock = make(tmp_path)
    list(watcher.poll())
    clock.now += 5
    (first,) = watcher.poll()
    os.utime(tmp_path / "a.tif", ns=(0, first.state.mtime_ns + 1))
    assert list(watcher.poll()) == []
    clock.now += 5
    (second,) = watcher.poll()
    assert second.state != first.state
    again, later = make(tmp_path, handled={second.path: second.state})
    later.now += 50
    assert list(again.poll()) == [] and again.settled


def test_what_is_no_new_image_is_left_alone(tmp_path: Path) -> None:
    for name in ("out/x.tif", "ref_1.tif", "dark.tif", ".hidden.tif", "o.part/x.tif", "in/b.tif"):
        save(tmp_path / name)
    save(tmp_path / "store.zarr" / "c.tif")
    (tmp_path / "store.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("not an image")
    watcher, clock = make(tmp_path, ignore=[tmp_path / "out"])
    list(watcher.poll())
    clock.now += 5
    assert names(list(watcher.poll())) == ["b.tif"]
    chosen, clock = make(tmp_path, pattern="REF*.tif")
    list(chosen.poll())
    clock.now += 5
    assert names(list(chosen.poll())) == ["ref_1.tif"]


def test_a_folder_of_tiles_is_one_scan_and_comes_again_when_it_grows(tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path / "m" / f"t_{k}.tif", k)
    save(tmp_path / "single.tif")
    watcher, clock = make(tmp_path, whole_folders=True)
    list(watcher.poll())
    clock.now += 5
    assert names(list(watcher.poll())) == ["m", "single.tif"]
    save(tmp_path / "m" / "t_3.tif", 3)
    list(watcher.poll())
    clock.now += 5
    (grown,) = watcher.poll()
    assert grown.path.name == "m" and grown.state.count == 4


def test_a_share_that_is_away_is_one_error_and_may_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    save(folder / "a.tif")
    watcher, clock = make(folder)
    list(watcher.poll())
    folder.rename(tmp_path / "away")
    with pytest.raises(ReadError, match="share"):
        list(watcher.poll())
    (tmp_path / "away").rename(folder)
    clock.now += 5
    assert names(list(watcher.poll())) == ["a.tif"]


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def once(folder: Path, out: Path) -> FolderCorrection:
    work = FolderCorrection(folder, out, OPTIONS)
    watcher = Watcher(folder, settle_s=0.0, ignore=[out], handled=work.handled())
    work.loop(watcher, interval=0.01, once=True)
    return work


def tree(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("c/*/*/*")}


def test_watch_corrects_what_correct_does_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "in" / "corrected"  # the output may lie inside
    save(folder / "m" / "a.tif", 1)
    save(folder / "m" / "b.tif", 2)
    nothing = np.zeros((48, 40), np.complex64)
    tifffile.imwrite(folder / "m" / "aa.tif", nothing)  # no counts: cannot be corrected
    work = once(folder, out)
    assert work.failed == 1
    done = {line["file"]: line for line in lines(out)}
    assert {name for name, line in done.items() if line["status"] == "corrected"} == {
        "m/a.tif", "m/b.tif",
    }  # fmt: skip
    assert all(line["latency_s"] >= line["seconds"] > 0 for line in done.values())
    correct_paths([folder / "m" / "b.tif"], tmp_path / "b", OPTIONS)
    assert tree(out / "m" / "b.ome.zarr") == tree(tmp_path / "b") != {}

    before = (out / "m" / "a.ome.zarr").stat().st_mtime_ns
    save(folder / "m" / "aa.tif", 3)  # mended
    assert once(folder, out).failed == 0
    assert [line["file"] for line in lines(out)][-1] == "m/aa.tif"
    assert len(lines(out)) == len(done) + 1  # what was done was skipped
    assert (out / "m" / "a.ome.zarr").stat().st_mtime_ns == before
    old = tree(out / "m" / "a.ome.zarr")
    save(folder / "m" / "a.tif", 4)  # taken again
    once(folder, out)
    assert tree(out / "m" / "a.ome.zarr") != old


def test_an_error_of_the_method_is_told_and_the_next_file_is_done(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.tif")
    work = FolderCorrection(
        tmp_path / "in", tmp_path / "out", CorrectionConfig(method="tile-median")
    )
    watcher = Watcher(tmp_path / "in", settle_s=0.0)
    work.loop(watcher, interval=0.01, once=True)
    (line,) = lines(tmp_path / "out")
    assert line["status"] == "failed" and "3 or more" in str(line["error"])
    assert work.handled() == {}  # so it is tried again next time


def test_equal_names_with_other_suffixes_do_not_share_an_output(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.tif")
    save(tmp_path / "in" / "a.tiff", 1)
    once(tmp_path / "in", tmp_path / "out")
    once(tmp_path / "in", tmp_path / "out")
    found = sorted(str(line["output"]) for line in lines(tmp_path / "out"))
    assert found == ["a.ome.zarr", "a.tiff.ome.zarr"]


def test_ctrl_c_ends_the_command_cleanly(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen(
        [*COMMAND, str(folder), "-o", str(out), "--method", "smooth", "--settle", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts this in the background has the signal ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    save(folder / "a.tif")
    for _ in range(1500):  # as long as it takes
        if (out / LOG).is_file() and (out / LOG).read_text().endswith("\n"):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "after it was complete" in printed and "a.ome.zarr" in printed


@pytest.mark.parametrize("out", ["in", "."])
def test_an_output_that_holds_the_watched_folder_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "in").mkdir()
    from napari_txm_bgcorr.errors import ConfigError

    with pytest.raises(ConfigError, match="watched folder"):
        check_folders(tmp_path / "in", tmp_path / out)
