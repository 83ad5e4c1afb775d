"""What a run's folder is told at each step, and how a run's end is told, whatever ended it."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.models.checkpoint import load_model
from napari_txm_bgcorr.training.distributed import ALONE
from napari_txm_bgcorr.training.energy import EnergyMeter
from napari_txm_bgcorr.training.run import recorder as recorder_module
from napari_txm_bgcorr.training.run.folder import RunFolder
from napari_txm_bgcorr.training.run.recorder import RunRecorder, StopSignals
from napari_txm_bgcorr.training.step import TrainStep
from napari_txm_bgcorr.training.trainer import Trainer
from tests.training.toy import toy_config

GAN = {"l1": 1.0, "adversarial": 0.01}


class Told:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.values: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[int] = []
        self.closed: list[str] = []

    def open(self) -> None: ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.values.append((step, dict(values)))

    def picture(self, step: int, images: Mapping[str, Any]) -> None:
        self.pictures.append(step)

    def close(self, state: str) -> None:
        self.closed.append(state)


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(recorder_module, "build_loggers", lambda *a: [told])
    return told


class Run:
    """A recorder that has begun, with its trainer and folder."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.trainer = Trainer(toy_config(**changes), "cpu")
        self.folder = RunFolder(path)
        self.recorder = RunRecorder(self.folder, self.trainer, resume=False)
        self.recorder.begin()

    def keep(self, step: int, **facts: Any) -> None:
        self.trainer.step = step
        self.recorder.keep(TrainStep(step, step / 20, **facts))

    def lines(self) -> list[dict[str, Any]]:
        return self.folder.read_metrics()[0]

    def checkpoints(self) -> list[int]:
        return sorted(int(p.stem[5:]) for p in self.folder.checkpoints.glob("*.ckpt"))

    @property
    def log(self) -> str:
        return (self.folder.path / "log.txt").read_text()


@pytest.fixture
def run(tmp_path: Path, logger: Told) -> Iterator[Run]:
    made = Run(tmp_path / "run")
    yield made
    made.recorder.heart.close("stopped")


def status(run: Run) -> Any:
    """What the heart knows; the file follows within a second."""
    return run.recorder.heart.status


# -- at each step -------------------------------------------------------------------------------


def test_a_step_without_figures_writes_no_line(run: Run, logger: Told) -> None:
    run.keep(1, elapsed_s=2.0)
    assert run.lines() == [] and logger.values == [] and run.checkpoints() == []
    assert (status(run).step, status(run).progress, status(run).elapsed_s) == (1, 0.05, 2.0)


def test_a_line_holds_what_the_step_tells(run: Run, logger: Told) -> None:
    run.keep(
        3,
        losses={"l1": 0.5, "total": 0.75},
        lr=1e-3,
        samples_per_s=12.345,
        elapsed_s=6.04,
    )
    (line,) = run.lines()
    assert {k: line[k] for k in ("step", "progress", "lr", "samples_per_s", "elapsed_s")} == {
        "step": 3, "progress": 0.15, "lr": 1e-3, "samples_per_s": 12.35, "elapsed_s": 6.0,
    }  # fmt: skip
    assert line["losses"] == {"l1": 0.5, "total": 0.75} and line["validation"] == {}
    assert not {"calibration", "lr_discriminator", "validation_start"} & line.keys()
    assert logger.values == [
        (3, {"loss/l1": 0.5, "loss/total": 0.75, "lr": 1e-3, "samples_per_s": 12.345})
    ]
    assert status(run).samples_per_s == 12.35 and status(run).lr == 1e-3
    assert status(run).left_s == pytest.approx(6.04 * 0.85 / 0.15, abs=0.1)
    assert status(run).device_memory_gb > 0


def test_validation_and_calibration_are_told_everywhere(run: Run, logger: Told) -> None:
    run.trainer.best, run.trainer.validation_start = 0.02, 0.08
    run.keep(
        4,
        validation={"none": 0.03, "stale": 0.01, "mean": 0.02},
        calibration={"coverage": 0.68},
    )
    (line,) = run.lines()
    assert line["validation"]["mean"] == 0.02 and line["calibration"] == {"coverage": 0.68}
    ((_, values),) = logger.values
    assert values["validation/none"] == 0.03 and values["calibration/coverage"] == 0.68
    found = status(run)
    assert (found.validation, found.validation_best, found.validation_start) == (0.02, 0.02, 0.08)
    assert "step 4: validation error none 3.00 %, stale 1.00 %, mean 2.00 %, coverage 0.680" in (
        run.log
    )
    run.keep(5, losses={"l1": 1.0})
    assert status(run).validation == 0.02  # the last known one stays


