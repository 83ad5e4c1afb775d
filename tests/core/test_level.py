"""The absolute level: from I0, empty areas, references, else relative; and never from nowhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_txm_bgcorr.core import overview
from napari_txm_bgcorr.core.classical import Smooth
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.level import empty_areas
from napari_txm_bgcorr.core.mosaic import Joint, joint_notes, registered
from napari_txm_bgcorr.core.scan import Scan
from tests.core.test_mosaic import SIZE, make_scan, polynomial

OFF = 0.3  # the given backgrounds are too dark by this much, log


def dense(seed: int = 1) -> tuple[Scan, np.ndarray]:
    """Mosaic all covered by a specimen with texture, and its true log backgrounds."""
    tilt = np.linspace(-0.05, 0.05, 16)[:, None, None] * polynomial({(0, 1): 1.0})
    scan, true, _ = make_scan(tilt, contrast=0.3, seed=seed)
    rng = np.random.default_rng(7)
    rough = ndimage.gaussian_filter(rng.standard_normal(scan.tiles.shape), (0, 2, 2))
    tiles = np.asarray(scan.tiles[:]) * np.exp(-0.4 + 0.02 * rough / rough.std())
    return replace(scan, tiles=tiles.astype(np.float32)), true


def half_empty() -> tuple[Scan, np.ndarray]:
    """The same kind of mosaic, whose lower half shows nothing but the beam."""
    tilt = np.linspace(-0.05, 0.05, 16)[:, None, None] * polynomial({(0, 1): 1.0})
    scan, true, _ = make_scan(tilt, contrast=0.3)
    tiles = np.asarray(scan.tiles[:]).copy()
    rng = np.random.default_rng(3)
    for i in range(8):  # bottom rows first
        tiles[i] = np.exp(true[i]) * (1 + 0.003 * rng.standard_normal((SIZE, SIZE)))
    return replace(scan, tiles=tiles), true


class Given:
    """A method whose backgrounds are known, and wrong by one factor."""

    name = "given"

    def __init__(self, log: np.ndarray) -> None:
        self.log = log

    def fit(self, scan: Scan) -> Given:
        return self

    def background(self, tiles: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
        return np.exp(np.asarray(self.log)[index] - OFF).astype(np.float32)

    def describe(self) -> dict:
        return {}


def level_error(method: Joint, scan: Scan, true: np.ndarray) -> float:
    found = np.log(method.background(scan.tiles, np.arange(16)))
    return abs(float(np.median(found - true)))


def joined(scan: Scan, true: np.ndarray, **given: object) -> Joint:
    shape = np.broadcast_to(true.mean(axis=0), true.shape)
    return Joint(Given(shape), positions_px=scan.positions_px, **given).fit(scan)  # type: ignore[arg-type]


def test_empty_areas_set_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the method's shape alone: quantiles of dense tiles share a little specimen with it."""
    monkeypatch.setattr(overview, "LEAST_TILES", 99)
    scan, true = half_empty()
    method = joined(scan, true)
    assert method.describe()["joint"]["level"]["from"] == "empty areas"
    assert method.describe()["joint"]["level"]["empty_share"] > 0.5
    assert level_error(method, scan, true) < 0.01
    assert method.notes == ()


def test_references_set_the_level_where_nothing_is_empty() -> None:
    scan, true = dense()
    flat = np.exp(true.mean(axis=0))[None].astype(np.float32)
    method = joined(replace(scan, flats=flat), true)
    assert method.describe()["joint"]["level"]["from"] == "references"
    assert level_error(method, scan, true) < 0.02


def test_a_reading_of_i0_comes_first() -> None:
    scan, true = half_empty()
    method = joined(scan, true, i0=float(np.median(np.exp(true))))
    assert method.describe()["joint"]["level"]["from"] == "I0"
    assert level_error(method, scan, true) < 0.02
    with pytest.raises(MethodError, match="above 0"):
        Joint(Smooth(), i0=-3.0)


def test_without_any_the_level_is_relative_and_told() -> None:
    """Texture everywhere, coarser than a pixel: no block is as smooth as an empty one."""
    scan, true = dense()
    method = joined(scan, true)
    described = method.describe()
    assert described["joint"]["level"]["from"] == "relative"
    assert "relative" in joint_notes(described)[0]
    assert level_error(method, scan, true) == pytest.approx(OFF, abs=0.05), "the method's own"


def test_empty_areas_lie_above_a_smooth_specimen() -> None:
    """Two plateaus: the brighter one is the beam, whichever is the larger."""

    class Fake:
        lit_bins = np.ones((64, 64), bool)

        def __len__(self) -> int:
            return 4

    rng = np.random.default_rng(0)

    def residual(i: int) -> np.ndarray:
        image = 0.002 * rng.standard_normal((64, 64)).astype(np.float32)
        image[:, :40] -= 0.2
        return image + np.float32(0.1)

    level, share = empty_areas(Fake(), residual)  # type: ignore[arg-type]
    assert level == pytest.approx(0.1, abs=0.003)
    assert share == pytest.approx(5 / 16, abs=0.05)  # the block at the edge is none


def test_registered_places_travel_with_the_description() -> None:
    scan, true = half_empty()
    method = Joint(Given(true)).fit(scan)
    described = method.describe()
    moved = registered(scan, described)
    assert described["joint"]["pairs_registered"] == method.positions.used > 0
    np.testing.assert_allclose(moved.positions_px, method.positions.positions_px, atol=0.006)
    assert moved.notes[-1] == method.positions.note
    assert registered(scan, {}) is scan
