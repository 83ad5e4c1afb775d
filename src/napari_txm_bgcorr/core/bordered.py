"""A sparse symmetric system with a few unknowns that meet all others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

__all__ = ["Bordered"]

Floats = NDArray[np.float64]


class Bordered:
    """The matrix ``[[corner, edge^T], [edge, inner]]``, positive definite, factorized.

    The many unknowns, sparse among themselves, are eliminated by themselves: a dense border in
    the factorization fills it.

    Parameters
    ----------
    corner : (b, b) float64
        Symmetric, of the few unknowns.
    edge : (n, b) float64
    inner : (n, n) sparse
        Symmetric, of the others.
    """

    def __init__(self, corner: Floats, edge: Floats, inner: sparse.csc_array) -> None:
        self._edge = edge
        self._inner = splu(
            inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )  # fmt: skip
        self._by_border = self._inner.solve(edge)
        self._corner = corner - edge.T @ self._by_border

    def solve(self, right: Floats) -> Floats:
        """Unknowns `(b + n,)` for a right side `(b + n,)`, the few first."""
        border = len(self._corner)
        alone = self._inner.solve(right[border:])
        first = np.linalg.solve(self._corner, right[:border] - self._edge.T @ alone)
        return np.concatenate([first, alone - self._by_border @ first])

    def variances(self, sums: Floats) -> Floats:
        """Diagonal of ``sums^T matrix^-1 sums``: of weighted sums of the many unknowns.

        Parameters
        ----------
        sums : (n, k) float64
            Weights, one column a sum.

        Returns
        -------
        (k,) float64
            Their variances, the matrix being a precision.
        """
        told = self._by_border.T @ sums
        out: Floats = np.einsum("nk,nk->k", sums, self._inner.solve(sums))
        out += np.einsum("bk,bk->k", told, np.linalg.solve(self._corner, told))
        return out
