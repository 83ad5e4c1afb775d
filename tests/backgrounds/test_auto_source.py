"""What the automatic method starts from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.auto_source import AutoSource
from napari_txm_bgcorr.backgrounds.captured import Captured
from napari_txm_bgcorr.backgrounds.eigen_flats import EigenFlats, LevelledEigenFlats
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.evaluation.cases import CASES, draw_case

REFERENCES = CASES["tile, 8 references of the day"]


@pytest.fixture(scope="module")
def drawn() -> tuple[Scan, np.ndarray, np.ndarray]:
    """A tile of an instrument that drifts, its true background, and its lit field."""
    case = draw_case(REFERENCES, "held-out", 1, 128, 0)
    scan, truths = case.scans[0]
    dark = scan.dark()
    return scan, truths[0].reference + (0 if dark is None else dark), case.lit


def shape_error(background: np.ndarray, true: np.ndarray, lit: np.ndarray) -> float:
    off = np.log(background / true)[lit]
    return float(np.std(off))


def test_several_references_of_one_image_are_fitted_to_it(
    drawn: tuple[Scan, np.ndarray, np.ndarray],
) -> None:
    scan, true, lit = drawn
    auto = AutoSource(device="cpu").fit(scan)
    assert isinstance(auto.source, LevelledEigenFlats)
    assert auto.knows_drift and auto.follows_shape
    assert auto.describe()["prior"] == "references"
    index = np.zeros(1, np.int64)
    errors = [
        shape_error(method.background(scan.tiles[:1], index)[0], true, lit)
        for method in (auto, Captured().fit(scan))
    ]
    assert errors[0] < 0.9 * errors[1]


def test_their_level_is_that_which_the_references_tell(
    drawn: tuple[Scan, np.ndarray, np.ndarray],
) -> None:
    """Not that of the tile, which may be all sample."""
    scan, *_ = drawn
    index = np.zeros(1, np.int64)
    dimmed = replace(scan, tiles=np.asarray(scan.tiles) // 2)
    for one in (scan, dimmed):
        told = Captured().fit(one).background(one.tiles[:1], index)
        levelled = LevelledEigenFlats().fit(one).background(one.tiles[:1], index)
        assert np.median(levelled) == pytest.approx(np.median(told), rel=0.02)
    bare = [np.median(EigenFlats().fit(s).background(s.tiles[:1], index)) for s in (scan, dimmed)]
    assert bare[1] < 0.8 * bare[0]


@pytest.mark.parametrize(("kind", "count"), [("mosaic", 8), ("single", 2)])
def test_mosaics_and_few_references_are_taken_as_captured(
    drawn: tuple[Scan, np.ndarray, np.ndarray], kind: str, count: int
) -> None:
    scan, *_ = drawn
    flats, times = np.asarray(scan.flats)[:count], scan.flat_times[:count]
    few = replace(
        scan, flats=flats, flat_times=times, flat_exposures_s=np.full(count, scan.exposure_s)
    )
    if kind == "mosaic":
        few = replace(
            few, kind="mosaic", tiles=np.repeat(np.asarray(scan.tiles), 2, 0), names=("a", "b"),
            times=np.repeat(scan.times, 2), grid=(1, 2),
            positions_px=np.array([[0.0, 0.0], [0.0, 100.0]]),
        )  # fmt: skip
    auto = AutoSource(device="cpu").fit(few)
    assert isinstance(auto.source, Captured) and not auto.follows_shape


def test_without_references_the_network_tells(
    drawn: tuple[Scan, np.ndarray, np.ndarray],
) -> None:
    scan = replace(drawn[0], flats=None, flat_times=None, flat_exposures_s=None)
    auto = AutoSource(device="cpu").fit(scan)
    assert auto.source is auto.generator and not auto.knows_drift
    told = auto.predict_tiles(scan.tiles[:1])
    np.testing.assert_allclose(told.background, auto.background(scan.tiles[:1]), rtol=1e-4)
