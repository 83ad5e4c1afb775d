"""Training: `fit` yields steps, `run_training` keeps them in a run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import TrainingData
from napari_txm_bgcorr.models import (
    Batch,
    acquisition_of,
    choose_references,
    facts_of_images,
    guard,
)

from .config import TrainConfig
from .data.pairs import batches, build_pairs, worker_count
from .distributed import join
from .profiling import phase, profiled
from .run.folder import RunFolder
from .run.recorder import RunRecorder, StopSignals
from .step import TrainStep
from .trainer import Trainer
from .validation import preview, split_figures, validation_cases
from .watchdog import Diverged, TrainError

__all__ = ["TrainError", "TrainStep", "Trainer", "fit", "run_training"]


def fit(
    config: TrainConfig, trainer: Trainer | None = None, data: TrainingData | None = None
) -> Iterator[TrainStep]:
    """Train; yields after every step.

    Parameters
    ----------
    config : TrainConfig
    trainer : Trainer or None
        One that was restored from a checkpoint, or None for a new one.
    data : TrainingData or None
        Images to learn from; None: simulated sessions alone.

    Raises
    ------
    TrainError
        If losses become NaN or explode, or the data are empty or do not fit the settings.
    """
    trainer = Trainer(config) if trainer is None else trainer
    world, source = trainer.world, build_pairs(config, data, trainer.device)
    cases = validation_cases(source) if world.lead else {}
    if trainer.step == 0:
        start, told = split_figures(world.share(trainer.validate(cases) if world.lead else {}))
        trainer.validation_start = trainer.best = start["mean"]
        shown = _preview(trainer, cases)
        yield TrainStep(0, 0.0, validation=start, calibration=told, improved=True, preview=shown)
    if trainer.progress() >= 1:
        return
    clock = _Clock(trainer)
    workers = worker_count(config, trainer.device, world.local_size)
    drawn = iter(batches(source, config, trainer.step, workers))
    while True:
        with phase("data"):
            batch = next(drawn, None)
        if clock.first:
            check_batch(batch, config)
        elif batch is None:
            raise TrainError(f"step {trainer.step}: the data ended early; give more of them")
        if batch is None:
            return
        if clock.first:
            trainer.agree_on_memory(batch)
        trainer.train_step(batch)
        clock.tick()
        with phase("log"):
            step = _after(trainer, cases, clock)
        yield step
        if step.ended:
            return


class _Clock:
    """Training time, which pauses and earlier processes' work; the same for all processes."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.earlier_s, self.paused_s = trainer.elapsed_s, trainer.paused_s
        self.began = self.logged = time.monotonic()
        self.logged_step, self.logged_paused_s = trainer.step, trainer.paused_s
        self.first = True

    def tick(self) -> None:
        """Tell the trainer how late it is."""
        trainer, self.first = self.trainer, False
        now = time.monotonic() - self.began - (trainer.paused_s - self.paused_s)
        trainer.elapsed_s = trainer.world.share(self.earlier_s + now)

    def speed(self) -> float:
        """Tiles in a second since the last call."""
        trainer, now = self.trainer, time.monotonic()
        spent = now - self.logged - (trainer.paused_s - self.logged_paused_s)
        count = (trainer.step - self.logged_step) * trainer.config.batch
        self.logged, self.logged_step = now, trainer.step
        self.logged_paused_s = trainer.paused_s
        return count / max(spent, 1e-9)


def _after(trainer: Trainer, cases: dict[str, Batch], clock: _Clock) -> TrainStep:
    """Validate and judge the losses if they are due, and summarise the step just done."""
    config, step = trainer.config, trainer.step
    done = trainer.progress() >= 1
    losses: dict[str, float] = {}
    speed = 0.0
    if step % config.log_every == 0 or done:
        losses = trainer.take_pending()
        trainer.watchdog.judge(losses, step)
        if trainer.watchdog.collapsed(losses):
            trainer.news.append(
                f"step {step}: the discriminator has won and teaches no more (loss "
                f"{losses['discriminator']:.2g}); {trainer.tame_discriminator()}"
            )
        losses.pop("bad_tiles", None)
        speed = clock.speed()
    if step % config.checkpoint_every == 0:
        trainer.pending = trainer.world.settle(trainer.pending)
    validation: dict[str, float] = {}
    told: dict[str, float] = {}
    improved, pictures = False, {}
    if step % config.validate_every == 0 or done:
        found = trainer.world.share(trainer.validate(cases) if trainer.world.lead else {})
        validation, told = split_figures(found)
        improved = validation["mean"] < trainer.best
        trainer.best = min(trainer.best, validation["mean"])
        trainer.since_best = 0 if improved else trainer.since_best + 1
        pictures = _preview(trainer, cases)
    ended = "all steps or minutes are done" if done else ""
    if config.patience and trainer.since_best >= config.patience and not done:
        ended = f"no better for {trainer.since_best} validations"
    lr = trainer.optimizer.param_groups[0]["lr"]
    return TrainStep(
        step, trainer.progress(), losses, lr, speed, trainer.elapsed_s, validation, told,
        improved, pictures, ended,
    )  # fmt: skip


def _preview(trainer: Trainer, cases: dict[str, Batch]) -> dict[str, NDArray[np.float32]]:
    if not trainer.world.lead:
        return {}
    return preview(trainer.blend.of(trainer.average), cases, trainer.device)


