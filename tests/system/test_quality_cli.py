"""`txm-bgcorr quality` and `redo` from files to files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_txm_bgcorr.cli import app
from napari_txm_bgcorr.cli.redo import parse_tiles
from napari_txm_bgcorr.errors import ConfigError, MethodError, ReadError, WriteError
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic

SIDE, SIZE = 3, 64


def run(*arguments: object) -> str:
    found = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False,
                               standalone_mode=False)  # fmt: skip
    return found.output


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    drawn = simulate_mosaic(SIDE, SIDE, size=SIZE, seed=3, darks=2)
    (folder / "raw").mkdir()
    for i, name in enumerate(drawn.scan.names):
        tifffile.imwrite(folder / "raw" / f"{name}.tif", drawn.scan.tiles[i])
    tifffile.imwrite(folder / "dark.tif", drawn.scan.dark())
    run("correct", folder / "raw", "-o", folder / "out", "--method", "tile-median",
        "--grid", "3x3", "--dark", folder / "dark.tif")  # fmt: skip
    return folder / "out"


def test_figures_flags_table_and_page(corrected: Path, tmp_path: Path):
    page, table = tmp_path / "r.html", tmp_path / "r.csv"
    dark = corrected.parent / "dark.tif"
    found = json.loads(
        run("quality", corrected, "-o", page, "--csv", table, "--dark", dark, "--json")
    )
    assert len(found["tiles"]) == 9
    assert [row["tile"] for row in found["tiles"]] == list(range(9))
    assert found["flagged"] == [row["tile"] for row in found["tiles"] if row["flags"]]
    assert all(row["valid"] > 0.5 for row in found["tiles"])
    assert len(table.read_text().splitlines()) == 10
    text = page.read_text()
    assert "Quality of out" in text and "tile-median" in text
    assert "pedestal" not in text
    words = run("quality", corrected)
    assert "of 9 tiles flagged" in words


def test_the_missing_dark_is_told(corrected: Path, tmp_path: Path):
    run("quality", corrected, "-o", tmp_path / "r.html")
    assert "include the pedestal" in (tmp_path / "r.html").read_text()


def test_files_are_not_replaced_unasked(corrected: Path, tmp_path: Path):
    page = tmp_path / "r.html"
    page.write_text("mine")
    with pytest.raises(WriteError, match="exists"):
        run("quality", corrected, "-o", page)
    assert page.read_text() == "mine"
    run("quality", corrected, "-o", page, "--overwrite")
    assert "Quality of" in page.read_text()
    with pytest.raises(WriteError, match=r"ends in \.csv"):
        run("quality", corrected, "--csv", tmp_path / "r.txt")
    with pytest.raises(WriteError, match="no such folder"):
        run("quality", corrected, "--csv", tmp_path / "no" / "r.csv")
    with pytest.raises(ReadError, match="no output of txm-bgcorr"):
        run("quality", tmp_path)


def test_redo_changes_its_tiles_only(corrected: Path):
    import zarr

    def pixels() -> np.ndarray:
        return np.asarray(zarr.open(store=corrected / "corrected" / "0", mode="r")[:])

    dark = corrected.parent / "dark.tif"
    before = pixels()
    found = json.loads(
        run("redo", corrected, "--tiles", "1,7-8", "--method", "smooth", "--dark", dark, "--json")
    )
    assert found["tiles"] == [1, 7, 8]
    after = pixels()
    same = [bool((a == b).all()) for a, b in zip(before, after, strict=True)]
    assert same == [True, False, True, True, True, True, True, False, False]
    run("redo", corrected, "--tiles", "1,7-8", "--method", "tile-median", "--dark", dark)
    np.testing.assert_array_equal(pixels(), before)  # the way back
    run("redo", corrected, "--tiles", "4", "--method", "tile-median", "--local", "1",
        "--dark", dark)  # fmt: skip
    record = json.loads((corrected / "zarr.json").read_text())
    redone = record["attributes"]["txm_bgcorr"]["provenance"]["redone"]
    assert [entry["tiles"] for entry in redone] == [[1, 7, 8], [1, 7, 8], [4]]
    assert redone[-1]["local"] == 1 and redone[-1]["complete"]


def test_redo_refuses_another_dark_and_wrong_tiles(corrected: Path):
    before = (corrected / "zarr.json").read_bytes()
    with pytest.raises(ConfigError, match="give the same with --dark"):
        run("redo", corrected, "--tiles", "1", "--method", "smooth")
    with pytest.raises(MethodError, match="tile 9"):
        run("redo", corrected, "--tiles", "9", "--method", "smooth")
    assert (corrected / "zarr.json").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "tiles"), [("3", [3]), ("7, 3,3", [3, 7]), ("1-3,2,9", [1, 2, 3, 9])]
)
def test_lists_of_tiles(text: str, tiles: list[int]):
    assert parse_tiles(text) == tiles


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1", "1.5"])
def test_wrong_lists_of_tiles(text: str):
    with pytest.raises(ConfigError, match="not a list"):
        parse_tiles(text)
