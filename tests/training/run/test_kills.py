"""Real kills at random moments, a full disk: never more than the last interval is lost."""

import json
import os
import random
import signal
import time

import pytest
import torch

from napari_txm_bgcorr.training.loop import run_training
from napari_txm_bgcorr.training.run.folder import RunFolder
from tests.training import kill_server
from tests.training.test_loop import assert_same, newest, weights

KILLS = 50


def test_kills_at_random_moments_lose_no_more_than_an_interval(server, tmp_path):
    moments = random.Random(7)
    reached, whole = 0, 0
    while whole < KILLS:
        pid = server.start()
        # anywhere from before the first word, over resuming, to some steps beyond it
        goal = moments.choice([-1, 0, reached + 1, reached + moments.randint(2, 9)])
        until = time.monotonic() + 60
        while server.done() < goal and time.monotonic() < until:
            time.sleep(0.001)
        # short, so that the run outlasts its kills
        time.sleep(moments.uniform(0, 0.02 if goal < 0 else 0.004))
        os.kill(pid, signal.SIGKILL)
        if server.wait() != -signal.SIGKILL:
            break  # the run was done first
        whole += 1
        reached = max(reached, server.done())
        held, passed = RunFolder(server.run).newest()
        kept = 0 if held is None else held["step"]
        assert kept >= reached - kill_server.EVERY, f"kill {whole}: {reached} done, {kept} kept"
        assert not passed  # a checkpoint with its name is whole
        status = RunFolder(server.run).status()
        assert status is None or status.seen_state() == "died"
    assert whole == KILLS
    server.start()
    assert server.wait() == 0
    run_training(kill_server.config(), tmp_path / "whole", device="cpu")
    assert_same(newest(tmp_path / "whole"), newest(server.run))
    assert_same(weights(tmp_path / "whole"), weights(server.run))
    told = [_figures(run) for run in (tmp_path / "whole", server.run)]
    assert told[0] == told[1]
    assert not list(server.run.rglob("*.part"))


def _figures(run):
    """What metrics.jsonl says of steps, losses and errors; times apart."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: json.loads(line)[k] for k in ("step", "losses", "validation")} for line in lines]


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(server):
    pid = server.start()
    until = time.monotonic() + 60
    while server.done() < 12 and time.monotonic() < until:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    server.wait()
    held, _ = RunFolder(server.run).newest()
    server.start(limit=8000)  # no room for a checkpoint any more
    assert server.wait() == 2
    (said,) = server.said()
    assert "cannot be written" in said
    after, passed = RunFolder(server.run).newest()
    assert not passed and after["step"] >= held["step"] >= 10
    assert RunFolder(server.run).status().state == "failed"
    server.start()  # room again
    assert server.wait() == 0
    assert newest(server.run)["step"] == kill_server.STEPS


def test_a_run_that_is_going_on_is_not_started_twice(server):
    server.start()
    folder, until = RunFolder(server.run), time.monotonic() + 60
    while not ((s := folder.status()) and s.state == "running") and time.monotonic() < until:
        time.sleep(0.001)
    folder.ask("pause")
    before = torch.get_rng_state()
    with pytest.raises(Exception, match=r"run: its run is going on \(process \d+ on .*stop it"):
        run_training(kill_server.config(), server.run, resume=True, device="cpu")
    torch.set_rng_state(before)
    folder.ask("stop")
    assert server.wait() == 0 and folder.status().state == "stopped"
