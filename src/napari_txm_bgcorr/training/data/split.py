"""Validation split: whole sessions are held out, or files if sessions are too few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Split", "split"]

SHARE = 0.15  # of the sessions (or files) held out
ENOUGH_SESSIONS = 4
ENOUGH_FILES = 5


@dataclass(frozen=True, eq=False)
class Split:
    """Numbers of images to train and to validate on.

    Attributes
    ----------
    train, validation : int64 arrays
        Disjoint, but for the case that all are trained on and repeated in validation.
    tells : str
        What the validation error can tell, one sentence.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    tells: str


def split(sessions: Sequence[str], seed: int, what: str = "references") -> Split:
    """Hold out whole sessions; where there are too few, files; of fewer than five, none.

    Tiles of one session are never spread over both sides while there are sessions enough. The
    newest session (the last by name) stays in training: it is the one being fine-tuned to.

    Parameters
    ----------
    sessions : sequence of str
        Session of each image.
    seed : int
        Of the validation set.
    what : str
        What the images are, for the sentence.
    """
    names = np.asarray(sessions)
    known, count = np.unique(names), len(names)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(5,)))
    everything = np.arange(count, dtype=np.int64)
    if len(known) >= ENOUGH_SESSIONS:
        held = rng.permutation(known[:-1])[: max(1, round(SHARE * len(known)))]
        out = np.isin(names, held)
        tells = (
            f"validation: {out.sum()} of {count} {what} ({len(held)} of {len(known)} sessions) "
            "held out, so its error is that of sessions unseen in training"
        )
    elif count >= ENOUGH_FILES:
        newest = np.flatnonzero(names == known[-1])
        pool = newest if len(newest) >= ENOUGH_FILES else everything
        out = np.zeros(count, bool)
        out[rng.permutation(pool)[: max(1, round(SHARE * len(pool)))]] = True
        tells = (
            f"validation: {out.sum()} of {count} {what} from {len(known)} sessions held out, so "
            "its error is that of other moments of these sessions, not of other sessions"
        )
    else:
        some = what if count > 1 else what.removesuffix("s")
        tells = (
            f"validation: {count} {some}, too few to hold any out; it repeats them under other "
            "specimens and drift, and tells nothing of other moments, patterns or sessions"
        )
        return Split(everything, everything, tells)
    return Split(everything[~out], everything[out], tells)
