"""Training: `fit` yields steps, `run_training` keeps them in a run's folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_txm_bgcorr.core.training_data import TrainingData
from napari_txm_bgcorr.engine.checkpoint import save_model
from napari_txm_bgcorr.engine.config import TrainConfig
from napari_txm_bgcorr.engine.devices import guard
from napari_txm_bgcorr.engine.pairs import batches, build_pairs, to_batch
from napari_txm_bgcorr.engine.run_folder import RunFolder
from napari_txm_bgcorr.engine.tensors import Batch
from napari_txm_bgcorr.engine.trainer import Trainer, TrainError

__all__ = ["TrainError", "TrainStep", "Trainer", "fit", "run_training"]


@dataclass(frozen=True)
class TrainStep:
    """What is known after a step; losses only at log intervals (reading them syncs the GPU).

    Attributes
    ----------
    step : int
        Steps done.
    progress : float
        Share of the run done, 0 to 1.
    losses : dict
        Mean of each loss since the last log line.
    lr : float
        Learning rate.
    samples_per_s : float
        Since the last log line.
    elapsed_s : float
        Training time including earlier parts of a resumed run.
    validation : dict
        Scale-free background error by case (0.01 is 1 %), at validation intervals.
    preview : dict of (F, F) float32
        ``raw``, ``prior``, ``predicted``, ``true`` log counts of one fixed tile.
    """

    step: int
    progress: float
    losses: dict[str, float] = field(default_factory=dict)
    lr: float = 0.0
    samples_per_s: float = 0.0
    elapsed_s: float = 0.0
    validation: dict[str, float] = field(default_factory=dict)
    preview: dict[str, NDArray[np.float32]] = field(default_factory=dict)


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
        If losses become NaN or infinite.
    """
    trainer = Trainer(config) if trainer is None else trainer
    source = build_pairs(config, data, trainer.device)
    cases = {case: to_batch(pairs) for case, pairs in source.validation().items()}
    sums: dict[str, Tensor] = {}
    since_step, since, began = trainer.step, time.monotonic(), time.monotonic()
    earlier_s = trainer.elapsed_s
    if trainer.step == 0:
        yield TrainStep(0, 0.0, validation=trainer.validate(cases))
    for batch in batches(source, config, trainer.step):
        for name, value in trainer.train_step(batch).items():
            sums[name] = sums[name] + value if name in sums else value
        trainer.elapsed_s = earlier_s + time.monotonic() - began
        done = trainer.progress() >= 1
        losses: dict[str, float] = {}
        speed = 0.0
        if trainer.step % config.log_every == 0 or done:
            count = trainer.step - since_step
            losses = {name: float(value) / count for name, value in sums.items()}  # GPU sync
            _refuse_nan(losses, trainer.step)
            speed = count * config.batch / (time.monotonic() - since)
            sums, since_step, since = {}, trainer.step, time.monotonic()
        checked = trainer.step % config.validate_every == 0 or done
        yield TrainStep(
            trainer.step,
            trainer.progress(),
            losses,
            trainer.optimizer.param_groups[0]["lr"],
            speed,
            trainer.elapsed_s,
            trainer.validate(cases) if checked else {},
            _preview(trainer, cases) if checked else {},
        )
        if done:
            return


def _refuse_nan(losses: dict[str, float], step: int) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            raise TrainError(
                f"step {step}: loss {name} is {value}; lower lr, checkpoints before it are good"
            )


@torch.inference_mode()
def _preview(trainer: Trainer, cases: dict[str, Batch]) -> dict[str, NDArray[np.float32]]:
    x, true, _ = next(iter(cases.values()))
    predicted = trainer.average(x[:1].to(trainer.device)).float().cpu()
    images = {"raw": x[0, 0], "prior": x[0, 1], "predicted": predicted[0, 0], "true": true[0, 0]}
    return {name: image.numpy() for name, image in images.items()}


def run_training(
    config: TrainConfig,
    run: Path,
    resume: bool = False,
    device: str = "auto",
    on_step: Callable[[TrainStep], None] | None = None,
    data: TrainingData | None = None,
) -> Path:
    """Train inside a run's folder until the end, a stop request or an error.

    Parameters
    ----------
    config : TrainConfig
    run : Path
        The run's folder.
    resume : bool
        Go on from the newest whole checkpoint in it, if there is one.
    device : str
    on_step : callable or None
        Called with every `TrainStep`.
    data : TrainingData or None
        Images to learn from, which the caller read from the paths in `config.data`.

    Returns
    -------
    Path
        The exported model.

    Raises
    ------
    ConfigError, TrainError, WriteError, DeviceError
    """
    folder = RunFolder(run)
    trainer = Trainer(config, device)
    folder.start(config, resume=resume)
    held, passed = folder.newest() if resume else (None, [])
    if held is not None:
        trainer.restore(held)
    folder.drop_metrics_after(trainer.step if held is not None else -1)
    for sentence in passed:
        folder.log({"step": trainer.step, "warning": sentence})
    state = "finished"
    try:
        with guard(str(trainer.device)):
            for step in fit(config, trainer, data):
                _keep(folder, trainer, step)
                if on_step is not None:
                    on_step(step)
                if folder.stop_asked() and step.progress < 1:
                    state = "stopped"
                    break
    except BaseException as error:
        folder.status("failed", step=trainer.step, error=str(error) or type(error).__name__)
        raise
    folder.save(trainer.step, trainer.state(), config.keep_checkpoints)
    if not folder.model.exists():
        _export(folder, trainer, {})
    folder.status(state, step=trainer.step, progress=trainer.progress())
    return folder.model


def _keep(folder: RunFolder, trainer: Trainer, step: TrainStep) -> None:
    """Write what this step calls for: log lines, checkpoint, preview, best model."""
    config = trainer.config
    if step.losses or step.validation:
        line = {
            "step": step.step,
            "progress": round(step.progress, 5),
            "lr": step.lr,
            "samples_per_s": round(step.samples_per_s, 2),
            "elapsed_s": round(step.elapsed_s, 1),
            "losses": step.losses,
            "validation": step.validation,
        }
        folder.log(line)
        folder.status("running", step=step.step, progress=step.progress)
    if step.preview:
        folder.preview("latest", step.preview)
    if step.validation and step.step and step.validation["mean"] < trainer.best:
        trainer.best = step.validation["mean"]
        _export(folder, trainer, step.validation)
    if step.step and step.step % config.checkpoint_every == 0:
        folder.save(step.step, trainer.state(), config.keep_checkpoints)


def _export(folder: RunFolder, trainer: Trainer, validation: dict[str, float]) -> None:
    save_model(
        folder.model,
        trainer.average,
        trainer.config.network,
        training=trainer.config.model_dump(mode="json"),
        metrics={"validation_error_sf": validation, "step": trainer.step},
    )
