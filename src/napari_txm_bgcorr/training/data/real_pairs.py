"""Real pairs: raw images and the backgrounds that were measured for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_txm_bgcorr.models import UNKNOWN, Pairs, floored_log
from napari_txm_bgcorr.training.config import DataConfig

from .augment import drift_of, log_uniform, low_passed
from .composed import UNLIT_WEIGHT, Draw, told
from .storage import Images

__all__ = ["RealPairs"]


@dataclass(frozen=True, eq=False)
class RealPairs:
    """Draw real pairs with priors made from their backgrounds.

    A stale prior is the background of another pair of the same session, or the own one
    drifted. The median over tiles is that of the session's raw images, if there are enough.

    Attributes
    ----------
    raws, backgrounds : Images
        Number `k` of both belong together.
    usable : (M,) int64
        Numbers that may be used.
    data : DataConfig
    """

    raws: Images
    backgrounds: Images
    usable: NDArray[np.int64]
    data: DataConfig

    def draw(self, cases: list[str], draw: Draw) -> Pairs:
        """Random pairs, one a case."""
        both = np.intersect1d(self.raws.window(draw.batch), self.backgrounds.window(draw.batch))
        allowed = np.intersect1d(self.usable, both)
        allowed = allowed if len(allowed) else self.usable
        return self.pairs(draw.rng.choice(allowed, len(cases)), cases, draw)

    def pairs(self, chosen: NDArray[np.int64], cases: list[str], draw: Draw) -> Pairs:
        """The pairs `chosen`, each with the prior of its case."""
        log_raw = floored_log(self.raws.take(chosen, draw.batch).counts)
        taken = self.backgrounds.take(chosen, draw.batch)
        log_background = floored_log(taken.counts)
        weight = UNLIT_WEIGHT + (1 - UNLIT_WEIGHT) * taken.lit
        prior = log_background.clone()
        for k, case in enumerate(cases):
            if case != "none":
                prior[k] = self._prior(int(chosen[k]), case, log_background[k : k + 1], draw)[0]
        free = torch.full_like(weight, UNKNOWN)
        rms = weight.new_zeros(len(cases))
        pairs = Pairs(log_raw, log_background, prior, weight, rms, free)
        return told(pairs, cases, self.data.staleness_sigma, draw.rng)

    def _prior(self, number: int, case: str, log_background: Tensor, draw: Draw) -> Tensor:
        if case == "smooth":
            sigma = log_background.shape[-1] / 256 * np.exp(draw.rng.uniform(1.4, 3.7))
            return low_passed(log_background, sigma)
        sessions = self.backgrounds.sessions
        same = self.usable[(sessions[self.usable] == sessions[number]) & (self.usable != number)]
        if case == "tile-median" and len(same) >= 4:
            others = draw.rng.choice(same, min(len(same), 16), replace=False)
            logs = floored_log(self.raws.take(others, draw.batch).counts)
            return (
                (logs - logs.flatten(1).median(1).values.view(-1, 1, 1, 1)).median(0).values[None]
            )
        if len(same) and draw.rng.random() < 0.5:
            other = draw.rng.choice(same, 1)
            return floored_log(self.backgrounds.take(other, draw.batch).counts)
        hours = log_uniform(draw.random, 1, 1 / 60, self.data.max_age_h).flatten()
        return log_background + drift_of(log_background, hours, draw.random)
