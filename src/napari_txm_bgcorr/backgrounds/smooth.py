"""Background methods without learning: baselines, fallbacks and priors.

All work on ``r = log(raw - dark) = b + t`` and give what a reference would read in counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core import (
    SILENT,
    BackgroundMethod,
    Coarse,
    Progress,
    Scan,
    close_corners,
    to_counts,
)
from napari_txm_bgcorr.errors import MethodError

from .captured import Captured
from .eigen_flats import EigenFlats
from .tile_median import TileMedian

__all__ = [
    "CLASSICAL",
    "Captured",
    "EigenFlats",
    "Envelope",
    "Smooth",
    "TileMedian",
]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Smooth:
    """Gaussian of the log tile itself, wide against the fine pattern: works from one tile.

    Parameters
    ----------
    sigma : float
        Width as a share of the field (longer side).

    Raises
    ------
    MethodError
        If `sigma` is not between 0 and 1.
    """

    name, workers = "smooth", 1

    def __init__(self, sigma: float = 0.125) -> None:
        if not 0 < sigma <= 1:
            raise MethodError(f"sigma {sigma}: must be above 0 and at most 1, share of the field")
        self.sigma = float(sigma)
        self._dark: Image | None = None

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Keep the dark."""
        progress.check()
        self._dark = scan.dark()
        return self

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Smooth each tile `(N, Y, X)` in counts; see `BackgroundMethod`."""
        return _each(tiles, self._dark, self._shape)

    def _shape(self, cells: Image, lit: Mask, cell: tuple[int, int]) -> Image:
        longer = max(n * c for n, c in zip(cells.shape, cell, strict=True))
        width = [self.sigma * longer / c for c in cell]
        weight = lit.astype(np.float32)
        total: Image = ndimage.gaussian_filter(cells * weight, width, mode="nearest")
        mass: Image = np.maximum(
            ndimage.gaussian_filter(weight, width, mode="nearest"), np.float32(1e-6)
        )
        out: Image = total / mass
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"sigma": self.sigma}


class Envelope:
    """Polynomial that rests on the bright side of the log tile: works from one tile.

    Absorption only lowers the counts, so cells below the fit lose weight, anew in each
    round, while cells above it keep theirs (asymmetric reweighted least squares).

    Parameters
    ----------
    order : int
        Highest total degree of the two-dimensional Legendre polynomial.
    rounds : int
        Rounds of reweighting.

    Raises
    ------
    MethodError
        If `order` is not in 1..8 or `rounds` below 1.
    """

    name, workers = "envelope", 1

    def __init__(self, order: int = 3, rounds: int = 12) -> None:
        if not 1 <= order <= 8 or rounds < 1:
            raise MethodError(
                f"order {order}, rounds {rounds}: give an order of 1 to 8, and 1 round or more"
            )
        self.order, self.rounds = int(order), int(rounds)
        self._dark: Image | None = None

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Keep the dark."""
        progress.check()
        self._dark = scan.dark()
        return self

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Fit each tile `(N, Y, X)` in counts; see `BackgroundMethod`."""
        return _each(tiles, self._dark, self._shape)

    def _shape(self, cells: Image, lit: Mask, cell: tuple[int, int]) -> Image:
        terms = _legendre(cells.shape, self.order)
        y = cells.ravel().astype(np.float64)
        base = lit.ravel().astype(np.float64) if lit.any() else np.ones(y.size)
        weight = base
        fit = y
        for _ in range(self.rounds):
            root = np.sqrt(weight)
            fit = terms @ np.linalg.lstsq(terms * root[:, None], y * root, rcond=None)[0]
            off = y - fit
            above = off[(off > 0) & (base > 0)]
            # The scatter above the fit is pattern and noise; no specimen hides there.
            scale = max(1.4826 * float(np.median(above)) if above.size else 0.0, 1e-4)
            weight = base * np.where(off < 0, 1 / (1 + (off / scale) ** 2), 1.0)
        out: Image = fit.reshape(cells.shape).astype(np.float32)
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"order": self.order, "rounds": self.rounds}


def _each(
    tiles: NDArray[Any],
    dark: Image | None,
    shape: Callable[[Image, Mask, tuple[int, int]], Image],
) -> Image:
    """Apply a function of the log cells of one tile to every tile."""
    out = np.empty(tiles.shape, np.float32)
    coarse = Coarse(tiles.shape)
    for k, raw in enumerate(tiles):
        beam = raw if dark is None else raw - dark
        lit_px, lit = coarse.lit(beam)
        smooth = shape(coarse.log_cells(raw, dark), lit, coarse.cell)
        out[k] = to_counts(coarse.expand(smooth), dark)
        close_corners(out[k], raw, lit_px)
    return out


def _legendre(size: tuple[int, ...], order: int) -> NDArray[np.float64]:
    """Products of Legendre polynomials `(cells, terms)` up to a total degree."""
    axes = [
        np.polynomial.legendre.legvander(np.linspace(-1, 1, n) if n > 1 else np.zeros(1), order)
        for n in size
    ]
    pairs = [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]
    return np.stack([np.outer(axes[0][:, i], axes[1][:, j]).ravel() for i, j in pairs], axis=1)


CLASSICAL: dict[str, Callable[..., BackgroundMethod]] = {
    "captured": Captured,
    "tile-median": TileMedian,
    "smooth": Smooth,
    "envelope": Envelope,
    "eigen-flats": EigenFlats,
}
