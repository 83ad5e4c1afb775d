"""The pedestal of a scan without dark images, from what lies behind its aperture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift_model import DriftModel
from napari_txm_bgcorr.core.classical import Smooth
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.pedestal import ASKED, with_pedestal
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.simulate import SimulatedScan, simulate_mosaic
from napari_txm_bgcorr.core.tile_median import TileMedian


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


def test_under_a_slab_the_drift_model_needs_it(
    covered: SimulatedScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(scan: Scan) -> float:
        method = DriftModel(TileMedian(), positions_px=covered.positions_px).fit(scan)
        index = np.arange(len(scan))
        found = method.background(np.asarray(scan.tiles), index)
        lit = covered.session.aperture
        off = np.log(found[:, lit]) - np.log(
            np.asarray(covered.backgrounds[:])[:, lit] + covered.session.dark[lit]
        )
        return float((off - np.median(off)).std())

    with_it = error(covered.scan)
    monkeypatch.setattr(
        "napari_txm_bgcorr.backgrounds.drift_model.with_pedestal", lambda s, w: (s, None)
    )
    assert with_it < 0.8 * error(covered.scan)


def test_i0_holds_it_too(covered: SimulatedScan) -> None:
    _, level = with_pedestal(covered.scan)
    assert level is not None
    i0 = float(np.median(covered.backgrounds[0][covered.session.aperture])) + level
    method = DriftModel(TileMedian(), positions_px=covered.positions_px, i0=i0).fit(covered.scan)
    assert method.describe()["joint"]["pedestal_counts"] == pytest.approx(level, abs=0.1)
    found = np.median([
        np.median(method.background(covered.scan.tiles[i][None], np.array([i]))[
            0, covered.session.aperture
        ])
        for i in range(len(covered.scan))
    ])  # fmt: skip
    assert found == pytest.approx(i0, rel=0.02)
    with pytest.raises(MethodError, match="behind the aperture"):
        DriftModel(Smooth(), i0=level / 2).fit(covered.scan)
