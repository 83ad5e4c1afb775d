import json

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.captured import Captured
from napari_txm_bgcorr.errors import ConfigError, MethodError, ModelError
from napari_txm_bgcorr.evaluation import evaluate as suite
from napari_txm_bgcorr.evaluation.cases import EVALUATION, Case, draw_case, families
from napari_txm_bgcorr.evaluation.evaluate import CASES, evaluate, evaluate_real, format_table
from napari_txm_bgcorr.io import read
from napari_txm_bgcorr.models.checkpoint import save_model
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.quality.metrics import background_error
from napari_txm_bgcorr.simulation.acquisition import FAMILIES
from napari_txm_bgcorr.training.config import NetworkConfig

SIZE = 64
QUICK = ["captured", "tile-median", "smooth"]


@pytest.fixture(scope="module")
def rows():
    done = []
    found = evaluate(QUICK, sessions=2, size=SIZE, seed=1, progress=done.append)
    assert done == [1, 1]
    return found


@pytest.fixture
def blank(tmp_path):
    """A model whose last layer is zero: it gives the level alone."""
    config = NetworkConfig(field_px=32, features=(8, 8))
    path = tmp_path / "blank.safetensors"
    save_model(path, build_generator(config), config, metrics={})
    return str(path)


def pick(rows, **wanted):
    return [r for r in rows if all(r[key] == value for key, value in wanted.items())]


# --- drawn cases ------------------------------------------------------------------------------


def test_the_same_numbers_draw_the_same_case_and_others_do_not():
    case = CASES["mosaic 3x3, reference 8 h old"]
    one, two = (draw_case(case, "seen", 3, SIZE, 0).scans[0][0] for _ in "ab")
    np.testing.assert_array_equal(one.tiles[:], two.tiles[:])
    np.testing.assert_array_equal(one.flats[:], two.flats[:])
    for other in (("held-out", 3, 0), ("seen", 4, 0), ("seen", 3, 1)):
        group, session, seed = other
        tiles = draw_case(case, group, session, SIZE, seed).scans[0][0].tiles
        assert not np.array_equal(tiles[:], one.tiles[:])


def test_cases_of_one_size_differ_in_their_references_only():
    for plain, other in (("tile", "tile, reference 8 h old"),
                         ("mosaic 3x3", "mosaic 3x3, reference 8 h old")):  # fmt: skip
        one, two = (draw_case(CASES[name], "seen", 1, SIZE, 0).scans for name in (plain, other))
        for (scan, _), (same, _) in zip(one, two, strict=True):
            np.testing.assert_array_equal(scan.tiles[:], same.tiles[:])
            assert scan.flats is None and same.flats is not None
    assert not np.array_equal(one[0][0].tiles[0], one[0][0].tiles[1])


def test_no_training_seed_gives_an_evaluation_stream():
    """Training draws with spawn keys (0, batch) and (1, session); see training.data.simulated."""
    tagged = {
        tuple(np.random.SeedSequence(seed, spawn_key=(EVALUATION, g, s)).generate_state(4))
        for seed in (0, 1, EVALUATION) for g in (0, 1) for s in range(20)
    }  # fmt: skip
    plain = {
        tuple(np.random.SeedSequence(seed, spawn_key=(kind, i)).generate_state(4))
        for seed in (0, 1, EVALUATION) for kind in (0, 1) for i in range(200)
    }  # fmt: skip
    assert len(tagged) == 120 and not tagged & plain


def test_truth_explains_the_raw_tile():
    for session in (0, 1):
        drawn = draw_case(CASES["mosaic 3x3"], "seen", session, SIZE, 0)
        scan, truths = drawn.scans[0]
        assert (scan.darks is not None) == (session == 0)
        dark = scan.dark()
        if dark is None:
            continue  # there the pedestal is part of the reference
        for tile, truth in zip(scan.tiles, truths, strict=True):
            ratio = (tile - dark)[truth.lit] / (truth.reference * truth.sample)[truth.lit]
            assert np.median(ratio) == pytest.approx(1, abs=0.01)


def test_tiles_of_a_mosaic_show_one_specimen():
    drawn = draw_case(CASES["mosaic 3x3"], "seen", 0, SIZE, 0)
    scan, truths = drawn.scans[0]
    assert scan.kind == "mosaic" and scan.grid == (3, 3)
    y, x = scan.positions_px.astype(int).T
    canvas = np.full((y.max() + SIZE, x.max() + SIZE), np.nan)
    for k, truth in enumerate(truths):
        part = canvas[y[k] : y[k] + SIZE, x[k] : x[k] + SIZE]
        known = np.isfinite(part)
        np.testing.assert_array_equal(part[known], truth.sample[known])
        part[:] = truth.sample
    assert y[0] > y[-1] and x[1] > x[0]  # bottom left first, rightwards, upwards


def test_a_fresh_reference_is_right_but_for_its_noise():
    case = Case("now", 1, (0.0,) * 8)
    for session in range(4):
        drawn = draw_case(case, "seen", session, 128, 0)
        scan, (truth,) = drawn.scans[0]
        counts = Captured(combine="mean").fit(scan).background(scan.tiles, np.arange(1))[0]
        dark = scan.dark()
        beam = counts if dark is None else counts - dark
        error = background_error(
            beam, truth.reference, suite._sound(beam, truth.reference, truth.lit)
        )
        assert error["abs"] < 0.02


def test_groups_hold_the_families_that_training_has_and_has_not():
    assert set(families("seen")) | set(families("held-out")) == set(FAMILIES)
    assert all(FAMILIES[name].held_out for name in families("held-out"))
    assert families("held-out")


