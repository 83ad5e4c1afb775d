"""Mosaics of both format versions: cut, laid out, and read no more than needed."""

from __future__ import annotations

import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.core.scan import raster_positions
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.readers.xradia import read
from tests.helpers.ole2 import Blocks, write_xradia

RNG = np.random.default_rng(7)
TILES = RNG.integers(1, 60_000, (6, 40, 48)).astype("u2")
GRID = (2, 3)
VERSIONS = pytest.mark.parametrize(
    "how", [{"canvas": True}, {"canvas": False, "version": 5.0}], ids=["version3", "version5"]
)


@VERSIONS
@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("order", [{}, {"interleave": True}, {"shuffle": 1}], ids=str)
def test_mosaics_of_both_versions(
    tmp_path: Path, how: dict[str, Any], sector: int, order: dict[str, Any]
) -> None:
    path = write_xradia(
        tmp_path / "m2x3.xrm", TILES, grid=GRID, reference=TILES[0], sector=sector, **how, **order
    )
    scan = read(path)
    assert scan.kind == "mosaic" and scan.grid == GRID
    np.testing.assert_array_equal(scan.tiles[:], TILES)
    np.testing.assert_array_equal(scan.flats[0], TILES[0])
    np.testing.assert_array_equal(scan.positions_px, raster_positions(GRID, (40, 48)))
    assert scan.names[0] == "m2x3_0001" and len(scan.names) == 6
    assert scan.angles_deg is None and scan.binning == 2
    assert scan.pixel_nm == pytest.approx(29.3) and scan.exposure_s == 60


@pytest.mark.parametrize("grid", [(2, 3), (3, 3), (3, 2)])
@VERSIONS
def test_mosaics_equal_txrm2tiffs(
    tmp_path: Path, how: dict[str, Any], grid: tuple[int, int]
) -> None:
    """The independent reader gives one picture of version 3, and tiles of version 5.

    It stitches version 5 with rows and columns exchanged, so only square grids are compared.
    """
    txrm = pytest.importorskip("txrm2tiff.txrm")
    rows, columns = grid
    tiles = RNG.integers(1, 60_000, (rows * columns, 40, 48)).astype("u2")
    reference = tiles[0].astype("f4") / 3
    path = write_xradia(tmp_path / "m.xrm", tiles, grid=grid, reference=reference, **how)
    scan = read(path)
    up = range(rows - 1, -1, -1)
    picture = np.block([[scan.tiles[r * columns + c] for c in range(columns)] for r in up])
    with txrm.open_txrm(path, strict=True) as theirs:
        assert theirs.is_mosaic and theirs.mosaic_dims == [columns, rows]
        assert tuple(theirs.image_dims) == (48, 40)
        np.testing.assert_array_equal(theirs.get_reference()[-40:, :48][::-1], scan.flats[0])
        assert scan.flats.dtype == np.float32
        if not how["canvas"]:
            np.testing.assert_array_equal(theirs.get_images()[:, ::-1], scan.tiles[:])
        if how["canvas"]:
            np.testing.assert_array_equal(theirs.get_output()[0], picture)
        elif rows == columns:
            stitched = theirs.get_output()[0]  # stitched bottom-up, then flipped as a whole
            np.testing.assert_array_equal(stitched, picture)


@pytest.mark.parametrize("layout", ["streams absent", "streams of zeros", "canvas of zeros"])
def test_interrupted_mosaic(tmp_path: Path, layout: str) -> None:
    taken = 4
    padded = TILES.copy()
    padded[taken:] = 0
    how: dict[str, Any] = {"version": 5.0}
    if layout == "canvas of zeros":
        how = {"canvas": True}
    tiles = TILES[:taken] if layout == "streams absent" else padded
    path = write_xradia(tmp_path / "a.xrm", tiles, grid=GRID, planned=6, **how)
    scan = read(path)
    assert scan.grid == GRID and scan.tiles.shape == (taken, 40, 48)
    np.testing.assert_array_equal(scan.tiles[:], TILES[:taken])
    assert scan.positions_px.shape == (taken, 2)
    assert any("interrupted" in note or "zeros only" in note for note in scan.notes)


def test_a_blank_scan_is_kept(tmp_path: Path) -> None:
    scan = read(write_xradia(tmp_path / "a.xrm", TILES * 0, grid=GRID, canvas=True))
    assert scan.tiles.shape[0] == 6 and "every tile seems to hold zeros only" in scan.notes


def test_grid_and_pixel_size_from_the_user(tmp_path: Path) -> None:
    path = write_xradia(
        tmp_path / "a.xrm", TILES, grid=GRID, canvas=True,
        replaced={"ImageInfo/MosiacRows": None, "ImageInfo/MosiacColumns": None},
    )  # fmt: skip
    assert read(path).kind == "single"
    scan = read(path, grid=GRID, pixel_nm=58.6)
    np.testing.assert_array_equal(scan.tiles[:], TILES)
    assert scan.pixel_nm == 58.6
    series = write_xradia(tmp_path / "b.txrm", TILES)
    assert read(series, grid=GRID).grid == GRID
    with pytest.raises(ReadError, match="6 images do not fit a grid of 2 x 2"):
        read(series, grid=(2, 2))


