"""A sparse symmetric system with a few unknowns that meet all others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

__all__ = ["solve_bordered"]

Floats = NDArray[np.float64]


def solve_bordered(matrix: sparse.csc_array, right: Floats, border: int) -> Floats:
    """Solve a symmetric system whose first `border` unknowns meet all others.

    The others, sparse among themselves, are eliminated by themselves: a dense border in the
    factorization fills it.
    """
    inner, edge = matrix[border:, border:], matrix[border:, :border].toarray()
    factors = splu(
        sparse.csc_array(inner), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )  # fmt: skip
    solved = factors.solve(np.column_stack([right[border:], edge]))
    alone, by_border = solved[:, 0], solved[:, 1:]
    corner = matrix[:border, :border].toarray() - edge.T @ by_border
    first = np.linalg.solve(corner, right[:border] - edge.T @ alone)
    return np.concatenate([first, alone - by_border @ first])
