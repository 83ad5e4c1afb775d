"""Keeps a training in its run's folder, and tells it what is asked of it there."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

import psutil
import torch

from napari_txm_bgcorr.errors import TxmError, WriteError
from napari_txm_bgcorr.models import Carried, list_devices, save_model
from napari_txm_bgcorr.training.distributed import World
from napari_txm_bgcorr.training.energy import EnergyMeter, describe
from napari_txm_bgcorr.training.step import TrainStep
from napari_txm_bgcorr.training.trainer import Trainer

from .folder import RunFolder
from .loggers import Logger, build_loggers
from .status import Heartbeat

__all__ = ["RunRecorder", "StopSignals"]

PAUSE_POLL_S = 0.2


class RunRecorder:
    """Writes what a run's folder holds; of several processes only rank 0 has one.

    Parameters
    ----------
    folder : RunFolder
    trainer : Trainer
    resume : bool
        Go on with the run that is in the folder.
    facts : mapping or None
        Of the images learned from, for the model's card (`card.facts_of_images`).
    references : Carried or None
        That the model is to carry.
    """

    def __init__(
        self,
        folder: RunFolder,
        trainer: Trainer,
        *,
        resume: bool,
        facts: Mapping[str, Any] | None = None,
        references: Carried | None = None,
    ) -> None:
        self.folder, self.trainer, self.facts = folder, trainer, facts
        self.references = references
        folder.start(trainer.config, resume=resume)
        self.heart = Heartbeat(folder.path)
        self.meter = EnergyMeter(_meters(trainer))
        self.loggers: list[Logger] = []
        self._energy_before = dict(trainer.energy)
        self._first_step = 0

    def begin(self) -> None:
        """Record that the trainer is ready, and start the counters."""
        trainer, config = self.trainer, self.trainer.config
        self.loggers = build_loggers(self.folder.path, config, trainer.step, self._warn_quietly)
        self.meter.start()
        self._energy_before, self._first_step = dict(trainer.energy), trainer.step
        names = {device.name: device for device in list_devices()}
        device = names.get(str(trainer.device))
        self.heart.update(
            "running",
            step=trainer.step,
            steps=config.steps,
            progress=trainer.progress(),
            elapsed_s=trainer.elapsed_s,
            batch=config.batch,
            micro_batch=trainer.micro_batch,
            processes=trainer.world.size,
            device=str(trainer.device),
            device_name=device.label if device else "",
            device_memory_total_gb=device.memory_gb if device else None,
            validation_start=trainer.validation_start,
            energy=self._energy(),
        )
        verb = f"resumed at step {trainer.step}" if trainer.step else "started"
        label = f"{trainer.device} ({device.label})" if device else str(trainer.device)
        self.folder.note(
            f"{verb} on {label}, {trainer.world.size} process(es), network "
            f"{config.network.name}, batch {config.batch}, seed {config.seed}, energy "
            f"{self.meter.source}"
        )

    def keep(self, step: TrainStep) -> None:
        """Write what this step calls for: log lines, checkpoint, preview, best model."""
        config = self.trainer.config
        self._tell_news()
        if step.losses or step.validation:
            self._log(step)
        else:
            self.heart.update(step=step.step, progress=step.progress, elapsed_s=step.elapsed_s)
        if step.preview:
            self.folder.save_preview(step.step, step.preview)
            for logger in self.loggers:
                logger.picture(step.step, step.preview)
        if step.improved:
            self._export(step.validation, step.calibration)
        if step.step and step.step % config.checkpoint_every == 0 and self._sound():
            self.save()

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        trainer = self.trainer
        trainer.energy = self._energy_sum()
        self.folder.save(trainer.step, trainer.state(), trainer.config.keep_checkpoints)

    def _sound(self) -> bool:
        """Return True if the weights, and the losses since the last log line, are finite."""
        trainer = self.trainer
        return trainer.whole() and all(
            bool(torch.isfinite(value)) for value in trainer.pending.values()
        )

    def _log(self, step: TrainStep) -> None:
        trainer = self.trainer
        energy, seen = self._energy(), step.validation.get("mean")
        line: dict[str, Any] = {
            "step": step.step,
            "progress": round(step.progress, 5),
            "lr": step.lr,
            "samples_per_s": round(step.samples_per_s, 2),
            "elapsed_s": round(step.elapsed_s, 1),
            "losses": step.losses,
            "validation": step.validation,
        }
        if step.calibration:
            line["calibration"] = step.calibration
        if trainer.discriminator is not None:
            line["lr_discriminator"] = trainer.optimizer_d.param_groups[0]["lr"]
        if step.step == 0:
            line["validation_start"] = seen
        line["energy"] = energy
        self.folder.log(line)
        facts: dict[str, Any] = {"validation": seen} if seen is not None else {}
        if step.losses:
            facts["samples_per_s"] = round(step.samples_per_s, 2)
        best = trainer.best if step.validation or trainer.best < float("inf") else None
        self.heart.update(
            "running",
            step=step.step,
            progress=step.progress,
            elapsed_s=step.elapsed_s,
            left_s=_left(step),
            lr=step.lr,
            micro_batch=trainer.micro_batch,
            device_memory_gb=_memory(trainer.device),
            power_w=self.meter.watts(),
            validation_start=trainer.validation_start,
            validation_best=best,
            energy=energy,
            **facts,
        )
        self._tell_loggers(step, line)
        if step.validation:
            shown = ", ".join(f"{k} {100 * v:.2f} %" for k, v in step.validation.items())
            share = trainer.blend.share
            blend = f" (blend {share:g})" if share < 1 else ""
            told = "".join(f", {name} {value:.3f}" for name, value in step.calibration.items())
            self.folder.note(f"step {step.step}: validation error {shown}{told}{blend}")

    def _tell_loggers(self, step: TrainStep, line: dict[str, Any]) -> None:
        if not self.loggers:
            return
        values = {f"loss/{name}": value for name, value in step.losses.items()}
        values |= {f"validation/{name}": value for name, value in step.validation.items()}
        values |= {f"calibration/{name}": value for name, value in step.calibration.items()}
        values |= {"lr": step.lr, "samples_per_s": step.samples_per_s}
        if "joules" in line["energy"]:
            values["energy/joules"] = line["energy"]["joules"]
        for logger in self.loggers:
            logger.log(step.step, values)

    def _energy_sum(self) -> dict[str, float]:
        joules = self.meter.joules()
        if joules is None:
            return dict(self._energy_before)
        samples = (self.trainer.step - self._first_step) * self.trainer.config.batch
        return {
            "joules": self._energy_before["joules"] + joules,
            "samples": self._energy_before["samples"] + samples,
        }

    def _energy(self) -> dict[str, Any]:
        measured = self.meter.joules() is not None
        total = self._energy_sum()
        return describe(
            total["joules"] if measured else None,
            self.meter.source,
            int(total["samples"]),
            self.trainer.config.energy,
        )

    def _export(self, validation: dict[str, float], calibration: dict[str, float]) -> None:
        trainer = self.trainer
        save_model(
            self.folder.model,
            trainer.blend.of(trainer.average),
            trainer.config.network,
            training=trainer.config.model_dump(mode="json"),
            metrics={
                "validation_error_sf": validation,
                **({"calibration": calibration} if calibration else {}),
                "step": trainer.step,
                "blend": trainer.blend.share,
            },
            facts=self.facts,
            references=self.references,
        )

    def warn(self, sentence: str) -> None:
        """Tell of something that went wrong and was dealt with, in log and status."""
        self.folder.note(f"warning: {sentence}")
        self.heart.warn(sentence)

    def _warn_quietly(self, sentence: str) -> None:
        with contextlib.suppress(WriteError):  # that the disk is full is told elsewhere
            self.folder.note(f"warning: {sentence}")
        self.heart.warn(sentence)

    def _tell_news(self) -> None:
        while self.trainer.news:
            self.warn(self.trainer.news.pop(0))

    def went_back(self) -> None:
        """Drop metrics and checkpoints beyond the trainer's step after it went back."""
        step = self.trainer.step
        self.folder.drop_metrics_after(step if step else -1)
        self.folder.drop_checkpoints_after(step)
        self._first_step = min(self._first_step, step)
        self._tell_news()

    def finish(self, state: str, reason: str) -> None:
        """Write the last checkpoint, the model and the final status of a completed training."""
        try:
            self.save()
            if not self.folder.model.exists():
                self._export({}, {})
        except TxmError as error:
            self.fail(error)
            raise
        self._close(state, reason=reason)

    def fail(self, error: BaseException) -> None:
        """Record an error that ended the training; after an interrupt save a checkpoint first."""
        sentence = " ".join((str(error) or type(error).__name__).split())
        trainer = self.trainer
        if isinstance(error, KeyboardInterrupt) and trainer.step and not trainer.busy:
            try:
                self.save()
            except TxmError as problem:
                sentence = f"{sentence}; {problem}"
        if isinstance(error, KeyboardInterrupt):
            self._close("stopped", reason="interrupted")
            return
        self._tell_quietly(f"failed at step {trainer.step}: {sentence}")
        self._close("failed", error=sentence)

    def _tell_quietly(self, sentence: str) -> None:
        try:
            self._tell_news()
            self.folder.note(sentence)
        except WriteError:
            pass  # a full disk is what is being told of

    def _close(self, state: str, **facts: Any) -> None:
        trainer = self.trainer
        for logger in self.loggers:
            logger.close(state)
        self.loggers = []
        if state != "failed":
            self._tell_quietly(f"{state} at step {trainer.step}: {facts.get('reason', '')}")
        self.heart.close(
            state,
            step=trainer.step,
            progress=trainer.progress(),
            elapsed_s=trainer.elapsed_s,
            left_s=None,
            energy=self._energy(),
            **facts,
        )


