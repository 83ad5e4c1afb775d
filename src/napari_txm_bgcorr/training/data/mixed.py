"""Several kinds of pairs in every batch, by weight.

What costs CPU time (simulated sessions and specimens) is made by worker processes
(`PartMaker`, which holds no image); what is composed of images is made on the device, in the
training process (`MixedPairs.finish`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_txm_bgcorr.core import TrainingData
from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models import UNKNOWN, Pairs
from napari_txm_bgcorr.simulation import draw_specimen
from napari_txm_bgcorr.training.config import TrainConfig

from .composed import Composer, Draw, draw_cases
from .real_pairs import RealPairs
from .session_pattern import SharedPattern
from .simulated import SimulatedPairs
from .split import Split, split
from .storage import Images, hold

__all__ = ["KINDS", "MixedPairs", "PartMaker", "Parts", "active_mix", "validation_tells"]

KINDS = ("pairs", "samples", "references", "simulated")
VALIDATION_CASES = ("none", "stale", "tile-median")


def active_mix(config: TrainConfig, data: TrainingData) -> dict[str, float]:
    """Shares of the kinds that have data, summing to 1.

    Raises
    ------
    ConfigError
        If a name is no kind, or nothing is left to learn from.
    """
    wanted = config.data.mix or {config.data.kind: 1.0}
    for name in wanted:
        if name not in KINDS:
            raise ConfigError(f"data.mix: {name!r} is unknown; choose from {', '.join(KINDS)}")
    there = data.counts()
    if there["samples"] and not there["references"]:
        raise ConfigError("data.samples: clean samples need data.references to lie on; give some")
    has = {
        "pairs": there["pairs"] > 0,
        "samples": there["samples"] > 0,
        "references": there["references"] > 0,
        "simulated": True,
    }
    kept = {name: weight for name, weight in wanted.items() if weight > 0 and has[name]}
    if not kept or (config.init is not None and set(kept) == {"simulated"} != set(wanted)):
        raise ConfigError(
            f"data.mix: {', '.join(wanted)}: nothing to learn from; give --references, "
            "--samples with references, or --pairs"
        )
    total = sum(kept.values())
    return {name: kept[name] / total for name in KINDS if name in kept}


def validation_tells(config: TrainConfig, data: TrainingData) -> tuple[str, ...]:
    """Sentences on the images held out of each kind, and so on what the validation measures.

    Raises
    ------
    ConfigError
        As `active_mix`.
    """
    mix = active_mix(config, data)
    roles = {
        "references": data.references if {"references", "samples"} & set(mix) else (),
        "samples": data.samples if "samples" in mix else (),
        "pairs": data.backgrounds if "pairs" in mix else (),
    }
    found = []
    for role, stacks in roles.items():
        sessions = [session for stack in stacks for session in stack.sessions]
        if sessions:
            found.append(split(sessions, config.data.validation_seed, role).tells)
    return tuple(found)


class Parts(NamedTuple):
    """Parts of a batch that worker processes make.

    Attributes
    ----------
    simulated : Pairs or None
    specimens : (N, 1, F, F) float32 Tensor or None
        Transmissions for the references.
    """

    simulated: Pairs | None
    specimens: Tensor | None


@dataclass(frozen=True)
class Shares:
    """Number of tiles of each kind in a batch: the weights on average, whole numbers each time."""

    mix: tuple[tuple[str, float], ...]
    batch: int
    seed: int

    def of(self, index: int) -> dict[str, int]:
        """Number of tiles by kind in batch `index`."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(6, index)))
        edges = np.cumsum([0.0, *(share for _, share in self.mix)])
        edges[-1] = 1.0
        counts = np.diff(np.floor(edges * self.batch + rng.random()).astype(int))
        return {name: int(n) for (name, _), n in zip(self.mix, counts, strict=True)}


