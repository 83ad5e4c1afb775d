"""`correct --joint` from files to files: places, provenance, notes, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_txm_bgcorr import io
from napari_txm_bgcorr.cli import app
from napari_txm_bgcorr.io.readers.tile_layout import parse_tile_configuration


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sim") / "m3x3"
    given = ["simulate", "mosaic", "--grid", "3x3", "--size", "96", "--references", "2"]
    done = CliRunner().invoke(app, [*given, "--seed", "3", "-o", str(out)])
    assert done.exit_code == 0, done.output
    return out


def run(*words: object) -> dict:
    done = CliRunner().invoke(app, ["correct", *map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["results"][0]


def test_registered_places_are_written_and_kept(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ("--method", "smooth", "--joint", "--format", "tiff")
    told = run(tiles, "-o", out, *given, "--write-positions")
    stage = told["parameters"]["joint"]
    assert stage["pairs"] == 12 and stage["pairs_registered"] > 6 and stage["overlaps"] == 12
    assert 0 < stage["seam_after"] < 0.05
    assert len(stage["free_share"]) == len(stage["level_errors"]) == 9
    table = parse_tile_configuration(out / "TileConfiguration.registered.txt")
    true = parse_tile_configuration(tiles / "truth" / "background" / "TileConfiguration.txt")
    assert list(table) == [f"sim_{k + 1:04d}.tif" for k in range(9)]
    off = np.array([table[n] for n in table]) - np.array([true[n] for n in table])
    assert np.abs(off - np.median(off, axis=0)).max() < 2
    kept = io.read(out / "corrected")
    np.testing.assert_allclose(kept.positions_px, stage["positions_px"], atol=1e-6)
    assert any("registered" in note for note in told["notes"])


def test_without_the_stage_nothing_is_registered(tiles: Path, tmp_path: Path) -> None:
    told = run(tiles, "-o", tmp_path / "out", "--method", "smooth", "--write-positions")
    assert "joint" not in told["parameters"]
    assert any("not written: without the joint stage" in note for note in told["notes"])


def test_a_relative_level_is_told(tiles: Path, tmp_path: Path) -> None:
    """Or else where it is from."""
    told = run(tiles, "-o", tmp_path / "out", "--method", "smooth", "--joint")
    source = told["parameters"]["joint"]["level"]["from"]
    assert source in ("empty areas", "relative")
    assert any("the level is relative" in n for n in told["notes"]) == (source == "relative")
    told = run(tiles, "-o", tmp_path / "i0", "--method", "smooth", "--joint", "--i0", 9000)
    assert told["parameters"]["joint"]["level"]["from"] == "I0"
    assert not any("the level is relative" in note for note in told["notes"])


def test_i0_without_the_stage_is_refused(tiles: Path, tmp_path: Path) -> None:
    words = ["correct", str(tiles), "-o", str(tmp_path / "o"), "--method", "smooth", "--i0", "9"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
