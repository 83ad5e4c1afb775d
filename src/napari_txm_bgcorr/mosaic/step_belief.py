"""Most likely shift of two tiles, from their scores and from the step common to all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .matching import Scores, around

__all__ = ["Belief", "FoundShift", "common_step", "most_likely"]

Floats = NDArray[np.float64]

TEMPER = 0.5  # of the log likelihood: structures alike in kind correlate by chance, too
STAGE_SD = 0.025  # of the tile: of single steps about the common one, before it is known
USUAL = 4  # steps that this stands for, against what is measured of a scan
LEAST_SD, MOST_SD = 0.008, 0.08
OUTLIERS = 0.2  # share of pairs that tell nothing of the step, or something wrong
CERTAIN = 2.5  # standard deviations of the mean: a step less far off is the nominal one
LEAST_EVIDENCE = 5.0  # log: two pairs that agree, more than one can tell
STRAYS = 0.02  # share of steps that are anywhere
NEAR = 2  # bins about a peak that are one with it
SURE = 0.97  # probability of a match
LEAST_SCORE = 3.0  # and its likeness: belief alone is no match


@dataclass(frozen=True, eq=False)
class Belief:
    """Prior of a shift, before two tiles are compared.

    Attributes
    ----------
    shift : (2,) float64
        (y, x), bins.
    sd : float
        Standard deviation in each direction, bins.
    strays : float
        Share of shifts that are outliers: anywhere, with equal probability.
    """

    shift: Floats
    sd: float
    strays: float


@dataclass(frozen=True)
class FoundShift:
    """Most likely shift of a pair: its place in the scores, and whether it is certain."""

    at: tuple[int, int]
    sure: bool


def most_likely(scores: Scores, belief: Belief) -> FoundShift | None:
    """Find the shift of highest posterior probability: likelihood of the scores times the prior.

    Returns
    -------
    FoundShift or None
        Sure where the peak holds nearly all probability and does not lie at the border of what
        was looked at. None where no shift is known.
    """
    known = np.isfinite(scores.values)
    if not known.any():
        return None
    y, x = (scores.first[a] + np.arange(n) for a, n in enumerate(scores.values.shape))
    off = (y[:, None] - belief.shift[0]) ** 2 + (x - belief.shift[1]) ** 2
    prior = np.exp(-off / (2 * belief.sd**2)) * (1 - belief.strays) / (2 * np.pi * belief.sd**2)
    prior += belief.strays / known.sum()
    with np.errstate(divide="ignore"):
        log = np.where(known, _log_likelihood(scores) + np.log(prior / prior.max()), -np.inf)
    row, column = np.unravel_index(int(np.argmax(log)), log.shape)
    at = (int(row), int(column))
    chance = np.exp(log - log[at])
    clear = scores.values[at] >= LEAST_SCORE and scores.inner(at)
    return FoundShift(at, clear and float(around(chance, at, NEAR).sum() / chance.sum()) >= SURE)


def common_step(
    maps: Sequence[Scores | None], nominal: Floats, side: int
) -> tuple[Belief, Floats]:
    """Find the step that the pairs of one direction have in common.

    Every pair votes by its likelihood, blurred by how far single steps stray, so that many weak
    ones tell what none tells alone, and a single wrong one little.

    Parameters
    ----------
    maps : sequence of Scores or None
        All about the same nominal step.
    nominal : (2,) float64
        (y, x), bins.
    side : int
        Of a tile, bins.

    Returns
    -------
    Belief, (2,) float64
        About every shift of this direction; and the step to lay tiles out by that nothing is seen
        of: the nominal one, unless what was found is off by more than its own uncertainty.
    """
    loose = Belief(nominal, MOST_SD * side, STRAYS)
    seen = [scores for scores in maps if scores is not None]
    if not seen:
        return loose, nominal
    sd = STAGE_SD * side
    votes = np.sum([_vote(scores, sd) for scores in seen], axis=0)
    at = np.unravel_index(int(np.argmax(votes)), votes.shape)
    if votes[at] < LEAST_EVIDENCE:
        return loose, nominal
    belief = Belief(np.asarray(seen[0].first + at, np.float64), sd, STRAYS)
    count = 1
    for _ in range(3):
        found = [(s, most_likely(s, belief)) for s in seen]
        shifts = np.array([s.top(f.at) for s, f in found if f is not None and f.sure])
        if len(shifts) < 2:
            break
        count = len(shifts)
        middle = np.median(shifts, axis=0)
        spread = min(1.4826 * float(np.median(np.abs(shifts - middle))), MOST_SD * side)
        variance = ((STAGE_SD * side) ** 2 * USUAL + spread**2 * count) / (USUAL + count)
        belief = Belief(middle, max(float(np.sqrt(variance)), LEAST_SD * side), STRAYS)
    off = belief.shift - nominal
    doubt = CERTAIN**2 * belief.sd**2 / count
    return belief, nominal + off * max(0.0, 1 - doubt / max(float(off @ off), 1e-12))


def _log_likelihood(scores: Scores) -> Floats:
    """Log likelihood `(h, w)` of each shift; 0 where it is unlike, or unknown."""
    z = np.nan_to_num(scores.values).astype(np.float64)
    return TEMPER * np.square(np.maximum(z, 0)) / 2


def _vote(scores: Scores, sd: float) -> Floats:
    """Log evidence `(h, w)` of one pair for each common step; 0 where it is blind."""
    log = _log_likelihood(scores)
    like = np.exp(log - log.max())
    blurred = ndimage.gaussian_filter(like, sd, mode="constant", truncate=3)
    out: Floats = np.log((1 - OUTLIERS) * blurred / like.mean() + OUTLIERS)
    return out
