"""Registration: truth recovered, no lock on the fixed pattern, fallback where nothing is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_txm_bgcorr import io
from napari_txm_bgcorr.core.scan import Scan, Source, raster_positions
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.io.readers.tile_layout import (
    parse_tile_configuration,
    tile_configuration_text,
)
from napari_txm_bgcorr.mosaic.matching import _Windows
from napari_txm_bgcorr.mosaic.placement import Edge, Trust, reconcile
from napari_txm_bgcorr.mosaic.registration import (
    Positions,
    neighbours,
    nominal_positions,
    register,
)
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic

SIZE = 128


def texture(shape: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fine = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5, mode="wrap")
    coarse = ndimage.gaussian_filter(rng.standard_normal(shape), 6, mode="wrap")
    return fine / fine.std() + coarse / coarse.std()


def make_scan(
    *,
    contrast: float = 0.04,
    pattern: float = 0.0,
    step: int = 102,
    jitter: float = 8.0,
    skew: float = 3.0,
    grid: tuple[int, int] = (3, 4),
    blank: int = 0,
    seed: int = 0,
) -> tuple[Scan, np.ndarray, np.ndarray]:
    """Raw scan, true places (y, x) on half pixels, and the fixed pattern's background.

    The specimen is drawn at twice the size, so that true shifts need not be whole pixels;
    the first `blank` rows of it hold nothing.
    """
    rng = np.random.default_rng(seed)
    nominal = raster_positions(grid, (step, step))
    true = nominal + rng.uniform(-jitter, jitter, nominal.shape)
    true[:, 1] += skew * (np.arange(len(true)) // grid[1])
    true = np.rint(2 * (true - true.min(axis=0))) / 2
    canvas = texture(tuple(2 * (int(n) + SIZE + 2) for n in true.max(axis=0)), seed + 1)
    canvas[: 2 * blank] = 0
    background = 1e4 * np.exp(pattern * texture((SIZE, SIZE), seed + 2))
    tiles = []
    for y, x in (2 * true).astype(int):
        part = np.exp(contrast * canvas[y : y + 2 * SIZE, x : x + 2 * SIZE])
        binned = part.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3))
        tiles.append(rng.poisson(background * binned))
    scan = Scan(
        tiles=np.stack(tiles).astype(np.uint16), kind="mosaic", source=Source(Path("m"), "made"),
        names=tuple(f"t{k}.tif" for k in range(len(true))), grid=grid, positions_px=nominal,
    )  # fmt: skip
    flat = np.broadcast_to(background.astype(np.float32), scan.tiles.shape)
    return scan, true, flat


def off(positions: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distance of each place from the truth, the common shift removed."""
    difference = positions - true
    return np.hypot(*(difference - np.median(difference, axis=0)).T)


@pytest.mark.parametrize("jitter", [3.0, 8.0])
def test_places_are_recovered_below_a_pixel(jitter: float) -> None:
    scan, true, flat = make_scan(jitter=jitter)
    found = register(scan, flat)
    assert len(found.edges) == 17
    assert found.used >= 16
    assert off(nominal_positions(scan), true).max() > jitter / 2
    assert off(found.positions_px, true).max() < 0.35
    assert found.positions_px.min() == 0


