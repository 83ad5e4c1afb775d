"""A sparse symmetric system with a few unknowns that meet all others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

__all__ = ["solve_bordered"]

Floats = NDArray[np.float64]


def solve_bordered(corner: Floats, edge: Floats, inner: sparse.csc_array, right: Floats) -> Floats:
    """Solve ``[[corner, edge^T], [edge, inner]] x = right``.

    The many unknowns, sparse among themselves, are eliminated by themselves: a dense border in
    the factorization fills it.

    Parameters
    ----------
    corner : (b, b) float64
        Symmetric, of the few unknowns.
    edge : (n, b) float64
    inner : (n, n) sparse
        Symmetric, of the others.
    right : (b + n,) float64

    Returns
    -------
    (b + n,) float64
    """
    border = len(corner)
    factors = splu(
        inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    solved = factors.solve(np.column_stack([right[border:], edge]))
    alone, by_border = solved[:, 0], solved[:, 1:]
    first = np.linalg.solve(corner - edge.T @ by_border, right[:border] - edge.T @ alone)
    return np.concatenate([first, alone - by_border @ first])
