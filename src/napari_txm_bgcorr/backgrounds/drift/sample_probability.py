"""Probability that a place of a tile is free of sample, from what its background leaves.

What is left of a free place is narrow about 0. What is left of the sample is broad and mostly
negative: absorption dims, phase fringes brighten a little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["free_probability", "highest_mode"]

Floats = NDArray[np.float64]

ABSORBED = 1.0  # log: the sample dims by anything up to about this much
FRINGE = 0.03  # log: decay of the bright side of phase fringes
BRIGHTEST = 80.0  # of these: what is brighter still is as improbable
SHARES = (0.02, 0.98)  # of a tile that may be free
ROUNDS = 5
BELIEF = 0.25  # in the logarithm of a network's odds
BIN = 0.004  # log, of the histogram whose modes are looked for
HIGH = 0.35  # of the greatest mode: least height of another one


def free_probability(
    left: NDArray[Any], width: float, prior: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Probability of each cell to be free of sample, by a mixture of two densities.

    Free cells are normal about 0; sample is uniform on the dark side and exponential on the
    bright one. The share of free cells is estimated for each tile (expectation maximisation).

    Parameters
    ----------
    left : (T, n) float32
        Log counts less the log background, 0 where free.
    width : float
        Standard deviation of free cells, log.
    prior : (T, n) float32 or None
        Probabilities known beforehand, from a network for instance.

    Returns
    -------
    (T, n) float32
    """
    left = np.asarray(left, np.float32)
    free = np.exp(-0.5 * (left / width) ** 2) / np.float32(width * np.sqrt(2 * np.pi))
    # Never quite 0: a place that is far too bright is no free one either.
    sample = np.exp(-np.clip(left / FRINGE, 0, BRIGHTEST)).astype(np.float32)
    sample /= np.float32(ABSORBED)
    odds = np.float32(1) if prior is None else _odds(prior)
    share = np.full((len(left), 1), 0.5, np.float32)
    for _ in range(ROUNDS):
        weight = share * free * odds
        weight /= weight + (1 - share) * sample
        share = np.clip(weight.mean(axis=1, keepdims=True), *SHARES).astype(np.float32)
    return weight.astype(np.float32)


def _odds(prior: NDArray[Any]) -> NDArray[np.float32]:
    """Tempered odds of a network's probabilities: bounded by `SHARES`, to the power `BELIEF`."""
    bounded = np.clip(np.asarray(prior, np.float32), *SHARES)
    out: NDArray[np.float32] = (bounded / (1 - bounded)) ** np.float32(BELIEF)
    return out


def highest_mode(values: NDArray[Any]) -> float:
    """Brightest well-filled mode of the log residuals of one tile: its level, to begin with.

    Nothing in a tile is brighter over an area than the open beam.

    Parameters
    ----------
    values : (n,) float32
        Log.
    """
    low, high = np.percentile(values, (0.5, 99.5))
    counts, edges = np.histogram(values, bins=np.arange(low - 0.01, high + 0.014, BIN))
    smooth = np.pad(ndimage.gaussian_filter(counts.astype(float), 2, mode="constant"), 1)
    inner = smooth[1:-1]
    peak = (inner >= smooth[:-2]) & (inner >= smooth[2:]) & (inner > HIGH * inner.max())
    place = int(np.flatnonzero(peak)[-1]) if peak.any() else int(inner.argmax())
    return float(edges[place] + BIN / 2)
