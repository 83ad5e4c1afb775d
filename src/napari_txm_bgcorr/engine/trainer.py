"""One training run's networks, optimisers and counters, and its training step."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_txm_bgcorr.core.errors import TxmError
from napari_txm_bgcorr.engine.checkpoint import load_model, resolve_model
from napari_txm_bgcorr.engine.config import TrainConfig
from napari_txm_bgcorr.engine.devices import choose_device
from napari_txm_bgcorr.engine.losses import (
    LOSSES,
    discriminator_loss,
    generator_adversarial_loss,
)
from napari_txm_bgcorr.engine.networks import build_discriminator, build_generator
from napari_txm_bgcorr.engine.tensors import Batch, scale_free_rms

__all__ = ["TrainError", "Trainer"]


class TrainError(TxmError):
    """The training went wrong: NaN or exploding losses. Weights saved before are good."""


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
                    *(torch.split(t, 16) for t in (x, true, weight.to(self.device))), strict=True
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