def test_the_first_line_tells_where_the_run_starts(run: Run) -> None:
    run.keep(0, validation={"mean": 0.09})
    run.keep(5, validation={"mean": 0.05})
    first, second = run.lines()
    assert first["validation_start"] == 0.09 and "validation_start" not in second
    assert status(run).left_s is None or status(run).left_s >= 0


def test_the_rate_of_a_discriminator_is_told_where_there_is_one(
    tmp_path: Path, logger: Told
) -> None:
    run = Run(tmp_path, loss_weights=GAN, discriminator_lr=3e-4)
    run.keep(5, losses={"l1": 1.0}, lr=1e-3)
    assert run.lines()[0]["lr_discriminator"] == 3e-4
    run.recorder.heart.close("stopped")


def test_losses_that_are_no_numbers_still_make_a_line(run: Run) -> None:
    run.keep(5, losses={"l1": math.nan, "total": math.inf})
    assert run.lines()[0]["losses"] == {"l1": None, "total": None}


def test_news_become_warnings_in_their_order_and_once(run: Run) -> None:
    run.trainer.news += ["first thing", "second thing"]
    run.keep(1)
    run.keep(2)
    assert run.trainer.news == [] and status(run).warnings == ("first thing", "second thing")
    assert run.log.index("warning: first thing") < run.log.index("warning: second thing")
    assert run.log.count("first thing") == 1


def test_a_preview_is_kept_and_shown(run: Run, logger: Told) -> None:
    run.keep(6, preview={"raw": np.full((4, 4), 2, np.float32)})
    assert run.folder.read_preview()["step"] == 6 and logger.pictures == [6]
    assert run.folder.read_preview("step_00000006")["raw"].max() == 2


# -- energy -------------------------------------------------------------------------------------


