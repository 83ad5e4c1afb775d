"""Free places and levels of mixtures that are known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.sample_probability import free_probability, highest_mode

CELLS, WIDTH = 4096, 0.01


def mixture(share: float, seed: int = 0, level: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Cells of one tile, and which of them are free: sample dims by anything up to 1."""
    rng = np.random.default_rng(seed)
    free = np.arange(CELLS) < share * CELLS
    values = np.where(free, 0, rng.uniform(-1, 0, CELLS))
    return level + values + WIDTH * rng.standard_normal(CELLS), free


@pytest.mark.parametrize(("share", "least"), [(0.05, 0.3), (0.3, 0.85), (0.6, 0.9), (0.95, 0.95)])
def test_a_known_mixture_is_told_apart(share: float, least: float) -> None:
    """The fewer places are free, the less sure any of them is: sample may look like one."""
    values, free = mixture(share)
    found = free_probability(values[None], WIDTH)
    assert found.shape == (1, CELLS) and found.dtype == np.float32
    assert found[0, free].mean() > least
    assert found[0, ~free].mean() < 0.05
    assert found[0].mean() == pytest.approx(share, abs=0.03)


def test_each_tile_has_a_share_of_its_own() -> None:
    stack = np.stack([mixture(share, k)[0] for k, share in enumerate((0.1, 0.5, 0.9))])
    together = free_probability(stack, WIDTH)
    for tile, found in zip(stack, together, strict=True):
        np.testing.assert_array_equal(free_probability(tile[None], WIDTH)[0], found)


def test_a_bright_fringe_is_no_free_place() -> None:
    left = np.array([[0.0] * 400 + [0.06] * 20 + [-0.3] * 80])
    found = free_probability(left, WIDTH)[0]
    assert found[0] > 0.9
    assert found[410] < 1e-3
    assert found[-1] < 1e-6


def test_what_is_known_beforehand_counts() -> None:
    """Weak sample, two widths down: only a network can tell."""
    rng = np.random.default_rng(2)
    left = np.concatenate([np.zeros(2000), np.full(2000, -2 * WIDTH)])
    left = (left + 0.3 * WIDTH * rng.standard_normal(4000))[None]
    prior = np.where(np.arange(4000) < 2000, 0.95, 0.05)[None]
    alone, told = free_probability(left, WIDTH), free_probability(left, WIDTH, prior)
    change = np.log(told / (1 - told)) - np.log(alone / (1 - alone))
    # A quarter of the network's own log odds, and a share of free cells that is nearly the same.
    assert np.median(change[0, 2000:]) == pytest.approx(-0.25 * np.log(19), abs=0.1)
    assert told[0, :2000].mean() > 0.95
    sure = free_probability(np.full((1, 50), -0.5), WIDTH, np.ones((1, 50)))
    assert sure.max() < 1e-6  # a network that is wrong is not believed


def test_probabilities_stay_in_their_range() -> None:
    extreme = np.array([[-1e3, -5.0, 0.0, 5.0, 1e3]])
    for values in (extreme, np.zeros((2, 9)), np.full((1, 9), -4.0)):
        found = free_probability(values, WIDTH)
        assert np.isfinite(found).all()
        assert (found >= 0).all() and (found <= 1).all()


@pytest.mark.parametrize("level", [0.0, 9.1, -3.0])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_the_level_is_the_brightest_mode(share: float, level: float) -> None:
    values, _ = mixture(share, level=level)
    assert highest_mode(values) == pytest.approx(level, abs=0.012)


def test_a_few_bright_places_are_no_level() -> None:
    values, _ = mixture(0.5)
    values[:20] = 0.2
    assert highest_mode(values) == pytest.approx(0, abs=0.012)


@pytest.mark.parametrize("values", [np.zeros(40), np.array([1.5]), np.linspace(0, 1, 7)])
def test_the_mode_of_few_values_is_among_them(values: np.ndarray) -> None:
    found = highest_mode(values)
    assert values.min() - 0.02 <= found <= values.max() + 0.02
