"""The real suite on a small simulated manifest, and on real scans where they are at hand."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_txm_bgcorr.cli import app, real_suite
from napari_txm_bgcorr.errors import ConfigError, ReadError
from napari_txm_bgcorr.evaluation.real_suite import RealCase, load_manifest, no_harm
from napari_txm_bgcorr.models.checkpoint import save_model
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.training.config import NetworkConfig

QUICK = "captured,normalise,tile-median,smooth"
FREE = [[20.5, 20.5], [60.5, 20.5], [60.5, 60.5], [20.5, 60.5]]


def invoke(*words: object) -> None:
    app([str(word) for word in words], standalone_mode=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mosaic of 2 x 2 tiles with two references, and its manifest."""
    folder = tmp_path_factory.mktemp("data")
    place = folder / "mosaic"
    invoke("simulate", "mosaic", "--grid", "2x2", "--size", 256, "--references", 2, "-o", place)
    tiles = sorted(path.stem for path in place.glob("*.tif"))
    truth = ["mosaic/references/ref_0001.tif", "mosaic/references/ref_0002.tif"]
    table = "mosaic/truth/background/TileConfiguration.txt"
    mosaic: dict[str, Any] = {"input": "mosaic", "truth": truth, "positions": table}
    single = {"input": f"mosaic/{tiles[1]}.tif", "truth": truth[:1]}
    cases = [
        {**mosaic, "name": "mosaic, nothing given", "free": {tiles[0]: FREE}},
        {**mosaic, "name": "mosaic, reference", "references": truth[1:], "methods": ["captured"]},
        {**single, "name": "tile, other reference", "references": truth[1:]},
        {**single, "name": "tile, nothing given", "tiles": [f"mosaic/{tiles[1]}.tif"],
         "free": {tiles[1]: "x < 40 - y/2"}, "methods": ["captured"]},
        {**single, "name": "tile, tuned", "fine_tune": {"references": truth[1:]}},
        {**single, "name": "tile, tuned again", "fine_tune": {"references": truth[1:]}},
    ]  # fmt: skip
    (folder / "real_cases.json").write_text(json.dumps(cases))
    return folder


