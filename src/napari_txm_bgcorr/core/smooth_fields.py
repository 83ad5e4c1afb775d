"""Smooth shapes on a coarse grid of cells, and the logarithms all methods work in."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

from .pixels import level_of, lit_field

__all__ = [
    "CELLS",
    "Coarse",
    "close_corners",
    "log_beam",
    "product",
    "spread_indices",
    "to_counts",
    "upper",
]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

CELLS = 64  # cells across the field: 0.23 um of a 15 um field
FLOOR = 0.02  # of the median: no lit pixel is darker
ALONE = 2**17  # products: so few a BLAS leaves to one thread; its others would spin beside ours
UPPER = 0.75  # quantile of the cells that stands for "no specimen here"


def spread_indices(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` places, spread evenly, ascending."""
    some = np.linspace(0, count - 1, max(1, min(count, limit))).round().astype(int)
    return sorted(set(some.tolist()))


def log_beam(counts: Any, dark: Image | None, floor: float = FLOOR) -> Image:
    """Logarithm of one image `(Y, X)` of counts, dark removed.

    Pixels that are not finite or below `floor` of the median are raised to it, so the result
    is finite everywhere.
    """
    values: Image = np.asarray(counts).astype(np.float32)
    if dark is not None:
        values = values - dark
    level = level_of(values)
    least = np.float32(max(floor * level, 1e-3))
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, least)
    out: Image = np.maximum(values, least)
    return np.log(out, out=out)


def to_counts(log_background: Image, dark: Image | None) -> Image:
    """Counts that a reference would read, dark included; finite and above 0."""
    out: Image = np.exp(np.clip(log_background, -20, 80))
    if dark is not None:
        out += dark
    return np.maximum(out, np.float32(1e-6), out=out)


def close_corners(background: Image, raw: NDArray[Any], lit: Mask) -> None:
    """Give apertured corners, in place, the level that the raw tile shows there.

    A reference reads the camera's pedestal there, whatever the shape of the lit field; and
    the edge lets the division find the corners.
    """
    if lit.all():
        return
    labels, count = ndimage.label(~lit)
    dark = np.flatnonzero(~lit)
    owner = labels.ravel()[dark]
    for corner in range(1, count + 1):
        here = dark[owner == corner]
        background.ravel()[here] = max(float(np.median(raw.ravel()[here])), 1e-6)


class Coarse:
    """Means over cells, and smooth interpolation back to pixels.

    Parameters
    ----------
    shape : (Y, X)
        Of the tiles.
    cells : int
        About this many across each axis.
    cell : (height, width) or None
        Of one, in pixels, instead of their number.
    """

    def __init__(
        self, shape: tuple[int, ...], cells: int = CELLS, cell: tuple[int, int] | None = None
    ) -> None:
        self.shape = (int(shape[-2]), int(shape[-1]))
        self.cell = cell or (max(1, self.shape[0] // cells), max(1, self.shape[1] // cells))
        self.size = (self.shape[0] // self.cell[0], self.shape[1] // self.cell[1])

    def mean(self, image: NDArray[Any]) -> Image:
        """`(Y, X)` to cells; what a last cut cell holds is left out."""
        (height, width), (rows, columns) = self.cell, self.size
        part = np.asarray(image, np.float32)[: rows * height, : columns * width]
        summed = np.add.reduceat(part, np.arange(0, columns * width, width), axis=1)
        mean: Image = summed.reshape(rows, height, columns).mean(axis=1) / np.float32(width)
        return mean

    def lit(self, image: NDArray[Any]) -> tuple[Mask, Mask]:
        """Lit pixels `(Y, X)` and wholly lit cells of a raw tile."""
        pixels = lit_field(image)
        if pixels.all():
            return pixels, np.ones(self.size, bool)
        return pixels, self.mean(pixels) > 0.999

    def expand(self, coarse: NDArray[Any]) -> Image:
        """Cells to `(Y, X)` pixels by a separable natural cubic spline."""
        rows = _spline_matrix(self.shape[0], self.cell[0], self.size[0])
        columns = _spline_matrix(self.shape[1], self.cell[1], self.size[1])
        return product(product(rows, coarse.astype(np.float32)), columns.T)

    def log_cells(self, raw: NDArray[Any], dark: Image | None) -> Image:
        """Log counts of the cells of a raw tile, dark removed, specks and spikes taken out."""
        cells = self.mean(np.nan_to_num(np.asarray(raw, np.float32), posinf=0.0, neginf=0.0))
        if dark is not None:
            cells -= self.mean(np.nan_to_num(dark))
        level = float(np.median(cells))
        cells = np.maximum(cells, np.float32(max(FLOOR * level, 1e-3)))
        out: Image = np.log(ndimage.median_filter(cells, 3))
        return out


def product(left: Image, right: Image) -> Image:
    """Matrix product in pieces so small that a BLAS starts no threads of its own for them."""
    out: Image = np.empty((left.shape[0], right.shape[1]), np.float32)
    side = max(1, isqrt(ALONE // left.shape[1]))
    columns = [slice(x, x + side) for x in range(0, out.shape[1], side)]
    for y in range(0, len(left), side):
        for x in columns:
            np.matmul(left[y : y + side], right[:, x], out=out[y : y + side, x])
    return out


@lru_cache(maxsize=8)
def _spline_matrix(pixels: int, cell: int, cells: int) -> Image:
    """Matrix `(pixels, cells)` that interpolates from the centres of cells to pixels."""
    if cells == 1:
        return np.ones((pixels, 1), np.float32)
    centres = (np.arange(cells) + 0.5) * cell - 0.5
    spline = CubicSpline(centres, np.eye(cells), bc_type="natural")
    out: Image = spline(np.arange(pixels)).astype(np.float32)
    return out


def upper(cells: NDArray[Any], lit: Mask, quantile: float = UPPER) -> float:
    """Level of the cells that hold no specimen: absorption only lowers, so an upper quantile."""
    chosen = cells[lit] if lit.any() else cells
    return float(np.quantile(chosen, quantile))
