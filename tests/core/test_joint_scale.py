"""Large mosaics: few tiles are asked about, threads change no bit, the parts equal plain ways."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.core import overview
from napari_txm_bgcorr.core.classical import Captured
from napari_txm_bgcorr.core.joint import solve
from napari_txm_bgcorr.core.level import BLOCKS, LEAST_BLOCK, empty_areas
from napari_txm_bgcorr.core.medians import masked_median, median_of
from napari_txm_bgcorr.core.mosaic import Joint, joint, survey
from napari_txm_bgcorr.core.overlap_pattern import overlap_pattern
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import Coarse, product
from napari_txm_bgcorr.core.threads import spread
from tests.core.test_mosaic import SIZE, make_scan, one_scale_error, polynomial


class Given:
    """Backgrounds given beforehand; remembers what it was asked about."""

    name = "given"

    def __init__(self, backgrounds: np.ndarray, *, knows_drift: bool = False) -> None:
        self.backgrounds, self.knows_drift = backgrounds, knows_drift
        self.asked: list[int] = []

    def fit(self, scan: Scan) -> Given:
        return self

    def background(self, tiles: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
        places = [int(i) for i in np.asarray(index)]
        self.asked += places
        return self.backgrounds[places]

    def describe(self) -> dict[str, object]:
        return {}


@pytest.fixture(scope="module")
def made() -> tuple[Scan, np.ndarray, np.ndarray]:
    """5 x 5 tiles whose given shape is tilted, the same in all."""
    errors = np.broadcast_to(polynomial({(0, 1): 0.03, (2, 0): 0.03}), (25, SIZE, SIZE))
    return make_scan(np.array(errors), grid=(5, 5))


def test_a_method_is_asked_about_few_tiles_in_pairs(made, monkeypatch) -> None:
    scan, true, given = made
    every = Joint(Given(given), positions_px=scan.positions_px).fit(scan)
    monkeypatch.setattr(overview, "MAX_SHARED", 8)
    method = Given(given)
    few = Joint(method, positions_px=scan.positions_px).fit(scan)
    assert len(method.asked) == len(set(method.asked)) == 8
    assert all({i - 1, i + 1} & set(method.asked) for i in method.asked)
    assert few.joined is not None and few.joined.solution is not None
    level = few.joined.solution.method_level
    assert np.flatnonzero(np.isfinite(level)).tolist() == sorted(method.asked)
    index = np.arange(25)
    errors = [one_scale_error(m.background(scan.tiles[:], index), true) for m in (every, few)]
    assert errors[1] < 0.5 * one_scale_error(given, true)
    assert errors[1] < errors[0] + 0.002


def test_a_method_that_knows_the_drift_is_asked_about_all(made, monkeypatch) -> None:
    scan, _, given = made
    monkeypatch.setattr(overview, "MAX_SHARED", 8)
    method = Given(given, knows_drift=True)
    Joint(method, positions_px=scan.positions_px).fit(scan)
    assert sorted(method.asked) == list(range(25))
    assert Captured.knows_drift


def test_pairs_are_spread_and_none_is_left_out_of_a_small_scan() -> None:
    for count, limit in ((10, 48), (48, 48), (49, 48), (961, 48), (7, 4)):
        places = overview._spread_pairs(count, limit)
        assert len(places) == len(set(places)) <= limit
        assert places[0] >= 0 and places[-1] < count
        if count <= limit:
            assert places == list(range(count))
        elif count > 4 * limit:
            assert np.diff(places[::2]).max() < 3 * count / limit


def test_without_any_pair_asked_about_the_shape_tells_the_seams(made) -> None:
    scan, _, given = made
    seen = survey(scan, given)
    blind = replace(seen, rest=np.full_like(seen.rest, np.nan))
    blind.rest[12] = seen.rest[12]
    found = solve(blind, scan.positions_px)
    assert not isinstance(found, str) and found.seam_before > 0


def test_threads_change_no_bit(made, monkeypatch) -> None:
    scan, _, given = made
    monkeypatch.setattr("napari_txm_bgcorr.core.overlap_pattern.BLOCK", 4)
    seen = survey(scan, given)
    one, three = (joint(scan, given, scan.positions_px, overview=seen, workers=n) for n in (1, 3))
    assert one.applied
    for i in (0, 12, 24):
        np.testing.assert_array_equal(one.backgrounds[i], three.backgrounds[i])
    assert one.level == three.level
    smooth = np.zeros(seen.raw.shape[1:], np.float32)
    patterns = [
        overlap_pattern(seen, scan.positions_px, lambda i: smooth, workers=n) for n in (1, 3)
    ]
    np.testing.assert_array_equal(*patterns)
    assert patterns[0].any()


def test_the_pattern_of_a_large_mosaic_comes_from_its_middle(made, monkeypatch) -> None:
    scan, _, given = made
    seen = survey(scan, given)
    asked: list[int] = []

    def smooth(i: int) -> np.ndarray:
        asked.append(i)
        return np.zeros(seen.raw.shape[1:], np.float32)

    monkeypatch.setattr("napari_txm_bgcorr.core.overlap_pattern.MOST", 9)
    overlap_pattern(seen, scan.positions_px, smooth)
    assert asked == [6, 7, 8, 11, 12, 13, 16, 17, 18]


def test_results_come_in_order_a_few_ahead_and_a_stop_leaves_no_thread() -> None:
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        time.sleep(0.001 * (i % 3))
        return i * i

    assert list(spread(work, range(40), 3)) == [i * i for i in range(40)]
    before, started[:] = threading.active_count(), []
    results = spread(work, range(1000), 2)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before and len(started) < 20


@pytest.mark.parametrize("count", [3, 8])
def test_medians_are_those_of_numpy(count: int, monkeypatch) -> None:
    monkeypatch.setattr("napari_txm_bgcorr.core.medians.BAND_PX", 100)
    rng = np.random.default_rng(count)
    stack = rng.normal(size=(count, 37, 21)).astype(np.float32)
    np.testing.assert_array_equal(median_of(stack, 2), np.median(stack, axis=0))
    kept = rng.random(stack.shape) < rng.random((37, 21))
    use = kept | (kept.sum(axis=0) < 3)
    want = np.nanmedian(np.where(use, stack, np.nan), axis=0)
    np.testing.assert_array_equal(masked_median(stack, lambda rows: kept[:, rows], 3, 2), want)


def test_a_product_in_pieces_is_the_product() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(301, 64)), rng.normal(size=(64, 257))
    got = product(left.astype(np.float32), right.astype(np.float32))
    np.testing.assert_allclose(got, left @ right, atol=1e-4)
    flat = np.full(Coarse((300, 300)).size, 2.5, np.float32)
    np.testing.assert_allclose(Coarse((300, 300)).expand(flat), 2.5, rtol=1e-5)


def test_blocks_of_white_noise_are_smooth_and_a_step_is_not(made) -> None:
    """Empty areas are told by texture over noise, in blocks: here the left half is a grating."""
    seen = survey(made[0], made[2])
    shape = seen.lit_bins.shape
    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.01, shape).astype(np.float32)
    image[:, : shape[1] // 2] += 0.1 * np.sin(np.arange(shape[1] // 2) / 2).astype(np.float32)
    level, share = empty_areas(seen, lambda i: image)
    size = max(LEAST_BLOCK, min(shape) // BLOCKS)
    assert level == pytest.approx(0, abs=0.5 * 0.01) and 0.3 < share < 0.51
    assert min(shape) // size > 8