def check_batch(batch: Batch | None, config: TrainConfig) -> None:
    """Refuse data that are empty or do not fit the settings.

    Raises
    ------
    TrainError
    """
    if batch is None or batch.target.shape[0] == 0:
        raise TrainError(f"data: {config.data.kind} pairs: the set is empty; give some files")
    field_px, count = config.network.field_px, config.batch
    wanted = ((count, 3, field_px, field_px), *[(count, 1, field_px, field_px)] * 3)
    for name, tensor, shape in zip(Batch._fields, batch, wanted, strict=True):
        if tuple(tensor.shape) != shape:
            raise TrainError(
                f"data: {config.data.kind} pairs: {name} of shape {tuple(tensor.shape)} do not "
                f"match batch and network.field_px, which want {shape}"
            )


def run_training(
    config: TrainConfig,
    run: Path,
    resume: bool = False,
    device: str = "auto",
    on_step: Callable[[TrainStep], None] | None = None,
    data: TrainingData | None = None,
    profile: bool = False,
) -> Path:
    """Train inside a run's folder until the end, a stop request or an error.

    Under `torchrun` all processes call this; rank 0 alone writes.

    Parameters
    ----------
    config : TrainConfig
    run : Path
        The run's folder.
    resume : bool
        Go on from the newest whole checkpoint in it, if there is one.
    device : str
    on_step : callable or None
        Called with every `TrainStep`, on rank 0.
    data : TrainingData or None
        Images to learn from, which the caller read from the paths in `config.data`.
    profile : bool
        Record some steps with torch's profiler into the folder's ``profile``.

    Returns
    -------
    Path
        The exported model.

    Raises
    ------
    ConfigError, TrainError, WriteError, DeviceError
    """
    folder = RunFolder(run)
    with join(device) as (world, place), StopSignals(folder, world) as wishes:
        world.check(config.batch)
        trainer = Trainer(config, place, world)
        recorder = None
        if world.lead:
            stacks = () if data is None else data.references
            carried = choose_references(stacks, config.remember)
            facts = _facts(data)
            recorder = RunRecorder(folder, trainer, resume=resume, facts=facts, references=carried)
        try:
            _restore(folder, trainer, resume, recorder)
            with guard(place), profiled(folder.path / "profile" if profile else None) as tick:
                steps = partial(fit, config, trainer, data)
                ended = _train(trainer, steps, recorder, wishes, on_step, tick)
        except BaseException as error:
            if recorder is not None:
                recorder.fail(error)
            raise
        if recorder is not None:
            recorder.finish(*ended)
    return folder.model


def _facts(data: TrainingData | None) -> dict[str, Any] | None:
    """Facts of the real images for the model's card: level, darks, hashes."""
    stacks = () if data is None else (*data.references, *data.raws)
    return facts_of_images(stacks, acquisition_of(stacks)) if stacks else None


def _restore(
    folder: RunFolder, trainer: Trainer, resume: bool, recorder: RunRecorder | None
) -> None:
    """Go on from the newest whole checkpoint; rank 0 reads it for all."""
    held = None
    if recorder is not None:
        held, passed = folder.newest() if resume else (None, [])
        for sentence in passed:
            recorder.warn(sentence)
        folder.drop_metrics_after(-1 if held is None else int(held["step"]))
    held = trainer.world.share(held)
    if held is not None:
        trainer.restore(held)
    if recorder is not None:
        recorder.begin()


def _train(
    trainer: Trainer,
    steps: Callable[[], Iterator[TrainStep]],
    recorder: RunRecorder | None,
    wishes: StopSignals,
    on_step: Callable[[TrainStep], None] | None,
    tick: Callable[[], None],
) -> tuple[str, str]:
    """Train to the end, going back where losses diverge; state and reason of the end."""
    spoilt_from = -1
    while True:
        try:
            for step in steps():
                if recorder is not None:
                    recorder.keep(step)
                    if on_step is not None:
                        on_step(step)
                tick()
                if step.ended:
                    return "finished", step.ended
                if wishes.stop(trainer, recorder):
                    return "stopped", wishes.reason
            return "finished", "all steps or minutes were done"
        except Diverged as error:
            spoilt_from = _go_back(trainer, recorder, error, spoilt_from)


def _go_back(
    trainer: Trainer, recorder: RunRecorder | None, error: Diverged, spoilt_from: int
) -> int:
    """Take the last good weights with a lower rate; the step that the run goes on from.

    A checkpoint from which the run diverged before the next one is taken for spoilt too.
    """
    config, back = trainer.config.watchdog, trainer.rollbacks + 1
    where = "the last checkpoint and model are good"
    if trainer.rollbacks >= config.rollbacks:
        raise TrainError(
            f"{error}; went back {trainer.rollbacks} times with a lower rate, in vain; lower lr, "
            f"{where}"
        ) from error
    held = None
    if recorder is not None:
        held, _ = recorder.folder.newest()
        if held is not None and held["step"] == spoilt_from:
            recorder.folder.drop_checkpoints_after(spoilt_from - 1)
            held, _ = recorder.folder.newest()
    held = trainer.world.share(held)
    if held is None:
        held = Trainer(trainer.config, str(trainer.device)).state()
    best, scale, micro_batch = trainer.best, trainer.rate_scale * config.lower, trainer.micro_batch
    trainer.restore(held)
    trainer.best, trainer.rate_scale, trainer.rollbacks = best, scale, back
    trainer.micro_batch = micro_batch
    trainer.news.append(
        f"{error}; back to step {trainer.step} with the rate times {scale:g} "
        f"({back} of at most {config.rollbacks})"
    )
    if recorder is not None:
        recorder.went_back()
    return trainer.step
