"""How far a reference is off: what its age suggests, corrected by what can be seen.

The network is asked how much it would change the reference if that were off by `ASKED`. The
change grows with the true error: over simulated sessions its rms is ``sqrt((GAIN e)^2 +
FLOOR^2)`` times a log-normal factor, part of which is the session's, part the tile's (its
specimen's). The true errors scatter, log-normal too, around what the age suggests; less so
where several references tell by their differences how fast this session drifts. Bayes' rule
gives the error to expect. `benchmarks/expected_error.py` prints the constants.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ASKED", "BY_AGE", "UNDATED", "UNDATED_RMS", "belief", "drift_factor", "rms_change"]

ASKED = 0.14  # rms told when asking
BY_AGE = (0.15, 0.55)  # mean and sd of log(true error / suggested by the age)
BY_DIFFERENCES = (0.05, 0.47)  # of log(true / suggested / how much more references differ)
UNDATED_RMS = 0.045  # suggested where nothing tells the age
UNDATED = (0.0, 1.0)
GAIN, FLOOR = 0.65, 0.047  # of the change: from drift, and from specimens
SESSION_SCATTER, TILE_SCATTER = 0.2, 0.36  # sd of the logarithm of the change
FACTORS = np.geomspace(1 / 12, 12, 201)


def rms_change(change: NDArray[np.float32], step: int = 4) -> float:
    """Scale-free rms of a change `(Y, X)` of a log background, apertured corners clipped.

    Parameters
    ----------
    change : (Y, X) float32
    step : int
        Every so manyth pixel is looked at.
    """
    part = change[::step, ::step]
    low, high = np.percentile(part, [2, 98])
    return float(np.std(np.clip(part, low, high)))


def belief(log_ratios: Sequence[float]) -> tuple[float, float]:
    """What is known of ``log(true error / suggested by the age)`` before tiles are looked at.

    Parameters
    ----------
    log_ratios : sequence of float
        For pairs of references: ``log(rms difference / suggested by the time between)``.

    Returns
    -------
    mean, sd : float
    """
    if not log_ratios:
        return BY_AGE
    share = len(log_ratios) / (len(log_ratios) + 0.6)
    by_differences = BY_DIFFERENCES[0] + float(np.mean(log_ratios))
    return (1 - share) * BY_AGE[0] + share * by_differences, BY_DIFFERENCES[1]


def drift_factor(
    suggested: float,
    changes: Sequence[float],
    specimens: int,
    known: tuple[float, float] = BY_AGE,
) -> float:
    """Expected error of a reference as a multiple of what its age suggests.

    Parameters
    ----------
    suggested : float
        Scale-free rms error that the age suggests (`priors.expected_drift`).
    changes : sequence of float
        `rms_change` of what the network would change, told `ASKED`, one for each tile. Their
        median counts, so that a tile whose specimen is taken for drift does not.
    specimens : int
        How many different ones the tiles show.
    known : (mean, sd)
        See `belief`.

    Returns
    -------
    float
        Geometric mean of the factor given the changes, between 1/12 and 12.
    """
    # A change much less than specimens alone make tells no more than that drift is small.
    seen = np.log(max(float(np.median(changes)), FLOOR / 2))
    spread = np.hypot(SESSION_SCATTER, TILE_SCATTER / np.sqrt(max(specimens, 1)))
    log_factor = np.log(FACTORS)
    change = 0.5 * np.log((GAIN * suggested * FACTORS) ** 2 + FLOOR**2)
    unlikely = ((log_factor - known[0]) / known[1]) ** 2 + ((seen - change) / spread) ** 2
    weight = np.exp(-0.5 * (unlikely - unlikely.min()))
    return float(np.exp((weight * log_factor).sum() / weight.sum()))