class StopSignals:
    """Stop and pause requests to a run: files in its folder, or SIGTERM as schedulers send it.

    All processes follow what rank 0 sees.

    Parameters
    ----------
    folder : RunFolder
    world : World
    """

    def __init__(self, folder: RunFolder, world: World) -> None:
        self.folder, self.world = folder, world
        self.reason = ""
        self._told = False
        self._before: Any = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._told = True

    def _wish(self) -> str:
        seen = ("stop" if self._told else self.folder.wish()) if self.world.lead else ""
        return self.world.share(seen)

    def stop(self, trainer: Trainer, recorder: RunRecorder | None) -> bool:
        """Return True if the run is to stop now; wait first, as long as it is to pause."""
        wish = self._wish()
        if wish:  # a checkpoint follows
            trainer.pending = self.world.settle(trainer.pending)
        if wish == "pause":
            wish = self._wait(trainer, recorder)
        if wish == "stop":
            self.reason = "told by SIGTERM" if self._told else "a file named stop was found"
        return wish == "stop"

    def _wait(self, trainer: Trainer, recorder: RunRecorder | None) -> str:
        began, place, away = time.monotonic(), trainer.device, False
        if recorder is not None:
            recorder.save()
            recorder.folder.note(f"paused at step {trainer.step}")
            recorder.heart.update(
                "paused", step=trainer.step, reason="a file named pause is there"
            )
        while (wish := self._wish()) == "pause":
            free = self.world.share(self.folder.pause_frees_device() if self.world.lead else False)
            if free and not away:
                trainer.move(torch.device("cpu"))
                away = True
                if recorder is not None:
                    recorder.heart.update("paused", device_memory_gb=_memory(place))
            time.sleep(PAUSE_POLL_S)
        if away:
            trainer.move(place)
        trainer.paused_s += time.monotonic() - began
        if recorder is not None:
            recorder.folder.note(f"goes on at step {trainer.step}")
            recorder.heart.update("running", reason="")
        return wish


def _meters(trainer: Trainer) -> str:
    """Devices whose energy is the run's; empty where some are on other machines."""
    world = trainer.world
    if world.local_size < world.size:
        return ""
    if trainer.device.type == "cuda" and world.size > 1:
        return ",".join(f"cuda:{k}" for k in range(world.size))
    return str(trainer.device)


def _memory(device: torch.device) -> float:
    """Memory that the training holds on the device (CPU: the process), GiB."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) / 2**30
    return float(psutil.Process().memory_info().rss / 2**30)


def _left(step: TrainStep) -> float | None:
    if step.progress <= 0:
        return None
    return round(step.elapsed_s * (1 - step.progress) / step.progress, 1)