@pytest.fixture
def joules(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """What the meter reads next: the one value in the list."""
    now: list[float | None] = [0.0]
    monkeypatch.setattr(EnergyMeter, "source", property(lambda self: "rapl"))
    monkeypatch.setattr(EnergyMeter, "joules", lambda self: now[0])
    monkeypatch.setattr(EnergyMeter, "watts", lambda self: 42.0)
    return now


def test_energy_is_counted_from_step_to_step(
    joules: list[float | None], run: Run, logger: Told
) -> None:
    joules[0] = 300.0
    run.keep(5, losses={"l1": 1.0})
    energy = run.lines()[0]["energy"]
    assert (energy["source"], energy["joules"]) == ("rapl", 300.0)
    assert energy["joules_per_1000_samples"] == 15_000  # 5 steps of 4 tiles
    assert logger.values[0][1]["energy/joules"] == 300.0
    assert status(run).power_w == 42.0 and status(run).energy == energy


def test_a_checkpoint_carries_the_energy_and_the_next_process_adds_to_it(
    joules: list[float | None], run: Run, tmp_path: Path
) -> None:
    joules[0] = 300.0
    run.trainer.step = 5
    run.recorder.save()
    run.recorder.heart.close("stopped")
    held = run.folder.newest()[0]
    assert held is not None and held["energy"] == {"joules": 300.0, "samples": 20}
    later = Trainer(toy_config(), "cpu")
    later.restore(held)
    recorder = RunRecorder(run.folder, later, resume=True)
    joules[0] = 0.0
    recorder.begin()
    joules[0], later.step = 50.0, 6
    recorder.keep(TrainStep(6, 0.3, losses={"l1": 1.0}))
    assert run.lines()[-1]["energy"]["joules"] == 350.0
    assert run.lines()[-1]["energy"]["joules_per_1000_samples"] == round(350_000 / 24, 2)
    recorder.heart.close("stopped")


def test_steps_done_twice_are_not_counted_as_negative_work(
    joules: list[float | None], run: Run
) -> None:
    run.recorder._first_step = run.trainer.step = 10
    run.trainer.step = 5  # went back beyond where this process began
    run.recorder.went_back()
    joules[0] = 80.0
    run.keep(6, losses={"l1": 1.0})
    assert run.lines()[-1]["energy"]["joules_per_1000_samples"] == 20_000


def test_energy_that_is_not_measured_is_said(
    joules: list[float | None], run: Run, logger: Told
) -> None:
    joules[0] = None
    run.keep(5, losses={"l1": 1.0})
    assert run.lines()[0]["energy"] == {"source": "not measured"}
    assert "energy/joules" not in logger.values[0][1]
    run.recorder.save()
    held = run.folder.newest()[0]
    assert held is not None and held["energy"] == {"joules": 0.0, "samples": 0}


# -- checkpoints and the best model -------------------------------------------------------------


def test_checkpoints_come_at_their_interval_and_not_at_the_start(run: Run) -> None:
    for step in range(13):
        run.keep(step)
    assert run.checkpoints() == [5, 10]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_sound_is_never_a_checkpoint(run: Run, value: float) -> None:
    run.trainer.pending = {"l1": torch.tensor(value)}
    run.keep(5)
    run.trainer.pending = {"l1": torch.tensor(1.0)}
    with torch.no_grad():
        next(run.trainer.generator.parameters())[0, 0, 0, 0] = value
    run.keep(10)
    assert run.checkpoints() == []


def test_the_best_model_is_exported_when_it_is_the_best(run: Run) -> None:
    with torch.no_grad():
        for p in run.trainer.average.parameters():
            p.fill_(0.25)
    run.keep(4, validation={"mean": 0.5}, calibration={"coverage": 0.6}, improved=True)
    model = load_model(run.folder.model)
    assert all((p == 0.25).all() for p in model.network.parameters())  # the averaged weights
    card = json.loads(run.folder.model.with_suffix(".json").read_text())
    assert card["metrics"] == {
        "validation_error_sf": {"mean": 0.5}, "calibration": {"coverage": 0.6}, "step": 4,
        "blend": 1.0,
    }  # fmt: skip
    assert card["training"]["steps"] == 20
    before = run.folder.model.read_bytes()
    with torch.no_grad():
        for p in run.trainer.average.parameters():
            p.fill_(0.5)
    run.keep(8, validation={"mean": 0.6})
    assert run.folder.model.read_bytes() == before
    run.keep(12, validation={"mean": 0.4}, improved=True)
    assert run.folder.model.read_bytes() != before


# -- going back ---------------------------------------------------------------------------------


def test_going_back_drops_what_lies_beyond(run: Run) -> None:
    for step in (0, 5, 10, 15):
        run.keep(step, losses={"l1": 1.0}, validation={"mean": 0.1})
    run.trainer.step = 10
    run.trainer.news.append("went back")
    run.recorder.went_back()
    assert [line["step"] for line in run.lines()] == [0, 5, 10]
    assert run.checkpoints() == [5, 10] and "went back" in status(run).warnings


def test_going_back_to_the_start_leaves_no_line(run: Run) -> None:
    for step in (0, 5):
        run.keep(step, losses={"l1": 1.0}, validation={"mean": 0.1})
    run.trainer.step = 0
    run.recorder.went_back()
    assert run.lines() == [] and run.checkpoints() == []


# -- the end ------------------------------------------------------------------------------------


def ended(run: Run) -> Any:
    found = run.folder.status()
    assert found is not None and not run.recorder.heart._thread.is_alive()
    return found


def test_a_finished_run_has_a_checkpoint_and_a_model(run: Run, logger: Told) -> None:
    run.trainer.step = 7
    run.recorder.finish("finished", "all steps are done")
    found = ended(run)
    assert (found.state, found.step, found.reason) == ("finished", 7, "all steps are done")
    assert run.checkpoints() == [7] and found.left_s is None and found.error == ""
    assert load_model(run.folder.model).config == run.trainer.config.network
    assert logger.closed == ["finished"] and "finished at step 7: all steps" in run.log


def test_the_best_model_is_not_replaced_by_the_last(run: Run) -> None:
    run.keep(4, validation={"mean": 0.5}, improved=True)
    before = run.folder.model.read_bytes()
    with torch.no_grad():
        next(run.trainer.average.parameters()).fill_(9.0)
    run.recorder.finish("stopped", "asked to")
    assert run.folder.model.read_bytes() == before and ended(run).state == "stopped"


def test_a_run_that_cannot_write_its_end_has_failed(
    run: Run, logger: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*a: Any) -> None:
        raise WriteError("disk full")

    monkeypatch.setattr(run.folder, "save", full)
    with pytest.raises(WriteError, match="disk full"):
        run.recorder.finish("finished", "done")
    assert (ended(run).state, ended(run).error) == ("failed", "disk full")
    assert logger.closed == ["failed"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one\n  two\tthree"), "one two three"),
        (RuntimeError(), "RuntimeError"),
        (WriteError("no room"), "no room"),
    ],
)
def test_an_error_is_told_on_one_line_and_keeps_earlier_checkpoints(
    run: Run, logger: Told, error: Exception, said: str
) -> None:
    run.keep(5)
    run.trainer.step = 8
    run.recorder.fail(error)
    found = ended(run)
    assert (found.state, found.error, found.step) == ("failed", said, 8)
    assert run.checkpoints() == [5] and f"failed at step 8: {said}" in run.log
    assert logger.closed == ["failed"]


def test_news_before_an_error_are_not_lost(run: Run) -> None:
    run.trainer.news.append("memory was short")
    run.recorder.fail(ValueError("x"))
    assert ended(run).warnings == ("memory was short",)


