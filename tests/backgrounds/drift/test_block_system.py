"""Solutions and covariances of block systems against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.block_system import BlockSystem

K = 3


class Dense:
    """The same system as one matrix."""

    def __init__(self, own, pairs, border, corner) -> None:
        self.count, self.terms = own.shape[:2]
        size, shared = self.count * self.terms, len(corner)
        self.matrix = np.zeros((size + shared, size + shared))

        def part(i: int) -> slice:
            return slice(i * self.terms, (i + 1) * self.terms)

        for i, block in enumerate(own):
            self.matrix[part(i), part(i)] = block
            self.matrix[part(i), size:] = border[i]
            self.matrix[size:, part(i)] = border[i].T
        for (i, j), block in pairs.items():
            self.matrix[part(i), part(j)] = block
            self.matrix[part(j), part(i)] = block.T
        self.matrix[size:, size:] = corner
        self.inverse = np.linalg.inv(self.matrix)

    def solve(self, tiles, shared):
        found = self.inverse @ np.concatenate([tiles.ravel(), shared])
        size = self.count * self.terms
        return found[:size].reshape(self.count, self.terms), found[size:]

    def covariance(self):
        size = self.count * self.terms
        inner = self.inverse[:size, :size].reshape(self.count, self.terms, -1, self.terms)
        own = inner[np.arange(self.count), :, np.arange(self.count)]
        cross = self.inverse[:size, size:].reshape(self.count, self.terms, -1)
        return own, cross, self.inverse[size:, size:]


def random_system(count: int, links: list[tuple[int, int]], shared: int, seed: int = 0):
    """Normal equations of random observations: positive definite."""
    rng = np.random.default_rng(seed)
    own = np.zeros((count, K, K))
    pairs: dict[tuple[int, int], np.ndarray] = {}
    border, corner = np.zeros((count, K, shared)), 0.1 * np.eye(shared)
    for i in range(count):
        a, c = rng.standard_normal((2 * K, K)), rng.standard_normal((2 * K, shared))
        own[i] += a.T @ a + 0.1 * np.eye(K)
        border[i] += a.T @ c
        corner += c.T @ c
    for i, j in links:
        a, b, c = (rng.standard_normal((4, n)) for n in (K, K, shared))
        own[i] += a.T @ a
        own[j] += b.T @ b
        low, high = (a, b) if i < j else (b, a)
        key = (min(i, j), max(i, j))
        pairs[key] = pairs.get(key, 0) + low.T @ high
        border[i] += a.T @ c
        border[j] += b.T @ c
        corner += c.T @ c
    return own, pairs, border, corner


def random_links(count: int, number: int, seed: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return [tuple(rng.choice(count, 2, replace=False).tolist()) for _ in range(number)]


def grid_links(rows: int, columns: int) -> list[tuple[int, int]]:
    number = np.arange(rows * columns).reshape(rows, columns)
    beside = [*zip(number[:, :-1].ravel(), number[:, 1:].ravel(), strict=True)]
    below = [*zip(number[:-1].ravel(), number[1:].ravel(), strict=True)]
    return [(int(i), int(j)) for i, j in beside + below]


CASES = {
    "one tile": (1, []),
    "two tiles": (2, [(0, 1)]),
    "none linked": (7, []),
    "a line": (60, [(i, i + 1) for i in range(59)]),
    "a line backwards": (60, [(i + 1, i) for i in range(59)]),
    "a grid": (130, grid_links(10, 13)),
    "a star": (50, [(0, i) for i in range(1, 50)]),
    "random": (90, random_links(90, 200, 4)),
    "two islands": (80, grid_links(5, 8) + [(i + 40, j + 40) for i, j in grid_links(5, 8)]),
}


@pytest.mark.parametrize("shared", [0, 1, 5])
@pytest.mark.parametrize("case", CASES)
def test_it_solves_as_a_dense_matrix_does(case: str, shared: int) -> None:
    count, links = CASES[case]
    parts = random_system(count, links, shared)
    rng = np.random.default_rng(9)
    tiles, common = rng.standard_normal((count, K)), rng.standard_normal(shared)
    system, dense = BlockSystem(*parts), Dense(*parts)
    for found, true in zip(system.solve(tiles, common), dense.solve(tiles, common), strict=True):
        np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-6)
    for found, true in zip(system.covariance(), dense.covariance(), strict=True):
        assert found.shape == true.shape
        np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-6)


def test_the_numbers_of_the_tiles_do_not_matter() -> None:
    count, links = CASES["random"]
    own, pairs, border, corner = random_system(count, links, 2)
    rng = np.random.default_rng(3)
    tiles, common, new = rng.standard_normal((count, K)), rng.standard_normal(2), rng.permutation(
        count
    )  # fmt: skip
    place = np.argsort(new)  # tile i becomes place[i]
    moved = {}
    for (i, j), block in pairs.items():
        a, b = int(place[i]), int(place[j])
        moved[min(a, b), max(a, b)] = block if a < b else block.T
    found = BlockSystem(own, pairs, border, corner).solve(tiles, common)
    again = BlockSystem(own[new], moved, border[new], corner).solve(tiles[new], common)
    np.testing.assert_allclose(again[0], found[0][new], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(again[1], found[1], rtol=1e-8, atol=1e-10)


def test_what_nothing_observes_stays_at_zero() -> None:
    own = np.zeros((4, K, K))
    own[:3] = np.eye(K)
    system = BlockSystem(own, {}, np.zeros((4, K, 1)), np.zeros((1, 1)))
    tiles, shared = system.solve(np.ones((4, K)) * (np.arange(4) < 3)[:, None], np.zeros(1))
    np.testing.assert_allclose(tiles, [[1] * K, [1] * K, [1] * K, [0] * K], atol=1e-6)
    np.testing.assert_allclose(shared, 0)
    assert all(np.isfinite(part).all() for part in system.covariance())
