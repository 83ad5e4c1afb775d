"""Detection of diverging or collapsing trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_txm_bgcorr.errors import TxmError

__all__ = ["Diverged", "TrainError", "Watchdog", "WatchdogConfig"]

RECENT = 8  # healthy log intervals that losses are compared with
CHANCE = {"least_squares": 0.25, "hinge": 1.0, "vanilla": math.log(2)}  # a critic that guesses
WON = 0.05  # share of `CHANCE` below which the critic has won: nothing left to learn from it


class TrainError(TxmError):
    """The training went wrong: NaN or exploding losses, bad data; weights saved are good."""


class Diverged(TrainError):
    """The weights are spoilt; those of the last checkpoint are good."""


class WatchdogConfig(BaseModel):
    """Reactions to a training that goes wrong.

    Attributes
    ----------
    rollbacks : int
        How many times a run whose losses become NaN or explode goes back to its last good
        weights with a lower rate, before it ends.
    lower : float
        Factor on the learning rate each time.
    explode : float
        Losses this many times the median of the last log intervals have exploded.
    collapse : str
        A discriminator that wins for `collapse_after` log intervals in a row is trained less
        often ("rebalance": every 2nd, 4th, 8th step, then it is switched off), is switched
        off with its part of the loss ("off"), or is left alone ("ignore").
    collapse_after : int
        Log intervals.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rollbacks: int = Field(default=3, ge=0)
    lower: float = Field(default=0.5, gt=0, lt=1)
    explode: float = Field(default=20.0, gt=1)
    collapse: Literal["rebalance", "off", "ignore"] = "rebalance"
    collapse_after: int = Field(default=5, ge=1)


class Watchdog:
    """Judges the losses of each log interval.

    Parameters
    ----------
    config : WatchdogConfig
    content : mapping
        Weights of the losses that are no adversary's: their weighted sum is what may explode.
    mode : str
        Kind of adversarial loss.
    """

    def __init__(self, config: WatchdogConfig, content: Mapping[str, float], mode: str) -> None:
        self.config, self.content, self.chance = config, dict(content), CHANCE[mode]
        self.recent: list[float] = []
        self.wins = 0

    def judge(self, losses: Mapping[str, float], step: int) -> None:
        """Raise if these losses come from spoilt weights or spoilt data.

        Raises
        ------
        TrainError
            If the data held NaN or infinities.
        Diverged
            If a loss is NaN, infinite, or far beyond the last ones.
        """
        if losses.get("bad_tiles", 0) > 0:
            raise TrainError(
                f"step {step}: the data set holds tiles with NaN or infinities; remove them, "
                "checkpoints before this step are good"
            )
        for name, value in losses.items():
            if not math.isfinite(value):
                raise Diverged(f"step {step}: loss {name} is {value}")
        now = sum(w * losses[name] for name, w in self.content.items() if name in losses)
        if len(self.recent) >= 3 and now > self.config.explode * median(self.recent):
            raise Diverged(
                f"step {step}: losses explode ({now:.3g}, lately {median(self.recent):.3g})"
            )
        self.recent = [*self.recent, now][-RECENT:]

    def collapsed(self, losses: Mapping[str, float]) -> bool:
        """Return True if the discriminator has won for so long that it teaches nothing more."""
        if "discriminator" not in losses or self.config.collapse == "ignore":
            return False
        won = losses["discriminator"] < WON * self.chance
        self.wins = self.wins + 1 if won else 0
        if self.wins < self.config.collapse_after:
            return False
        self.wins = 0
        return True

    def state(self) -> dict[str, Any]:
        """State that later judgements depend on, for `restore`."""
        return {"recent": list(self.recent), "wins": self.wins}

    def restore(self, held: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.recent, self.wins = [float(v) for v in held["recent"]], int(held["wins"])
