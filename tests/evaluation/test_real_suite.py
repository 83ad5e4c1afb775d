from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.evaluation.real_suite import (
    Figures,
    Row,
    Scene,
    area_mask,
    best_figures,
    csv_text,
    harm_text,
    json_rows,
    load_manifest,
    log_error,
    markdown_text,
    mean_truth,
    no_harm,
    place_between_marks,
    summary_text,
    table_text,
)

SHAPE = (120, 150)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


# --- areas ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x<90", X < 90),
        ("x<100-0.664*y", X < 100 - 0.664 * Y),
        ("x/58 + y/68 < 0.75", X / 58 + Y / 68 < 0.75),
        ("(x - y) / 2 >= 3.25", (X - Y) / 2 >= 3.25),
        ("-2*(x + 1) > y*3 - 200.5", -2 * (X + 1) > Y * 3 - 200.5),
        ("10 <= y", Y >= 10),
    ],
)
def test_an_inequality_is_a_half_plane(text, expected):
    np.testing.assert_array_equal(area_mask(text, SHAPE), expected)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd() < 'x'", "x*y < 3", "x < y < 3", "x == 3", "", "x/0 < 1",
        "x**2 < 9", "a < 3", "x < True", "x", "x < 3 or y < 3", "1/x < 3",
        "x <" + " x +" * 90 + "1", "x < 1j", "\0 < x", "x < 1e999",
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_never_executed(text):
    with pytest.raises(ConfigError, match="no linear inequality"):
        area_mask(text, SHAPE)


def test_a_polygon_holds_the_pixels_whose_centres_it_encloses():
    square = ((9.5, 19.5), (29.5, 19.5), (29.5, 49.5), (9.5, 49.5))
    expected = (X >= 10) & (X < 30) & (Y >= 20) & (Y < 50)
    np.testing.assert_array_equal(area_mask(square, SHAPE), expected)
    np.testing.assert_array_equal(area_mask(square[::-1], SHAPE), expected)
    notched = (*square, (20, 35))  # a wedge from the left side is outside
    assert area_mask(notched, SHAPE)[25, 15] and not area_mask(notched, SHAPE)[35, 12]
    assert not area_mask(((200, 200), (210, 200), (200, 210)), SHAPE).any()
    with pytest.raises(ConfigError, match="2 vertices"):
        area_mask(((0, 0), (1, 1)), SHAPE)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-200, 200))
def test_a_half_plane_and_its_complement_share_the_field(a, b, c):
    low = area_mask(f"{a:.6f}*x + {b:.6f}*y < {c:.6f}", SHAPE)
    high = area_mask(f"{a:.6f}*x + {b:.6f}*y >= {c:.6f}", SHAPE)
    assert np.all(low ^ high)


# --- manifest ---------------------------------------------------------------------------------


def manifest(folder: Path, *cases: dict) -> Path:
    path = folder / "real_cases.json"
    path.write_text(json.dumps(cases))
    return path


PLAIN = {"name": "one", "input": "a.tif", "truth": ["ref.tif"]}


def test_a_manifest_is_read(tmp_path):
    full = {
        **PLAIN, "name": "two, with all", "tiles": ["m/t_0001.tif"], "free": {"0001": "x<9"},
        "references": ["ref.tif"], "positions": "m/TileConfiguration.txt",
        "fine_tune": {"references": ["ref.tif"], "minutes": 0.5},
    }  # fmt: skip
    one, two = load_manifest(manifest(tmp_path, PLAIN, full))
    assert not one.check and one.by == "error" and one.slug == "one"
    assert two.check and two.by == "seam" and two.slug == "two-with-all"
    assert two.area_of("t_0001") == "x<9" and two.area_of("t_0002") is None
    assert two.fine_tune.minutes == 0.5
    assert one.is_truth("ref") and not one.is_truth("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, r"case 'one': colour: Extra inputs"),
        ({"truth": []}, r"case 'one': truth"),
        ({"free": {"a": "x*y<3"}}, "no linear inequality"),
        ({"free": {"a": [[0, 0]]}}, "1 vertices"),
        ({"judge": "beauty"}, "judge"),
        ({"fine_tune": {"minutes": 1}}, "fine_tune: references"),
    ],
)
def test_a_wrong_case_is_refused_by_name(tmp_path, change, message):
    path = manifest(tmp_path, {**PLAIN, **change})
    with pytest.raises(ConfigError, match=message) as caught:
        load_manifest(path)
    assert str(path) in str(caught.value)


