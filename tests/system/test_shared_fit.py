"""Shares of one mosaic solve its drift model once, whoever is killed, to the bits of one."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io.output.fit_file import FitPlace
from napari_txm_bgcorr.io.output.shared_store import join_shards
from napari_txm_bgcorr.workflows.cluster.sharding import fit_key
from napari_txm_bgcorr.workflows.config import CorrectionConfig
from napari_txm_bgcorr.workflows.prepare import method_of, open_scan
from tests.system.test_distributed import content, start
from tests.workflows.runs import correct_paths

PLAIN = CorrectionConfig(method="tile-median", joint=True, save=("background", "corrected"))
KILLED = """
import os, signal
from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
def solve(self, *given): os.kill(os.getpid(), signal.SIGKILL)
DriftModel.fit = solve
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
    fit = DriftModel.fit

    def counted(self: DriftModel, *given: Any) -> DriftModel:
        calls.append(1)
        return fit(self, *given)

    monkeypatch.setattr(DriftModel, "fit", counted)
    return calls


def place_of(mosaic: Path, out: Path, options: CorrectionConfig = PLAIN) -> FitPlace:
    """Where the fit of a mosaic is handed on."""
    joint = method_of(options)
    assert isinstance(joint, DriftModel)
    return FitPlace(out, fit_key(open_scan(mosaic, options), joint, options))


def test_the_first_share_solves_and_the_others_take_over(
    mosaic: Path, whole: dict[str, bytes], tmp_path: Path, solved: list[int]
) -> None:
    out = tmp_path / "out"
    told = []
    for i in (3, 1, 2):
        done = correct_paths([mosaic], out, PLAIN.replaced(shard=f"{i}/3"))["results"][0]
        told.append({**done["parameters"], "joint": {**done["parameters"]["joint"]}})
        assert place_of(mosaic, out).path.exists() == (i != 2)
        assert len(solved) == 1
    assert json.loads(json.dumps(told[0])) == told[1] == told[2]
    assert content(out) == whole
    assert list(tmp_path.iterdir()) == [out]  # nothing is left behind


def test_join_removes_what_is_left(mosaic: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out, part = tmp_path / "out", tmp_path / "out.part"
    for i in (1, 2):
        correct_paths([mosaic], out, PLAIN.replaced(shard=f"{i}/2"))
    place = place_of(mosaic, out)
    left = place.path.with_name(f"{place.path.name}.solving-1-0123abcd")
    for path in (place.path, left):
        path.touch()
    join_shards(out)
    assert list(tmp_path.iterdir()) == [out] and not part.exists()
    place.path.touch()
    assert correct_paths([mosaic], out, PLAIN.replaced(shard="1/2"))["results"][0]["resumed"] == 24
    assert list(tmp_path.iterdir()) == [out]
    assert content(out) == whole


def test_a_job_before_the_array_solves_for_all_of_it(
    mosaic: Path, whole: dict[str, bytes], tmp_path: Path, solved: list[int]
) -> None:
    out = tmp_path / "out"
    told = correct_paths([mosaic], out, PLAIN.replaced(shard="fit"))
    assert told == {"results": [], "fitted": str(place_of(mosaic, out).path)}
    assert [path.name for path in tmp_path.iterdir()] == [Path(told["fitted"]).name]
    assert correct_paths([mosaic], out, PLAIN.replaced(shard="fit")) == told  # taken over
    for i in (2, 1):
        correct_paths([mosaic], out, PLAIN.replaced(shard=f"{i}/2"))
    assert len(solved) == 1
    assert content(out) == whole
    assert list(tmp_path.iterdir()) == [out]


def test_to_solve_for_all_needs_a_place_to_leave_it(
    mosaic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FitPlace) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FitPlace, "_new", refuse)
    with pytest.raises(WriteError, match=r"out\.fit-.*: Permission denied; give an output"):
        correct_paths([mosaic], tmp_path / "out", PLAIN.replaced(shard="fit"))


def test_nothing_is_solved_for_all_where_each_share_fits_by_itself(
    mosaic: Path, tmp_path: Path
) -> None:
    config = PLAIN.replaced(joint=False, shard="fit")
    assert correct_paths([mosaic], tmp_path / "out", config)["fitted"] is None


