"""Levels of tiles to begin with: the beam is at least as bright as anything that a tile shows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_levels"]

Floats = NDArray[np.float64]
COVERED = 0.12  # log: a tile that is dimmer than its neighbours tell by more is all sample
DEAD = 4.0  # log: a tile that is dimmer than the others by more shows no beam


def first_levels(
    modes: Floats, steps: Iterable[tuple[int, int, tuple[int, int], float]]
) -> Floats:
    """Levels `(T,)` from the brightest mode of each tile, raised where all is sample.

    Two tiles show the same places where they overlap, so their log difference there is that of
    their levels, but for what the prior pattern is off; this is alike for all pairs of one
    direction, and taken away as their median.

    Parameters
    ----------
    modes : (T,) float64
        Log.
    steps : iterable of (first, second, direction, difference)
        Tiles, where the second lies, (y, x) in -1, 0, 1, and the log difference of their
        overlap, first less second.

    Returns
    -------
    (T,) float64
    """
    middle = np.median(modes)
    dead = modes < middle - DEAD
    modes = np.where(dead, middle, modes)
    found = [s for s in steps if not (dead[s[0]] or dead[s[1]])]
    if not found:
        return modes.copy()
    first, second = np.array([s[0] for s in found]), np.array([s[1] for s in found])
    difference = np.array([s[3] for s in found])
    kinds = np.array([3 * s[2][0] + s[2][1] for s in found])
    sign = np.where(kinds < 0, -1, 1)  # a pair the other way round is one of the same kind
    excess = sign * (difference - (modes[first] - modes[second]))
    for kind in np.unique(np.abs(kinds)):
        same = np.abs(kinds) == kind
        difference[same] -= sign[same] * np.median(excess[same])
    levels, raised = modes.copy(), np.zeros(len(modes), bool)
    while True:  # each tile once, from those that are sure of the beam to those in their shadow
        told = np.full(len(modes), -np.inf)
        np.maximum.at(told, first, levels[second] + difference)
        np.maximum.at(told, second, levels[first] - difference)
        told[raised | (told <= levels + COVERED)] = -np.inf
        brightest = int(told.argmax())
        if told[brightest] == -np.inf:
            return levels
        levels[brightest], raised[brightest] = told[brightest], True