# --- rows -------------------------------------------------------------------------------------


def test_methods_appear_where_they_apply(rows):
    assert not pick(rows, case="tile", method="captured")
    assert not pick(rows, case="tile, reference 8 h old", method="tile-median")
    for case in CASES:
        assert len(pick(rows, case=case, method="smooth")) == 2  # groups
    assert len(pick(rows, method="tile-median")) == 4
    assert len(pick(rows, method="captured")) == 2 * sum(bool(c.ages_h) for c in CASES.values())


def test_counts_of_tiles_and_sessions(rows):
    assert all(r["sessions"] == 2 for r in rows)
    assert {r["tiles"] for r in pick(rows, case="tile")} == {4}
    assert {r["tiles"] for r in pick(rows, case="mosaic 3x3")} == {18}


def test_figures_are_in_order(rows):
    for row in rows:
        for name in ("sf", "abs", "mosaic"):
            low, high = row[name]["ci95"]
            assert 0 < low <= row[name]["mean"] <= high
            assert row[name]["median"] <= row[name]["p95"]
        assert row["sf"]["mean"] <= min(row["mosaic"]["mean"], row["abs"]["mean"]) + 1e-12


def test_the_table_tells_known_truths(rows):
    """A fresh reference beats an old one; it beats smoothing, which leaves the pattern."""

    def error(case, method):
        return np.mean([r["sf"]["mean"] for r in pick(rows, case=case, method=method)])

    fresh, old = "tile, reference 10 min old", "tile, reference 2 months old"
    assert error(fresh, "captured") < 0.6 * error(old, "captured")
    assert error(fresh, "captured") < 0.5 * error(fresh, "smooth")
    assert error("mosaic 3x3", "tile-median") < error("mosaic 3x3", "smooth")
    for row in pick(rows, case="mosaic 3x3", method="tile-median"):
        smooth = pick(rows, case="mosaic 3x3", method="smooth", group=row["group"])[0]
        assert row["shared_residue"] < smooth["shared_residue"]


def test_rows_are_json_and_repeatable(rows):
    again = evaluate(["smooth"], sessions=2, size=SIZE, seed=1, groups=["seen"], cases=["tile"])
    assert json.loads(json.dumps(again, allow_nan=False)) == again
    assert again == pick(rows, group="seen", case="tile", method="smooth")


def test_table_shows_every_row(rows):
    text = format_table(rows)
    assert text.count("\n| smooth |") == 2 * len(CASES)
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    shown = f"{100 * rows[0]['sf']['mean']:.2f}"
    assert shown in text
    assert f"{', '.join(families('held-out'))}" in text


def test_learned_methods_appear_in_every_case(blank):
    cases = ["tile", "tile, reference 8 h old"]
    rows = evaluate(
        ["auto", "generator", "captured"], sessions=1, size=SIZE, model=blank, device="cpu",
        groups=["seen"], cases=cases,
    )  # fmt: skip
    shown = [(r["case"], r["method"]) for r in rows]
    assert shown == [
        (cases[0], "auto"), (cases[0], "generator"),
        *[(cases[1], name) for name in ("auto", "generator", "captured")],
    ]  # fmt: skip
    alone, told = (pick(rows, case=case, method="generator")[0]["sf"] for case in cases)
    assert alone == told  # it looks at the tile alone


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="case 'moon'"):
        evaluate(["smooth"], cases=["moon"])
    with pytest.raises(ConfigError, match="groups"):
        evaluate(["smooth"], groups=["all"])
    with pytest.raises(ConfigError, match="sessions 0"):
        evaluate(["smooth"], sessions=0)
    with pytest.raises(MethodError, match="unknown"):
        evaluate(["magic"], sessions=1)
    with pytest.raises(ModelError):
        evaluate(["generator"], sessions=1, model=str(tmp_path / "none.safetensors"))


# --- real tiles -------------------------------------------------------------------------------


def test_real_mosaic_loses_its_common_pattern(txm_data):
    rows = evaluate_real(read(txm_data / "bl01b_sb_2x2"), ["tile-median", "smooth", "captured"])
    assert [r["method"] for r in rows] == ["raw", "tile-median", "smooth"]
    raw, median, smooth = (r["shared_residue"] for r in rows)
    assert raw > 0.3 and smooth > 0.2
    assert abs(median) < 0.2
    json.dumps(rows, allow_nan=False)
    table = format_table(rows)
    assert "real: bl01b_sb_2x2 (4 tiles)" in table and f"{raw:.3f}" in table


def test_a_single_real_tile_cannot_be_judged(txm_data):
    with pytest.raises(ConfigError, match="1 tile"):
        evaluate_real(read(txm_data / "xradia" / "test_chip00.xrm"), ["smooth"])


def test_every_method_without_and_with_the_joint_stage():
    cases = ["tile", "mosaic 3x3, reference 8 h old"]
    rows = evaluate(
        ["captured", "smooth"], sessions=1, size=SIZE, groups=["seen"], cases=cases, joint=True
    )
    shown = [(r["case"], r["method"]) for r in rows]
    smooth = ["smooth", "smooth, joint"]
    assert shown == [
        *[(cases[0], name) for name in smooth],
        *[(cases[1], name) for name in ("captured", "captured, joint", *smooth)],
    ]
    for name in ("captured", "smooth"):
        alone, together = (
            pick(rows, case=cases[1], method=label)[0]["mosaic"]["mean"]
            for label in (name, f"{name}, joint")
        )
        assert together < alone
