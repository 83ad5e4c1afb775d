"""Training: `fit` yields steps, `run_training` keeps them in a run's folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_txm_bgcorr.core.errors import TxmError
from napari_txm_bgcorr.engine.checkpoint import load_model, resolve_model, save_model
from napari_txm_bgcorr.engine.config import TrainConfig
from napari_txm_bgcorr.engine.devices import choose_device, guard
from napari_txm_bgcorr.engine.losses import (
    LOSSES,
    discriminator_loss,
    generator_adversarial_loss,
)
from napari_txm_bgcorr.engine.networks import build_discriminator, build_generator
from napari_txm_bgcorr.engine.pairs import batches, build_pairs, to_batch
from napari_txm_bgcorr.engine.run_folder import RunFolder
from napari_txm_bgcorr.engine.tensors import Batch, scale_free_rms

__all__ = ["TrainError", "TrainStep", "Trainer", "fit", "run_training"]


class TrainError(TxmError):
    """The training went wrong: NaN or exploding losses. Weights saved before are good."""


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


class Trainer:
    """Networks, optimisers and counters of a run; all that a checkpoint holds.

    Parameters
    ----------
    config : TrainConfig
    device : str
        As `devices.choose_device` takes it.
    """

    def __init__(self, config: TrainConfig, device: str = "auto") -> None:
        self.config = config
        self.device = torch.device(choose_device(device))
        torch.manual_seed(config.seed)
        self.generator = self._placed(build_generator(config.network)).train()
        if config.init is not None:
            start = load_model(resolve_model(config.init))
            self.generator.load_state_dict(start.network.state_dict())
        self.average = self._placed(build_generator(config.network)).eval().requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.discriminator: nn.Module | None = None
        self.optimizer = self._adam(self.generator, config.lr)
        if config.loss_weights.adversarial > 0:
            made = build_discriminator(config.discriminator_features, config.discriminator_layers)
            self.discriminator = self._placed(made).train()
            self.optimizer_d = self._adam(self.discriminator, config.discriminator_lr)
        self.step = 0
        self.elapsed_s = 0.0
        self.best = math.inf

    def _placed(self, network: nn.Module) -> nn.Module:
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _adam(self, network: nn.Module, lr: float) -> torch.optim.AdamW:
        config = self.config
        return torch.optim.AdamW(
            network.parameters(),
            lr=lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cuda", "cpu"),
        )

    def progress(self) -> float:
        """Share of the run done: by steps, or by the clock where there is a time budget."""
        share = self.step / self.config.steps
        if self.config.minutes is not None:
            share = max(share, self.elapsed_s / 60 / self.config.minutes)
        return min(share, 1.0)

    def rate(self) -> float:
        """Learning rate as a share of the greatest."""
        done, warm = self.progress(), self.config.warmup
        if done < warm:
            return max(done / warm, 0.01)
        left = (1 - done) / (1 - warm)
        if self.config.schedule == "cosine":
            return 0.5 - 0.5 * math.cos(math.pi * left)
        return left if self.config.schedule == "linear" else 1.0

    def _autocast(self) -> AbstractContextManager[Any]:
        wanted = self.config.precision
        if wanted == "bf16" or (wanted == "auto" and self.device.type == "cuda"):
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One generator forward, a discriminator step on its detached result, one update."""
        config, rate = self.config, self.rate()
        x, true, weight = (t.to(self.device, non_blocking=True) for t in batch)
        x = x.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            pred = self.generator(x)
        pred = pred.float()
        weights = config.loss_weights.model_dump()
        weight_adversarial = weights.pop("adversarial")
        losses = {name: LOSSES[name](pred, true, weight) for name, w in weights.items() if w}
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

        if self.discriminator is not None and self.progress() >= config.adversarial_start:
            losses["discriminator"] = self._discriminator_step(x, pred.detach(), true, rate)
            self.discriminator.requires_grad_(False)
            scores = self._scores(x, pred)
            losses["adversarial"] = generator_adversarial_loss(scores, config.adversarial_mode)
            self.discriminator.requires_grad_(True)
            total = total + weight_adversarial * losses["adversarial"]

        _set_rate(self.optimizer, config.lr * rate)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        losses["grad_norm"] = nn.utils.clip_grad_norm_(self.generator.parameters(), config.clip)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return {name: value.detach() for name, value in losses.items()} | {"total": total.detach()}

    def _discriminator_step(self, x: Tensor, fake: Tensor, true: Tensor, rate: float) -> Tensor:
        real_score, fake_score = self._scores(x, true), self._scores(x, fake)
        loss = discriminator_loss(real_score, fake_score, self.config.adversarial_mode)
        _set_rate(self.optimizer_d, self.config.discriminator_lr * rate)
        self.optimizer_d.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()
        return loss

    def _scores(self, x: Tensor, background: Tensor) -> Tensor:
        if self.discriminator is None:
            raise TrainError("adversarial: the run has no discriminator")
        with self._autocast():
            scores: Tensor = self.discriminator(torch.cat([x, background], dim=1))[-1]
        return scores.float()

    @torch.no_grad()
    def _update_average(self) -> None:
        # short memory at first, so that the average is never dominated by the start
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.generator.parameters()), 1 - decay
        )

    @torch.inference_mode()
    def validate(self, cases: dict[str, Batch]) -> dict[str, float]:
        """Mean scale-free error of the averaged weights by case, and of the priors."""
        result = {}
        for case, (x, true, weight) in cases.items():
            errors = [
                scale_free_rms(self.average(a.to(self.device)).float() - b.to(self.device), w)
                for a, b, w in zip(
                    x.split(16), true.split(16), weight.to(self.device).split(16), strict=True
                )
            ]
            result[case] = float(torch.cat(errors).mean())
            if case != "none":
                result[f"{case}_prior"] = float(scale_free_rms(x[:, 1:2] - true, weight).mean())
        result["mean"] = float(np.mean([result[case] for case in cases]))
        return result

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        held = {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "best": self.best,
            "rng": torch.get_rng_state(),
        }
        if self.discriminator is not None:
            held["discriminator"] = self.discriminator.state_dict()
            held["optimizer_d"] = self.optimizer_d.state_dict()
        if self.device.type == "cuda":
            held["rng_cuda"] = torch.cuda.get_rng_state(self.device)
        return held

    def restore(self, held: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.generator.load_state_dict(held["generator"])
        self.average.load_state_dict(held["average"])
        self.optimizer.load_state_dict(held["optimizer"])
        if self.discriminator is not None:
            self.discriminator.load_state_dict(held["discriminator"])
            self.optimizer_d.load_state_dict(held["optimizer_d"])
        self.step, self.elapsed_s = int(held["step"]), float(held["elapsed_s"])
        self.best = float(held["best"])
        torch.set_rng_state(held["rng"])
        if self.device.type == "cuda" and "rng_cuda" in held:
            torch.cuda.set_rng_state(held["rng_cuda"], self.device)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def fit(config: TrainConfig, trainer: Trainer | None = None) -> Iterator[TrainStep]:
    """Train; yields after every step.

    Parameters
    ----------
    config : TrainConfig
    trainer : Trainer or None
        One that was restored from a checkpoint, or None for a new one.

    Raises
    ------
    TrainError
        If losses become NaN or infinite.
    """
    trainer = Trainer(config) if trainer is None else trainer
    source = build_pairs(config)
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
            for step in fit(config, trainer):
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