@pytest.fixture(scope="module")
def results(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the results of the quick methods."""
    out = tmp_path_factory.mktemp("results")
    invoke("evaluate", "--suite", "real", "--data", data, "--methods", QUICK, "-o", out,
           "--markdown", out / "page.md")  # fmt: skip
    return out


def rows_of(results: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((results / "results.json").read_text())["rows"]
    return rows


def test_every_case_and_method_has_a_row(results: Path) -> None:
    rows = rows_of(results)
    found = {(r["case"], r["method"]): r for r in rows}
    assert len(found) == len(rows) == 16  # cases that fine-tune were not asked for
    mosaic = found["mosaic, reference", "captured"]
    assert mosaic["check"] and 0 < mosaic["error"] < 0.05 and mosaic["seam"] > 0
    assert mosaic["spread"] is None and found["mosaic, nothing given", "smooth"]["spread"] > 0
    assert "needs 1 or more" in found["tile, nothing given", "captured"]["failed"]
    assert "needs 1 or more" in found["tile, nothing given", "normalise"]["failed"]
    assert found["tile, nothing given", "smooth"]["seam"] is None
    best = [r["method"] for r in rows if r["case"] == "tile, other reference" and r["best"]]
    assert set(best) & {"captured", "normalise"}
    table = list(csv.DictReader(io.StringIO((results / "results.csv").read_text())))
    assert [r["method"] for r in table] == [r["method"] for r in rows]
    page = (results / "page.md").read_text()
    assert (results / "results.md").read_text().strip() in page


def test_pictures_of_every_case(data: Path, results: Path) -> None:
    folders = {path.name for path in (results / "pictures").iterdir()}
    assert folders == {
        "mosaic-nothing-given", "mosaic-reference", "tile-other-reference", "tile-nothing-given",
    }  # fmt: skip
    folder = results / "pictures" / "mosaic-reference"
    sheet = imagecodecs.png_decode((folder / "captured.png").read_bytes())
    assert sheet.shape == (4 * 260, 4 * 260)
    raw, background, corrected, off = np.split(sheet[:256].astype(float), 4, axis=1)
    assert corrected.std() > 0 and abs(np.median(off[60:200, 60:200]) - 128) < 25
    truth = tifffile.imread(data / "mosaic" / "references" / "ref_0001.tif").astype(float)
    inner = np.s_[80:180, 80:180]
    smooth = [ndimage.gaussian_filter(image, 2)[inner].ravel() for image in (background, truth)]
    assert np.corrcoef(*smooth)[0, 1] > 0.9  # each reference has noise of its own
    assert np.abs(raw - background).max() > 0
    stitched = imagecodecs.png_decode((folder / "captured-stitched.png").read_bytes())
    assert min(stitched.shape) > 400
    assert not list((results / "pictures/tile-nothing-given").glob("*stitched*"))


def case_of(data: Path, name: str) -> RealCase:
    return next(case for case in load_manifest(data / "real_cases.json") if case.name == name)


def test_backgrounds_are_those_that_correct_saves(data: Path, tmp_path: Path) -> None:
    case = case_of(data, "mosaic, reference")
    invoke("correct", data / case.input, "-o", tmp_path / "o", "--method", "captured",
           "--reference", data / case.references[0], "--joint", "--save", "background",
           "--format", "tiff")  # fmt: skip
    saved = {path.stem: path for path in (tmp_path / "o" / "background").glob("*.tif")}
    found, _ = real_suite.corrected_backgrounds(case, data, "captured --joint", list(saved))
    assert len(found) == 4
    for name, image in found.items():
        np.testing.assert_array_equal(image, tifffile.imread(saved[name]))


def test_normalise_is_the_plain_mean(data: Path) -> None:
    both = RealCase(name="n", input="mosaic", truth=("x",), references=("mosaic/references",))
    found, _ = real_suite.corrected_backgrounds(both, data, "normalise", ["a"])
    flats = [tifffile.imread(p) for p in sorted((data / "mosaic/references").glob("*.tif"))]
    np.testing.assert_allclose(found["a"], np.mean(flats, axis=0, dtype=float), rtol=1e-6)


def test_backgrounds_of_another_program_are_judged_beside(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = case_of(data, "tile, other reference")
    name = Path(case.input).stem
    (tmp_path / case.slug).mkdir()
    shutil.copy(data / case.references[0], tmp_path / case.slug / f"{name}.tif")
    invoke("evaluate", "--suite", "real", "--data", data, "--only", "tile", "--methods",
           "normalise", "--external", f"other={tmp_path}", "--json")  # fmt: skip
    rows = json.loads(capsys.readouterr().out)["rows"]
    (other,) = (r for r in rows if r["method"] == "other")  # no folder: it does not apply
    own = next(r for r in rows if r["method"] == "normalise" and r["case"] == case.name)
    assert other["error"] == pytest.approx(own["error"], rel=1e-6)


def test_cases_share_a_model_that_is_tuned_once(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def train(config: str, *, run: Path, **given: Any) -> None:
        asked.append({"config": config, **given})
        run.mkdir()
        network = NetworkConfig(field_px=32, features=(8, 8))
        save_model(run / "model.safetensors", build_generator(network), network, metrics={})

    monkeypatch.setattr(real_suite.train, "train", train)
    options = real_suite.SuiteOptions(
        data=data, manifests=(data / "real_cases.json",), only="tuned", fine_tune=True,
        device="cpu", methods=("auto", "captured"),
    )  # fmt: skip
    rows = real_suite.run_suite(options)
    assert [row.method for row in rows] == ["auto", "captured"] * 2
    assert not any(row.failed for row in rows)
    (one,) = asked
    reference = str(data / "mosaic/references/ref_0002.tif")
    assert one["config"] == "fine-tune" and one["references"] == [reference]
    assert one["overrides"] == ["minutes=4"]


def test_a_failing_auto_is_never_hidden(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise ReadError("mosaic: tile missing; add it")

    monkeypatch.setattr(real_suite, "corrected_backgrounds", refuse)
    options = real_suite.SuiteOptions(data, (data / "real_cases.json",), only="mosaic, nothing")
    (row,) = real_suite.run_suite(options)
    assert row.method == "auto" and row.failed == "mosaic: tile missing; add it"


def test_slips_are_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TXM_BGCORR_DATA", raising=False)
    real = ("evaluate", "--suite", "real")
    with pytest.raises(ConfigError, match="set TXM_BGCORR_DATA"):
        invoke(*real)
    with pytest.raises(ConfigError, match="no such folder"):
        invoke(*real, "--data", tmp_path / "none")
    with pytest.raises(ConfigError, match="--fine-tune"):
        invoke(*real, "--data", data, "--only", "tuned")
    twice = ("--manifest", data / "real_cases.json")
    with pytest.raises(ConfigError, match="comes twice"):
        invoke(*real, "--data", data, *twice, *twice)
    with pytest.raises(ConfigError, match="NAME=FOLDER"):
        invoke(*real, "--data", data, "--external", "other")
    with pytest.raises(ConfigError, match="see correct --help"):
        real_suite.corrected_backgrounds(
            case_of(data, "tile, nothing given"), data, "smooth --magic", ["a"]
        )
    (tmp_path / "page.md").write_text("# No marks\n")
    with pytest.raises(ConfigError, match="real suite: begin"):
        invoke(*real, "--data", data, "--markdown", tmp_path / "page.md")
    twins = RealCase(name="twins", input="mosaic", truth=("x",), tiles=(
        "mosaic/references/ref_0001.tif", "mosaic/truth/../references/ref_0001.tif"
    ))  # fmt: skip
    with pytest.raises(ConfigError, match="one name"):
        real_suite.read_scene(twins.model_copy(update={"truth": twins.tiles[:1]}), data)
    bad = RealCase(name="odd", input="mosaic", truth=("small.tif",))
    tifffile.imwrite(data / "small.tif", np.ones((64, 64), np.uint16))
    with pytest.raises(ConfigError, match=r"the truth \(64, 64\)"):
        real_suite.read_scene(bad, data)


# the script leaves a table open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_figures_on_real_scans_are_those_of_the_script(txm_data: Path, tmp_path: Path) -> None:
    path = txm_data.parent / "tools" / "real_suite.py"
    if not path.is_file():
        pytest.skip(f"{path}: not there")
    spec = importlib.util.spec_from_file_location("real_suite_script", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    command = tmp_path / "txm-bgcorr"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m napari_txm_bgcorr.cli "$@"\n')
    command.chmod(0o755)
    manifest = txm_data / "real_cases.json"
    wanted = {"bl01b 4x2, nothing given": "tile-median", "bl01b 4x2, reference 0009": "captured",
              "aps fov03 soc01, reference 5.5 h off": "captured"}  # fmt: skip
    given = {case["name"]: case for case in json.loads(manifest.read_text())}
    for name, method in wanted.items():
        expected = script.judge(given[name], str(txm_data), str(command), method)
        options = real_suite.SuiteOptions(txm_data, (manifest,), only=name, methods=(method,))
        (row,) = real_suite.run_suite(options)
        for figure, value in expected.items():
            assert getattr(row.figures, figure) == pytest.approx(value, abs=1e-4), figure


# What `auto` is still worse at, and by which figure; a case that gets better is taken out here.
HARMED = {
    ("bl01b 4x2, reference 0013", "error"),
    ("bl01b 6 covered, day's references", "error"),
    ("bl01b 4 covered, day's references", "error"),
    ("bl01b tile 0002, nothing given", "error"),
    ("bl01b tile 0006, nothing given", "error"),
}


@pytest.mark.slow
@pytest.mark.parametrize("only", ["bl01b", "5.5 h off", "soc01, nothing given"])
def test_the_automatic_method_harms_no_real_scan_but_those_known(
    txm_data: Path, only: str
) -> None:
    """At most 0.2 % above the best of what it was given and of the classical methods."""
    options = real_suite.SuiteOptions(
        txm_data, (txm_data / "real_cases.json",), only=only,
        methods=("auto", "captured", "tile-median", "smooth", "envelope"),
    )  # fmt: skip
    rows = [row for row in real_suite.run_suite(options) if row.failed is None]
    compared = no_harm(rows)
    assert {one.case for one in compared} >= {row.case for row in rows if not row.check}
    harmed = {(one.case, one.figure) for one in compared if one.harmless is False}
    assert harmed == {one for one in HARMED if only in one[0]}