def test_an_error_is_told_though_the_log_cannot_be_written(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(sentence: str) -> None:
        raise WriteError("disk full")

    monkeypatch.setattr(run.folder, "note", full)
    run.recorder.fail(ValueError("the cause"))
    assert ended(run).error == "the cause"


@pytest.mark.parametrize(
    ("step", "busy", "saved"), [(7, False, [7]), (7, True, []), (0, False, [])]
)
def test_an_interrupt_saves_this_moment_unless_it_is_half_done(
    run: Run, logger: Told, step: int, busy: bool, saved: list[int]
) -> None:
    run.trainer.step, run.trainer.busy = step, busy
    run.recorder.fail(KeyboardInterrupt())
    found = ended(run)
    assert (found.state, found.reason, found.error) == ("stopped", "interrupted", "")
    assert run.checkpoints() == saved and logger.closed == ["stopped"]


def test_begin_tells_what_runs_where(run: Run) -> None:
    found = run.folder.status()
    assert found is not None and found.state == "running" and found.alive()
    assert (found.steps, found.batch, found.micro_batch, found.processes) == (20, 4, 4, 1)
    assert found.device == "cpu" and "started on cpu" in run.log and "seed 0" in run.log


# -- stop and pause -----------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What to do at each poll of a pause, in order; nothing sleeps."""
    todo: list[Any] = []
    clock = SimpleNamespace(sleep=lambda s: todo.pop(0)(), monotonic=time.monotonic)
    monkeypatch.setattr(recorder_module, "time", clock)
    return todo


def test_without_a_wish_the_run_goes_on(run: Run) -> None:
    with StopSignals(run.folder, ALONE) as signals:
        assert not signals.stop(run.trainer, run.recorder) and signals.reason == ""


def test_a_file_named_stop_ends_the_run(run: Run) -> None:
    run.folder.ask("stop")
    with StopSignals(run.folder, ALONE) as signals:
        assert signals.stop(run.trainer, run.recorder)
    assert "file named stop" in signals.reason


def test_a_pause_keeps_this_moment_waits_and_goes_on(run: Run, slept: list[Any]) -> None:
    run.trainer.step = 6
    run.folder.ask("pause")
    seen: list[Any] = []
    slept += [
        lambda: seen.append((run.folder.status(), run.checkpoints())),
        lambda: run.folder.withdraw("pause"),
    ]
    with StopSignals(run.folder, ALONE) as signals:
        assert not signals.stop(run.trainer, run.recorder)
    ((paused, kept),) = seen
    assert (paused.state, paused.step, kept) == ("paused", 6, [6])
    assert "pause is there" in paused.reason and slept == []
    assert (status(run).state, status(run).reason) == ("running", "")
    assert "paused at step 6" in run.log and "goes on at step 6" in run.log


def test_a_paused_run_can_be_stopped(run: Run, slept: list[Any]) -> None:
    run.folder.ask("pause")
    slept += [lambda: None, lambda: run.folder.ask("stop")]
    with StopSignals(run.folder, ALONE) as signals:
        assert signals.stop(run.trainer, run.recorder)
    assert "file named stop" in signals.reason


def test_a_pause_frees_the_device_once_when_told_to(
    run: Run, slept: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[str] = []
    monkeypatch.setattr(run.trainer, "move", lambda device: moves.append(str(device)))
    run.trainer.device = torch.device("meta")
    run.folder.ask("pause")
    slept += [
        lambda: run.folder.ask("pause", free_device=True),  # asked for while it waits
        lambda: None,
        lambda: run.folder.withdraw("pause"),
    ]
    with StopSignals(run.folder, ALONE) as signals:
        assert not signals.stop(run.trainer, None)
    assert moves == ["cpu", "meta"]


def test_a_pause_is_no_training_time(
    run: Run, slept: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 160.0])
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: next(times))
    run.folder.ask("pause")
    slept.append(lambda: run.folder.withdraw("pause"))
    with StopSignals(run.folder, ALONE) as signals:
        signals.stop(run.trainer, None)
    assert run.trainer.paused_s == 60.0


def test_sigterm_is_heard_and_its_handler_given_back(run: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(run.folder, ALONE) as signals:
        assert signal.getsignal(signal.SIGTERM) != before
        signal.raise_signal(signal.SIGTERM)
        assert signals.stop(run.trainer, run.recorder) and signals.reason == "told by SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_signals_are_left_alone(run: Run) -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with StopSignals(run.folder, ALONE) as signals:
            seen.append(signals.stop(run.trainer, run.recorder))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False] and signal.getsignal(signal.SIGTERM) == before
