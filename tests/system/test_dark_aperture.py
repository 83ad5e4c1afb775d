"""`--dark aperture`: the dark of a scan that has none, from a corner that its aperture closes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_txm_bgcorr.cli import app
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.output.patch import open_finished
from napari_txm_bgcorr.io.readers.tile_layout import tile_configuration_text
from napari_txm_bgcorr.simulation.acquisition import SimulatedScan, simulate_mosaic

GRID, SIZE = (7, 7), 96


def run(*arguments: object) -> str:
    found = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False,
                               standalone_mode=False)  # fmt: skip
    return found.output


@pytest.fixture(scope="module")
def drawn() -> SimulatedScan:
    """Three rows under a slab, deep corners, no dark image."""
    return simulate_mosaic(
        *GRID, size=SIZE, specimen="cells", family="bl01b", covered_rows=3, seed=22, jitter_px=8
    )


@pytest.fixture(scope="module")
def raw(drawn: SimulatedScan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aperture") / "raw"
    folder.mkdir()
    for i, name in enumerate(drawn.scan.names):
        tifffile.imwrite(folder / f"{name}.tif", drawn.scan.tiles[i])
    text = tile_configuration_text(
        [f"{name}.tif" for name in drawn.scan.names], drawn.positions_px
    )
    (folder / "TileConfiguration.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def corrected(raw: Path) -> dict[str, Path]:
    out = {}
    for name, given in (("without", ()), ("aperture", ("--dark", "aperture"))):
        out[name] = raw.parent / f"{name}.ome.zarr"
        run("correct", raw, "-o", out[name], "--method", "tile-median", "--joint",
            *given)  # fmt: skip
    return out


def error(path: Path, drawn: SimulatedScan) -> float:
    """Of the transmission, where the beam arrives."""
    found, lit = open_finished(path), drawn.session.aperture
    off = [
        np.asarray(found.corrected[i])[lit] - drawn.transmissions[i][lit]
        for i in range(len(drawn.scan))
    ]
    return float(np.sqrt(np.mean(np.square(off))))


def test_transmissions_come_out_right(drawn: SimulatedScan, corrected: dict[str, Path]) -> None:
    assert error(corrected["aperture"], drawn) < 0.5 * error(corrected["without"], drawn)


def test_an_output_finds_its_dark_again(
    drawn: SimulatedScan, corrected: dict[str, Path], tmp_path: Path
) -> None:
    dark = open_finished(corrected["aperture"]).scan.dark()
    assert dark is not None
    assert dark.mean() == pytest.approx(drawn.session.dark.mean(), rel=0.02)
    assert open_finished(corrected["without"]).scan.dark() is None
    found = json.loads(run("quality", corrected["aperture"], "--json"))
    assert len(found["tiles"]) == 49
    run("redo", corrected["aperture"], "--tiles", "3", "--method", "smooth")


def test_each_input_has_its_own(drawn: SimulatedScan, tmp_path: Path) -> None:
    """Files of one size, one with a pedestal of 500 counts more: their transmissions agree."""
    paths = [tmp_path / f"tile{k}.tif" for k in (0, 1)]
    for path, more in zip(paths, (0, 500), strict=True):
        tifffile.imwrite(path, drawn.scan.tiles[0] + np.uint16(more))
    run("correct", *paths, "-o", tmp_path / "out", "--method", "smooth", "--dark", "aperture")
    first, second = open_finished(tmp_path / "out").corrected[:]
    middle = np.s_[40:50, 40:50]
    np.testing.assert_allclose(first[middle], second[middle], rtol=2e-3)


def test_no_closed_corner_is_an_error_with_a_remedy(drawn: SimulatedScan, tmp_path: Path) -> None:
    path = tmp_path / "middle.tif"
    tifffile.imwrite(path, drawn.scan.tiles[0][30:66, 30:66])
    with pytest.raises(ReadError, match=r"closed by an aperture.*give dark images"):
        run("correct", path, "-o", tmp_path / "out", "--method", "smooth", "--dark", "aperture")


def test_a_file_of_that_name_comes_first(
    drawn: SimulatedScan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("tile.tif", drawn.scan.tiles[0])
    tifffile.imwrite("aperture", np.full((SIZE, SIZE), 77, np.uint16))
    run("correct", "tile.tif", "-o", "out.ome.zarr", "--method", "smooth", "--dark", "aperture",
        "--save", "raw,background,corrected")  # fmt: skip
    found = open_finished(Path("out.ome.zarr"))
    raw, beam = np.asarray(found.scan.tiles[0], float), np.asarray(found.background[0])
    middle = np.s_[40:50, 40:50]
    np.testing.assert_allclose(
        found.corrected[0][middle], (raw - 77)[middle] / (beam - 77)[middle], rtol=1e-4
    )
