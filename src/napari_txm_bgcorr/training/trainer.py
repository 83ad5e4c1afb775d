"""One training run's networks, optimisers and counters, and its training step."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from napari_txm_bgcorr.errors import DeviceError
from napari_txm_bgcorr.models import (
    Batch,
    build_discriminator,
    build_generator,
    choose_device,
    is_out_of_memory,
    start_from,
    trains_in_bf16,
)

from .blend import blend_of
from .config import TrainConfig
from .distributed import ALONE, World, unsynced
from .losses import LOSSES, OUTPUT_LOSSES, discriminator_loss, generator_adversarial_loss
from .profiling import phase
from .validation import AT_ONCE
from .watchdog import TrainError, Watchdog

__all__ = ["TrainError", "Trainer"]

RAREST_DISCRIMINATOR = 8  # steps from one of its updates to the next, before it is switched off


class Trainer:
    """Networks, optimisers and counters of a run; all that a checkpoint holds.

    Parameters
    ----------
    config : TrainConfig
    device : str
        As `devices.choose_device` takes it.
    world : World
        The processes that share the run.
    """

    def __init__(self, config: TrainConfig, device: str = "auto", world: World = ALONE) -> None:
        self.config, self.world = config, world
        self.device = torch.device(choose_device(device))
        torch.manual_seed(config.seed)
        self.generator = self._placed(build_generator(config.network)).train()
        if config.init is not None:
            start_from(self.generator, config.init)
        self.average = self._placed(build_generator(config.network)).eval().requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.discriminator: nn.Module | None = None
        self.optimizer = self._adam(self.generator, config.lr)
        self._generate = world.wrap(self.generator)
        if config.loss_weights.adversarial > 0:
            made = build_discriminator(config.discriminator_features, config.discriminator_layers)
            self.discriminator = self._placed(made).train()
            self._discriminate = world.wrap(self.discriminator)
            self.optimizer_d = self._adam(self.discriminator, config.discriminator_lr)
        content = config.loss_weights.model_dump()
        self.weight_adversarial = content.pop("adversarial")
        left_out = () if config.network.probabilistic else OUTPUT_LOSSES
        self.content = {k: w for k, w in content.items() if w and k not in left_out}
        self.watchdog = Watchdog(config.watchdog, self.content, config.adversarial_mode)
        self.step, self.elapsed_s = 0, 0.0
        self.paused_s = 0.0  # of this process; not part of the training time
        self.best, self.since_best = math.inf, 0  # validations
        self.validation_start: float | None = None
        self.micro_batch = min(config.micro_batch or config.batch, config.batch // world.size)
        self.blend = blend_of(self.average, config)
        self.rate_scale, self.rollbacks, self.discriminator_every = 1.0, 0, 1  # 0: switched off
        self.pending: dict[str, Tensor] = {}  # sums of the losses since the last log line
        self.pending_steps = 0
        self.energy = {"joules": 0.0, "samples": 0}  # measured by earlier processes of the run
        self.news: list[str] = []  # what happened and was dealt with, for the log
        self.busy = False  # inside a step: the state is not whole
        self._critic_loss: tuple[int, Tensor] | None = None

    def _placed(self, network: nn.Module) -> nn.Module:
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _adam(self, network: nn.Module, lr: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            network.parameters(),
            lr=lr,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
            fused=self.device.type in ("cuda", "cpu"),
        )

    def progress(self) -> float:
        """Share of the run done: by steps, or by the clock where there is a time budget."""
        share = self.step / self.config.steps
        if self.config.minutes is not None:
            share = max(share, self.elapsed_s / 60 / self.config.minutes)
        return min(share, 1.0)

    def rate(self) -> float:
        """Learning rate as a share of the greatest, lowered by what the watchdog found."""
        return self.rate_scale * self._scheduled()

    def _scheduled(self) -> float:
        done, warm = self.progress(), self.config.warmup
        if done < warm:
            return max(done / warm, 0.01)
        left = (1 - done) / (1 - warm)
        if self.config.schedule == "cosine":
            return 0.5 - 0.5 * math.cos(math.pi * left)
        if self.config.schedule == "half-linear":
            return min(1.0, 2 * left)
        return left if self.config.schedule == "linear" else 1.0

    def _autocast(self) -> AbstractContextManager[Any]:
        wanted = self.config.precision
        if wanted == "bf16" or (wanted == "auto" and trains_in_bf16(self.device)):
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    # -- the step ---------------------------------------------------------------------------

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One update from a batch; where memory runs out, again in smaller parts.

        Returns
        -------
        dict of scalar Tensor
            The losses by name, unweighted; ``total``, ``grad_norm``; ``bad_tiles`` counts
            tiles that hold NaN or infinities.

        Raises
        ------
        DeviceError
            If memory does not suffice for one tile at a time.
        """
        rows = self.world.part(batch)
        self.busy = True
        while True:
            try:
                losses = self._step(rows)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._halve()  # out of the except block: its traceback holds the step's tensors
        self.step += 1
        self._update_average()
        for name, value in losses.items():
            self.pending[name] = self.pending[name] + value if name in self.pending else value
        self.pending_steps += 1
        self.busy = False
        return losses

    def _step(self, rows: Batch) -> dict[str, Tensor]:
        """One generator forward, a discriminator step on its detached result, one update."""
        rate, parts = self.rate(), self._parts(rows)
        adversary = self._adversary_acts()
        with phase("generator"):
            first = self._predict(parts[0]) if len(parts) == 1 else None
        losses, critic = dict[str, Tensor](), dict[str, Tensor]()
        if adversary:
            with phase("discriminator"):
                critic["discriminator"] = self._discriminator_step(parts, first, rate)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * rate
        self.optimizer.zero_grad(set_to_none=True)
        for k, part in enumerate(parts):
            with unsynced(self._generate, k + 1 < len(parts)):
                pred = self._predict(part) if first is None else first
                found = self._losses(part, pred, adversary)
                share = part.target.shape[0] / rows.target.shape[0]
                with phase("generator"):
                    (found["total"] * share).backward()
            for name, value in found.items():
                now = value.detach() * share
                losses[name] = losses[name] + now if name in losses else now
        with phase("update"):
            norm = nn.utils.clip_grad_norm_(self.generator.parameters(), self.config.clip)
            self.optimizer.step()
        bad = ~torch.isfinite(rows.inputs).flatten(1).all(1)
        bad |= ~torch.isfinite(rows.target).flatten(1).all(1).to(bad.device)
        return losses | critic | {"grad_norm": norm, "bad_tiles": bad.sum().float()}

    def _parts(self, rows: Batch) -> list[Batch]:
        """The batch on the device, or its parts of `micro_batch` tiles, still where they are."""
        if rows.target.shape[0] <= self.micro_batch:
            return [self._moved(rows)]
        split = zip(*(torch.split(t, self.micro_batch) for t in rows), strict=True)
        return [Batch(*part) for part in split]

    def _moved(self, part: Batch) -> Batch:
        cuda = self.device.type == "cuda"  # elsewhere the source may be gone too early
        x, *rest = (t.to(self.device, non_blocking=cuda) for t in part)
        return Batch(x.contiguous(memory_format=torch.channels_last), *rest)

    def _predict(self, part: Batch) -> Tensor:
        x = self._moved(part).inputs
        with self._autocast():
            pred: Tensor = self._generate(x)
        return pred.float()

    def _losses(self, part: Batch, pred: Tensor, adversary: bool) -> dict[str, Tensor]:
        """Losses of one part, each the mean over its tiles, and their weighted ``total``."""
        part = self._moved(part)
        losses: dict[str, Tensor] = {}
        for name in self.content:
            if name == "likelihood" and self.progress() < self.config.likelihood_start:
                continue
            with phase("fft" if name in FOURIER else "generator"):
                losses[name] = LOSSES[name](pred, part)
        terms = [self.content[name] * loss for name, loss in losses.items()]
        if adversary and self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            scores = self._scores(self.discriminator, part.inputs, pred)
            self.discriminator.requires_grad_(True)
            mode = self.config.adversarial_mode
            losses["adversarial"] = generator_adversarial_loss(scores, mode)
            terms.append(self.weight_adversarial * losses["adversarial"])
        return losses | {"total": torch.stack(terms).sum()}

    def _adversary_acts(self) -> bool:
        started = self.progress() >= self.config.adversarial_start
        return self.discriminator is not None and started and self.discriminator_every > 0

    def _discriminator_step(self, parts: list[Batch], pred: Tensor | None, rate: float) -> Tensor:
        """Update the discriminator on the generator's present predictions; its loss."""
        if self._critic_loss is not None and self._critic_loss[0] == self.step:
            return self._critic_loss[1]  # done before memory ran out in the same step
        for group in self.optimizer_d.param_groups:
            group["lr"] = self.config.discriminator_lr * rate
        self.optimizer_d.zero_grad(set_to_none=True)
        count = sum(part.target.shape[0] for part in parts)
        total = torch.zeros((), device=self.device)
        for k, part in enumerate(parts):
            if pred is None:
                with torch.no_grad(), self._autocast():
                    fake = self.generator(self._moved(part).inputs).float()
            else:
                fake = pred.detach()
            x, true, *_ = self._moved(part)
            with unsynced(self._discriminate, k + 1 < len(parts)):
                both = torch.cat([x, x]), torch.cat([true, fake[:, :1]])
                real_score, fake_score = self._scores(self._discriminate, *both).chunk(2)
                loss = discriminator_loss(real_score, fake_score, self.config.adversarial_mode)
                loss = loss * (part.target.shape[0] / count)
                loss.backward()
            total = total + loss.detach()
        if self.step % self.discriminator_every == 0:
            self.optimizer_d.step()
        self._critic_loss = self.step, total
        return total

    def _scores(self, discriminate: nn.Module, x: Tensor, background: Tensor) -> Tensor:
        with self._autocast():
            scores: Tensor = discriminate(torch.cat([x, background[:, :1]], dim=1))[-1]
        return scores.float()

    @torch.no_grad()
    def _update_average(self) -> None:
        # short memory at first, so that the average is never dominated by the start
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.generator.parameters()), 1 - decay
        )

    # -- when it goes wrong -----------------------------------------------------------------

    def _halve(self) -> None:
        """Work in parts half as large; the gradients of a step's parts add up."""
        held = f"{self.micro_batch} tile" + "s" * (self.micro_batch > 1)
        remedy = "choose a smaller network, field_px or micro_batch, or another device"
        if self.world.size > 1:  # the others are in the middle of the same step
            raise DeviceError(f"device {self.device}: out of memory with {held} at once; {remedy}")
        if self.micro_batch == 1:
            raise DeviceError(f"device {self.device}: too little memory for one tile; {remedy}")
        self.micro_batch = (self.micro_batch + 1) // 2
        self._drop_gradients()
        said = f"step {self.step + 1}: device {self.device} is out of memory with {held} at once"
        self.news.append(f"{said}; going on with {self.micro_batch} at once, same batch")

    def _drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
            self.optimizer_d.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def agree_on_memory(self, batch: Batch) -> None:
        """Find, before several processes work in step, how many tiles fit on every device."""
        if self.world.size == 1:
            return
        rows, random, fits = self.world.part(batch), torch.get_rng_state(), 0
        while not fits:
            try:
                fits = self._tried(self._parts(rows)[0])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.micro_batch == 1:
                    raise
                self.micro_batch = (self.micro_batch + 1) // 2
        self._drop_gradients()
        torch.set_rng_state(random)
        self.micro_batch = self.world.least(fits)

    def _tried(self, part: Batch) -> int:
        """Number of tiles that may go through; what an attempt holds ends with it."""
        with self._autocast():
            pred = self.generator(self._moved(part).inputs).float()
        self._losses(part, pred, self.discriminator is not None)["total"].backward()
        return self.micro_batch

    def tame_discriminator(self) -> str:
        """Train a discriminator that has won less often, or switch it off; says which."""
        harsh = self.config.watchdog.collapse == "off"
        if harsh or self.discriminator_every >= RAREST_DISCRIMINATOR:
            self.discriminator_every = 0
            return "the adversarial part is switched off"
        self.discriminator_every *= 2
        return f"it now learns every {self.discriminator_every} steps"

    def whole(self) -> bool:
        """Return True if every weight is finite. CPU-GPU sync here."""
        sums = [p.detach().float().sum() for p in self.generator.parameters()]
        return bool(torch.isfinite(torch.stack(sums)).all())

    def take_pending(self, *, clear: bool = True) -> dict[str, float]:
        """Mean of each loss since the last log line, over all processes. CPU-GPU sync here."""
        count = max(self.pending_steps, 1)
        means = {name: float(value) / count for name, value in self.pending.items()}
        if clear:
            self.pending, self.pending_steps = {}, 0
        return self.world.mean(means)

    # -- state ------------------------------------------------------------------------------

    def validate(self, cases: dict[str, Batch]) -> dict[str, float]:
        """Validate the averaged weights, see `WeightBlend.validate`."""
        return self.blend.validate(self.average, cases, min(self.micro_batch, AT_ONCE), self.step)

    def move(self, device: torch.device) -> None:
        """Take weights and moments to another device, as while the run waits."""
        for network in (self.generator, self.average, self.discriminator):
            if network is not None:
                network.to(device)
        for optimizer in (self.optimizer, getattr(self, "optimizer_d", None)):
            for moments in optimizer.state.values() if optimizer else ():
                for key, value in moments.items():
                    moments[key] = value.to(device) if isinstance(value, Tensor) else value
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        held = {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "pending": {name: value.cpu() for name, value in self.pending.items()},
            "watchdog": self.watchdog.state(),
        }
        held |= {name: getattr(self, name) for name in COUNTERS}
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
        fits = self.micro_batch
        for name in COUNTERS:
            if name in held:
                setattr(self, name, held[name])
        self.micro_batch = min(fits, self.micro_batch)
        self.pending = {k: v.to(self.device) for k, v in held.get("pending", {}).items()}
        if "watchdog" in held:
            self.watchdog.restore(held["watchdog"])
        torch.set_rng_state(held["rng"])
        if self.device.type == "cuda" and "rng_cuda" in held:
            torch.cuda.set_rng_state(held["rng_cuda"], self.device)
        self.busy, self._critic_loss = False, None


COUNTERS = (
    "step", "elapsed_s", "best", "since_best", "validation_start", "micro_batch", "rate_scale",
    "rollbacks", "discriminator_every", "pending_steps", "energy",
)  # fmt: skip
FOURIER = frozenset({"fft_l1", "fft_amplitude", "focal_frequency", "frc"})
