"""Smooth random fields on a grid of cells: priors with a standard deviation and a range.

A Matern field (smoothness 1) is the solution of a stochastic Laplace equation, so that its
precision matrix is sparse: F. Lindgren, H. Rue and J. Lindstrom, J. R. Stat. Soc. B 73 (2011)
423-498, section 2.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

__all__ = ["SmoothField"]

Floats = NDArray[np.float64]


class SmoothField:
    """A Gaussian field about 0 that is observed with independent errors.

    Parameters
    ----------
    shape : (y, x)
        Of the grid.
    sd : float
        Marginal standard deviation.
    reach : float
        Distance in cells at which the correlation has fallen to about 0.1.
    """

    def __init__(self, shape: tuple[int, int], sd: float, reach: float) -> None:
        self.shape = shape
        kappa2 = 8 / reach**2
        rows, columns = (_laplacian(n) for n in shape)
        one = [sparse.eye_array(n, format="csc") for n in shape]
        laplacian = sparse.kron(rows, one[1]) + sparse.kron(one[0], columns)
        root = kappa2 * sparse.eye_array(shape[0] * shape[1]) - laplacian
        self._precision = ((root.T @ root) / (4 * np.pi * kappa2 * sd**2)).tocsc()

    def mean(self, values: Floats, weight: Floats) -> Floats:
        """Posterior mean `(y, x)`.

        Parameters
        ----------
        values : (y, x) float64
            Observed; ignored where the weight is 0.
        weight : (y, x) float64
            Inverse variance of each.
        """
        system = self._precision + sparse.diags_array(weight.ravel(), format="csc")
        return np.asarray(splu(system.tocsc()).solve((weight * values).ravel())).reshape(
            self.shape
        )

    def variance(self, weight: Floats) -> Floats:
        """Posterior variance `(y, x)`, given the inverse variances of the observations.

        Dense: for grids of a thousand cells or so.
        """
        system = self._precision.toarray() + np.diag(weight.ravel())
        return np.diag(np.linalg.inv(system)).reshape(self.shape)


def _laplacian(n: int) -> sparse.csc_array:
    """Second differences of a line whose ends are free."""
    if n <= 1:
        return sparse.csc_array((n, n))
    middle = np.full(n, -2.0)
    middle[[0, -1]] = -1.0
    beside = np.ones(n - 1)
    return sparse.diags_array([beside, middle, beside], offsets=[-1, 0, 1], format="csc")
