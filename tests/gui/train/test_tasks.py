"""Watching a run's folder and starting its process, without a window."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from napari_txm_bgcorr.errors import DeviceError, WriteError
from napari_txm_bgcorr.gui.train import process as train_process
from napari_txm_bgcorr.gui.train import tasks as train_tasks
from napari_txm_bgcorr.gui.train.messages import Complaint, Launched
from napari_txm_bgcorr.gui.train.process import RunProcess, train_command
from napari_txm_bgcorr.gui.train.run_control import describe
from napari_txm_bgcorr.gui.train.session import DataItem, TrainJob
from napari_txm_bgcorr.gui.train.tasks import (
    MOST_LINES,
    is_run,
    launch,
    live_run,
    start_run,
    watch_run,
)
from napari_txm_bgcorr.training.run.folder import RunFolder
from tests.gui.train.helpers import GONE_PID, FakeRun


@pytest.fixture
def fake(tmp_path):
    return FakeRun(tmp_path / "run")


@pytest.fixture
def instead(monkeypatch):
    """Start a small script in place of the training."""

    def start(code):
        command = lambda *arguments: [sys.executable, "-c", code, *arguments]  # noqa: E731
        monkeypatch.setattr(train_process, "train_command", command)

    return start


def watch(run, process=None):
    return watch_run(run, threading.Event(), process)


def steps(news):
    return [line["step"] for line in news.lines]


def test_only_what_is_new_is_told(fake):
    fake.logs(3)
    fake.draws()
    fake.says("running")
    news = watch(fake.path)
    first = next(news)
    assert steps(first) == [1, 2, 3] and first.state == "running" and not first.anew
    assert first.preview["step"] == 3 and not first.model
    fake.logs(2)
    fake.has_weights()
    second = next(news)
    assert steps(second) == [4, 5] and second.preview == {} and second.model
    fake.says("finished")
    last = next(news)
    assert last.state == "finished"
    assert list(news) == []  # an ended run is watched no longer


def test_a_half_written_line_is_waited_for(fake):
    fake.logs(1)
    fake.says("running")
    news = watch(fake.path)
    next(news)
    with fake.folder.metrics.open("a") as stream:
        stream.write('{"step": 2, "los')
        stream.flush()
        fake.says("running", step=1)
        assert steps(next(news)) == []
        stream.write('ses": {}}\n')
    assert steps(next(news)) == [2]


def test_a_resumed_run_is_drawn_anew(fake):
    fake.logs(5)
    fake.says("running")
    news = watch(fake.path)
    assert steps(next(news)) == [1, 2, 3, 4, 5]
    RunFolder(fake.path).drop_metrics_after(3)
    fake.step = 3
    fake.logs(6)  # longer than before: only another inode tells
    again = next(news)
    assert again.anew and steps(again) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_long_run_comes_in_bounded_parts(fake):
    fake.logs(2 * MOST_LINES + 10)
    fake.says("stopped")
    parts = [len(news.lines) for news in watch(fake.path)]
    assert parts == [MOST_LINES, MOST_LINES, 10]


def test_a_dead_run_is_told_from_a_living_one(fake):
    fake.dies()
    (news,) = watch(fake.path)
    assert news.state == "died"
    assert "Resume goes on from its last checkpoint" in describe("died", news)
    fake.says("running", host="elsewhere", heartbeat=time.time() - 3600)
    (news,) = watch(fake.path)
    assert news.state == "died" and "died on elsewhere" in describe("died", news)
    fake.says("running", host="elsewhere")
    assert next(watch(fake.path)).state == "running"


def test_damaged_and_missing_status_is_no_fault(fake):
    (fake.path / "status.json").write_text('{"state": 3')
    (fake.path / "previews").mkdir()
    (fake.path / "previews" / "latest.npz").write_bytes(b"no archive")
    fake.logs(1)
    (news,) = watch(fake.path)
    assert news.state == "none" and news.status is None and steps(news) == [1]


def test_watching_ends_when_asked(fake):
    fake.says("running")
    stop = threading.Event()
    news = watch_run(fake.path, stop)
    next(news)
    stop.set()
    assert list(news) == []


def test_which_folders_are_runs_and_which_live(tmp_path, fake):
    assert not is_run(tmp_path) and not is_run(fake.path)
    fake.says("stopped")
    assert is_run(fake.path) and live_run(tmp_path) is None
    FakeRun(tmp_path / "live").says("paused")
    assert live_run(tmp_path) == tmp_path / "live"
    assert live_run(tmp_path / "nowhere") is None


# -- processes --------------------------------------------------------------------------------


def test_command_is_that_of_this_python(monkeypatch):
    command = train_command("--resume")
    assert command == [sys.executable, "-P", "-m", "napari_txm_bgcorr.cli", "train", "--resume"]
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(DeviceError, match="start the training by command"):
        train_command()


def test_a_process_that_fails_before_its_run_begins_says_why(tmp_path, instead):
    instead("import sys; print('noise'); sys.exit('txm-bgcorr: ref.xrm: no such file; check it')")
    started, *news = launch(tmp_path / "new", [], threading.Event())
    assert isinstance(started, Launched)
    assert news[-1].last_words == "ref.xrm: no such file; check it"
    assert started.process.poll() == 1


def test_an_earlier_process_word_is_not_taken_for_ours(fake, instead):
    fake.dies()
    instead("import time; time.sleep(0.6)")
    told = list(launch(fake.path, [], threading.Event()))[1:]
    assert [news.state for news in told] == ["starting", "failed"]
    assert all(news.status is None for news in told)


def test_the_python_behind_a_launcher_is_ours_and_an_earlier_one_is_not(fake, instead):
    """In a virtual environment on Windows the process started is not the one that trains."""
    instead("import time; time.sleep(30)")
    process = RunProcess(fake.path, [])
    try:
        began = psutil.Process(process.pid).create_time()
        for number, started, host, ours in (
            (process.pid, 0.0, "elsewhere", True),
            (GONE_PID, began + 0.5, None, True),
            (GONE_PID, began - 30, None, False),
            (GONE_PID, began + 0.5, "elsewhere", False),
        ):
            facts = {"pid": number, "process_started": started} | ({"host": host} if host else {})
            fake.says("running", **facts)
            assert process.wrote(fake.folder.status()) is ours
        assert not process.wrote(None)
        launched = {"pid": os.getpid(), "process_started": began + 0.5}
        fake.says("running", **launched)
        news = next(watch(fake.path, process))
        assert news.state != "starting" and news.status.pid == os.getpid()
    finally:
        process.end()
    process.wait()


def test_the_process_goes_on_without_us_in_a_session_of_its_own(tmp_path, instead):
    instead("import os, time; print(os.getsid(0), flush=True); time.sleep(30)")
    process = RunProcess(tmp_path / "new", [])
    try:
        end = time.monotonic() + 20
        while not process.last_words() and time.monotonic() < end:
            time.sleep(0.05)
        assert process.last_words() == str(process.pid) != str(os.getsid(0))
        assert process.poll() is None
    finally:
        process.end()
    assert process.wait() != 0


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="choose another run folder"):
        RunProcess(tmp_path / "file", [])


def test_a_run_is_never_overwritten(fake):
    job = TrainJob(fake.path, (), "from-nothing", "cpu")
    (message,) = start_run(job, threading.Event())
    assert isinstance(message, Complaint) and "holds a run already" in str(message.error)


def test_layers_are_written_before_the_process_starts(tmp_path, instead):
    instead("import sys; sys.exit('txm-bgcorr: ' + ' '.join(sys.argv[1:]))")
    place = tmp_path / "run" / "data" / "00_flat.npy"
    array = np.arange(12, dtype=np.uint16).reshape(1, 3, 4)
    item = DataItem(place, "references", "flat", 1, (3, 4), array=array)
    *_, news = start_run(
        TrainJob(tmp_path / "run", (item,), "fine-tune", "cpu"), threading.Event()
    )
    np.testing.assert_array_equal(np.load(place), array)
    assert f"--references {place}" in news.last_words


def test_offers_name_what_this_machine_has(tmp_path):
    first, second = train_tasks.find_offers(threading.Event(), tmp_path)
    assert first.live is None
    assert second.devices[-1][0] == "cpu" and ("default", "default") in second.models
    assert second.presets["fine-tune"]["init"] == "default" and "unet256" in second.networks
    assert json.dumps(second.presets)


def test_runs_folder_can_be_named(monkeypatch):
    monkeypatch.setenv("TXM_BGCORR_RUNS", "/somewhere")
    assert train_tasks.runs_folder() == Path("/somewhere")
    monkeypatch.delenv("TXM_BGCORR_RUNS")
    assert train_tasks.runs_folder().name == "runs"
