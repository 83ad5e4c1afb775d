"""Shares of one mosaic solve its drift model once, whoever is killed, to the bits of one."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.io.output.fit_file import FitPlace
from napari_txm_bgcorr.io.output.shared_store import join_shards
from napari_txm_bgcorr.workflows.config import CorrectOptions
from napari_txm_bgcorr.workflows.correct import correct_paths, method_of, prepare
from napari_txm_bgcorr.workflows.sharding import SharedFit, fit_key
from napari_txm_bgcorr.workflows.turns import Pace, Turn
from tests.system.test_distributed import content, start

PLAIN = CorrectOptions(
    method="tile-median", joint=True, save=("background", "corrected"), quiet=True
)
SOLVES = """
import os, signal, time
from functools import partial
from napari_txm_bgcorr.cli import shared_fit
from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.workflows.turns import Pace
shared_fit.SharedFit = partial(shared_fit.SharedFit, pace=Pace(0.1, {dead}, 0.1, 0.3))
fit = DriftModel.fit_watched
def solve(self, scan, watch):
    with open({log!r}, "a") as log: log.write("solved\\n")
    {then}
    return fit(self, scan, watch)
DriftModel.fit_watched = solve
"""


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six by four tiles."""
    out = tmp_path_factory.mktemp("mosaic") / "m"
    made = start("", "simulate", "mosaic", "--grid", "4x6", "--size", 64, "-o", out)
    _, errors = made.communicate(timeout=170)
    assert made.returncode == 0, errors
    return out


