"""Places of all tiles from shifts measured between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

__all__ = ["Edge", "Trust", "reconcile"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trust:
    """Weights of what is expected, against a measured shift.

    Attributes
    ----------
    place : float
        Of the place of each tile.
    step : float
        Of the shift of a pair that was not measured.
    """

    place: float
    step: float


@dataclass(frozen=True)
class Edge:
    """Two neighbouring tiles.

    Attributes
    ----------
    first, second : int
        Tiles.
    shift_px : (y, x)
        Corner of the second less that of the first, pixels; measured, or nominal.
    correlation : float
        Of the high-passed overlap at that shift.
    peak : float
        Its height above the map of correlations, in robust standard deviations.
    used : bool
        Whether it was measured, and agrees with the others.
    """

    first: int
    second: int
    shift_px: tuple[float, float]
    correlation: float = 0.0
    peak: float = 0.0
    used: bool = False


def reconcile(
    expected: Floats, edges: Sequence[Edge], limit_px: float, trust: Trust
) -> tuple[Floats, list[Edge]]:
    """Places by weighted least squares; measured shifts that contradict the others dropped.

    Parameters
    ----------
    expected : (T, 2) float64
        Places of the tiles before anything was measured.
    edges : sequence of Edge
    limit_px : float
        A measured shift further off the common solution is dropped, the worst first.
    trust : Trust
        In `expected`.

    Returns
    -------
    places : (T, 2) float64
    edges : list of Edge
        As used; those that were not measured have the shift between the places.
    """
    current = list(edges)
    while True:
        placed = _solve(expected, current, trust)
        off = np.array([
            np.hypot(*(placed[e.second] - placed[e.first] - e.shift_px)) if e.used else 0.0
            for e in current
        ])  # fmt: skip
        if not len(off) or off.max() <= limit_px:
            break
        # The worst of each neighbourhood only, and none far below the worst of all: a wrong one
        # bends the shifts beside it, and those along the same cut.
        highest = np.zeros(len(expected))
        for e, size in zip(current, off, strict=True):
            highest[[e.first, e.second]] = np.maximum(highest[[e.first, e.second]], size)
        for k in np.flatnonzero(off > max(limit_px, off.max() / 2)).tolist():
            if off[k] >= max(highest[current[k].first], highest[current[k].second]):
                current[k] = replace(current[k], used=False)
    return placed, [e if e.used else _between(placed, e) for e in current]


def _between(placed: Floats, edge: Edge) -> Edge:
    """An edge with the shift between its places."""
    y, x = placed[edge.second] - placed[edge.first]
    return replace(edge, shift_px=(float(y), float(x)))


def _solve(expected: Floats, edges: Sequence[Edge], trust: Trust) -> Floats:
    count = len(expected)
    first = np.array([e.first for e in edges], int)
    second = np.array([e.second for e in edges], int)
    used = np.array([e.used for e in edges], bool)
    weight = np.where(used, 1.0, trust.step)
    shift = np.array([e.shift_px for e in edges]).reshape(-1, 2)
    shift = np.where(used[:, None], shift, expected[second] - expected[first])
    rows = np.arange(len(edges))
    matrix = sparse.coo_array(
        (
            np.r_[np.ones(len(edges)), -np.ones(len(edges))],
            (np.r_[rows, rows], np.r_[second, first]),
        ),
        shape=(len(edges), count),
    ).tocsr()
    weighted = matrix.T @ sparse.diags_array(weight) if len(edges) else matrix.T
    normal = (weighted @ matrix + trust.place * sparse.eye_array(count)).tocsc()
    right = weighted @ shift + trust.place * expected
    return np.stack([np.atleast_1d(spsolve(normal, right[:, axis])) for axis in (0, 1)], axis=1)