def test_a_wrong_manifest_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="comes twice"):
        load_manifest(manifest(tmp_path, PLAIN, {**PLAIN, "name": "One"}))
    assert load_manifest(manifest(tmp_path)) == []
    with pytest.raises(ConfigError, match="name the folder with --data"):
        load_manifest(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        load_manifest(tmp_path / "bad.json")
    (tmp_path / "object.json").write_text("{}")
    with pytest.raises(ConfigError, match="list of cases"):
        load_manifest(tmp_path / "object.json")


# --- figures ----------------------------------------------------------------------------------


def scene(raws, truth=None, free=None, places=None, judged=None):
    truth = np.full(SHAPE, 1000.0) if truth is None else truth
    judged = frozenset(raws) if judged is None else judged
    return Scene(raws, truth, judged, free or {}, places)


def test_error_is_the_rms_of_the_shape_not_of_the_scale():
    truth = 500 * np.exp(-(((X - 70) / 90) ** 2))
    raws = {"a": truth, "b": truth}
    figures = scene(raws, truth).judge({"a": 3 * truth, "b": truth * np.exp(0.02 * (-1.0) ** X)})
    assert figures.worst == pytest.approx(0.02, rel=0.03)
    assert figures.error == pytest.approx(figures.worst / 2, rel=1e-6)
    alone = scene(raws, truth, judged=frozenset("a")).judge({"a": 3 * truth, "b": truth})
    assert alone.error == pytest.approx(0, abs=1e-9)
    assert scene(raws, truth, judged=frozenset()).judge(raws).error is None


def test_spread_sees_the_free_area_only():
    raw = np.full(SHAPE, 2000.0)
    raw[:, 80:] *= 0.3  # sample
    flat = np.full(SHAPE, 5000.0)
    one = scene({"a": raw}, free={"a": area_mask("x<60", SHAPE)})
    assert one.judge({"a": flat}).spread == pytest.approx(0, abs=1e-6)
    tilted = flat * np.exp(1e-3 * X)
    ramp = 1e-3 * np.arange(6, 60)  # less the rim
    assert one.judge({"a": tilted}).spread == pytest.approx(ramp.std(), rel=0.02)
    assert scene({"a": raw}).judge({"a": flat}).spread is None


def test_seam_is_the_step_between_tiles():
    raws = {"a": np.full(SHAPE, 2000.0), "b": np.full(SHAPE, 2000.0)}
    places = {"a": (0.0, 0.0), "b": (3.0, 90.0)}
    one = scene(raws, places=places)
    backgrounds = {"a": np.full(SHAPE, 4000.0), "b": np.full(SHAPE, 4000 * np.exp(0.05))}
    assert one.judge(backgrounds).seam == pytest.approx(0.05, rel=1e-3)
    assert one.judge(dict.fromkeys("ab", backgrounds["a"])).seam == pytest.approx(0, abs=1e-9)
    assert one.judge({"a": raws["a"], "b": raws["b"] * 9}).seam == pytest.approx(0.3)  # clipped
    apart = scene(raws, places={"a": (0, 0), "b": (0, 150)})
    assert apart.judge(backgrounds).seam is None
    assert scene(raws).judge(backgrounds).seam is None


def test_truth_is_the_mean_of_references_at_one_level():
    shape = np.exp(-(((Y - 50) / 80) ** 2))
    np.testing.assert_allclose(
        mean_truth([np.uint16(100 * shape + 1), np.uint16(10000 * shape + 100)]),
        mean_truth([10000 * shape + 100]),
        rtol=0.03,
    )


@pytest.fixture(scope="module")
def original(txm_data):
    """The script that the metrics are taken from."""
    path = txm_data.parent / "tools" / "real_suite.py"
    if not path.is_file():
        pytest.skip(f"{path}: not there")
    spec = importlib.util.spec_from_file_location("real_suite_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_those_of_the_script(original):
    rng = np.random.default_rng(3)
    truth = 900 * np.exp(-(((X - 90) / 80) ** 2) - ((Y - 40) / 60) ** 2)
    places = {"a": (0.0, 0.0), "b": (4.4, 71.5), "c": (-50.5, -3.5)}
    raws, backgrounds = {}, {}
    for name in places:
        raws[name] = rng.poisson(truth * (1 - 0.3 * (rng.random() < 0.5))).astype(np.uint16)
        backgrounds[name] = (truth * np.exp(0.02 * rng.standard_normal(SHAPE))).astype(np.float32)
    found = scene(raws, truth, {"b": area_mask("x<90", SHAPE)}, places).judge(backgrounds)
    lit, log_true = original.lit_field(truth), np.log(np.maximum(truth, 1e-3))
    logs = {n: np.log(np.maximum(b.astype(float), 1e-3)) for n, b in backgrounds.items()}
    counts = {n: r.astype(float) for n, r in raws.items()}
    errors = [original.error_of(logs[n], log_true, lit) for n in "abc"]
    assert found.error == pytest.approx(np.mean(errors), rel=1e-9)
    assert found.worst == pytest.approx(max(errors), rel=1e-9)
    assert log_error(logs["a"], log_true, lit) == pytest.approx(errors[0], rel=1e-9)
    corners = {n: (x, y) for n, (y, x) in places.items()}
    assert found.seam == pytest.approx(original.seams(logs, counts, corners, lit), rel=1e-9)


# --- ranking ----------------------------------------------------------------------------------


def row(method, error=None, spread=None, seam=None, *, case="m", check=False, failed=None):
    by = "error" if seam is None else "seam"
    return Row(case, method, check, by, Figures(error, error, spread, seam), failed)


def test_the_best_are_marked_but_not_what_copies_the_raw_tile():
    rows = [
        row("auto", 0.017, 0.010, 0.05),
        row("tile-median", 0.015, 0.021, 0.12),
        row("smooth", 0.08, 0.001, 0.01),  # flat, and wrong
        row("captured", failed="no references"),
    ]
    assert best_figures(rows) == [{"spread", "seam"}, {"error"}, set(), set()]
    bad = [row("auto", 0.053, 0.03, 0.18), row("smooth", 0.09, 0.01, 0.1)]
    assert best_figures(bad) == [{"error", "spread", "seam"}, set()]
    check = [row("auto", 0.01, 0.02, 0.1, check=True), row("captured", 0, 0.03, 0.2, check=True)]
    assert best_figures(check) == [{"spread", "seam"}, set()]


def test_no_harm_by_error():
    def told(auto, other):
        (one,) = no_harm([row("auto", auto), row("generator", 0.0), row("smooth", other)])
        assert one.method == "smooth" and one.figure == "error"
        return one.harmless

    assert told(0.05, 0.05) and told(0.0519, 0.05) and not told(0.0521, 0.05)
    assert no_harm([row("auto", 0.009, check=True), row("captured", 0, check=True)]) == []
    assert no_harm([row("smooth", 0.1)]) == []
    (failed,) = no_harm([row("auto", failed="refused"), row("smooth", 0.1)])
    assert failed.harmless is False
    (alone,) = no_harm([row("auto", 0.01)])
    assert alone.harmless is None


def test_no_harm_by_spread_and_seam_within_the_guard():
    rows = [row("auto", 0.021, 0.010, 0.06), row("captured", 0.010, 0.009, 0.05)]
    guard, spread, seam = no_harm(rows)
    assert guard.harmless and guard.other == 0.022 and guard.method == "limit"
    assert spread.harmless and not seam.harmless
    guard, *_ = no_harm([row("auto", 0.023, 0.01, 0.05, check=True)])
    assert guard.harmless is False
    guard, spread, seam = no_harm([row("auto", 0.053, 0.03, 0.18), row("smooth", 0.074, 0.0, 0.0)])
    assert guard.harmless and spread.harmless is None and seam.harmless is None


# --- tables -----------------------------------------------------------------------------------

ROWS = [
    row("auto", 0.0212, 0.012, 0.06),
    row("captured", 0.0101, 0.009, 0.05),
    row("auto", 0.0100, case="n", check=True),
    row("envelope", case="n", check=True, failed="no, not this"),
]


def test_every_row_is_in_every_table():
    text = table_text(ROWS[:2])
    assert "2.12" in text and "1.01*" in text and "5.00*" in text
    assert "failed: no, not this" in table_text(ROWS[2:]) and "check" in table_text(ROWS[2:])
    table = list(csv.DictReader(io.StringIO(csv_text(ROWS))))
    assert [r["method"] for r in table] == ["auto", "captured", "auto", "envelope"]
    assert table[1]["error (%)"] == "1.0100" and table[1]["best"] == "error seam spread"
    assert table[3]["failed"] == "no, not this" and table[3]["error (%)"] == ""
    page = markdown_text(ROWS)
    assert "| m | error | 2.12 | **1.01** |  | yes |" in page
    assert "| m | seam | 6.00 | **5.00** |  | **no** |" in page
    assert "| n | error (check) | 1.00 |  | failed |  |" in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert widths == {7}
    found = json.loads(json.dumps(json_rows(ROWS), allow_nan=False))
    assert found["rows"][1]["best"] == ["error", "seam", "spread"]
    assert found["summary"] == summary_text(ROWS)
    assert summary_text(ROWS) == (
        "auto is best by error in 0 of 1 ranked cases and by seam in 0 of 1 mosaics; it harms in "
        "1 of 1 compared cases."
    )
    assert "captured 5.00" in harm_text(ROWS)


def test_a_page_keeps_what_is_around_the_table():
    page = place_between_marks("", "first")
    again = place_between_marks(f"# Head\n\n{page}\nTail\n", "second")
    assert again.startswith("# Head\n") and again.endswith("\nTail\n")
    assert "second" in again and "first" not in again
    with pytest.raises(ConfigError, match="real suite: begin"):
        place_between_marks("# Another page\n", "text")
