"""Legendre products: their order, their values, their orthogonality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_txm_bgcorr.core.polynomials import axes, legendre, terms


@given(st.integers(0, 8))
def test_terms_are_all_of_a_total_degree_once_and_by_degree(degree: int) -> None:
    order = terms(degree)
    assert len(order) == len(set(order)) == (degree + 1) * (degree + 2) // 2
    assert order[0] == (0, 0) and all(i >= 0 and j >= 0 and i + j <= degree for i, j in order)
    sums = [sum(pair) for pair in order]
    assert sums == sorted(sums)
    if degree:
        assert order[: len(terms(degree - 1))] == terms(degree - 1)  # more terms come behind


@given(y=st.floats(-1, 1), x=st.floats(-1, 1))
def test_values_are_those_of_the_polynomials(y: float, x: float) -> None:
    by_hand = [1, lambda t: t, lambda t: (3 * t * t - 1) / 2, lambda t: (5 * t**3 - 3 * t) / 2]

    def one(k: int, t: float) -> float:
        return by_hand[k](t) if k else 1.0  # type: ignore[operator]

    order = terms(3)
    got = legendre(order, np.array([y]), np.array([x]))
    assert got.shape == (1, len(order))
    assert got[0] == pytest.approx([one(i, y) * one(j, x) for i, j in order], abs=1e-12)


def test_terms_are_orthogonal_over_the_field() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(8)
    y, x = (a.ravel() for a in np.meshgrid(nodes, nodes, indexing="ij"))
    order = terms(5)
    values = legendre(order, y, x)
    gram = values.T @ (values * np.outer(weights, weights).ravel()[:, None])
    wanted = np.diag([4 / ((2 * i + 1) * (2 * j + 1)) for i, j in order])
    np.testing.assert_allclose(gram, wanted, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 6), (7, 7), (1, 3)])
def test_axes_are_at_the_centres_of_pixels(shape: tuple[int, int]) -> None:
    y, x = axes(shape, 3)
    assert y.shape == (shape[0], 4) and x.shape == (shape[1], 4) and y.dtype == np.float32
    for values, n in zip((y, x), shape, strict=True):
        places = (2 * np.arange(n) + 1) / n - 1
        np.testing.assert_allclose(values[:, 1], places, atol=1e-7)
        np.testing.assert_allclose(values[:, 0], 1)
        # mirrored pixels: even orders alike, odd ones of the other sign
        np.testing.assert_allclose(values, values[::-1] * [1, -1, 1, -1], atol=1e-6)
