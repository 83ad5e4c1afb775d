"""The status file: whole at every moment, told at once when the state changes, never fatal."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import psutil
import pytest

from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.training.run import status as status_module
from napari_txm_bgcorr.training.run.status import (
    ACTIVE,
    SILENCE,
    STATES,
    Heartbeat,
    RunStatus,
    read_status,
)

SLOW = 600.0  # the thread does not come in between


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that have passed."""
    now = [1000.0]
    real = status_module.time
    fake = type("Time", (), {"time": real.time, "monotonic": staticmethod(lambda: now[0])})
    monkeypatch.setattr(status_module, "time", fake)
    return now


def test_every_fact_comes_back(tmp_path: Path) -> None:
    facts = {
        f.name: {"float": 0.5, "int": 3, "str": "x", "float | None": 1.5}.get(str(f.type))
        for f in fields(RunStatus)
        if f.name not in ("state", "energy", "warnings", "heartbeat")
    }
    facts |= {"energy": {"joules": 1.0, "source": "rapl"}}
    assert None not in facts.values()
    heart = Heartbeat(tmp_path, SLOW)
    heart.warn("one")
    heart.close("paused", **facts)
    found = read_status(tmp_path)
    assert found is not None and found.state == "paused" and found.warnings == ("one",)
    assert {name: getattr(found, name) for name in facts} == facts
    assert json.loads((tmp_path / "status.json").read_text())["time"].endswith("+00:00")


def test_a_change_of_state_is_told_at_once_and_the_rest_within_a_second(
    tmp_path: Path, clock: list[float]
) -> None:
    heart = Heartbeat(tmp_path, SLOW)

    def seen() -> tuple[str, int]:
        found = read_status(tmp_path)
        assert found is not None
        return found.state, found.step

    heart.update(step=1)
    assert seen() == ("starting", 0)  # less than a second after the last write
    heart.update("running", step=2)
    assert seen() == ("running", 2)
    heart.update("running", step=3)
    assert seen() == ("running", 2)
    clock[0] += 1.5
    heart.update(step=4)
    assert seen() == ("running", 4)
    heart.update(step=5)
    heart.close("finished")
    assert seen() == ("finished", 5)


def test_a_disk_that_is_full_for_a_while_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    heart = Heartbeat(tmp_path, SLOW)
    with monkeypatch.context() as patch:

        def full(*a: Any, **k: Any) -> None:
            raise WriteError("disk full")

        patch.setattr(status_module, "write_atomic", full)
        heart.update("running", step=1)
        heart.warn("the disk is full")
        before = read_status(tmp_path)
        assert before is not None and before.state == "starting"
    clock[0] += 1.1
    heart.update(step=2)
    found = read_status(tmp_path)
    assert found is not None
    assert (found.state, found.step, found.warnings) == ("running", 2, ("the disk is full",))
    heart.close("stopped")


def test_of_many_warnings_the_newest_stay(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path, SLOW)
    for k in range(25):
        heart.warn(f"w{k}")
    heart.close("failed")
    found = read_status(tmp_path)
    assert found is not None and found.warnings == tuple(f"w{k}" for k in range(15, 25))


def test_it_says_which_process_it_is(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path, SLOW)
    found = read_status(tmp_path)
    assert found is not None and found.alive() and found.seen_state() == "starting"
    own = psutil.Process()
    assert (found.pid, found.host) == (own.pid, socket.gethostname())
    heart.close("failed")
    ended = read_status(tmp_path)
    assert ended is not None and not ended.alive() and ended.seen_state() == "failed"


@pytest.mark.parametrize("state", STATES)
def test_only_active_states_can_be_alive_or_dead(state: str) -> None:
    away = RunStatus(state, 1, "elsewhere", heartbeat=1000.0, heartbeat_s=5.0)
    limit = 1000 + SILENCE * 5.0
    assert away.alive(now=limit - 0.1) == (state in ACTIVE)
    assert not away.alive(now=limit + 0.1)
    assert away.seen_state() == ("died" if state in ACTIVE else state)


def test_a_process_that_is_gone_or_a_zombie_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    own = psutil.Process()
    here = RunStatus("running", own.pid, socket.gethostname(), own.create_time(), heartbeat=0.0)
    assert here.alive()  # however old its heartbeat: the machine is asked, not the file
    monkeypatch.setattr(psutil.Process, "status", lambda self: psutil.STATUS_ZOMBIE)
    assert not here.alive()

    def gone(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(psutil, "Process", gone)
    assert not here.alive()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"{}", b'{"state": "dancing"}',
     b'{"state": null}', b'{"state": "running"'],
)  # fmt: skip
def test_what_is_no_status_is_none(tmp_path: Path, content: bytes) -> None:
    assert read_status(tmp_path / "nowhere") is None
    (tmp_path / "status.json").write_bytes(content)
    assert read_status(tmp_path) is None


def test_keys_of_other_versions_are_left_out_and_missing_ones_have_their_defaults(
    tmp_path: Path,
) -> None:
    (tmp_path / "status.json").write_text('{"state": "running", "step": 3, "mood": "good"}')
    found = read_status(tmp_path)
    assert found is not None
    assert asdict(found) == asdict(RunStatus("running", step=3))
