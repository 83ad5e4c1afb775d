import numpy as np
import pytest
from scipy import ndimage

from napari_txm_bgcorr.quality.metrics import (
    background_error,
    bootstrap_interval,
    empty_level,
    leakage,
    mosaic_errors,
    psnr_ssim,
    seam,
    shared_residue,
)

SIZE = 128
RNG = np.random.default_rng(0)


def field(seed, sigma, size=SIZE):
    rough = ndimage.gaussian_filter(
        np.random.default_rng(seed).standard_normal((size, size)), sigma
    )
    return rough / rough.std()


TRUE = 9000 * np.exp(0.1 * field(0, 20))
SAMPLE = np.exp(-0.2 * np.abs(field(1, 15)))


# --- background error -------------------------------------------------------------------------


def test_a_known_error_is_measured():
    bump = field(2, 10)
    bump -= bump.mean()
    error = background_error(TRUE * np.exp(0.03 * bump + 0.1), TRUE)
    assert error["sf"] == pytest.approx(0.03 * bump.std(), rel=1e-6)
    assert error["abs"] == pytest.approx(np.hypot(0.03 * bump.std(), 0.1), rel=1e-6)


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_scale_moves_abs_only(scale):
    error = background_error(TRUE * scale, TRUE)
    assert error["sf"] < 1e-12
    assert error["abs"] == pytest.approx(abs(np.log(scale)), abs=1e-12)


def test_only_valid_pixels_count_and_none_gives_nan():
    predicted, valid = TRUE.copy(), np.ones((SIZE, SIZE), bool)
    predicted[:20], valid[:20] = 1.0, False
    assert background_error(predicted, TRUE, valid)["abs"] == 0
    assert background_error(predicted, TRUE)["abs"] > 1
    assert np.isnan(background_error(predicted, TRUE, ~valid & (predicted < 0))["sf"])


def test_mosaic_errors_against_brute_force():
    gains = [1.0, 1.1, 0.9]
    predicted = [TRUE * g * np.exp(0.02 * field(5 + k, 6)) for k, g in enumerate(gains)]
    errors = mosaic_errors(predicted, [TRUE] * 3)
    logs = [np.log(p / TRUE) for p in predicted]
    common = np.mean(logs)
    for k in range(3):
        assert errors["sf"][k] == pytest.approx(background_error(predicted[k], TRUE)["sf"])
        assert errors["abs"][k] == pytest.approx(background_error(predicted[k], TRUE)["abs"])
        assert errors["mosaic"][k] == pytest.approx(np.sqrt(np.mean((logs[k] - common) ** 2)))
    np.testing.assert_allclose(
        mosaic_errors([p * 3 for p in predicted], [TRUE] * 3)["mosaic"], errors["mosaic"]
    )


# --- leakage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("eaten", [0.0, 0.3, 1.0, -0.2])
def test_leakage_is_the_share_eaten(eaten):
    low = np.exp(ndimage.gaussian_filter(np.log(SAMPLE), 8, mode="constant"))
    found = leakage(TRUE * SAMPLE**eaten * 1.3, TRUE, SAMPLE)
    assert found == pytest.approx(eaten, abs=1e-6)
    assert leakage(TRUE * low**0, TRUE, SAMPLE) == pytest.approx(0, abs=1e-9)


def test_leakage_of_an_empty_field_is_unknown():
    assert np.isnan(leakage(TRUE * 1.1, TRUE, np.ones_like(TRUE)))
    assert np.isnan(leakage(TRUE, TRUE, SAMPLE, np.zeros((SIZE, SIZE), bool)))


def test_fine_detail_is_no_leakage():
    fine = np.exp(0.2 * field(3, 1.0))
    assert abs(leakage(TRUE * fine, TRUE, SAMPLE * fine)) < 0.1


def test_leakage_looks_at_the_valid_field_only():
    valid = np.ones((SIZE, SIZE), bool)
    valid[:, :30] = False
    spoiled = TRUE * np.where(valid, SAMPLE**0.5, 50.0)
    assert leakage(spoiled, TRUE, SAMPLE, valid) == pytest.approx(0.5, abs=1e-6)


# --- seams ------------------------------------------------------------------------------------


def cut(image, corners, size=64):
    return np.stack([image[y : y + size, x : x + size] for y, x in corners])


CORNERS = np.array([[0, 0], [0, 50], [50, 0], [50, 50]])


def test_tiles_of_one_picture_have_no_seam():
    assert seam(cut(SAMPLE, CORNERS), CORNERS.astype(float)) == 0


def test_gains_make_seams_of_known_size():
    tiles = cut(SAMPLE, CORNERS[:2]) * np.array([1.0, 1.05])[:, None, None]
    assert seam(tiles, CORNERS[:2].astype(float)) == pytest.approx(np.log(1.05))


def test_seam_against_brute_force():
    rng = np.random.default_rng(4)
    tiles = cut(SAMPLE, CORNERS) * np.exp(0.1 * rng.standard_normal((4, 64, 64)))
    off = []
    for a in range(4):
        for b in range(a + 1, 4):
            one, two = (np.full((SIZE, SIZE), np.nan) for _ in "ab")
            for image, k in ((one, a), (two, b)):
                y, x = CORNERS[k]
                image[y : y + 64, x : x + 64] = tiles[k]
            both = np.log(one / two)
            off.append(both[np.isfinite(both)])
    expected = np.sqrt(np.mean(np.concatenate(off) ** 2))
    assert seam(tiles, CORNERS + 0.3) == pytest.approx(expected)