class PartMaker:
    """Make a batch's parts that need no image; can be pickled.

    Parameters
    ----------
    config : TrainConfig
    shares : Shares
    """

    def __init__(self, config: TrainConfig, shares: Shares) -> None:
        self.shares, self.field_px = shares, config.network.field_px
        self.source = SimulatedPairs(config)

    def parts(self, index: int) -> Parts:
        """Parts of batch `index`."""
        counts = self.shares.of(index)
        simulated = counts.get("simulated", 0)
        specimens = counts.get("references", 0)
        return Parts(
            self.source.draw(index, simulated) if simulated else None,
            self._specimens(index, specimens) if specimens else None,
        )

    def _specimens(self, index: int, count: int) -> Tensor:
        rng = np.random.default_rng(np.random.SeedSequence(self.source.seed, spawn_key=(7, index)))
        drawn = [self.source.plain_specimen(rng, index) for _ in range(count)]
        return on_field(np.stack(drawn), self.field_px)


def on_field(transmissions: NDArray[np.float32], field_px: int) -> Tensor:
    """Simulated specimens `(N, Y, X)` averaged to the field: `(N, 1, F, F)`."""
    stack = torch.from_numpy(transmissions)[:, None]
    if stack.shape[-1] == field_px:
        return stack
    return functional.interpolate(stack, (field_px, field_px), mode="area")


def _measured(pairs: Pairs) -> Pairs:
    """Pairs under measured transmissions, whose noise hides which pixels are free of sample."""
    return pairs._replace(free=torch.full_like(pairs.free, UNKNOWN))


