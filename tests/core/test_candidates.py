"""Several answers to what the tiles share: overlaps tell how much to take of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pytest
from scipy import ndimage

from napari_txm_bgcorr.core import overview
from napari_txm_bgcorr.core.candidates import compare_shapes
from napari_txm_bgcorr.core.joint import JointOptions
from napari_txm_bgcorr.core.medians import quantiles_of
from napari_txm_bgcorr.core.mosaic import Joint, joint, survey
from napari_txm_bgcorr.core.scan import Scan
from tests.core.test_mosaic import SIZE, make_scan, one_scale_error


class Given:
    """Backgrounds given beforehand, the same for every tile, and other candidates."""

    def __init__(self, log: np.ndarray, others: Mapping[str, Given] | None = None) -> None:
        self.name, self.log, self.others = "given", log, dict(others or {})
        self.asked: list[int] = []
        self.fits = 0

    def prepare(self, scan: Scan) -> Self:
        return self

    def fit(self, scan: Scan) -> Self:
        self.fits += 1
        return self

    def background(self, tiles: np.ndarray, index: Sequence[int] | None = None) -> np.ndarray:
        self.asked += [] if index is None else [int(i) for i in index]
        return np.broadcast_to(np.exp(self.log), tiles.shape).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        return {"fits": self.fits, "others": len(self.others)}

    def candidates(self, scan: Scan) -> dict[str, Given]:
        return self.others


def traces(seed: int) -> np.ndarray:
    """What specimens leave in a shape: structure too fine for the smooth terms."""
    image = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((SIZE, SIZE)), 6)
    return 0.06 * image / image.std()


def shares_of(one: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, Joint, np.ndarray, Scan]:
    """Shares of shapes that are off by these, in one mosaic."""
    scan, true, _ = make_scan(np.zeros((16, SIZE, SIZE)))
    named = {f"c{k}": Given(true[0] + off) for k, off in enumerate((one, *others))}
    method = Given(true[0] + one, named)
    stage = Joint(method, JointOptions(least_seam=0), positions_px=scan.positions_px).fit(scan)
    assert stage.joined is not None and stage.joined.solution is not None
    return stage.joined.solution.shares, stage, true, scan


@pytest.fixture
def no_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the shapes that a test names."""
    monkeypatch.setattr(overview, "LEAST_TILES", 99)


@pytest.mark.usefixtures("no_quantiles")
def test_the_shape_without_traces_is_taken_and_the_error_falls() -> None:
    clean, leaked = np.zeros((SIZE, SIZE)), traces(1)
    shares, stage, true, scan = shares_of(leaked, clean, traces(2))
    assert shares[0] > 0.85 and shares.sum() <= 1 + 1e-9 and (shares >= 0).all()
    assert stage.describe()["joint"]["shares"]["c1"] == pytest.approx(shares[0], abs=1e-3)
    alone = Joint(Given(true[0] + leaked), positions_px=scan.positions_px).fit(scan)
    errors = [one_scale_error(s.joined.backgrounds, true) for s in (alone, stage)]
    assert errors[1] < 0.4 * errors[0]


@pytest.mark.usefixtures("no_quantiles")
def test_the_first_shape_is_kept_where_the_others_are_worse() -> None:
    shares, *_ = shares_of(np.zeros((SIZE, SIZE)), traces(1), traces(2))
    assert shares.sum() < 0.15


@pytest.mark.usefixtures("no_quantiles")
def test_shapes_that_are_off_in_different_ways_are_mixed() -> None:
    shares, stage, true, _ = shares_of(traces(1), traces(2))
    assert shares[0] == pytest.approx(0.5, abs=0.2)
    assert one_scale_error(stage.joined.backgrounds, true) < 0.85 * 0.06


@pytest.mark.usefixtures("no_quantiles")
def test_a_candidate_opposed_to_the_first_takes_no_more_than_all() -> None:
    """Unbounded, the best mixture would overshoot: the error is twice as large the same way."""
    shares, *_ = shares_of(2 * traces(1), traces(1))
    assert shares[0] == pytest.approx(1.0)


@pytest.mark.usefixtures("no_quantiles")
def test_one_candidate_alone_is_the_method_itself() -> None:
    scan, true, _ = make_scan(np.zeros((16, SIZE, SIZE)))
    method = Given(true[0] + traces(1))
    stage = Joint(method, positions_px=scan.positions_px).fit(scan)
    plain = joint(scan, np.broadcast_to(np.exp(method.log), scan.tiles.shape), scan.positions_px)
    assert "shares" not in stage.describe()["joint"]
    np.testing.assert_array_equal(stage.joined.backgrounds[3], plain.backgrounds[3])