def test_masked_and_absent_overlaps():
    tiles, masks = cut(SAMPLE, CORNERS), np.ones((4, 64, 64), bool)
    tiles[0, 0:64, 60:] = 99
    masks[0, 0:64, 60:] = False
    assert seam(tiles, CORNERS.astype(float)) > 0.5
    assert seam(tiles, CORNERS.astype(float), list(masks)) == 0
    assert np.isnan(seam(tiles[:2], np.array([[0.0, 0.0], [0.0, 64.0]])))


# --- shared residue ---------------------------------------------------------------------------


def tiles_with(pattern_strength, count=5, noise=0.004, seed=0):
    rng = np.random.default_rng(seed)
    pattern = np.exp(pattern_strength * field(99, 0.7))
    return [
        TRUE
        * pattern
        * np.exp(0.01 * field(10 + k, 0.7) + noise * rng.standard_normal(TRUE.shape))
        for k in range(count)
    ]


def test_shared_residue_grows_with_the_pattern_and_vanishes_without():
    none, some, much = (shared_residue(tiles_with(s)) for s in (0.0, 0.01, 0.05))
    assert abs(none) < 0.05
    assert some == pytest.approx(0.5, abs=0.12)  # as strong as each tile's own detail
    assert much > 0.9


def test_dividing_by_the_pattern_removes_the_residue():
    tiles = tiles_with(0.05)
    pattern = TRUE * np.exp(0.05 * field(99, 0.7))
    assert abs(shared_residue([t / pattern for t in tiles])) < 0.05


def test_a_shared_mask_edge_is_not_a_residue():
    tiles = tiles_with(0.0)
    valid = np.ones((SIZE, SIZE), bool)
    valid[:30, :30] = False
    for tile in tiles:
        tile[:30, :30] = 1.0
    assert abs(shared_residue(tiles, [valid] * 5)) < 0.05


def test_one_tile_shares_nothing():
    assert np.isnan(shared_residue(tiles_with(0.05)[:1]))


# --- empty level ------------------------------------------------------------------------------


def test_empty_level_is_one_and_the_noise():
    rng = np.random.default_rng(1)
    empty = np.zeros((SIZE, SIZE), bool)
    empty[:, 40:] = True
    image = np.where(empty, 1 + 0.02 * rng.standard_normal((SIZE, SIZE)), 0.4)
    level = empty_level(image, empty)
    assert level["mean"] == pytest.approx(1, abs=1e-3)
    assert level["spread"] == pytest.approx(0.02, rel=0.05)
    assert 0.02 / 9 < level["smooth_spread"] < 0.02 / 5
    assert level["pixels"] == SIZE * (SIZE - 40)


def test_slow_error_survives_the_smoothing():
    level = empty_level(1 + 0.02 * field(2, 20), np.ones((SIZE, SIZE), bool))
    assert level["smooth_spread"] == pytest.approx(level["spread"], rel=0.1)


def test_nothing_empty():
    level = empty_level(SAMPLE, np.zeros((SIZE, SIZE), bool))
    assert np.isnan(level["mean"]) and level["pixels"] == 0


# --- PSNR and SSIM ----------------------------------------------------------------------------


def test_psnr_by_hand():
    assert psnr_ssim(SAMPLE + 0.1, SAMPLE, 1.0)["psnr"] == pytest.approx(20)
    assert psnr_ssim(SAMPLE + 0.1, SAMPLE, 2.0)["psnr"] == pytest.approx(20 + 20 * np.log10(2))
    assert psnr_ssim(SAMPLE, SAMPLE, 1.0)["psnr"] == np.inf


def test_ssim_against_brute_force_with_explicit_windows():
    a, b = SAMPLE[:24, :24], (SAMPLE + 0.05 * field(8, 1))[:24, :24]
    x = np.arange(-5, 6)
    window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for y in range(5, 19):
        for k in range(5, 19):
            p, q = a[y - 5 : y + 6, k - 5 : k + 6], b[y - 5 : y + 6, k - 5 : k + 6]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            c1, c2 = (0.01 * 1.3) ** 2, (0.03 * 1.3) ** 2
            values.append(
                (2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
            )
    assert psnr_ssim(a, b, 1.3)["ssim"] == pytest.approx(np.mean(values), rel=1e-9)
    assert psnr_ssim(a, a, 1.3)["ssim"] == pytest.approx(1)


# --- bootstrap --------------------------------------------------------------------------------


def test_interval_of_a_mean_has_the_width_of_its_standard_error():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / np.sqrt(400), rel=0.15)


def test_tiles_of_one_session_count_as_one():
    """Twenty sessions of fifty equal tiles know no more than twenty values."""
    sessions = np.random.default_rng(1).normal(0, 1, 20)
    tiles, owner = np.repeat(sessions, 50), np.repeat(np.arange(20), 50)
    by_session = np.diff(bootstrap_interval(tiles, owner))[0]
    by_tile = np.diff(bootstrap_interval(tiles))[0]
    assert by_session == pytest.approx(np.diff(bootstrap_interval(sessions))[0], rel=0.15)
    assert by_session > 4 * by_tile


def test_interval_is_repeatable_and_leaves_nan_out():
    values = [1.0, 2.0, np.nan, 4.0]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) == bootstrap_interval([1.0, 2.0, 4.0], [0, 1, 3])
    assert np.isnan(bootstrap_interval([np.nan])).all()
    assert bootstrap_interval([3.0] * 4, statistic=np.median) == (3.0, 3.0)
