"""A smooth field between observations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_txm_bgcorr.backgrounds.drift.gaussian_field import SmoothField

SHAPE, SD, REACH = (30, 36), 0.05, 8.0


@pytest.fixture(scope="module")
def field() -> SmoothField:
    return SmoothField(SHAPE, SD, REACH)


def test_its_deviation_is_about_what_is_stated(field: SmoothField) -> None:
    sd = np.sqrt(field.variance(np.zeros(SHAPE)))
    inner = sd[8:-8, 8:-8]
    np.testing.assert_allclose(inner, SD, rtol=0.15)
    assert (sd >= 0.9 * SD).all()
    assert (sd <= 2.2 * SD).all()  # free edges: twice as much at a corner


def test_its_correlation_falls_to_a_tenth_at_its_reach(field: SmoothField) -> None:
    """One observation that is known well pulls what is near along, and nothing that is far."""
    weight, values = np.zeros(SHAPE), np.zeros(SHAPE)
    values[15, 18], weight[15, 18] = SD, 1e9
    mean = field.mean(values, weight) / SD
    assert mean[15, 18] == pytest.approx(1, abs=1e-3)
    assert 0.05 < mean[15, 18 + int(REACH)] < 0.25
    assert abs(mean[15, 0]) < 0.05
    assert (np.diff(mean[15, 18:30]) < 0).all()


def test_the_mean_interpolates_what_was_seen(field: SmoothField) -> None:
    rng = np.random.default_rng(1)
    true = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 4)
    true *= SD / true.std()
    seen = rng.random(SHAPE) < 0.3
    values = np.where(seen, true + 0.002 * rng.standard_normal(SHAPE), np.float64(9))
    mean = field.mean(values, seen / 0.002**2)
    assert np.std((mean - true)[seen]) < 0.003
    assert np.std((mean - true)[~seen]) < 0.15 * SD


def test_without_data_it_is_zero(field: SmoothField) -> None:
    np.testing.assert_array_equal(field.mean(np.ones(SHAPE), np.zeros(SHAPE)), 0)


def test_its_variance_falls_with_data(field: SmoothField) -> None:
    weight = np.zeros(SHAPE)
    weight[:, :12] = 1 / 0.01**2
    before, after = field.variance(np.zeros(SHAPE)), field.variance(weight)
    assert (after <= before * (1 + 1e-9)).all()
    assert after[15, 5] < 0.1 * before[15, 5]
    assert after[15, 34] > 0.9 * before[15, 34]
    more = field.variance(4 * weight)
    assert (more <= after * (1 + 1e-9)).all()
    assert more[15, 5] < after[15, 5]


@pytest.mark.parametrize("shape", [(1, 20), (20, 1), (1, 1), (2, 3)])
def test_narrow_grids(shape: tuple[int, int]) -> None:
    field = SmoothField(shape, SD, REACH)
    mean = field.mean(np.full(shape, SD), np.full(shape, 1 / 0.001**2))
    np.testing.assert_allclose(mean, SD, rtol=0.01)
    assert (field.variance(np.ones(shape)) > 0).all()