def test_mosaic_mode_off_is_one_image(tmp_path: Path) -> None:
    off = {"ImageInfo/MosiacMode": bytes(4)}
    path = write_xradia(tmp_path / "a.xrm", TILES, grid=GRID, canvas=True, replaced=off)
    scan = read(path)
    assert scan.kind == "single" and scan.tiles.shape == (1, 80, 144)
    assert any("--grid 2x3" in note for note in scan.notes)


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_stage_positions_are_used_whatever_way_the_stage_moves(
    tmp_path: Path, signs: tuple[int, int]
) -> None:
    wanted = raster_positions(GRID, (32, 39)) + RNG.uniform(-2, 2, (6, 2))
    wanted -= wanted.min(axis=0)
    stage_um = wanted * 0.0293 * np.array(signs) + np.array([-3900.0, 1019.0])
    facts: dict[str, Any] = {"grid": GRID, "version": 5.0, "stage_um": stage_um}
    scan = read(write_xradia(tmp_path / "a.xrm", TILES, **facts))
    np.testing.assert_allclose(scan.positions_px, wanted, atol=0.05)  # float32 micrometres


@pytest.mark.parametrize("kind", ["still", "jumps", "too far", "not finite", "too few"])
def test_senseless_stage_positions_are_not_used(tmp_path: Path, kind: str) -> None:
    stage_um = raster_positions(GRID, (32, 39)) * 0.0293
    stage_um = {
        "still": stage_um * 0,
        "jumps": stage_um + np.array([[0, 0]] * 5 + [[0, 1.0]]),
        "too far": stage_um * 40,
        "not finite": np.full_like(stage_um, np.inf),
        "too few": stage_um[:4],
    }[kind]
    path = write_xradia(tmp_path / "a.xrm", TILES, grid=GRID, version=5.0, stage_um=stage_um)
    scan = read(path)
    np.testing.assert_array_equal(scan.positions_px, raster_positions(GRID, (40, 48)))
    assert any("without overlap" in note for note in scan.notes)


class LazyCanvas:
    """Tiles of a large mosaic, made when asked for; each holds its number."""

    def __init__(self, count: int, side: int) -> None:
        self.shape = (count, side, side)
        self.dtype = np.dtype("u2")

    def __getitem__(self, i: int) -> np.ndarray:
        tile = np.arange(self.shape[1], dtype="u2")[:, None] * np.ones(self.shape[2], "u2")
        return (tile + i + 1).astype("u2")


def test_only_the_tile_asked_for_is_read(tmp_path: Path) -> None:
    tiles = LazyCanvas(64, 128)
    path = write_xradia(tmp_path / "a.xrm", tiles, grid=(8, 8), canvas=True, interleave=True)
    tracemalloc.start()
    scan = read(path)
    picked = scan.tiles[37]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(picked, tiles[37])
    assert peak < 400_000  # the canvas has 2 MB
    reader = scan.tiles._read
    stream, width = reader.streams[0], 256
    read_bytes = np.zeros(path.stat().st_size, np.uint8)
    for i in range(64):
        _, first, stride = reader._place(i)
        for offset, length in stream.pieces(first, stride, width, 128):
            read_bytes[offset : offset + length] += 1
    assert read_bytes.max() == 1 and read_bytes.sum() == stream.size  # one pass, every byte once


def test_canvas_of_two_gigabytes_opens_in_little_memory(tmp_path: Path) -> None:
    """31 x 31 tiles of 1024 px in sectors of 512 bytes; holes, so no disk is used."""
    side, columns = 1024, 31
    size = 2 * (columns * side) ** 2
    mark = bytes(range(1, 201))
    at = 2 * (17 * side * columns * side + 5 * side)  # lowest row of tile (17, 5)

    def pieces() -> list[bytes | int]:
        return [at, mark, size - at - len(mark) - 2, b"\1\1"]

    path = write_xradia(
        tmp_path / "big.xrm", TILES, interleave=True, canvas=True, grid=GRID,
        replaced={
            "ImageInfo/ImageWidth": (columns * side).to_bytes(4, "little"),
            "ImageInfo/ImageHeight": (columns * side).to_bytes(4, "little"),
            "ImageInfo/MosiacRows": columns.to_bytes(4, "little"),
            "ImageInfo/MosiacColumns": columns.to_bytes(4, "little"),
            "ImageData1/Image1": Blocks(size, pieces),
        },
    )  # fmt: skip
    tracemalloc.start()
    scan = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 << 20
    assert scan.tiles.shape == (961, side, side) and scan.grid == (31, 31)
    tile = scan.tiles[17 * columns + 5]
    assert tile[-1, :100].tobytes() == mark and not tile[:-1].any()
    assert scan.tiles[960][0, -1] == 0x0101


def test_tiles_travel_to_threads_and_processes(tmp_path: Path) -> None:
    path = write_xradia(tmp_path / "a.xrm", TILES, grid=GRID, canvas=True, shuffle=2)
    scan = read(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(scan.tiles.__getitem__, [i % 6 for i in range(120)]))
    assert all((tile == TILES[i % 6]).all() for i, tile in enumerate(found))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(scan.tiles))[3], TILES[3])
