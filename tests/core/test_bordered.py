"""A bordered system against the same one dense."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from napari_txm_bgcorr.core.bordered import Bordered


def test_it_solves_and_tells_variances_as_a_dense_one() -> None:
    rng = np.random.default_rng(2)
    border, count = 3, 40
    inner = sparse.diags_array(
        [np.full(count - 1, -1.0), np.full(count, 2.5), np.full(count - 1, -1.0)],
        offsets=[-1, 0, 1],
    )
    edge = 0.1 * rng.standard_normal((count, border))
    corner = np.diag([4.0, 5.0, 6.0]) + 0.5
    whole = np.block([[corner, edge.T], [edge, inner.toarray()]])
    matrix = Bordered(corner, edge, sparse.csc_array(inner))
    right = rng.standard_normal(border + count)
    np.testing.assert_allclose(matrix.solve(right), np.linalg.solve(whole, right), atol=1e-12)
    sums = rng.standard_normal((count, 5))
    inverse = np.linalg.inv(whole)[border:, border:]
    np.testing.assert_allclose(matrix.variances(sums), np.diag(sums.T @ inverse @ sums))
