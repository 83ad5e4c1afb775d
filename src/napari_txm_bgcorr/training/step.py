"""Record of a training step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["TrainStep"]


@dataclass(frozen=True)
class TrainStep:
    """Record of a training step; losses only at log intervals (reading them syncs the GPU).

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
    calibration : dict
        How true the stated uncertainty and free pixels are, see `validation`.
    improved : bool
        True if this is the least validation error so far.
    preview : dict of (F, F) float32
        ``raw``, ``prior``, ``predicted``, ``true`` log counts of one fixed tile.
    ended : str
        Reason why the training ends at this step; empty if it goes on.
    """

    step: int
    progress: float
    losses: dict[str, float] = field(default_factory=dict)
    lr: float = 0.0
    samples_per_s: float = 0.0
    elapsed_s: float = 0.0
    validation: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)
    improved: bool = False
    preview: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    ended: str = ""
