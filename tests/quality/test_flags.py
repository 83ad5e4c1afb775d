"""Figures of tiles against scenes with everything known, and the flags made from them."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.core.correction import TileResult
from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.quality import flags
from napari_txm_bgcorr.quality.flags import FLAGS, Worth, flagged, raised, reasons
from napari_txm_bgcorr.quality.measurement import Gauge, measure, trusted
from napari_txm_bgcorr.quality.table import COLUMNS, SIDES
from tests.mosaic.scenes import SIZE, make_scene

MIDDLE = 4  # of 3 x 3
TOP, LEFT, RIGHT, BOTTOM = range(4)


def tilt(amount: float) -> np.ndarray:
    return np.exp(amount * (np.mgrid[:SIZE, :SIZE][0] / SIZE - 0.5)).astype(np.float32)


def test_perfect_correction_has_nothing_to_report():
    table = make_scene().table()
    for key in ("seam_after", "seam_shape", "level", "departure", "jump", "leakage"):
        assert np.abs(table.column(key)).max() < 0.002, key
    assert table.valid.min() == 1
    assert np.abs(table.shared_residue).max() < 0.1
    assert table.seam_before.min() > 0.03  # the tilt of the illumination


def test_sides_are_where_the_neighbours_are():
    scene = make_scene()
    scene.backgrounds[MIDDLE] *= np.float32(1.1)
    table = scene.table()
    # tile 0 is the bottom left one; its right neighbour is 1, that above is 3
    assert np.isfinite(table.sides_after[0]).tolist() == [True, False, True, False]
    off = np.log(1.1)
    assert table.sides_after[MIDDLE] == pytest.approx([off] * 4, rel=0.02)
    for tile, side in ((7, BOTTOM), (3, RIGHT), (5, LEFT), (1, TOP)):
        assert table.sides_after[tile, side] == pytest.approx(off, rel=0.02), SIDES[side]
        others = np.delete(table.sides_after[tile], side)
        assert np.nanmax(others) < 0.002


def test_wrong_level_is_a_level_and_no_shape():
    scene = make_scene()
    scene.backgrounds[MIDDLE] *= np.float32(1.1)
    table = scene.table()
    assert table.level[MIDDLE] == pytest.approx(-np.log(1.1), rel=0.02)
    assert table.level[1] == pytest.approx(np.log(1.1) / 3, rel=0.05)  # one of its three sides
    assert table.seam_shape[MIDDLE] < 0.002
    assert table.departure[MIDDLE] < 0.002
    assert table.seam_after.argmax() == MIDDLE


def test_wrong_shape_shows_in_overlaps_and_backgrounds():
    scene = make_scene()
    scene.backgrounds[MIDDLE] *= tilt(0.2)
    table = scene.table()
    for key in ("seam_shape", "departure", "jump"):
        values = table.column(key)
        assert values.argmax() == MIDDLE, key
        assert values[MIDDLE] > 10 * np.median(values), key
    assert table.departure[MIDDLE] == pytest.approx(0.2 / np.sqrt(12), rel=0.05)


def test_jump_is_against_those_before_and_after_in_time():
    scene = make_scene()
    ramp = np.linspace(-0.2, 0.2, 9)
    for i in range(9):
        scene.backgrounds[i] *= tilt(ramp[i])
    drifting = scene.table()
    assert drifting.jump[1:-1].max() < 0.002  # a steady drift has no jumps
    assert drifting.departure[0] > 0.05
    order = np.array([3, 0, 6, 1, 8, 2, 5, 7, 4])
    scene.scan = replace(scene.scan, times=scene.scan.times[order])
    assert scene.table().jump.max() > 0.03


def test_leakage_is_the_share_of_the_tiles_own_structure():
    scene = make_scene()
    eaten = scene.transmissions[MIDDLE] ** 0.5
    scene.backgrounds[MIDDLE] *= eaten
    table = scene.table()
    assert table.leakage[MIDDLE] == pytest.approx(0.5, abs=0.02)
    assert np.abs(np.delete(table.leakage, MIDDLE)).max() < 0.02


def test_what_tiles_share_is_seen_in_its_own_band():
    rng = np.random.default_rng(3)
    fine = np.exp(0.05 * rng.normal(size=(SIZE, SIZE))).astype(np.float32)
    scene = make_scene()
    clean = scene.table()
    scene.backgrounds *= fine
    table = scene.table()
    assert table.shared_residue.min() > 0.5 > clean.shared_residue.max() + 0.3
    assert table.shared_shading == pytest.approx(clean.shared_shading, abs=0.1)
    y = np.mgrid[:SIZE, :SIZE][0] / SIZE
    scene = make_scene()
    scene.backgrounds *= np.exp(1.5 * np.cos(4 * np.pi * y)).astype(np.float32)
    table = scene.table()
    assert table.shared_shading.min() > 0.5 > clean.shared_shading.max() + 0.2


def test_structure_is_of_the_specimen():
    scene = make_scene()
    before = scene.table().structure
    flat = replace(scene.scan, tiles=scene.backgrounds.copy())
    scene.scan = flat
    assert scene.table().structure.max() < 0.01 < before.min() / 3


def test_pixels_not_to_be_trusted_change_no_figure():
    scene = make_scene()
    clean = Gauge(scene.scan)
    dirty = Gauge(scene.scan)
    hole = np.ones((SIZE, SIZE), bool)
    hole[:20, 30:50] = False
    for i in range(9):
        tile = replace(scene.result(i), valid=hole)
        clean.add(tile)
        wrong = tile.transmission.copy()
        wrong[~hole] = 40.0
        raw = tile.raw.copy()
        raw[~hole] = 60000.0
        dirty.add(replace(tile, transmission=wrong, raw=raw))
    one, two = clean.table(), dirty.table()
    for key in COLUMNS:
        np.testing.assert_array_equal(one.column(key), two.column(key), key)
    assert one.valid == pytest.approx(1 - 400 / SIZE**2)


def test_tiles_may_come_in_any_order_and_again():
    scene = make_scene()
    scene.backgrounds[MIDDLE] *= tilt(0.3)
    whole = scene.table()
    gauge = Gauge(scene.scan)
    bad = replace(scene.result(2), transmission=scene.result(2).transmission * 3)
    gauge.add(bad)
    assert gauge.table().measured.tolist() == [False, False, True] + [False] * 6
    for i in (8, 3, 1, 7, 2, 0, 6, 5, 4):
        gauge.add(scene.result(i))
    again = gauge.table()
    for key in COLUMNS:
        np.testing.assert_array_equal(again.column(key), whole.column(key), key)


def test_measure_gives_the_same_by_threads_and_tells_progress():
    scene = make_scene()
    scene.backgrounds[MIDDLE] *= tilt(0.1)
    seen: list[tuple[int, int]] = []
    stacks = (scene.scan, scene.backgrounds, scene.corrected)
    given = {"registration": False}
    one = measure(*stacks, workers=1, **given).table()
    two = measure(*stacks, workers=3, progress=lambda *n: seen.append(n), **given).table()
    assert seen == [(n, 9) for n in range(1, 10)]
    for key in COLUMNS:
        np.testing.assert_array_equal(one.column(key), two.column(key), key)


def test_measure_stops_when_asked_and_reads_no_further():
    scene = make_scene()
    read: list[int] = []

    def background(i: int) -> np.ndarray:
        read.append(i)
        return scene.backgrounds[i]

    lazy = LazyTiles(scene.backgrounds.shape, np.float32, background)
    stop = threading.Event()
    gauge = measure(
        scene.scan, lazy, scene.corrected, workers=1, registration=False,
        progress=lambda done, _: stop.set() if done == 2 else None, should_stop=stop.is_set,
    )  # fmt: skip
    assert read == [0, 1]
    table = gauge.table()
    assert table.measured.sum() == 2
    assert np.isnan(table.valid[2:]).all()


def test_registration_mends_wrong_places():
    scene = make_scene(size=128, grain=0.2)
    wrong = scene.scan.positions_px.copy()
    wrong[MIDDLE] += (6, -5)
    scene.scan = replace(scene.scan, positions_px=wrong)
    gauge = measure(scene.scan, scene.backgrounds, scene.corrected, registration=False)
    before = gauge.table()
    assert not before.registered
    gauge.register()
    after = gauge.table()
    assert after.registered
    assert before.seam_after[MIDDLE] > 0.05
    assert after.seam_after[MIDDLE] < 0.2 * before.seam_after[MIDDLE]


def test_a_series_has_no_neighbours_but_all_else():
    table = make_scene(kind="series").table()
    for key in ("seam_before", "seam_after", "seam_shape", "level"):
        assert np.isnan(table.column(key)).all(), key
    for key in ("shared_residue", "shared_shading", "departure", "jump", "structure"):
        assert np.isfinite(table.column(key)).all(), key
    assert table.cells is None


def test_pictures_show_the_scan_at_its_places():
    scene = make_scene()
    gauge = measure(scene.scan, scene.backgrounds, scene.corrected, registration=False)
    raw, corrected = gauge.pictures(longest_px=1000)
    assert corrected.shape == (160, 160)
    np.testing.assert_allclose(
        corrected[96:160, 0:64][32, 10], scene.transmissions[0][32, 10], rtol=2e-3
    )
    np.testing.assert_allclose(raw[140, 20], scene.scan.tiles[0][44, 20], rtol=2e-2)
    small, _ = gauge.pictures(longest_px=60)
    assert max(small.shape) <= 60
    assert gauge.thumbnail(3)[1] == pytest.approx(scene.transmissions[3], rel=2e-3)


def test_trusted_leaves_out_what_cannot_be_right():
    raw = np.full((64, 64), 900, np.uint16)
    raw[3, 4], raw[5, 6] = 0, 65535
    transmission = np.full(raw.shape, 0.9, np.float32)
    transmission[7, 8] = np.nan
    good = trusted(raw, np.full(raw.shape, 1000, np.float32), transmission)
    assert (~good).sum() == 3
    assert not good[3, 4] and not good[5, 6] and not good[7, 8]


def test_foreign_tiles_are_refused():
    scene = make_scene()
    gauge = Gauge(scene.scan)
    with pytest.raises(MethodError, match="tile 9"):
        gauge.add(replace(scene.result(0), index=9))
    with pytest.raises(MethodError, match="backgrounds"):
        measure(scene.scan, scene.backgrounds[:4], scene.corrected)
    with pytest.raises(MethodError, match="positions"):
        gauge.place(np.zeros((3, 2)))


def test_a_blind_tile_is_known_and_does_no_harm():
    scene = make_scene()
    gauge = Gauge(scene.scan)
    for i in range(9):
        tile = scene.result(i)
        gauge.add(replace(tile, valid=np.zeros_like(tile.valid)) if i == MIDDLE else tile)
    table = gauge.table()
    assert table.valid[MIDDLE] == 0
    assert np.isnan(table.seam_after[MIDDLE])
    assert np.nanmax(np.abs(table.level)) < 0.002
    assert "blind" in reasons(table, MIDDLE)
    assert flagged(table).sum() == 1


# --- flags -------------------------------------------------------------------------------------


def test_every_flag_has_a_column_and_a_measured_worth():
    assert {flag.column for flag in FLAGS.values()} <= set(COLUMNS)
    assert {key for key, flag in FLAGS.items() if not flag.fact} == set(flags.worth())


def worth_of(*lowest: float | None, threshold: float | None = 0.1) -> Worth:
    return Worth(threshold, tuple({"decides": True, "auc": (0.9, low, 1.0)} for low in lowest))


@pytest.mark.parametrize(
    ("given", "works"),
    [
        (worth_of(0.7, 0.8), True),
        (worth_of(0.7, 0.55), False),  # fails out of distribution
        (worth_of(0.7, None), True),  # a set of bad tiles alone tells nothing
        (worth_of(0.7, float("nan")), True),
        (worth_of(None, None), False),
        (worth_of(), False),
        (worth_of(0.7, threshold=None), False),
    ],
)
def test_a_flag_is_shown_only_where_it_has_proved_itself(given: Worth, works: bool):
    assert given.works is works


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only seam and level work."""
    table = {key: worth_of(0.5) for key in flags.worth()}
    table |= {"seam": worth_of(0.9, threshold=0.05), "level": worth_of(0.9, threshold=0.06)}
    monkeypatch.setattr(flags, "worth", lambda: table)