@pytest.mark.timeout(600)  # processes start; on a busy machine slowly
def test_one_that_was_killed_while_it_solved_costs_its_own_work_only(
    mosaic: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["correct", mosaic, "-o", out, "--method", "tile-median", "--joint", "--json"]
    command += ["--save", "background,corrected", "--shard"]
    killed = start(KILLED, *command, "1/2")
    killed.communicate(timeout=280)
    assert killed.returncode == -signal.SIGKILL
    for share in ("2/2", "1/2"):
        text, errors = (process := start("", *command, share)).communicate(timeout=280)
        assert process.returncode == 0 and errors == "", errors
    assert json.loads(text)["results"][0]["complete"]
    assert content(out) == whole
    assert list(tmp_path.iterdir()) == [out]


def test_a_planted_file_costs_a_fit_and_one_note(
    mosaic: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    solved: list[int],
) -> None:
    """Also one that is whole and this user's own, but of other options."""
    out = tmp_path / "out"
    place = place_of(mosaic, out)
    correct_paths([mosaic], tmp_path / "other", PLAIN.replaced(shard="1/2", i0=9000.0))
    other = place_of(mosaic, tmp_path / "other", PLAIN.replaced(i0=9000.0))
    assert other.key != place.key
    other.path.rename(place.path)
    done = correct_paths([mosaic], out, PLAIN.replaced(shard="1/2"))["results"][0]
    (line,) = (note for note in done["notes"] if "fits for itself" in note)
    assert line.startswith(f"{place.path}: it is of another scan or of other options")
    assert len(solved) == 2  # of these options, too

    place.path.write_bytes(place.path.read_bytes()[:-100])
    place.path.chmod(0o666)
    done = correct_paths([mosaic], out, PLAIN.replaced(shard="2/2"))["results"][0]
    assert any("its mode is 666; not used" in note for note in done["notes"])
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
        correct_paths([mosaic], tmp_path / "out", PLAIN.replaced(shard=f"{i}/2"))
    assert len(solved) == 2
    assert content(tmp_path / "out") == whole


def test_fits_without_a_joint_stage_are_not_handed_on(mosaic: Path, tmp_path: Path) -> None:
    options = PLAIN.replaced(joint=False, shard="1/2")
    correct_paths([mosaic], tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["out.part"]


def test_the_key_tells_what_decides_a_fit(mosaic: Path) -> None:
    scan = open_scan(mosaic, PLAIN)

    def key(options: CorrectionConfig = PLAIN, **facts: Any) -> str:
        joint = method_of(options)
        assert isinstance(joint, DriftModel)
        return fit_key(replace(scan, **facts), joint, options)

    first = np.asarray(scan.tiles[:1])
    when = np.array(["2024-01-01", "2024-01-02"], "datetime64[s]")
    keys = [
        key(),
        key(PLAIN.replaced(i0=9000.0)),
        key(PLAIN.replaced(method="smooth")),
        key(PLAIN.replaced(method="auto", joint=None, device="cpu")),
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
    assert key(PLAIN.replaced(shard="1/2", save=("corrected",))) == keys[0]


def test_a_series_is_shared_too(tmp_path: Path, solved: list[int]) -> None:
    made = start("", "simulate", "series", "--projections", 12, "--size", 64, "-o", tmp_path / "s")
    _, errors = made.communicate(timeout=170)
    assert made.returncode == 0, errors
    options = PLAIN.replaced(method="smooth")
    done = correct_paths([tmp_path / "s"], tmp_path / "one", options)["results"][0]
    assert "registration" not in done["parameters"]["joint"]
    solved.clear()
    for i in (1, 2):
        correct_paths([tmp_path / "s"], tmp_path / "out", options.replaced(shard=f"{i}/2"))
    assert len(solved) == 1
    assert content(tmp_path / "out") == content(tmp_path / "one")


def test_join_names_a_folder_that_no_share_has_made(tmp_path: Path) -> None:
    (tmp_path / "raw.tif").touch()
    with pytest.raises(WriteError, match="no output of this program"):
        join_shards(tmp_path)
