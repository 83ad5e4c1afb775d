"""A run's folder: what is written can be read, nothing damaged is taken, nothing is lost."""

from __future__ import annotations

import gc
import json
import os
import socket
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ConfigError, ModelError, WriteError
from napari_txm_bgcorr.training.config import TrainConfig, load_config, preset_names
from napari_txm_bgcorr.training.run import folder as folder_module
from napari_txm_bgcorr.training.run.folder import (
    FREE_TO_CHANGE,
    RunFolder,
    read_checkpoint,
    write_checkpoint,
)
from tests.training.toy import toy_config

ONCE = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def started(path: Path, **changes: Any) -> RunFolder:
    folder = RunFolder(path)
    folder.start(toy_config(**changes), resume=False)
    return folder


# -- checkpoints --------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = {
        "weights": {"a": torch.randn(3, 4), "half": torch.randn(5).bfloat16()},
        "rng": torch.get_rng_state(),
        "step": 7,
        "best": float("inf"),
        "start": None,
        "list": [1, (2.5, "x")],
    }
    write_checkpoint(tmp_path / "a.ckpt", state)
    back = read_checkpoint(tmp_path / "a.ckpt")
    assert back.keys() == state.keys()
    for name in ("a", "half"):
        assert back["weights"][name].dtype == state["weights"][name].dtype  # type: ignore[index]
        assert torch.equal(back["weights"][name], state["weights"][name])  # type: ignore[index]
    assert torch.equal(back["rng"], state["rng"])  # type: ignore[arg-type]
    assert {k: back[k] for k in ("step", "best", "start", "list")} == {
        k: state[k] for k in ("step", "best", "start", "list")
    }
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


@ONCE
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_changed_bit_is_noticed(tmp_path: Path, place: float, bit: int) -> None:
    path = tmp_path / "a.ckpt"
    write_checkpoint(tmp_path / "whole", {"w": torch.arange(20.0)})
    data = bytearray((tmp_path / "whole").read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(bytes(data))
    with pytest.raises(ModelError, match=r"a\.ckpt"):
        read_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.ckpt: cannot be read"):
        read_checkpoint(tmp_path / "nothing.ckpt")


def numbers(folder: RunFolder) -> list[int]:
    return sorted(int(p.stem.removeprefix("step_")) for p in folder.checkpoints.iterdir())


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(st.integers(0, 10**9), min_size=1, max_size=6, unique=True),
    keep=st.integers(1, 4),
)
def test_the_newest_are_kept_by_number(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], keep: int
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    steps = sorted(n % 10**8 for n in steps)
    for step in steps:
        folder.save(step, {"step": step}, keep)
    assert numbers(folder) == sorted(set(steps))[-keep:]
    state, passed = folder.newest()
    assert state == {"step": steps[-1]} and passed == []


