"""The comparison of methods with and without the joint stage: resuming, and BaSiCPy outside."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.quality.metrics import background_error

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZE = 48

# Stands for BaSiCPy: the median over tiles, less a dark field that it knows.
FAKE = """
import warnings
import numpy as np

class BaSiC:
    def __init__(self, **options):
        self.options = self.settings = options

    def autotune(self, images):
        print("tuned: not an answer")
        self.options["tuned"] = True

    def fit(self, images):
        if len(images) < 3:
            raise RuntimeError("too few")
        if self.options.get("die"):
            raise SystemExit(3)
        warnings.warn("use with caution")
        self.darkfield = np.full(images.shape[1:], 500 * self.options.get("get_darkfield", False))
        flat = np.median(images, axis=0) - self.darkfield
        self.flatfield, self.baseline = flat / flat.mean(), np.ones(len(images))
"""


@pytest.fixture
def external(monkeypatch, tmp_path):
    """Module `external_basic`, and a fitter whose BaSiCPy is the fake."""
    (tmp_path / "basicpy.py").write_text(FAKE)
    (tmp_path / "basicpy-2.0.0.dist-info").mkdir()
    (tmp_path / "basicpy-2.0.0.dist-info/METADATA").write_text("Name: basicpy\nVersion: 2.0.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import external_basic

    fitter = external_basic.Fitter(Path(sys.executable))
    yield external_basic, fitter
    fitter.close()


def scan_of(levels=(1.0, 1.1, 0.9, 1.0, 1.0), pedestal=0.0, count=5):
    y, x = np.indices((SIZE, SIZE)) / SIZE
    flat = 1 + 0.4 * x - 0.2 * y * y
    truth = np.stack([level * 9000 * flat for level in levels[:count]]) + pedestal
    noise = np.random.default_rng(1).normal(0, 20, truth.shape)
    tiles = (truth + noise).astype(np.float32)
    return Scan(tiles, "series", Source(Path("made"), "test"), tuple("abcde"[:count])), truth


@pytest.mark.parametrize("level", ["one", "tile"])
def test_its_flat_field_is_a_background_method(external, level):
    module, fitter = external
    scan, truth = scan_of()
    method = module.ExternalBasic(fitter, level=level, tune=True)
    assert isinstance(method, BackgroundMethod)
    out = method.fit(scan).background(scan.tiles[:], np.arange(5))
    for predicted, true in zip(out, truth, strict=True):
        assert background_error(predicted, true)["sf"] < 0.005
    alike = out.mean(axis=(1, 2)) / truth.mean(axis=(1, 2))
    assert np.ptp(alike) < 0.01 if level == "tile" else np.ptp(out, axis=0).max() == 0
    said = method.describe()
    assert said["version"] == "2.0.0" and said["settings"]["tuned"]
    assert said["said"] == ["use with caution"]
    assert json.loads(json.dumps(said)) == said


def test_its_dark_field_is_part_of_the_background(external):
    module, fitter = external
    scan, truth = scan_of(levels=(1.0,) * 5, pedestal=500.0)
    method = module.ExternalBasic(fitter, get_darkfield=True).fit(scan)
    out = method.background(scan.tiles[:1])
    assert background_error(out[0], truth[0])["abs"] < 0.03
    assert background_error(out[0] - 500, truth[0] - 500)["sf"] < 0.005


def test_what_fails_outside_is_said_and_the_next_question_is_answered(external):
    module, fitter = external
    with pytest.raises(MethodError, match="RuntimeError: too few"):
        module.ExternalBasic(fitter).fit(scan_of(count=2)[0])
    module.ExternalBasic(fitter).fit(scan_of()[0])
    with pytest.raises(MethodError, match="ended without an answer"):
        module.ExternalBasic(fitter, die=True).fit(scan_of()[0])
    module.ExternalBasic(fitter).fit(scan_of()[0])


def test_a_missing_environment_names_its_command(external, tmp_path):
    module, _ = external
    fitter = module.Fitter(module.python_of(tmp_path / "none"))
    with pytest.raises(MethodError, match=r"external_basic\.py .*none"):
        module.ExternalBasic(fitter).fit(scan_of()[0])


def test_rows_of_an_earlier_run_are_not_made_again(external, monkeypatch, tmp_path, capsys):
    import joint_stage

    file = tmp_path / "rows.json"
    run = [
        "--mosaics",
        "1",
        "--series",
        "0",
        "--size",
        "64",
        "--largest",
        "2",
        "--json",
        str(file),
    ]
    run += ["--basicpy", str(tmp_path / "none")]
    joint_stage.main([*run, "--methods", "smooth", "BaSiCPy"])
    first, written = capsys.readouterr().out, json.loads(file.read_text())
    assert [row["method"] for row in written] == ["smooth", "BaSiCPy"]
    assert "not_run" in written[1]

    drawn = []
    draw = joint_stage.draw_mosaic
    monkeypatch.setattr(joint_stage, "draw_mosaic", lambda *a: drawn.append(a) or draw(*a))
    joint_stage.main([*run, "--methods", "smooth", "--scans", "0"])
    assert not drawn
    table = next(line for line in first.splitlines() if line.startswith("| smooth | none"))
    assert table in capsys.readouterr().out
    joint_stage.main([*run, "--methods", "smooth", "tile-median"])  # one more method
    assert len(drawn) == 1
    assert [row["method"] for row in json.loads(file.read_text())] == ["smooth", "tile-median"]
    joint_stage.main([*run, "--methods", "smooth", "--again", "smooth"])
    assert len(drawn) == 2
    joint_stage.main([*run, "--methods", "smooth", "--size", "72"])  # another question
    assert len(drawn) == 3
    assert len(json.loads(file.read_text())) == 3


def test_pairs_are_of_the_same_scans(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import joint_stage

    def row(scan, method, before, after):
        stages = {"before": {"one scale": before}, "after": {"one scale": after}}
        return {"scan": scan, "method": method, **stages}

    rows = [row(k, "auto", 3.0 + k, 1.0 + k) for k in range(4)]
    rows += [row(k, "smooth", 8.0 + k, 1.5 + k) for k in (0, 1, 3)]  # the third could not run
    line = joint_stage.paired(rows).splitlines()[-1]
    same = [f"{d:+.2f} ({d:+.2f} to {d:+.2f})" for d in (-5, -0.5, -7)]
    assert line == f"| smooth | {' | '.join(same)} |"
