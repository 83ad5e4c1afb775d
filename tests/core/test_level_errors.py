"""What the joint stage says of the errors of its own levels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.core.mosaic import Joint
from napari_txm_bgcorr.core.simulate import SimulatedScan, simulate_mosaic
from napari_txm_bgcorr.core.tile_median import TileMedian
from napari_txm_bgcorr.core.tile_quality import Gauge, measure

SIDE = 8
UNDER = slice(3, 5)  # rows that the slab covers wholly


@pytest.fixture(scope="module")
def drawn() -> SimulatedScan:
    made = simulate_mosaic(
        SIDE, SIDE, size=96, specimen="cells", family="tilt", covered_rows=4, seed=5, darks=1,
        jitter_px=8, hours_per_tile=1 / 20,
    )  # fmt: skip
    return replace(made, scan=replace(made.scan, tiles=np.asarray(made.scan.tiles[:])))


@pytest.fixture(scope="module")
def method(drawn: SimulatedScan) -> Joint:
    return Joint(TileMedian(), positions_px=drawn.positions_px).fit(drawn.scan)


def test_rows_under_a_slab_are_less_sure(method: Joint) -> None:
    errors = np.array(method.describe()["joint"]["level_errors"]).reshape(SIDE, SIDE)
    assert errors.min() > 0.001
    assert errors[UNDER].mean() > 1.2 * np.median(errors[[1, -2]])


def test_they_are_of_the_size_of_the_true_ones(drawn: SimulatedScan, method: Joint) -> None:
    errors = np.array(method.describe()["joint"]["level_errors"])
    lit = drawn.session.aperture
    dark = drawn.scan.dark()
    assert dark is not None
    levels = np.array([
        np.median((tile.background - dark)[lit] / drawn.backgrounds[tile.index][lit])
        for tile in correct_tiles(drawn.scan, method)
    ])  # fmt: skip
    true = np.log(levels) - np.log(levels).mean()
    assert 0.2 < np.sqrt(np.mean((true / errors) ** 2)) < 3


def test_the_table_has_them_where_the_stage_was_applied(
    drawn: SimulatedScan, method: Joint
) -> None:
    described = method.describe()
    tiles = list(correct_tiles(drawn.scan, method))
    background, corrected = (
        np.stack([getattr(t, name) for t in tiles]) for name in ("background", "transmission")
    )
    table = measure(
        drawn.scan, background, corrected, registration=False, described=described
    ).table()  # fmt: skip
    np.testing.assert_array_equal(table.level_error, described["joint"]["level_errors"])
    plain = Gauge(drawn.scan)
    for given in ({}, {"joint": {"applied": False}}, {"joint": {"level_errors": [0.1]}}):
        plain.tell(given)
        assert np.isnan(plain.table().level_error).all()
