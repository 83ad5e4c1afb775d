"""Symmetric least-squares systems of many tiles: banded blocks with a border common to all.

Each tile has `K` unknowns, coupled with those of tiles beside it or next in time; `F` further
unknowns are shared by all. Tiles are sorted to a narrow band (reverse Cuthill-McKee), which is
block tridiagonal. The covariance blocks on the diagonal come from the same factors: K. Takahashi,
J. Fagan and M.-S. Chin, Proc. 8th PICA Conf. (1973) 63-69.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse import csgraph

__all__ = ["BlockSystem"]

Floats = NDArray[np.float64]
LEAST_BLOCK = 128  # unknowns of one block: fewer would be many small steps
RIDGE = 1e-9  # of the greatest diagonal entry: what nothing observes stays at 0


class BlockSystem:
    """Factorised normal equations.

    Parameters
    ----------
    own : (T, K, K) float64
        Of each tile.
    pairs : mapping of (i, j), i < j, to (K, K) float64
        Coupling of the unknowns of tile i (rows) with those of tile j (columns).
    border : (T, K, F) float64
        Coupling with the shared unknowns.
    corner : (F, F) float64
        Of the shared unknowns.
    """

    def __init__(
        self, own: Floats, pairs: Mapping[tuple[int, int], Floats], border: Floats, corner: Floats
    ) -> None:
        self._count, self._terms = own.shape[:2]
        self._order, reach = _band_order(self._count, pairs)
        size = max(reach, -(-LEAST_BLOCK // self._terms))
        self._parts = [slice(k, min(k + size, self._count)) for k in range(0, self._count, size)]
        place = np.empty(self._count, int)
        place[self._order] = np.arange(self._count)
        diagonal, below = self._blocks(own, pairs, place, size)
        self._factor(diagonal, below)
        self._border = border[self._order].reshape(self._count * self._terms, -1)
        self._solved_border = self._solve(self._border)
        schur = corner - self._border.T @ self._solved_border
        shared = len(schur)
        self._schur = linalg.cho_factor(schur + _ridge(schur)) if shared else None

    def _blocks(
        self, own: Floats, pairs: Mapping[tuple[int, int], Floats], place: NDArray[np.int64],
        size: int,
    ) -> tuple[list[Floats], list[Floats]]:  # fmt: skip
        k = self._terms
        diagonal = [np.zeros((k * (p.stop - p.start),) * 2) for p in self._parts]
        below = [
            np.zeros((k * (b.stop - b.start), k * (a.stop - a.start)))
            for a, b in zip(self._parts, self._parts[1:], strict=False)
        ]
        ridge = RIDGE * max(float(own.max()), 1e-12) * np.eye(k)
        for i, block in enumerate(own):
            at, start = divmod(place[i], size)
            part = slice(start * k, (start + 1) * k)
            diagonal[at][part, part] += block + ridge
        for (i, j), block in pairs.items():
            (a, first), (b, second) = divmod(place[i], size), divmod(place[j], size)
            row, column = slice(first * k, first * k + k), slice(second * k, second * k + k)
            if a == b:
                diagonal[a][row, column] += block
                diagonal[a][column, row] += block.T
            elif b > a:
                below[a][column, row] += block.T
            else:
                below[b][row, column] += block
        return diagonal, below

    def _factor(self, diagonal: list[Floats], below: list[Floats]) -> None:
        self._factors: list[tuple[Floats, bool]] = []
        self._gains: list[Floats] = []
        for at, block in enumerate(diagonal):
            if at:
                gain = linalg.cho_solve(self._factors[-1], below[at - 1].T).T
                block = block - gain @ below[at - 1].T
                self._gains.append(gain)
            self._factors.append(linalg.cho_factor(block, lower=True))

    def _solve(self, right: Floats) -> Floats:
        """Solutions `(T K, n)` without the border."""
        k = self._terms
        parts = [right[p.start * k : p.stop * k].copy() for p in self._parts]
        for at, gain in enumerate(self._gains):
            parts[at + 1] -= gain @ parts[at]
        out = [linalg.cho_solve(self._factors[-1], parts[-1])]
        for at in range(len(self._gains) - 1, -1, -1):
            here = linalg.cho_solve(self._factors[at], parts[at])
            out.append(here - self._gains[at].T @ out[-1])
        return np.concatenate(out[::-1])

    def solve(self, tiles: Floats, shared: Floats) -> tuple[Floats, Floats]:
        """Unknowns of the tiles `(T, K)` and shared ones `(F,)`, given the right-hand sides."""
        right = tiles[self._order].reshape(-1, 1)
        inner = self._solve(right)[:, 0]
        common = np.zeros(0)
        if self._schur is not None:
            common = linalg.cho_solve(self._schur, shared - self._border.T @ inner)
            inner = inner - self._solved_border @ common
        out = np.empty((self._count, self._terms))
        out[self._order] = inner.reshape(self._count, self._terms)
        return out, common

    def covariance(self) -> tuple[Floats, Floats, Floats]:
        """Covariances: of each tile `(T, K, K)`, tile with shared `(T, K, F)`, shared `(F, F)`."""
        k = self._terms
        own = np.empty((self._count, k, k))
        after: Floats | None = None
        for at in range(len(self._parts) - 1, -1, -1):
            size = self._parts[at].stop - self._parts[at].start
            block = linalg.cho_solve(self._factors[at], np.eye(k * size))
            if after is not None:
                gain = self._gains[at]
                block = block + gain.T @ after @ gain
            after = block
            split = block.reshape(size, k, size, k)
            own[self._parts[at]] = split[np.arange(size), :, np.arange(size)]
        cross, common = self._shared_covariance()
        border = self._solved_border.reshape(self._count, k, -1)
        own += border @ common @ border.transpose(0, 2, 1)
        result = np.empty_like(own)
        result[self._order] = own
        return result, cross, common

    def _shared_covariance(self) -> tuple[Floats, Floats]:
        shared = self._border.shape[1]
        common = np.zeros((0, 0))
        if self._schur is not None:
            common = linalg.cho_solve(self._schur, np.eye(shared))
        cross = np.empty((self._count, self._terms, shared))
        cross[self._order] = -(self._solved_border @ common).reshape(
            self._count, self._terms, shared
        )
        return cross, common


def _ridge(matrix: Floats) -> Floats:
    return RIDGE * max(float(np.abs(matrix).max(initial=0)), 1e-12) * np.eye(len(matrix))


def _band_order(
    count: int, pairs: Mapping[tuple[int, int], Floats]
) -> tuple[NDArray[np.int64], int]:
    """Order of the tiles that keeps coupled ones close, and the greatest distance then."""
    if not pairs:
        return np.arange(count), 1
    first, second = np.array(list(pairs)).T
    links = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    order = np.asarray(
        csgraph.reverse_cuthill_mckee((links + links.T).tocsr(), symmetric_mode=True), np.int64
    )
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    return order, int(np.abs(place[first] - place[second]).max())
