"""Interpolation between the weights before and after a fine-tuning, by validation error.

The weights on the straight line from a model to its fine-tuned self often do better than either
(M. Wortsman et al., "Robust fine-tuning
of zero-shot models", CVPR 2022). The training itself knows nothing of it: only what is
validated and exported is blended, so a resumed run stays exact.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from napari_txm_bgcorr.models import Batch

from .config import TrainConfig
from .validation import validate

__all__ = ["WeightBlend", "blend_of"]


class WeightBlend:
    """Draw a network's weights towards those it had at the start.

    Parameters
    ----------
    network : Module
        With the weights of the start, which are copied to the CPU.
    shares : sequence of float
        Shares of the later weights to try, above 0 to 1; empty: never blend.
    judged : sequence of str
        Cases whose mean error tells the best; see `validation.validate`.

    Attributes
    ----------
    share : float
        The best of them at the last validation; 1: the later weights alone.
    """

    def __init__(
        self, network: nn.Module, shares: Sequence[float], judged: Sequence[str] = ()
    ) -> None:
        self.shares, self.share, self.judged = tuple(shares), 1.0, tuple(judged)
        named = network.named_parameters() if shares else ()
        self.start = {name: value.detach().cpu().clone() for name, value in named}

    def validate(
        self, network: nn.Module, cases: Mapping[str, Batch], at_once: int, step: int
    ) -> dict[str, float]:
        """`validation.validate` at the best share, which is kept; at step 0 all are alike."""
        device = next(network.parameters()).device
        found = {
            share: validate(self.of(network, share), cases, device, at_once, self.judged)
            for share in (self.shares if step else ()) or (1.0,)
        }
        self.share = min(found, key=lambda share: found[share]["mean"])
        return found[self.share]

    @torch.no_grad()
    def of(self, network: nn.Module, share: float | None = None) -> nn.Module:
        """The network at a share (None: the best so far): a copy, or itself at 1."""
        share = self.share if share is None else share
        if share == 1:
            return network
        blended = copy.deepcopy(network)
        for name, value in blended.named_parameters():
            value.copy_(torch.lerp(self.start[name].to(value), value, share))
        return blended


def blend_of(network: nn.Module, config: TrainConfig) -> WeightBlend:
    """Build the blend that a run's settings ask for; without `init` it is the trained weights."""
    return WeightBlend(network, config.blend if config.init is not None else (), config.judge)
