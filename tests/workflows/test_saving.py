"""Tiles at hand are written once, in any number of calls; the record tells how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.smooth import Smooth
from napari_txm_bgcorr.core import Scan, Source, TileResult
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io import read
from napari_txm_bgcorr.workflows.config import CorrectionConfig
from napari_txm_bgcorr.workflows.saving import record_of, save_tiles
from tests.io.output.outputs import PROVENANCE, make_scan, result

FORMS = ["omezarr", "ometiff", "tiff"]


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupted_call_goes_on_and_no_tile_is_asked_for_twice(
    tmp_path: Path, form: str
) -> None:
    scan, asked, out = make_scan(), list[list[int]](), tmp_path / "out"

    def tiles(todo: Sequence[int], most: int = 99) -> Iterator[TileResult]:
        asked.append(list(todo))
        for i in list(todo)[:most]:
            yield result(scan, i)
        if most < len(todo):
            raise KeyboardInterrupt

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        for done in save_tiles(out, scan, PROVENANCE, lambda t: tiles(t, 2), format=form):
            seen.append(done)  # noqa: PERF402 - those before the interrupt count
    assert seen == [0, 1, 2] and not (out.exists() and read(out).provenance)
    assert list(save_tiles(out, scan, PROVENANCE, tiles, format=form)) == [2, 3, 4, 5, 6]
    assert asked == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5]]
    corrected = read(out / ("corrected.ome.tif" if form == "ometiff" else "corrected"))
    for i in range(6):
        np.testing.assert_array_equal(corrected.tiles[i], result(scan, i).transmission)


def test_a_finished_output_is_not_replaced_unless_wanted(tmp_path: Path) -> None:
    scan, out = make_scan(), tmp_path / "out"

    def tiles(todo: Sequence[int]) -> Iterator[TileResult]:
        return (result(scan, i) for i in todo)

    list(save_tiles(out, scan, PROVENANCE, tiles))
    with pytest.raises(WriteError, match="exists"):
        list(save_tiles(out, scan, PROVENANCE, tiles))
    assert list(save_tiles(out, scan, PROVENANCE, tiles, overwrite=True))[-1] == 6


def test_nothing_is_written_before_the_first_tile_is_asked_for(tmp_path: Path) -> None:
    save_tiles(tmp_path / "out", make_scan(), PROVENANCE, lambda todo: iter(()))
    assert list(tmp_path.iterdir()) == []


def test_the_record_repeats_the_correction_of_this_input_alone() -> None:
    scan = Scan.from_array(np.full((32, 32), 500, np.uint16))
    place = Path("day 1") / "a.xrm"
    scan = replace(scan, source=Source(place, "xradia", ()))
    method = Smooth().fit(scan)
    config = CorrectionConfig(
        inputs=(Path("a.xrm"), Path("b.xrm")), output=Path("o"), method="smooth"
    )
    in_memory = record_of(scan, method, config)
    assert in_memory["config"]["inputs"] == ["a.xrm", "b.xrm"] and in_memory["method"] == "smooth"
    assert in_memory["command"] == config.command()
    nameless = record_of(scan, method, config.replaced(inputs=()))
    assert nameless["command"] == ""


def test_the_record_of_a_file_names_that_file(tmp_path: Path) -> None:
    file = tmp_path / "one tile.tif"
    file.write_bytes(b"bytes to hash")
    scan = Scan.from_array(np.full((32, 32), 500, np.uint16))
    scan = replace(scan, source=Source(file, "tiff", (file,)))
    config = CorrectionConfig(output=Path("o"), method="smooth")
    record = record_of(scan, Smooth().fit(scan), config)
    assert record["config"]["inputs"] == [str(file)]
    assert str(file) in shlex.split(record["command"])
    both = config.replaced(inputs=(Path("x"), Path("y")))  # several files: they are named
    assert record_of(scan, Smooth().fit(scan), both)["config"]["inputs"] == ["x", "y"]
    lost = record_of(scan, Smooth().fit(scan), config, repeatable=False)
    assert lost["config"] == {} and lost["command"] == "" and lost["method"] == "smooth"
