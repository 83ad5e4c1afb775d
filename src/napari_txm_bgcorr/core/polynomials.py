"""Smooth fields as products of Legendre polynomials."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Order", "axes", "legendre", "terms"]

Floats = NDArray[np.float64]
Order = tuple[tuple[int, int], ...]


def terms(degree: int) -> Order:
    """Legendre orders (y, x) up to a total degree, the constant first."""
    pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return tuple(sorted(pairs, key=lambda p: (sum(p), p)))


def legendre(order: Order, y: Floats, x: Floats) -> Floats:
    """Products of Legendre polynomials `(n, terms)` at places in -1..1."""
    most = max(max(p) for p in order)
    rows = np.polynomial.legendre.legvander(y, most)
    columns = np.polynomial.legendre.legvander(x, most)
    return np.stack([rows[:, i] * columns[:, j] for i, j in order], axis=1)


def axes(shape: tuple[int, ...], degree: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Legendre polynomials `(n, degree + 1)` along y and x of a field `(Y, X)` of pixels."""
    y, x = (
        np.polynomial.legendre.legvander((np.arange(n) + 0.5) / n * 2 - 1, degree) for n in shape
    )
    return y.astype(np.float32), x.astype(np.float32)