def full_disk(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the next writes of a checkpoint fail."""
    left = [times]

    def write(path: Path, state: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise WriteError(f"{path}: disk full")
        write_checkpoint(path, state)

    monkeypatch.setattr(folder_module, "write_checkpoint", write)


def test_on_a_full_disk_older_checkpoints_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    for step in (10, 20, 30):
        folder.save(step, {"step": step}, 5)
    full_disk(monkeypatch, 1)
    folder.save(40, {"step": 40}, 5)
    assert numbers(folder) == [30, 40]


@pytest.mark.parametrize(("held", "left"), [([10, 20, 30], [30]), ([10], [10]), ([], [])])
def test_on_a_disk_that_stays_full_the_newest_checkpoint_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: list[int], left: list[int]
) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    for step in held:
        folder.save(step, {"step": step}, 5)
    full_disk(monkeypatch, 9)
    with pytest.raises(WriteError, match="disk full"):
        folder.save(40, {"step": 40}, 5)
    assert numbers(folder) == left


def test_damaged_checkpoints_are_passed_over_one_by_one_and_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (10, 20, 30):
        folder.save(step, {"step": step}, 5)
    for step in (30, 20):
        path = folder.checkpoints / f"step_{step:08d}.ckpt"
        path.write_bytes(path.read_bytes()[:-1])
    state, passed = folder.newest()
    assert state == {"step": 10}
    assert ["00000030" in passed[0], "00000020" in passed[1], len(passed)] == [True, True, 2]
    (folder.checkpoints / "step_00000010.ckpt").write_bytes(b"")
    assert folder.newest()[0] is None and len(folder.newest()[1]) == 3


@pytest.mark.parametrize(
    ("step", "left"), [(0, []), (15, [10]), (20, [10, 20]), (99, [10, 20, 30])]
)
def test_checkpoints_beyond_a_step_are_dropped(tmp_path: Path, step: int, left: list[int]) -> None:
    folder = RunFolder(tmp_path)
    for number in (10, 20, 30):
        folder.save(number, {}, 5)
    folder.drop_checkpoints_after(step)
    assert numbers(folder) == left


# -- starting and resuming ----------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_settings_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    config = load_config(name, ["seed=7", "data.references=[a, b]", "data.pairs=[[x, y]]"])
    folder = RunFolder(tmp_path)
    folder.start(config, resume=False)
    assert folder.config() == config


@pytest.mark.parametrize("text", [None, b"\xff\xfe\x00", b"a: [", b"steps: -3"])
def test_a_folder_without_good_settings_is_named(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=r"config\.yaml: "):
        RunFolder(tmp_path).config()


CHANGES: dict[str, Any] = {
    "network": {"field_px": 32, "features": (8, 8, 8)},
    "data": {"kind": "toy", "sessions_per_batch": 2},
    "loss_weights": {"l1": 2.0},
    "steps": 99,
    "minutes": 3.0,
    "batch": 8,
    "lr": 0.5,
    "warmup": 0.3,
    "schedule": "constant",
    "betas": (0.5, 0.5),
    "weight_decay": 0.5,
    "clip": 0.5,
    "ema": 0.5,
    "blend": (0.5, 1.0),
    "judge": ("stale",),
    "likelihood_start": 0.1,
    "adversarial_mode": "hinge",
    "adversarial_start": 0.1,
    "discriminator_features": 4,
    "discriminator_layers": 2,
    "discriminator_lr": 0.1,
    "precision": "bf16",
    "checkpoint_every": 7,
    "validate_every": 7,
    "log_every": 7,
    "keep_checkpoints": 7,
    "seed": 7,
    "init": "other",
    "remember": 4,
    "patience": 4,
    "micro_batch": 2,
    "loggers": ("tensorboard",),
    "watchdog": {"collapse": "off"},
    "energy": {"price_per_kwh": 9.0},
}


def test_every_setting_is_tried_below() -> None:
    assert CHANGES.keys() == TrainConfig.model_fields.keys()
    assert CHANGES.keys() >= FREE_TO_CHANGE


@pytest.mark.parametrize("key", CHANGES)
def test_a_resumed_run_changes_only_what_it_may(tmp_path: Path, key: str) -> None:
    folder = started(tmp_path)
    changed = toy_config(**{key: CHANGES[key]})
    assert changed != toy_config()
    if key in FREE_TO_CHANGE:
        folder.start(changed, resume=True)
        assert folder.config() == changed
        return
    with pytest.raises(ConfigError, match=f"{key} was .* cannot become .*init set to this one"):
        folder.start(changed, resume=True)
    assert folder.config() == toy_config()  # nothing was written


def test_another_number_of_workers_is_no_other_run(tmp_path: Path) -> None:
    folder = started(tmp_path)
    other = toy_config(data={"kind": "toy", "workers": 3, "sessions_per_batch": 1})
    folder.start(other, resume=True)
    assert folder.config().data.workers == 3


def test_resuming_where_nothing_is_starts_a_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    folder.start(toy_config(), resume=True)
    assert folder.config() == toy_config()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_is_going_on_is_left_alone(tmp_path: Path, resume: bool) -> None:
    folder = started(tmp_path) if resume else RunFolder(tmp_path)
    folder.ask("pause")
    own = psutil.Process()
    status = {"state": "running", "pid": own.pid, "host": socket.gethostname()}
    status["process_started"] = own.create_time()
    (tmp_path / "status.json").write_text(json.dumps(status))
    with pytest.raises(ConfigError, match=f"is going on .process {os.getpid()} on .*stop it"):
        folder.start(toy_config(), resume=resume)
    assert folder.wish() == "pause"


def test_old_wishes_and_half_written_files_are_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.save(5, {"step": 5}, 3)
    folder.ask("stop")
    folder.ask("pause")
    for place in (tmp_path, folder.checkpoints):
        (place / ".step_1.ckpt.123.part").write_bytes(b"half")
        (place / "notes.part.txt").write_bytes(b"mine")
    folder.start(toy_config(), resume=True)
    assert folder.wish() == "" and not list(tmp_path.rglob(".*.part"))
    assert len(list(tmp_path.rglob("notes.part.txt"))) == 2 and folder.newest()[0] is not None


# -- wishes -------------------------------------------------------------------------------------


def test_to_stop_comes_before_to_pause(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.wish() == ""
    folder.ask("pause")
    assert folder.wish() == "pause"
    folder.ask("stop")
    assert folder.wish() == "stop"
    folder.withdraw("stop")
    assert folder.wish() == "pause"
    folder.withdraw("pause")
    folder.withdraw("pause")  # a second time does no harm
    assert folder.wish() == ""


@pytest.mark.parametrize(
    ("content", "frees"),
    [(b"cpu\n", True), (b" now cpu", True), (b"", False), (b"cpus", False), (b"\xff", False)],
)
def test_a_pause_frees_the_device_only_where_it_says_so(
    tmp_path: Path, content: bytes, frees: bool
) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.pause_frees_device()
    (tmp_path / "pause").write_bytes(content)
    assert folder.pause_frees_device() is frees
    folder.ask("pause", free_device=True)
    assert folder.pause_frees_device()


# -- metrics ------------------------------------------------------------------------------------


@ONCE
@given(
    steps=st.lists(st.integers(0, 500), max_size=8),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=30),
)
def test_whoever_follows_the_lines_sees_each_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], cuts: list[int]
) -> None:
    """However the bytes arrive."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    data = b"".join(
        json.dumps({"step": s, "name": "\u00e9"}, ensure_ascii=False).encode() + b"\n"
        for s in steps
    )
    seen: list[int] = []
    place = done = 0
    while done < len(data):
        size = cuts[done % len(cuts)]
        with folder.metrics.open("ab") as stream:
            stream.write(data[done : done + size])
        done += size
        lines, place = folder.read_metrics(place)
        seen += [line["step"] for line in lines]
    assert seen == steps


