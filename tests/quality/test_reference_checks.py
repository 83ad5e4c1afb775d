"""What can be a reference: lit, whole, with the shape of a beam, and nothing in the way."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.quality.reference_checks import (
    THUMBNAIL_PX,
    fault_of,
    sample_score,
    thumbnail,
)

SIZE = 128
Y, X = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")


def beam(seed: int = 0, level: float = 9000, drift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = np.exp(-0.4 * Y**2 - 0.2 * X**2 + drift * (X - 0.5 * Y**2))
    return rng.poisson(level * shape).astype(np.uint16)


def specimen(depth: float = 0.3, radius: float = 0.4) -> np.ndarray:
    return 1 - depth * (radius**2 > (Y - 0.2) ** 2 + (X + 0.3) ** 2)


def score(image: np.ndarray, *others: np.ndarray) -> float:
    return sample_score(thumbnail(image), [thumbnail(o) for o in others])


# -- by itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int32"])
def test_a_beam_is_a_reference_in_any_type(dtype: str) -> None:
    assert fault_of(beam().astype(dtype)) is None


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (beam(level=40), "dark: median .* less than 100"),
        (np.random.default_rng(0).poisson(2000, (SIZE, SIZE)).astype("u2"), "dark: even to"),
        (np.minimum(beam(level=60_000), 55_000), "saturated: .* 55000"),
        (np.full((SIZE, SIZE), np.nan), "blank: 100.0 %"),
        (np.zeros((SIZE, SIZE), np.uint16), "dark: median 0"),
        (np.full((SIZE, SIZE), 500, np.uint16), "saturated"),
    ],
)
def test_what_is_none_is_told_with_the_figure(image: np.ndarray, reason: str) -> None:
    found = fault_of(image)
    assert found is not None
    assert re.match(reason, found), found


def test_few_bad_pixels_are_forgiven_and_many_not() -> None:
    image = beam().astype(np.float32)
    flat = image.reshape(-1)
    flat[:: flat.size // 8] = np.nan
    assert "blank" not in (fault_of(image) or "")
    flat[:: flat.size // 400] = np.nan
    assert (fault_of(image) or "").startswith("blank: 2")


def test_hot_pixels_make_no_beam_of_a_dark() -> None:
    dark = np.random.default_rng(0).poisson(2000, (SIZE, SIZE)).astype("u2")
    dark.reshape(-1)[::97] = 60_000
    assert (fault_of(dark) or "").startswith(("dark: even", "saturated"))


@pytest.mark.parametrize("least", [10.0, 5000.0, 20_000.0])
def test_the_least_level_is_the_callers(least: float) -> None:
    assert (fault_of(beam(), least) is None) == (least < 9000 * 0.7)


# -- thumbnails ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    size=st.tuples(st.integers(8, 300), st.integers(8, 300)),
    gain=st.floats(0.1, 1e3),
)
def test_a_thumbnail_has_median_nought_and_ignores_the_level(
    size: tuple[int, int], gain: float
) -> None:
    image = 100 + 50 * np.random.default_rng(1).random(size)
    small = thumbnail(image)
    for n, px in zip(size, small.shape, strict=True):
        assert px == n // max(1, n // THUMBNAIL_PX) < 2 * THUMBNAIL_PX
    assert np.median(small) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(thumbnail(image * gain), small, atol=1e-5)


def test_a_thumbnail_is_the_log_of_means() -> None:
    image = np.kron(np.exp(np.arange(64 * 64).reshape(64, 64) / 4096), np.ones((2, 2)))
    flat = thumbnail(image)
    assert flat.shape == (64, 64)
    np.testing.assert_allclose(np.diff(flat.ravel()), 1 / 4096, atol=1e-5)


def test_dead_places_are_floored() -> None:
    image = beam().astype(float)
    image[:20, :20] = 0
    assert thumbnail(image).min() == pytest.approx(np.log(0.02), abs=0.05)


# -- what others do not show --------------------------------------------------------------------


def test_empty_images_score_little_whatever_the_drift() -> None:
    others = [beam(k) for k in range(1, 4)]
    for drift in (0.0, 0.03, -0.05):
        assert score(beam(9, drift=drift), *others) < 0.012


@pytest.mark.parametrize("depth", [0.15, 0.3, 0.6])
def test_a_specimen_scores_much_and_more_the_darker_it_is(depth: float) -> None:
    others = [beam(k) for k in range(1, 4)]
    own = score((beam(9) * specimen(depth)).astype("u2"), *others)
    assert own > 0.02
    assert own > score((beam(9) * specimen(depth / 2)).astype("u2"), *others)


@pytest.mark.parametrize("radius", [0.2, 0.4, 0.6])
def test_an_opaque_specimen_is_no_empty_image(radius: float) -> None:
    """Its inside is as dark as what the aperture cuts off; its rim tells."""
    others = [beam(k) for k in range(1, 4)]
    assert score((beam(9) * specimen(0.95, radius)).astype("u2"), *others) > 0.03


def test_the_one_that_carries_the_specimen_is_told_from_its_partner() -> None:
    empty, covered = beam(1), (beam(2) * specimen()).astype("u2")
    assert score(covered, empty) > 1.2 * score(empty, covered)


def test_one_spoilt_reference_among_others_does_not_spoil_the_median() -> None:
    others: list[Any] = [beam(k) for k in range(1, 5)]
    spoilt = (beam(7) * specimen()).astype("u2")
    assert score(beam(9), *others, spoilt) < 0.012
    assert score(spoilt, *others) > 0.03


def test_the_level_of_an_image_is_no_absorption() -> None:
    others = [beam(k) for k in range(1, 4)]
    assert score(beam(9, level=3000), *others) < 0.012


def test_a_dark_corner_of_the_aperture_is_no_specimen() -> None:
    corner = (Y + X) > 1.4
    cut = [np.where(corner, 60 + 20 * (k % 2), beam(k)).astype("u2") for k in range(5)]
    assert score(cut[0], *cut[1:]) < 0.012


def test_too_small_a_lit_field_tells_nothing() -> None:
    tiny = np.full((9, 9), 5.0) + np.eye(9)
    assert score(tiny, tiny) == 0.0