@pytest.fixture(scope="module")
def whole(mosaic: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = correct_paths([mosaic], out, PLAIN)["results"][0]
    assert done["parameters"]["joint"]["pairs"] == 38
    return content(out)


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every drift model that is solved in this process."""
    calls: list[int] = []
    fit = DriftModel.fit_watched

    def counted(self: DriftModel, *given: Any) -> DriftModel:
        calls.append(1)
        return fit(self, *given)

    monkeypatch.setattr(DriftModel, "fit_watched", counted)
    return calls


def place_of(mosaic: Path, out: Path, options: CorrectOptions = PLAIN) -> FitPlace:
    """Where the fit of a mosaic is handed on."""
    joint = method_of(options)
    assert isinstance(joint, DriftModel)
    return FitPlace(out, fit_key(prepare(mosaic, options), joint, options))


def test_the_first_share_solves_and_the_others_take_over(
    mosaic: Path, whole: dict[str, bytes], tmp_path: Path, solved: list[int]
) -> None:
    out = tmp_path / "out"
    told = []
    for i in (3, 1, 2):
        done = correct_paths([mosaic], out, replace(PLAIN, shard=f"{i}/3"))["results"][0]
        told.append({**done["parameters"], "joint": {**done["parameters"]["joint"]}})
        assert place_of(mosaic, out).path.exists() == (i != 2)
        assert len(solved) == 1
    assert json.loads(json.dumps(told[0])) == told[1] == told[2]
    assert content(out) == whole
    assert list(tmp_path.iterdir()) == [out]  # nothing is left behind


def test_join_removes_what_is_left(mosaic: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out, part = tmp_path / "out", tmp_path / "out.part"
    for i in (1, 2):
        correct_paths([mosaic], out, replace(PLAIN, shard=f"{i}/2"))
    place = place_of(mosaic, out)
    left = place.path.with_name(f"{place.path.name}.solving-1-0123abcd")
    for path in (place.path, left):
        path.touch()
    join_shards(out)
    assert list(tmp_path.iterdir()) == [out] and not part.exists()
    place.path.touch()
    assert correct_paths([mosaic], out, replace(PLAIN, shard="1/2"))["results"][0]["resumed"] == 24
    assert list(tmp_path.iterdir()) == [out]
    assert content(out) == whole


@pytest.mark.timeout(600)  # processes start; on a busy machine slowly
def test_shares_started_at_once_solve_once(
    mosaic: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    code = SOLVES.format(dead=60, log=str(log), then="time.sleep(3)")
    command = ["correct", mosaic, "-o", out, "--method", "tile-median", "--joint"]
    command += ["--save", "background,corrected", "--shard"]
    processes = [start(code, *command, f"{i}/2") for i in (1, 2)]
    printed = [process.communicate(timeout=280) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert log.read_text() == "solved\n"
    log.unlink()
    waiting = [errors.count("waiting: share") for _, errors in printed]
    assert sorted(waiting) == [0, 1], printed  # told once, by the one that waited
    assert content(out) == whole
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.timeout(600)
def test_another_share_takes_over_from_one_killed_while_it_solves(
    mosaic: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    command = ["correct", mosaic, "-o", out, "--method", "tile-median", "--joint", "--json"]
    command += ["--save", "background,corrected", "--shard"]
    kill = SOLVES.format(dead=60, log=str(log), then="os.kill(os.getpid(), signal.SIGKILL)")
    killed = start(kill, *command, "1/2")
    killed.communicate(timeout=280)
    assert killed.returncode == -signal.SIGKILL
    (beat,) = tmp_path.glob("out.fit-*.solving-1-*")
    assert beat.read_bytes() == b"s"
    os.utime(beat)  # as if it had lived until now
    code = SOLVES.format(dead=2, log=str(log), then="pass")
    other = start(code, *command, "2/2")
    _, errors = other.communicate(timeout=280)
    assert other.returncode == 0, errors
    assert errors == ""  # told to nobody who reads JSON
    assert log.read_text() == "solved\n" * 2
    again = start(code, *command, "1/2")
    text, errors = again.communicate(timeout=280)
    assert json.loads(text)["results"][0]["complete"], errors
    assert log.read_text() == "solved\n" * 2  # the first one's second life takes the fit over
    log.unlink()
    assert content(out) == whole
    assert list(tmp_path.iterdir()) == [out]


def test_ctrl_c_while_waiting_cleans_up(
    mosaic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solved: list[int]
) -> None:
    place = place_of(mosaic, tmp_path / "out")

    def interrupted(self: Turn) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Turn, "wait", interrupted)
    with Turn(place, 1) as solving:
        assert solving.take()
        with pytest.raises(KeyboardInterrupt):
            correct_paths([mosaic], place.out, replace(PLAIN, shard="2/2"))
        assert list(tmp_path.iterdir()) == [solving._path]
    assert solved == []


def test_a_fit_that_is_there_is_taken_at_once(
    mosaic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solved: list[int]
) -> None:
    """Though another share, which did not believe it, is at work on one of its own."""
    place = place_of(mosaic, tmp_path / "out")
    correct_paths([mosaic], place.out, replace(PLAIN, shard="3/3"))
    monkeypatch.setattr(Turn, "wait", lambda self: pytest.fail("waits"))
    with Turn(place, 1) as solving:
        assert solving.take()
        correct_paths([mosaic], place.out, replace(PLAIN, shard="2/3"))
    assert len(solved) == 1


def test_a_planted_file_costs_a_fit_and_one_line(
    mosaic: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    solved: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also one that is whole and this user's own, but of other options."""
    out = tmp_path / "out"
    place = place_of(mosaic, out)
    correct_paths([mosaic], tmp_path / "other", replace(PLAIN, shard="1/2", i0=9000.0))
    other = place_of(mosaic, tmp_path / "other", replace(PLAIN, i0=9000.0))
    assert other.key != place.key
    other.path.rename(place.path)
    correct_paths([mosaic], out, replace(PLAIN, shard="1/2"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {place.path}: it is of another scan or of other options")
    assert len(solved) == 2  # of these options, too

    place.path.write_bytes(place.path.read_bytes()[:-100])
    place.path.chmod(0o666)
    correct_paths([mosaic], out, replace(PLAIN, shard="2/2"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "its mode is 666; not used" in line
    assert len(solved) == 3
    assert content(out) == whole


def test_each_fits_for_itself_where_nothing_can_be_written_beside_the_output(
    mosaic: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    solved: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: FitPlace) -> None:
        raise PermissionError

    monkeypatch.setattr(FitPlace, "_new", refuse)
    for i in (1, 2):
        correct_paths([mosaic], tmp_path / "out", replace(PLAIN, shard=f"{i}/2"))
    assert len(solved) == 2
    assert content(tmp_path / "out") == whole


def test_fits_without_a_joint_stage_are_not_handed_on(mosaic: Path, tmp_path: Path) -> None:
    options = replace(PLAIN, joint=False, shard="1/2")
    correct_paths([mosaic], tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["out.part"]


def test_the_key_tells_what_decides_a_fit(mosaic: Path) -> None:
    scan = prepare(mosaic, PLAIN)

    def key(options: CorrectOptions = PLAIN, **facts: Any) -> str:
        joint = method_of(options)
        assert isinstance(joint, DriftModel)
        return fit_key(replace(scan, **facts), joint, options)

    first = np.asarray(scan.tiles[:1])
    when = np.array(["2024-01-01", "2024-01-02"], "datetime64[s]")
    keys = [
        key(),
        key(replace(PLAIN, i0=9000.0)),
        key(replace(PLAIN, method="smooth")),
        key(replace(PLAIN, method="auto", joint=None, device="cpu")),
        key(flats=first),
        key(flats=first + 1),
        key(flats=first, flat_times=when[:1]),
        key(flats=first, flat_times=when[1:]),
        key(darks=first),
        key(grid=(6, 4)),
        key(positions_px=np.zeros((24, 2))),
        key(energy_ev=9000.5),
        key(source=replace(scan.source, files=scan.source.files[:-1])),
    ]
    assert len(set(keys)) == len(keys)
    time.sleep(1.1)  # the date is not of it
    assert key() == keys[0]
    assert key(replace(PLAIN, shard="1/2", quiet=False, save=("corrected",))) == keys[0]


def test_a_series_is_shared_too(tmp_path: Path, solved: list[int]) -> None:
    made = start("", "simulate", "series", "--projections", 12, "--size", 64, "-o", tmp_path / "s")
    _, errors = made.communicate(timeout=170)
    assert made.returncode == 0, errors
    options = replace(PLAIN, method="smooth")
    done = correct_paths([tmp_path / "s"], tmp_path / "one", options)["results"][0]
    assert "registration" not in done["parameters"]["joint"]
    solved.clear()
    for i in (1, 2):
        correct_paths([tmp_path / "s"], tmp_path / "out", replace(options, shard=f"{i}/2"))
    assert len(solved) == 1
    assert content(tmp_path / "out") == content(tmp_path / "one")


def test_the_pace_is_a_minute() -> None:
    runner = SharedFit(method_of(PLAIN), Path("out"), replace(PLAIN, shard="2/3"))
    assert runner._pace == Pace(dead_s=60) and runner._pace.beat_s < 15