def naive_shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Plain phase correlation of two tiles."""
    cross = np.fft.rfft2(a) * np.conj(np.fft.rfft2(b))
    peak = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), a.shape)
    at = np.array(np.unravel_index(int(peak.argmax()), peak.shape))
    return np.where(at > SIZE / 2, at - SIZE, at)


@pytest.mark.parametrize("step", [102, 40])
def test_fixed_pattern_does_not_hold_raw_tiles_at_zero(step: int) -> None:
    """A pattern four times as strong as the specimen, and backgrounds that know none of it."""
    scan, true, _ = make_scan(contrast=0.015, pattern=0.06, step=step)
    logs = np.log(np.asarray(scan.tiles[:], np.float64))
    assert np.abs(naive_shift(logs[0], logs[1])).max() <= 1, "the trap is set"
    blind = np.full(scan.tiles.shape, 1e4, np.float32)
    found = register(scan, blind)
    assert found.used >= 0.9 * len(found.edges)
    assert off(found.positions_px, true).max() < 0.7


def test_two_tiles_with_known_pattern() -> None:
    """Too few to tell the pattern from the tiles: the backgrounds remove it."""
    scan, true, flat = make_scan(contrast=0.03, pattern=0.05, grid=(1, 2))
    found = register(scan, flat)
    assert found.used == 1
    assert off(found.positions_px, true).max() < 0.35


def test_empty_overlaps_fall_back_to_the_stage() -> None:
    scan, true, flat = make_scan(contrast=0.0)
    found = register(scan, flat)
    assert found.used == 0
    nominal = nominal_positions(scan)
    np.testing.assert_allclose(found.positions_px, nominal - nominal.min(axis=0), atol=1e-3)
    assert "0 of 17" in found.note
    assert off(found.positions_px, true).max() > 1


def test_an_empty_part_follows_the_skew_of_the_rest() -> None:
    """Rows whose overlaps are empty take the step that the other rows were found to have."""
    scan, true, flat = make_scan(grid=(6, 3), jitter=0.0, skew=6.0, blank=230, seed=5)
    found = register(scan, flat)
    assert found.used < len(found.edges)
    assert off(nominal_positions(scan), true).max() > 12
    assert off(found.positions_px, true).max() < 1.5


def test_a_wrong_edge_is_dropped() -> None:
    nominal = raster_positions((3, 3), (100.0, 100.0))
    rng = np.random.default_rng(1)
    true = nominal + rng.uniform(-8, 8, nominal.shape)
    pairs = neighbours(nominal, (128, 128))
    edges = [Edge(i, j, tuple(true[j] - true[i]), 0.9, 20, True) for i, j in pairs]
    edges[4] = Edge(*pairs[4], tuple(true[pairs[4][1]] - true[pairs[4][0]] + 9), 0.9, 20, True)
    placed, kept = reconcile(nominal, edges, 1.5, Trust(1e-6, 1e-3))
    assert [e.used for e in kept].count(False) == 1
    assert not kept[4].used
    assert off(placed, true).max() < 0.05


def test_neighbours_share_an_edge() -> None:
    pairs = neighbours(raster_positions((3, 3), (100, 100)), (128, 128))
    assert len(pairs) == 12
    assert (0, 4) not in pairs
    assert neighbours(raster_positions((2, 2), (128, 128)), (128, 128)) == []


def test_simulated_mosaic_with_jitter_of_40_px() -> None:
    """At 512 px a tile: places within a pixel, from raw tiles and rough flats."""
    made = simulate_mosaic(
        3, 3, size=256, jitter_px=40, skew_px=7, overlap=0.24, specimen="fossil", seed=4
    )
    scan = replace(made.scan, tiles=np.asarray(made.scan.tiles[:]))
    level = np.median(scan.tiles[:], axis=(1, 2), keepdims=True)
    found = register(scan, np.broadcast_to(level, scan.tiles.shape).astype(np.float32))
    assert found.used >= 10
    assert off(found.positions_px, made.positions_px).max() < 1.2


def test_result_is_written_for_fiji_and_read_back(tmp_path: Path) -> None:
    scan, _, flat = make_scan(grid=(2, 2))
    found = register(scan, flat)
    table = tmp_path / "TileConfiguration.registered.txt"
    table.write_text(tile_configuration_text(scan.names, found.positions_px), "utf-8")
    back = parse_tile_configuration(table)
    np.testing.assert_array_equal([back[n] for n in scan.names], found.positions_px)


def test_real_mosaic(txm_data: Path) -> None:
    """Nominal step 409 px; the domain notes say 389 to 486 and jitter of 10 to 40 px."""
    scan = io.read(txm_data / "bl01b_sb_2x2")
    level = np.median(scan.tiles[:], axis=(1, 2), keepdims=True)
    found = register(scan, np.broadcast_to(level, scan.tiles.shape).astype(np.float32))
    assert found.used == 4
    loop = {(e.first, e.second): np.array(e.shift_px) for e in found.edges}
    around = loop[0, 1] + loop[1, 3] - loop[0, 2] - loop[2, 3]
    assert np.abs(around).max() < 4, "measured shifts close within 2 px of the overview"


def test_no_mosaic_is_refused() -> None:
    scan, _, flat = make_scan(grid=(1, 2))
    lost = replace(scan, grid=None, positions_px=None, kind="series")
    with pytest.raises(MethodError, match="no grid"):
        register(lost, flat)
    with pytest.raises(MethodError, match="backgrounds or an overview"):
        register(scan)
    whole = replace(scan, positions_px=None)
    np.testing.assert_array_equal(nominal_positions(whole), raster_positions((1, 2), (SIZE, SIZE)))
    assert Positions(nominal_positions(scan)).used == 0


def test_correlation_of_windows_is_that_of_their_common_lit_part():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 20, 13)).astype(np.float32)
    lit = np.ones((20, 13), bool)
    lit[:6, 9:] = False
    lit_b = lit[:, ::-1]
    windows = _Windows(lit, lit_b, np.array([-5, -20]), 11)
    assert windows.first.tolist() == [-5, -12]  # no part in common further off
    scores = windows.correlate(a * lit, b * lit_b)
    assert scores.shape == windows.common.shape == (11, 3)
    wide = _Windows(lit, lit_b, np.array([-4, -3]), 7)
    scores = wide.correlate(a * lit, b * lit_b)
    for (dy, dx), score in np.ndenumerate(scores):
        y, x = int(dy) - 4, int(dx) - 3
        one = np.s_[max(0, y) : 20 + min(0, y), max(0, x) : 13 + min(0, x)]
        two = np.s_[max(0, -y) : 20 + min(0, -y), max(0, -x) : 13 + min(0, -x)]
        both = lit[one] & lit_b[two]
        p, q = a[one][both], b[two][both]
        assert score == pytest.approx(p @ q / np.sqrt((p @ p) * (q @ q)), abs=1e-5)
        assert wide.common[dy, dx] == pytest.approx(both.sum(), abs=1e-3)
