"""Mosaics with absent tiles: written, read again, stitched, judged; the gap shows nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.io import read
from napari_txm_bgcorr.io.output.result import open_parts
from napari_txm_bgcorr.io.output.tile_positions import find_places
from napari_txm_bgcorr.mosaic.assembly import blend
from napari_txm_bgcorr.quality.measurement import Gauge
from napari_txm_bgcorr.workflows.redo import nearby
from napari_txm_bgcorr.workflows.stitching.blocks import StitchOptions, stitch_tiles
from tests.io.output.outputs import make_scan, result, write_all

KEPT = np.array([0, 2, 3, 4, 5, 8])  # of 3 x 3: two gaps at the border, one at the top


def scan_with_gaps() -> Scan:
    whole = make_scan(3, 3)
    assert whole.positions_px is not None and whole.times is not None
    return replace(
        whole, tiles=np.asarray(whole.tiles)[KEPT], names=tuple(whole.names[i] for i in KEPT),
        raster_index=KEPT, positions_px=whole.positions_px[KEPT], times=whole.times[KEPT],
    )  # fmt: skip


@pytest.mark.parametrize("form", ["tiff", "omezarr", "ometiff"])
def test_outputs_keep_the_gaps(tmp_path: Path, form: str) -> None:
    scan = scan_with_gaps()
    again = read(write_all(tmp_path / "out", form, scan))
    assert (again.grid, again.names) == ((3, 3), scan.names)
    assert again.raster_index is not None and again.cells is not None
    np.testing.assert_array_equal(again.raster_index, KEPT)
    np.testing.assert_array_equal(again.cells, scan.cells)
    np.testing.assert_array_equal(again.positions_px, scan.positions_px)
    np.testing.assert_array_equal(again.tiles[:], scan.tiles)


def test_the_stitched_picture_shows_nothing_in_a_gap(tmp_path: Path) -> None:
    out = write_all(tmp_path / "out.zarr", "omezarr", scan_with_gaps())
    parts = open_parts(out)
    places = find_places(parts, "nominal")
    stitch_tiles(parts, places, tmp_path / "s.ome.zarr", StitchOptions(("raw",), "transmission"))
    picture = read(tmp_path / "s.ome.zarr").tiles[0]
    empty = np.isnan(blend(np.asarray(parts.scans["raw"].tiles[:]), places.positions_px))
    assert picture.shape == empty.shape
    assert 0.1 < empty.mean() < 0.5
    assert not picture[empty].any()


def test_quality_and_neighbourhood_know_the_cells() -> None:
    scan = scan_with_gaps()
    gauge = Gauge(scan)
    for i in range(len(scan)):
        gauge.add(result(scan, i))
    table = gauge.table()
    np.testing.assert_array_equal(table.cells, [[2, 0], [2, 2], [1, 0], [1, 1], [1, 2], [0, 2]])
    assert nearby(scan, 5, 1) == [3, 4, 5]
    raw, _ = gauge.pictures()
    assert np.isnan(raw).mean() > 0.1
