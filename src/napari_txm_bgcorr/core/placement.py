"""Places of all tiles from shifts measured between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

__all__ = ["Edge", "reconcile"]

Floats = NDArray[np.float64]

TIE = 1e-3  # weight of a step that nothing was seen on, against one that was measured
LOOSE = 1e-6  # weight of the nominal place itself: holds what hangs on nothing


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
    nominal: Floats, edges: Sequence[Edge], limit_px: float
) -> tuple[Floats, list[Edge]]:
    """Places by weighted least squares; measured shifts that contradict the others dropped.

    Parameters
    ----------
    nominal : (T, 2) float64
    edges : sequence of Edge
    limit_px : float
        A measured shift further off the common solution is dropped, the worst first.

    Returns
    -------
    places : (T, 2) float64
    edges : list of Edge
        As used; those that were not measured have the shift to expect.
    """
    current = list(edges)
    while True:
        expected = _expected(nominal, current)
        placed = _solve(nominal, current, expected)
        off = np.array([
            np.hypot(*(placed[e.second] - placed[e.first] - e.shift_px)) if e.used else 0.0
            for e in current
        ])  # fmt: skip
        if not len(off) or off.max() <= limit_px:
            break
        # The worst of each neighbourhood only: a wrong one bends the shifts beside it.
        highest = np.zeros(len(nominal))
        for e, size in zip(current, off, strict=True):
            highest[[e.first, e.second]] = np.maximum(highest[[e.first, e.second]], size)
        for k in np.flatnonzero(off > limit_px).tolist():
            if off[k] >= max(highest[current[k].first], highest[current[k].second]):
                current[k] = replace(current[k], used=False)
    return placed, [
        e if e.used else replace(e, shift_px=(float(expected[k, 0]), float(expected[k, 1])))
        for k, e in enumerate(current)
    ]


def _expected(nominal: Floats, edges: Sequence[Edge]) -> Floats:
    """Step `(E, 2)` to expect on each edge: nominal, plus what others of its kind were off."""
    steps = np.array([nominal[e.second] - nominal[e.first] for e in edges]).reshape(-1, 2)
    if not len(steps):
        return steps
    across = np.abs(steps[:, 1]) > np.abs(steps[:, 0])
    out = steps.copy()
    for kind in (across, ~across):
        seen = [k for k in np.flatnonzero(kind).tolist() if edges[k].used]
        if len(seen) >= 3:
            off = np.array([edges[k].shift_px for k in seen]) - steps[seen]
            sign = np.sign(steps[:, 1] if kind is across else steps[:, 0])[:, None]
            out[kind] += sign[kind] * np.median(sign[seen] * off, axis=0)
    return out


def _solve(nominal: Floats, edges: Sequence[Edge], expected: Floats) -> Floats:
    count = len(nominal)
    weight = np.array([1.0 if e.used else TIE for e in edges])
    shift = np.array([e.shift_px for e in edges]).reshape(-1, 2)
    shift = np.where(weight[:, None] == 1.0, shift, expected)
    first = np.array([e.first for e in edges], int)
    second = np.array([e.second for e in edges], int)
    rows = np.arange(len(edges))
    matrix = sparse.coo_array(
        (
            np.r_[np.ones(len(edges)), -np.ones(len(edges))],
            (np.r_[rows, rows], np.r_[second, first]),
        ),
        shape=(len(edges), count),
    ).tocsr()
    weighted = matrix.T @ sparse.diags_array(weight) if len(edges) else matrix.T
    normal = (weighted @ matrix + LOOSE * sparse.eye_array(count)).tocsc()
    right = weighted @ shift + LOOSE * nominal
    return np.stack([np.atleast_1d(spsolve(normal, right[:, axis])) for axis in (0, 1)], axis=1)