def test_lines_beyond_a_step_and_cut_off_ones_are_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.drop_metrics_after(5)  # where there are none
    for step in (0, 5, 10, 15):
        folder.log({"step": step, "losses": {"l1": step / 7}})
    with folder.metrics.open("a") as stream:
        stream.write('{"loss": 3}\n[1]\n{"step": 3, "los')
    folder.drop_metrics_after(10)
    lines, _ = folder.read_metrics()
    assert [line["step"] for line in lines] == [0, 5, 10]
    assert lines[1]["losses"]["l1"] == 5 / 7  # to the last digit
    folder.drop_metrics_after(-1)
    assert folder.read_metrics()[0] == [] and folder.metrics.read_bytes() == b""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_has_not_become_null(tmp_path: Path, value: float) -> None:
    folder = RunFolder(tmp_path)
    folder.log({"step": 1, "a": value, "b": {"c": {"d": value, "e": 1.5}}})
    text = folder.metrics.read_text()
    assert json.loads(text) == {"step": 1, "a": None, "b": {"c": {"d": None, "e": 1.5}}}
    assert "NaN" not in text and "Infinity" not in text


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.mkdir()
    with pytest.raises(WriteError, match=r"metrics\.jsonl: cannot be written"):
        folder.log({"step": 1})


def test_notes_carry_the_time_and_follow_one_another(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.note("first")
    folder.note("second: 5 \u00b5m")
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["first", "second: 5 \u00b5m"]
    assert all(line[:4].isdigit() and line[19:25] == "+00:00" for line in lines)


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_preview_is_none(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_preview() == {}
    folder.previews.mkdir()
    (folder.previews / "latest.npz").write_bytes(content)
    assert folder.read_preview() == {}


def test_a_preview_that_was_cut_short_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_preview(3, {"raw": np.ones((8, 8), np.float32)})
    place = folder.previews / "latest.npz"
    place.write_bytes(place.read_bytes()[:-30])
    found: dict[str, Any] | None = None
    with warnings.catch_warnings(), suppress(zipfile.BadZipFile):
        warnings.simplefilter("ignore")  # NumPy leaves the file open
        found = folder.read_preview()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
    assert found == {}
