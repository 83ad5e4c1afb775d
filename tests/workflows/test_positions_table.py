"""Registered places for Fiji: under the names that the files have, readable by our own reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.core import Scan, Source
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io.readers.tile_layout import parse_tile_configuration
from napari_txm_bgcorr.workflows.config import CorrectionConfig
from napari_txm_bgcorr.workflows.positions_table import TABLE, write_positions

REGISTERED = {"joint": {"pairs_registered": 3}}
PLACES = np.array([[0.1 + 0.2, 0.0], [1 / 3, 44.25], [50.0, 1e-9]])


def scan(files: tuple[Path, ...] = ()) -> Scan:
    made = Scan.from_array(np.ones((3, 4, 5), np.uint16), positions_px=PLACES, name="t")
    return replace(made, source=Source(Path("scan"), "tiff", files), positions_px=PLACES)


def config(**changes: Any) -> CorrectionConfig:
    return CorrectionConfig(inputs=(Path("scan"),), output=Path("out"), **changes)


def assert_places(table: Path, names: list[str]) -> None:
    found = parse_tile_configuration(table)
    assert list(found) == names
    np.testing.assert_array_equal(list(found.values()), PLACES)  # to the last digit


def test_tiles_that_are_files_keep_their_names(tmp_path: Path) -> None:
    files = tuple(Path("deep") / f"a b_{k}.xrm" for k in range(3))
    note = write_positions(tmp_path, scan(files), REGISTERED, config())
    assert note == f"registered places: {tmp_path / TABLE}"
    assert_places(tmp_path / TABLE, ["a b_0.xrm", "a b_1.xrm", "a b_2.xrm"])


def test_tiles_of_one_file_are_named_as_written(tmp_path: Path) -> None:
    write_positions(tmp_path, scan((Path("all.txrm"),)), REGISTERED, config())
    assert_places(tmp_path / TABLE, ["t_0.tif", "t_1.tif", "t_2.tif"])


def test_tiff_folders_have_one_each(tmp_path: Path) -> None:
    chosen = config(format="tiff", save=("corrected", "raw"))
    for part in chosen.parts:
        (tmp_path / part).mkdir()
    files = tuple(Path(f"x{k}.xrm") for k in range(3))
    write_positions(tmp_path, scan(files), REGISTERED, chosen)
    assert_places(tmp_path / TABLE, ["x0.xrm", "x1.xrm", "x2.xrm"])
    for part in chosen.parts:
        assert_places(tmp_path / part / TABLE, ["t_0.tif", "t_1.tif", "t_2.tif"])


@pytest.mark.parametrize(
    ("described", "places", "why"),
    [
        ({}, True, "without the joint stage"),
        ({"joint": None}, True, "without the joint stage"),
        ({"joint": {"pairs_registered": 0}}, True, "no neighbouring tiles were registered"),
        ({"joint": {"notes": []}}, True, "no neighbouring tiles were registered"),
        (REGISTERED, False, "no positions"),
    ],
)
def test_why_it_is_not_there_is_told(
    tmp_path: Path, described: dict[str, Any], places: bool, why: str
) -> None:
    made = scan() if places else replace(scan(), positions_px=None)
    assert write_positions(tmp_path, made, described, config()) == f"{TABLE} not written: {why}"
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / TABLE).mkdir()
    with pytest.raises(WriteError, match="check disk and permissions"):
        write_positions(tmp_path, scan(), REGISTERED, config())