class MixedPairs:
    """A source of pairs of several kinds; see `pairs.PairSource`.

    Parameters
    ----------
    config : TrainConfig
    data : TrainingData
    device : device
        Where images live and batches are put together.

    Attributes
    ----------
    notes : tuple of str
        What is held out, and so what the validation can tell.
    residency : dict
        Where the images of each role live.
    """

    def __init__(self, config: TrainConfig, data: TrainingData, device: torch.device) -> None:
        self.config, self.device = config, device
        mix = active_mix(config, data)
        self.maker = PartMaker(config, Shares(tuple(mix.items()), config.batch, config.seed))
        self.notes: tuple[str, ...] = ()
        self.residency: dict[str, str] = {}
        self.composer: tuple[Composer, Composer] | None = None  # training, validation
        self.real: tuple[RealPairs, RealPairs] | None = None
        self.samples: tuple[Images, Split] | None = None
        if "references" in mix or "samples" in mix:
            images, parts = self._held(data.references, "references")
            self.composer = (
                self._composer(images, parts.train),
                self._composer(images, parts.validation),
            )
        if "samples" in mix:
            self.samples = self._held(data.samples, "samples")
        if "pairs" in mix:
            raws, _ = self._held(data.raws, "raw")
            backgrounds, parts = self._held(data.backgrounds, "pairs")
            self.real = (
                RealPairs(raws, backgrounds, parts.train, config.data),
                RealPairs(raws, backgrounds, parts.validation, config.data),
            )

    def _held(self, stacks: Sequence[object], role: str) -> tuple[Images, Split]:
        data = self.config.data
        images = hold(stacks, data, self.config.network.field_px, self.device)  # type: ignore[arg-type]
        parts = split(images.sessions.tolist(), data.validation_seed, role)
        self.residency[role] = images.residency
        if role != "raw":  # raw images are split as their backgrounds
            self.notes = (*self.notes, parts.tells)
        return images, parts

    def _composer(self, images: Images, usable: NDArray[np.int64]) -> Composer:
        shared = SharedPattern(images, usable) if self.config.data.share_pattern else None
        return Composer(images, usable, self.config.data, shared)

    @property
    def on_device(self) -> bool:
        """True if every image is held on the device."""
        return set(self.residency.values()) <= {"device"}

    def draw(self, index: int) -> Pairs:
        """Batch `index` of the training stream."""
        return self.finish(index, self.maker.parts(index))

    def finish(self, index: int, parts: Parts) -> Pairs:
        """Compose batch `index` on the device from what the workers made and the images."""
        counts, data = self.maker.shares.of(index), self.config.data
        found: list[Pairs] = []
        if parts.simulated is not None:
            found.append(Pairs(*(t.to(self.device) for t in parts.simulated)))
        if parts.specimens is not None and self.composer is not None:
            draw = Draw.of((8,), self.config.seed, index, self.device)
            cases = draw_cases(data, draw.rng, len(parts.specimens))
            found.append(self.composer[0].compose(parts.specimens.to(self.device), cases, draw))
        if (count := counts.get("samples", 0)) and self.samples and self.composer:
            draw = Draw.of((9,), self.config.seed, index, self.device)
            cases = draw_cases(data, draw.rng, count)
            images, halves = self.samples
            allowed = np.intersect1d(halves.train, images.window(index))
            allowed = allowed if len(allowed) else halves.train
            taken = images.take(draw.rng.choice(allowed, count), index)
            found.append(_measured(self.composer[0].compose(taken.counts, cases, draw)))
        if (count := counts.get("pairs", 0)) and self.real is not None:
            draw = Draw.of((10,), self.config.seed, index, self.device)
            found.append(self.real[0].draw(draw_cases(data, draw.rng, count), draw))
        return self._shuffled(index, found)

    def _shuffled(self, index: int, found: list[Pairs]) -> Pairs:
        """Kinds mixed, so that any part of the batch holds some of each."""
        rng = np.random.default_rng(
            np.random.SeedSequence(self.config.seed, spawn_key=(11, index))
        )
        order = torch.from_numpy(rng.permutation(self.config.batch)).to(self.device)
        return Pairs(*(torch.cat(parts)[order] for parts in zip(*found, strict=True)))

    def validation(self) -> dict[str, Pairs]:
        """Fixed tiles by case: of the user's images first, then of simulated sessions.

        Cases of several kinds are told apart by a prefix: ``pairs-none``, ``samples-none``,
        ``simulated-none``; those without prefix are references under simulated specimens.
        """
        found: dict[str, Pairs] = {}
        mix = dict(self.maker.shares.mix)
        if "references" in mix and self.composer is not None:
            found |= self._composed("", self._new_specimens())
        if self.samples is not None and self.composer is not None:
            images, halves = self.samples
            chosen = np.resize(halves.validation, self._tiles())
            composed = self._composed("samples-", images.take(chosen, -1).counts)
            found |= {case: _measured(pairs) for case, pairs in composed.items()}
        if self.real is not None:
            chosen = np.resize(self.real[1].usable, min(len(self.real[1].usable), 64))
            for case in VALIDATION_CASES[:2]:
                draw = self._fixed(12)
                found[f"pairs-{case}"] = self.real[1].pairs(chosen, [case] * len(chosen), draw)
        if "simulated" in mix:
            own = self.maker.source.validation()
            found |= {f"simulated-{case}": own[case] for case in VALIDATION_CASES[:2]}
        return {case: Pairs(*(t.cpu() for t in pairs)) for case, pairs in found.items()}

    def _tiles(self) -> int:
        return 4 * self.config.data.validation_sessions

    def _fixed(self, key: int) -> Draw:
        return Draw.of((key,), self.config.data.validation_seed, -1, self.device)

    def _new_specimens(self) -> Tensor:
        """Specimens that no training batch sees."""
        data = self.config.data
        rng = np.random.default_rng(np.random.SeedSequence(data.validation_seed, spawn_key=(13,)))
        shape = (data.simulate_px, data.simulate_px)
        drawn = [draw_specimen(rng, shape) for _ in range(self._tiles())]
        return on_field(np.stack(drawn), self.config.network.field_px).to(self.device)

    def _composed(self, prefix: str, transmission: Tensor) -> dict[str, Pairs]:
        """Every held-out reference once, the same exposure with each kind of prior."""
        if self.composer is None:
            return {}
        composer = self.composer[1]
        chosen = np.resize(composer.usable, len(transmission))
        found = {}
        for case in VALIDATION_CASES:
            draw = self._fixed(14)  # the same numbers: the same exposures
            found[prefix + case] = composer.exposures(
                chosen, transmission, [case] * len(chosen), draw
            )
        return found
