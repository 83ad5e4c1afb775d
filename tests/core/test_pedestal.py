"""The pedestal of a scan without dark images, from what lies behind its aperture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.core.pedestal import ASKED, with_pedestal
from napari_txm_bgcorr.simulation.acquisition import SimulatedScan, simulate_mosaic


@pytest.fixture(scope="module")
def covered() -> SimulatedScan:
    """Three of seven rows under a slab, deep corners, no dark image."""
    drawn = simulate_mosaic(
        7, 7, size=96, specimen="cells", family="bl01b", covered_rows=3, seed=22, darks=0,
        jitter_px=8,
    )  # fmt: skip
    assert not drawn.session.aperture.all()
    return replace(drawn, scan=replace(drawn.scan, tiles=np.asarray(drawn.scan.tiles[:])))


def test_the_corners_tell_it(covered: SimulatedScan) -> None:
    known, level = with_pedestal(covered.scan)
    truth = float(covered.session.dark.mean())
    assert level == pytest.approx(truth, rel=0.02)
    dark = known.dark()
    assert dark is not None
    assert dark.shape == covered.scan.tiles.shape[1:]
    assert np.all(dark == np.float32(level))


def test_small_corners_tell_it_where_somebody_asks() -> None:
    drawn = simulate_mosaic(2, 2, size=256, specimen="cells", family="bl01b", seed=1000, darks=0)
    assert with_pedestal(drawn.scan)[1] is None
    level = with_pedestal(drawn.scan, least=ASKED)[1]
    assert level == pytest.approx(float(drawn.session.dark.mean()), rel=0.02)


def test_a_dark_image_is_better(covered: SimulatedScan) -> None:
    scan = replace(covered.scan, darks=covered.session.dark[None])
    assert with_pedestal(scan) == (scan, None)


def test_where_all_is_lit_nothing_tells_it(covered: SimulatedScan) -> None:
    lit = covered.scan.tiles[:, 30:66, 30:66]
    assert with_pedestal(replace(covered.scan, tiles=lit))[1] is None


def test_a_corner_as_bright_as_specimens_is_none(covered: SimulatedScan) -> None:
    """An absorber that is darker than the corner: not the pedestal alone is there."""
    tiles = np.asarray(covered.scan.tiles).copy()
    tiles[:, 40:60, 40:60] = covered.session.dark.mean() / 2
    assert with_pedestal(replace(covered.scan, tiles=tiles))[1] is None
