"""A whole mosaic: what all tiles are looked at for, its places and its picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.smooth import Captured, TileMedian
from napari_txm_bgcorr.core.polynomials import legendre, terms
from napari_txm_bgcorr.core.scan import Scan, Source, raster_positions
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.mosaic.assembly import blend, registered
from napari_txm_bgcorr.mosaic.fixed_pattern import shared_pattern
from napari_txm_bgcorr.mosaic.overview import MethodBackgrounds, survey
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic

SIZE = 96


@pytest.fixture(scope="module")
def made() -> Scan:
    """12 tiles and one reference."""
    drawn = simulate_mosaic(3, 4, size=SIZE, references=1, reference_hours=8.0, darks=1, seed=5)
    return replace(drawn.scan, tiles=np.asarray(drawn.scan.tiles[:]))


def test_same_bits_for_any_number_of_threads(made: Scan) -> None:
    given = TileMedian().fit(made).background(made.tiles, np.arange(12))
    one, three = (survey(made, given, workers=n) for n in (1, 3))
    for name in ("raw", "shape", "pattern", "cells", "stack", "raw_level"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))


def test_backgrounds_of_another_number_are_refused(made: Scan) -> None:
    with pytest.raises(MethodError, match="one background for each tile"):
        survey(made, np.asarray(made.tiles[:3]))


def test_a_method_that_knows_the_drift_is_asked_about_every_tile(made: Scan) -> None:
    """Its levels and what each background differs by give the backgrounds back."""
    method = Captured().fit(made)
    known = survey(made, MethodBackgrounds(made, method, knows_drift=True))
    guess = survey(made, MethodBackgrounds(made, method))
    assert guess.change is None and guess.levels is None
    assert known.change is not None and known.levels is not None
    coarse = known.coarse
    cells = coarse.mean(known.pattern) + known.change[7] + np.float32(known.levels[7])
    own = method.background(made.tiles[7][None], np.array([7]))[0] - made.dark()
    usable = coarse.mean(known.lit.astype(np.float32)) > 0.999
    np.testing.assert_allclose(cells[usable], coarse.mean(np.log(own))[usable], atol=2e-3)


def test_the_lit_field_is_that_of_the_references() -> None:
    """A specimen that stays in its dark corner is no aperture."""
    y, x = np.mgrid[:64, :64]
    corner = (63 - x) + y < 24
    flat = np.full((64, 64), 9000, np.float32)
    tiles = np.where(corner, 40, flat) * np.ones((5, 1, 1), np.float32)
    scan = Scan(
        tiles, "series", Source(Path("made"), "made"), tuple("abcde"), flats=flat[None]
    )  # fmt: skip
    method = Captured().fit(scan)
    assert survey(scan, MethodBackgrounds(scan, method, knows_drift=True)).lit.all()
    assert not survey(scan, MethodBackgrounds(scan, method)).lit[corner].all()


def test_places_that_a_method_has_found_are_taken_over() -> None:
    places = raster_positions((1, 2), (10, 10))
    scan = Scan(
        np.ones((2, 12, 12), np.float32), "mosaic", Source(Path("made"), "made"), ("a", "b"),
        grid=(1, 2), positions_px=places,
    )  # fmt: skip
    found = {"joint": {"positions_px": [[0, 0], [1.25, 9]], "registration": "1 of 1 registered"}}
    moved = registered(scan, found)
    np.testing.assert_array_equal(moved.positions_px, [[0, 0], [1.25, 9]])
    assert moved.notes[-1] == "1 of 1 registered"
    for nothing in ({}, {"joint": {}}, {"joint": {"positions_px": [[0, 0]]}}):
        assert registered(scan, nothing) is scan


def test_pattern_is_believed_only_where_halves_agree() -> None:
    rng = np.random.default_rng(3)
    lit = np.ones((SIZE, SIZE), bool)
    noise = 0.03 * rng.standard_normal((12, SIZE, SIZE))
    _, none = shared_pattern(noise.astype(np.float16), lit)
    assert none.max() < 0.1
    pattern = 0.03 * rng.standard_normal((SIZE, SIZE))
    found, kept = shared_pattern((noise + pattern).astype(np.float16), lit)
    assert kept[0] > 0.8
    assert np.std(found - pattern) < 0.5 * np.std(pattern)
    few, untouched = shared_pattern((noise + pattern)[:3].astype(np.float16), lit)
    assert not few.any()
    assert not untouched.any()


def test_terms_begin_with_the_constant_and_are_orthogonal() -> None:
    order = terms(3)
    assert order[0] == (0, 0)
    assert len(order) == 10
    axis = (np.arange(400) + 0.5) / 200 - 1
    values = legendre(order, np.repeat(axis, 400), np.tile(axis, 400))
    products = values.T @ values / len(values)
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-4


def test_blend_weights_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(0.5, 1, (100, 130)).astype(np.float32)
    corners = np.array([[0, 0], [0, 50], [40, 3], [40, 50]], np.float64)
    tiles = np.stack([image[int(y) : int(y) + 60, int(x) : int(x) + 80] for y, x in corners])
    whole = blend(tiles, corners)
    assert whole.shape == (100, 130)
    seen = np.isfinite(whole)
    np.testing.assert_allclose(whole[seen], image[seen], rtol=1e-5)
    valid = np.ones(tiles.shape, bool)
    valid[1, :, :40] = False
    broken = tiles.copy()
    broken[1, :, :40] = np.nan
    masked = blend(broken, corners, valid)
    shown = np.isfinite(masked)
    np.testing.assert_allclose(masked[shown], image[shown], rtol=1e-5)
    assert shown.sum() <= seen.sum()