@pytest.mark.usefixtures("proven")
def test_flags_follow_their_thresholds():
    scene = make_scene()
    scene.backgrounds[MIDDLE] *= np.float32(1.1)  # log 0.095: darker than its neighbours
    scene.backgrounds[0] *= tilt(2.0)  # a shape, and no shown flag is for that alone
    table = scene.table()
    found = raised(table)
    assert set(found) == {"seam", "level", "blind"}
    assert found["seam"].tolist() == (table.seam_after > 0.05).tolist()
    assert found["level"][MIDDLE]  # by its magnitude: the value is negative
    assert table.level[MIDDLE] < 0
    assert flagged(table).tolist() == np.any(list(found.values()), axis=0).tolist()
    assert reasons(table, MIDDLE)[:2] == ["seam", "level"]
    assert FLAGS["seam"].text() == "seam after > 5 %"
    assert FLAGS["blind"].text() == "valid < 50 %"


@pytest.mark.usefixtures("proven")
def test_what_cannot_be_told_is_not_flagged():
    table = make_scene(kind="series").table()
    assert np.isnan(table.seam_after).all()
    assert not flagged(table).any()


def test_rows_are_plain_values():
    row = make_scene().table().row(0)
    assert row["name"] == "t0" and row["row"] == 2 and row["column"] == 0
    assert row["seam_after_left"] is None and row["novelty"] is None
    assert all(v is None or type(v) in (int, float, str) for v in row.values())


def test_dark_is_removed_before_anything_is_compared(tmp_path: Path):
    scene = make_scene()
    dark = np.full((SIZE, SIZE), 2000, np.float32)
    pedestal = replace(scene.scan, tiles=scene.scan.tiles + dark, darks=dark[None])
    gauge = Gauge(pedestal)
    for i in range(9):
        tile = scene.result(i)
        gauge.add(
            TileResult(i, tile.raw + dark, tile.background + dark, tile.transmission, tile.valid)
        )
    one, two = gauge.table(), scene.table()
    for key in COLUMNS:
        np.testing.assert_allclose(one.column(key), two.column(key), atol=2e-3, err_msg=key)
