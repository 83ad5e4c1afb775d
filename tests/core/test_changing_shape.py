"""A shape that changes with time is found where tiles show the beam, and left alone elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_txm_bgcorr.core.beam_levels import TILE_H
from napari_txm_bgcorr.core.changing_shape import (
    _agreeing,
    _average,
    _differences,
    _filled,
    change_of,
)
from napari_txm_bgcorr.core.overlaps import Overlap

SIDE = 32
ROWS = COLUMNS = 8
COUNT = ROWS * COLUMNS
KNOWN = np.ones((SIDE, SIDE), bool)


def wave(phase: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    return (np.sin(2 * np.pi * (x + phase)) * np.cos(2 * np.pi * y)).astype(np.float32)


def beam(rms: float = 0.03, hours: float = 1.0) -> np.ndarray:
    """`(T, y, x)`: a wave that comes and goes within `hours`."""
    when = np.arange(COUNT) * TILE_H
    weight = rms * 2 * np.sin(2 * np.pi * when / hours)
    return (weight[:, None, None] * wave()).astype(np.float32)


def overlaps_of(residuals: np.ndarray, share: float = 0.2) -> tuple[list[Overlap], np.ndarray]:
    """Neighbours in rows and columns; blocks of two cells; differences of `residuals`."""
    step = round(SIDE * (1 - share))
    wide, pairs = SIDE - step, []
    for k in range(COUNT):
        row, column = divmod(k, COLUMNS)
        if column + 1 < COLUMNS:
            pairs.append((k, k + 1, (0, step)))
        if row + 1 < ROWS:
            pairs.append((k, k + COLUMNS, (step, 0)))
    found = []
    for first, second, (down, right) in pairs:
        y, x = np.mgrid[
            0 : (SIDE if not down else wide) : 2, 0 : (SIDE if not right else wide) : 2
        ]
        y, x = y.ravel(), x.ravel()
        one, two = (
            tuple((np.asarray(p, float) + 0.5) / SIDE * 2 - 1 for p in place)
            for place in ((y + down, x + right), (y, x))
        )
        off = residuals[first, y + down, x + right] - residuals[second, y, x]
        nothing = np.empty((len(off), 0))
        found.append(Overlap(first, second, one, two, off.astype(float), off, nothing))
    return found, np.concatenate([o.difference for o in found])


def cells_of_specimen(rng: np.random.Generator, share: float) -> np.ndarray:
    """One specimen under all tiles: log transmission of each of them, 20 % overlap."""
    step = round(SIDE * 0.8)
    whole = ndimage.gaussian_filter(rng.standard_normal([step * (ROWS + 1) + SIDE] * 2), 5)
    whole = np.where(whole > np.quantile(whole, 1 - share), -0.3 - 3 * np.abs(whole), 0)
    return np.stack([
        whole[r * step : r * step + SIDE, c * step : c * step + SIDE]
        for r in range(ROWS) for c in range(COLUMNS)
    ]).astype(np.float32)  # fmt: skip


def rms(image: np.ndarray) -> float:
    return float(np.sqrt(np.mean((image - image.mean()) ** 2)))


@pytest.mark.parametrize("covered", [0.0, 0.4])
def test_a_wave_that_comes_and_goes_is_found_between_specimens(covered: float) -> None:
    rng = np.random.default_rng(1)
    drift, specimen = beam(), cells_of_specimen(rng, covered)
    tiles = drift + specimen + rng.normal(0, 0.003, drift.shape).astype(np.float32)
    found = change_of(tiles, KNOWN, None, *overlaps_of(tiles))
    assert rms(found.cells - drift) < 0.25 * rms(drift)
    assert np.median(np.abs(found.left)) < np.median(np.abs(overlaps_of(tiles)[1]))


def test_what_all_tiles_have_in_common_is_found() -> None:
    rng = np.random.default_rng(2)
    missing = 0.02 * wave(0.1)
    specimen = cells_of_specimen(rng, 0.3)
    found = change_of(missing + specimen, KNOWN, None, *overlaps_of(missing + specimen))
    assert rms(found.cells - missing) < 0.3 * rms(missing)


def test_a_specimen_that_hides_the_beam_is_left_alone() -> None:
    """Thick and nowhere empty: what tiles show is no beam, and overlaps say so."""
    rng = np.random.default_rng(3)
    step = round(SIDE * 0.8)
    whole = ndimage.gaussian_filter(rng.standard_normal([step * (ROWS + 1) + SIDE] * 2), 6)
    whole *= 0.3 / whole.std()
    tiles = np.stack([
        whole[r * step : r * step + SIDE, c * step : c * step + SIDE]
        for r in range(ROWS) for c in range(COLUMNS)
    ]).astype(np.float32)  # fmt: skip
    found = change_of(tiles, KNOWN, None, *overlaps_of(tiles))
    assert rms(found.cells) < 0.02 * rms(tiles)


def test_nothing_known_changes_nothing() -> None:
    tiles = beam()
    overlaps, left = overlaps_of(tiles)
    found = change_of(tiles, np.zeros_like(KNOWN), None, overlaps, left)
    assert not found.cells.any()
    np.testing.assert_array_equal(found.left, left)


def test_order_of_time_counts_not_order_of_tiles() -> None:
    rng = np.random.default_rng(4)
    order = rng.permutation(COUNT)
    tiles = beam() + rng.normal(0, 0.002, (COUNT, SIDE, SIDE)).astype(np.float32)
    hours = np.arange(COUNT) * TILE_H
    straight = change_of(tiles, KNOWN, hours, *overlaps_of(tiles))
    # the same tiles, told in another order, with the same overlaps between them
    place = np.argsort(order)
    overlaps, left = overlaps_of(tiles)
    moved = [
        Overlap(
            int(place[o.first]), int(place[o.second]), o.place_first, o.place_second,
            o.difference, o.own_difference, o.others,
        )
        for o in overlaps
    ]  # fmt: skip
    mixed = change_of(tiles[order], KNOWN, hours[order], moved, left)
    np.testing.assert_allclose(mixed.cells[place], straight.cells, atol=1e-6)


def test_average_is_an_exponential_on_both_sides() -> None:
    rng = np.random.default_rng(5)
    weights, values = rng.random((2, 7, 3)).astype(np.float32)
    hours = np.cumsum(rng.random(7))
    keep = np.exp(-np.diff(hours) / 0.8).astype(np.float32)
    kernel = np.exp(-np.abs(hours[:, None] - hours) / 0.8)
    expected = (kernel @ (weights * values)) / (kernel @ weights + 0.5)
    np.testing.assert_allclose(_average(weights, values, keep, 0.5), expected, rtol=1e-5)


def test_halves_that_agree_are_kept_and_noise_is_not() -> None:
    rng = np.random.default_rng(6)
    signal = np.repeat(wave().ravel()[None], 20, axis=0)
    noise = rng.standard_normal((2, 20, SIDE * SIDE)).astype(np.float32)
    one, two = signal + noise[0], signal + noise[1]
    kept = _agreeing(one, two, (one + two) / 2, KNOWN)
    assert rms(kept - signal) < 0.25 * rms((one + two) / 2 - signal)
    nothing = _agreeing(noise[0], noise[1], noise.mean(axis=0), KNOWN)
    assert rms(nothing) < 0.3 * rms(noise.mean(axis=0))
    np.testing.assert_allclose(_agreeing(signal, signal, signal, KNOWN), signal, atol=1e-5)


def test_cells_behind_the_aperture_take_their_neighbours() -> None:
    known = KNOWN.copy()
    known[:5, :5] = False
    values = np.arange(known.sum(), dtype=np.float32)[None]
    whole = _filled(values, known)[0]
    np.testing.assert_array_equal(whole[known], values[0])
    assert whole[4, 0] == whole[5, 0] and whole[0, 4] == whole[0, 5]


def test_differences_of_what_is_common_and_of_each() -> None:
    tiles = beam()
    overlaps, left = overlaps_of(tiles)
    np.testing.assert_allclose(_differences(overlaps, tiles), left, atol=1e-6)
    common = tiles[:1]
    whole = np.repeat(common, COUNT, axis=0)
    np.testing.assert_allclose(
        _differences(overlaps, common), _differences(overlaps, whole), atol=1e-12
    )