@pytest.mark.usefixtures("no_quantiles")
def test_a_fit_that_the_stage_does_not_use_is_not_made() -> None:
    shares, stage, _, scan = shares_of(traces(1), traces(2))
    assert len(shares) == 1 and stage.method.fits == 0
    told = stage.describe()
    assert told["others"] == 0  # what the first candidate says of itself
    unseen = stage.background(np.asarray(scan.tiles[:1]))  # of no tile of the scan
    np.testing.assert_allclose(unseen[0], np.exp(stage.method.others["c0"].log), rtol=1e-5)


def test_the_method_is_fitted_where_the_stage_steps_aside() -> None:
    scan, true, _ = make_scan(np.zeros((16, SIZE, SIZE)))
    method = Given(true[0], {"c0": Given(true[0] + 1)})
    options = JointOptions(least_tiles=99)
    stage = Joint(method, options, positions_px=scan.positions_px).fit(scan)
    assert stage.reason and method.fits == 1 and stage.describe()["others"] == 1
    own = stage.background(np.asarray(scan.tiles[:1]), np.array([0]))
    np.testing.assert_allclose(own[0], np.exp(true[0]), rtol=1e-5)
    alone = Given(true[0])  # which offers nothing
    assert Joint(alone, positions_px=scan.positions_px).fit(scan).method.fits == 1


@pytest.mark.usefixtures("no_quantiles")
def test_mixing_moves_the_shape_and_nothing_else() -> None:
    scan, true, _ = make_scan(np.zeros((16, SIZE, SIZE)))
    one, other = Given(true[0] + traces(1)), Given(true[0] + traces(2))
    seen = survey(scan, np.broadcast_to(np.exp(one.log), scan.tiles.shape).astype(np.float32))
    both = compare_shapes(scan, seen, [other], workers=2)
    mixed = both.mixed(np.array([0.3]))
    np.testing.assert_allclose(mixed.raw + mixed.shape, seen.raw + seen.shape, atol=2e-3)
    np.testing.assert_allclose(mixed.shape - seen.shape, 0.3 * both.others[0], atol=1e-6)
    assert both.mixed(np.zeros(1)) is both
    again = compare_shapes(scan, seen, [other], workers=1)
    np.testing.assert_array_equal(again.others, both.others)
    level = replace(seen, raw_level=seen.raw_level + 1)
    np.testing.assert_array_equal(compare_shapes(scan, level, [other]).others, both.others)


def test_quantiles_of_the_tiles_replace_a_shape_that_holds_traces() -> None:
    """The specimen is weak: what the tiles show is better than what the method says."""
    scan, true, _ = make_scan(np.zeros((16, SIZE, SIZE)), contrast=0.03)
    method = Given(true[0] + traces(1))
    stage = Joint(method, positions_px=scan.positions_px).fit(scan)
    shares = stage.describe()["joint"]["shares"]
    assert list(shares) == ["given", *(f"quantile {q} of tiles" for q in overview.QUANTILES)]
    assert sum(shares.values()) == pytest.approx(1, abs=2e-3)
    assert shares["given"] < 0.2
    assert one_scale_error(stage.joined.backgrounds, true) < 0.3 * 0.06


def test_a_series_has_no_quantiles() -> None:
    """Its specimen never leaves the field."""
    scan, _, given = make_scan(np.zeros((16, SIZE, SIZE)))
    series = replace(scan, kind="series", grid=None, positions_px=None)
    assert len(survey(series, given).others) == 0
    assert len(survey(scan, given).others) == len(overview.QUANTILES)
    few = replace(
        scan, tiles=scan.tiles[:4], grid=(2, 2), names=scan.names[:4],
        positions_px=scan.positions_px[:4],
    )  # fmt: skip
    assert len(survey(few, given[:4]).others) == 0


def test_quantiles_are_those_of_numpy_for_any_number_of_threads() -> None:
    stack = np.random.default_rng(5).standard_normal((11, 40, 130)).astype(np.float32)
    found = [
        quantiles_of(lambda rows: stack[:, rows], (40, 130), (0.0, 0.25, 0.5, 1.0), workers)
        for workers in (1, 3)
    ]
    wanted = np.quantile(stack, (0.0, 0.25, 0.5, 1.0), axis=0)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[0], found[1])
