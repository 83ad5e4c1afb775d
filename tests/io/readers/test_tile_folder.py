"""Folders of tiles: order, grid, positions, references, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.core.scan import raster_cells
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io import read, read_references
from napari_txm_bgcorr.io.readers.filename_metadata import (
    acquisition_numbers,
    name_facts,
    natural_key,
)
from napari_txm_bgcorr.io.readers.tile_layout import (
    order_on_grid,
    parse_tile_configuration,
    tile_configuration_text,
)
from tests.helpers.ole2 import write_ole2, write_xradia


def put(folder: Path, names: Sequence[str], shape: tuple[int, int] = (20, 24)) -> Path:
    """Tiles whose pixels all hold their place in `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        tifffile.imwrite(folder / f"{name}.tif", np.full(shape, k, np.uint16))
    return folder


def order(path: Path, **options: object) -> list[int]:
    return [int(t) for t in read(path, **options).tiles[:, 0, 0]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("Sb_m4x4-b2-60s", (4, 4)),
        ("5x5", (5, 5)),
        ("chip 3x12 b1", (3, 12)),
        ("M31X31", (31, 31)),
        ("20230222_Sb_m6-1-b2-60s-0.88V_0001", None),
        ("Sb-161p-b4", None),
        ("field_15x15um", None),
        ("tile512x512", None),
        ("512x512", None),
        ("m0x3", None),
        ("0.5x5", None),
    ],
)
def test_grid_in_a_name(name: str, grid: tuple[int, int] | None) -> None:
    assert name_facts(name).grid == grid


def test_other_tokens() -> None:
    facts = name_facts("20230222_Sb_m6-1-b2-1.5s-0.88V_0001")
    assert (facts.binning, facts.exposure_s) == (2, 1.5)
    assert name_facts("bb2-s60") == name_facts("")


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20, unique=True))
def test_natural_order_is_the_order_of_the_numbers(numbers: list[int]) -> None:
    names = [f"tile-b2_{n}" for n in numbers]
    expected = [f"tile-b2_{n}" for n in sorted(numbers)]
    assert sorted(names, key=natural_key) == expected
    assert acquisition_numbers(names) == numbers


def test_without_any_hint_it_is_a_series_in_natural_order(tmp_path: Path) -> None:
    put(tmp_path / "run", [f"p{k}" for k in range(12)])
    scan = read(tmp_path / "run")
    assert (scan.kind, scan.grid, scan.positions_px) == ("series", None, None)
    assert order(tmp_path / "run") == list(range(12))
    assert scan.names[10] == "p10"
    assert scan.source.files[3].name == "p3.tif"


def test_grid_from_folder_file_or_option(tmp_path: Path) -> None:
    for path, options in [
        (put(tmp_path / "Sb_m2x3-b2", [f"a_{k}" for k in range(1, 7)]), {}),
        (put(tmp_path / "plain", [f"Sb_m2x3_{k:04}" for k in range(1, 7)]), {}),
        (put(tmp_path / "bare", [f"c{k}" for k in range(1, 7)]), {"grid": (2, 3)}),
    ]:
        scan = read(path, **options)
        assert (scan.kind, scan.grid) == ("mosaic", (2, 3))
        assert scan.positions_px is not None
        assert scan.positions_px.tolist() == (raster_cells((2, 3)) * [20, 24]).tolist()


def test_interrupted_mosaic_keeps_its_grid_and_a_missing_number_leaves_a_gap(
    tmp_path: Path,
) -> None:
    names = [f"m3x3_{k}" for k in range(1, 6)]
    scan = read(put(tmp_path / "a", names))
    assert (scan.grid, len(scan), scan.raster_index) == ((3, 3), 5, None)
    (tmp_path / "a" / "m3x3_3.tif").unlink()
    scan = read(tmp_path / "a")
    assert scan.raster_index is not None and scan.cells is not None
    assert scan.raster_index.tolist() == [0, 1, 3, 4]
    assert scan.cells.tolist() == [[2, 0], [2, 1], [1, 0], [1, 1]]
    assert scan.positions_px is not None
    assert scan.positions_px.tolist() == [[40, 0], [40, 24], [20, 0], [20, 24]]
    assert any("row 1, column 3" in note and "gaps" in note for note in scan.notes)


def test_a_counter_that_goes_on_from_scan_to_scan_begins_the_grid(tmp_path: Path) -> None:
    scan = read(put(tmp_path / "a", [f"x_{k}" for k in (101, 102, 104)]), grid=(2, 2))
    assert scan.raster_index is not None
    assert scan.raster_index.tolist() == [0, 1, 3]
    with pytest.raises(ReadError, match="numbers of the others lie beyond a grid of 4 tiles"):
        read(put(tmp_path / "b", ["x_1", "x_2", "x_7"]), grid=(2, 2))


def test_name_grid_that_does_not_fit_gives_a_series_with_a_note(tmp_path: Path) -> None:
    scan = read(put(tmp_path / "m2x2", [f"a{k}" for k in range(1, 8)]))
    assert scan.kind == "series"
    assert "do not fit" in " ".join(scan.notes)


def configure(folder: Path, positions: dict[str, tuple[float, float]], name: str = "") -> None:
    where = np.array(list(positions.values()))
    text = tile_configuration_text(list(positions), where)
    (folder / f"TileConfiguration{name}.txt").write_text(text)


def test_tile_configuration_orders_from_bottom_left(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", ["a", "b", "c", "d"])
    places = {
        "a.tif": (0.0, 0.0),
        "b.tif": (0.0, 20.0),
        "c.tif": (16.0, 1.0),
        "d.tif": (17.0, 21.0),
    }
    configure(folder, places)
    scan = read(folder)
    assert (scan.kind, scan.grid) == ("mosaic", (2, 2))
    assert scan.names == ("c", "d", "a", "b")
    assert order(folder) == [2, 3, 0, 1]
    assert [f.stem for f in scan.source.files] == ["c", "d", "a", "b"]
    assert scan.positions_px is not None
    assert scan.positions_px.tolist() == [[16, 1], [17, 21], [0, 0], [0, 20]]
    assert any("raster order" in note for note in scan.notes)


def test_registered_positions_are_preferred_and_start_at_zero(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", ["a", "b"])
    configure(folder, {"a.tif": (0.0, 0.0), "b.tif": (0.0, 20.0)})
    configure(folder, {"a.tif": (-3.5, -2.0), "b.tif": (1.25, 17.5)}, ".registered")
    positions = read(folder).positions_px
    assert positions is not None
    assert positions.tolist() == [[0, 0], [4.75, 19.5]]


def test_tile_in_the_table_but_not_in_the_folder_leaves_a_gap(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", ["a", "b"])
    configure(
        folder, {"lost.tif": (0, 0), "a.tif": (1, 20), "late.tif": (0, 41), "b.tif": (2, 60)}
    )
    scan = read(folder)
    assert (scan.grid, scan.names) == ((1, 4), ("a", "b"))
    assert scan.raster_index is not None and scan.positions_px is not None
    assert scan.raster_index.tolist() == [1, 3]
    assert scan.positions_px.tolist() == [[0, 0], [1, 40]]
    assert any("2 of the 4 tiles" in note for note in scan.notes)
    configure(folder, {"lost.tif": (0, 0), "late.tif": (0, 41)})
    with pytest.raises(ReadError, match=r"no tile of TileConfiguration\.txt is in this folder"):
        read(folder)


def test_grid_of_the_user_wins_over_a_table_that_says_otherwise(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", ["a", "b"])
    configure(folder, {"a.tif": (0, 0), "b.tif": (0, 20)})
    same = read(folder, grid=(1, 2))
    assert same.positions_px is not None
    assert same.positions_px.tolist() == [[0, 0], [0, 20]]  # positions of the table are kept
    other = read(folder, grid=(2, 1))
    assert other.positions_px is not None
    assert other.positions_px.tolist() == [[20, 0], [0, 0]]
    assert any("left out" in note for note in other.notes)
    (folder / "TileConfiguration.txt").write_text("damaged")
    assert read(folder, grid=(2, 1)).grid == (2, 1)


@pytest.mark.parametrize(
    "text",
    ["", "dim = 2\nwhat\n", "dim = 2\na.tif; ; (1, nan)\n", "a.tif; ; (0, 1)\na.tif; ; (2, 3)\n"],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "TileConfiguration.txt").write_text(text)
    with pytest.raises(ReadError, match="TileConfiguration"):
        parse_tile_configuration(tmp_path / "TileConfiguration.txt")


def test_tables_of_fiji_and_of_three_dimensions_are_understood(tmp_path: Path) -> None:
    table = tmp_path / "TileConfiguration.txt"
    table.write_text("# c\ndim = 3\n\n a b.tif ; 0 ; ( -1.5e1 , 2 , 0.0)\nc.tif;;(4.,.5)\n")
    assert parse_tile_configuration(table) == {"a b.tif": (2, -15), "c.tif": (0.5, 4)}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 7),
    columns=st.integers(1, 9),
    skew=st.floats(-7, 7),
    overlap=st.floats(0.05, 0.24),
    seed=st.integers(0, 10**6),
    absent=st.integers(0, 3),
)
def test_grid_is_found_under_jitter_and_skew(
    rows: int, columns: int, skew: float, overlap: float, seed: int, absent: int
) -> None:
    rng = np.random.default_rng(seed)
    cells = raster_cells((rows, columns))
    count = max((rows - 1) * columns + 1, rows * columns - absent)
    cells = cells[:count]
    step = 512 * (1 - overlap)
    nominal = cells * step + skew * cells[:, ::-1]
    points = nominal + rng.uniform(-40, 40, nominal.shape)
    shuffle = rng.permutation(count)
    found, grid, raster = order_on_grid(points[shuffle], Path("t"))
    assert grid == (rows, columns if rows > 1 else count)
    np.testing.assert_array_equal(raster, np.arange(count))
    np.testing.assert_array_equal(shuffle[found], np.arange(count))


def test_wide_skewed_mosaic_is_found() -> None:
    cells = raster_cells((31, 31))
    points = cells * 409.0 + 7.0 * cells[:, ::-1]  # the last column is 217 px lower than the first
    found, grid, _ = order_on_grid(points, Path("t"))
    assert grid == (31, 31)
    np.testing.assert_array_equal(found, np.arange(961))


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(2, 6), columns=st.integers(2, 6), seed=st.integers(0, 10**6))
def test_holes_leave_gaps(rows: int, columns: int, seed: int) -> None:
    """Cells are found across empty ones, wherever they lie; corners keep the size."""
    rng = np.random.default_rng(seed)
    whole = raster_cells((rows, columns))
    corners = [0, columns - 1, rows * columns - columns, rows * columns - 1]
    beside = [1, columns]  # one step of each axis is seen
    some = rng.permutation(rows * columns)[: rng.integers(0, rows * columns)]
    keep = np.unique([*corners, *beside, *some])
    points = whole[keep] * 480.0 + rng.uniform(-20, 20, (len(keep), 2))
    shuffle = rng.permutation(len(keep))
    found, grid, raster = order_on_grid(points[shuffle], Path("t"))
    assert grid == (rows, columns)
    np.testing.assert_array_equal(raster, keep)
    np.testing.assert_array_equal(shuffle[found], np.arange(len(keep)))


def test_scatter_is_refused() -> None:
    cells = raster_cells((3, 3)) * 100.0
    with pytest.raises(ReadError, match="do not form one grid"):
        order_on_grid(np.vstack([cells, cells[:1]]), Path("t"))
    with pytest.raises(ReadError, match="do not form one grid"):
        order_on_grid(np.vstack([cells, [[750.0, 950.0]]]), Path("t"))


def test_real_mosaic_without_its_empty_tiles(txm_data: Path) -> None:
    scan = read(txm_data / "bl01b_lm_covered6")
    assert (scan.kind, scan.grid, len(scan)) == ("mosaic", (4, 2), 6)
    assert scan.raster_index is not None
    assert scan.raster_index.tolist() == [0, 1, 2, 3, 5, 7]
    assert any("2 of the 8 tiles" in note for note in scan.notes)
    whole = read(txm_data / "bl01b_lm_4x2")
    assert whole.positions_px is not None and scan.positions_px is not None
    apart = whole.positions_px[scan.raster_index] - scan.positions_px
    np.testing.assert_allclose(apart - apart[0], 0)


def test_references_and_darks_beside_the_tiles(tmp_path: Path) -> None:
    folder = put(
        tmp_path / "m2x1", ["t_1", "t_2", "ref_1", "ref_2", "Flat", "dark01", "refined_1"]
    )
    scan = read(folder, grid=(3, 1))
    assert len(scan) == 3  # "refined" is a tile
    assert scan.flats is not None
    assert sorted(scan.flats[:, 0, 0].tolist()) == [2, 3, 4]
    assert scan.darks is not None
    assert scan.darks[:, 0, 0].tolist() == [5]


def test_one_stack_with_references_beside_it(tmp_path: Path) -> None:
    stack = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
    tifffile.imwrite(tmp_path / "scan.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "flats.tif", stack[:2] + 9, photometric="minisblack")
    scan = read(tmp_path)
    assert scan.kind == "series"
    np.testing.assert_array_equal(scan.tiles[:], stack)
    assert scan.flats is not None
    np.testing.assert_array_equal(scan.flats[:], stack[:2] + 9)


def test_references_of_another_size_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "s", ["t1", "t2"])
    put(tmp_path / "s", ["ref"], shape=(10, 12))
    with pytest.raises(ReadError, match="flats"):
        read(tmp_path / "s")


def test_read_references_from_files_stacks_and_folders(tmp_path: Path) -> None:
    scan = read(put(tmp_path / "s", ["t1", "t2"]))
    one = put(tmp_path / "one", ["x"]) / "x.tif"
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, np.full((3, 20, 24), 8, np.uint16), photometric="minisblack")
    mixed = put(tmp_path / "mixed", ["t1", "t2", "ref1", "ref2"])
    only = put(tmp_path / "only", ["ref1", "ref2", "ref3"])
    found = read_references([one, stack, mixed, only], like=scan)
    assert found.images[:, 0, 0].tolist() == [0, 8, 8, 8, 2, 3, 0, 1, 2]
    assert found.times is None and found.energies_ev is None
    put(mixed, ["dark"])
    assert len(read_references([mixed, one], role="darks")) == 2
    with pytest.raises(ReadError, match="10 x 12 px for tiles of 20 x 24 px"):
        read_references([put(tmp_path / "small", ["r"], (10, 12))], like=scan)
    with pytest.raises(ReadError, match="none given"):
        read_references([], like=scan)


def test_tiles_that_differ_are_named(tmp_path: Path) -> None:
    folder = put(tmp_path / "s", ["t1", "t2"])
    put(folder, ["t3"], shape=(20, 25))
    with pytest.raises(ReadError, match=r"t3\.tif: 20 x 25 px"):
        read(folder)
    tifffile.imwrite(folder / "t3.tif", np.zeros((20, 24), np.float64))
    with pytest.raises(ReadError, match=r"t3\.tif: pixels of type float64"):
        read(folder)
    tifffile.imwrite(folder / "t3.tif", np.zeros((2, 20, 24), np.uint16), photometric="minisblack")
    with pytest.raises(ReadError, match=r"t3\.tif: 2 images"):
        read(folder)
    (folder / "t3.tif").write_bytes(b"")
    with pytest.raises(ReadError, match=r"t3\.tif: the file is empty"):
        read(folder)


def test_tile_of_equal_size_but_another_type_is_refused_when_read(tmp_path: Path) -> None:
    folder = tmp_path
    tifffile.imwrite(folder / "t1.tif", np.full((20, 24), -1, np.float32))
    tifffile.imwrite(folder / "t2.tif", np.full((20, 24), -1, np.int32))
    assert len({f.stat().st_size for f in folder.iterdir()}) == 1
    scan = read(folder)
    with pytest.raises(ReadError, match=r"t2\.tif: pixels of type int32"):
        scan.tiles[1]


def xrm(path: Path, value: int, minute: int) -> Path:
    date = f"02/22/23 10:{minute:02}:00".encode().ljust(40, b"\0")
    fields = {"ImageWidth": 6, "ImageHeight": 5, "NoOfImages": 1, "ImagesTaken": 1, "DataType": 5}
    streams = {f"ImageInfo/{k}": np.int32(v).tobytes() for k, v in fields.items()}
    streams |= {"ImageInfo/Date": date, "ImageInfo/PixelSize": np.float32(0.0293).tobytes()}
    pixels = np.full((5, 6), value, np.uint16)
    return write_ole2(path, {**streams, "ImageData1/Image1": pixels.tobytes()})


def test_folder_of_xradia_images_keeps_their_times(tmp_path: Path) -> None:
    for k in range(3):
        xrm(tmp_path / f"Sb_{k}.xrm", 10 + k, 2 * k)
        xrm(tmp_path / f"ref_{k}.xrm", 50 + k, 30 + k)
    scan = read(tmp_path)
    assert (scan.kind, scan.tiles.shape) == ("series", (3, 5, 6))
    assert scan.tiles[:, 0, 0].tolist() == [10, 11, 12]
    assert scan.pixel_nm == pytest.approx(29.3, rel=1e-5)
    assert [str(t)[11:16] for t in scan.times] == ["10:00", "10:02", "10:04"]  # type: ignore[union-attr]
    assert scan.flats is not None
    assert scan.flats[:, 0, 0].tolist() == [50, 51, 52]
    found = read_references([tmp_path], like=scan)
    assert found.images.shape == (3, 5, 6)
    assert found.times is not None
    assert [str(t)[11:16] for t in found.times] == ["10:30", "10:31", "10:32"]
    one = read_references([tmp_path / "ref_2.xrm"]).times
    assert one is not None
    assert str(one[0]) == "2023-02-22T10:32:00"


def test_tile_that_vanishes_later_is_one_error(tmp_path: Path) -> None:
    folder = put(tmp_path / "s", ["t1", "t2"])
    scan = read(folder)
    (folder / "t2.tif").unlink()
    with pytest.raises(ReadError, match=r"t2\.tif: no such file"):
        scan.tiles[1]


def test_ten_thousand_unrelated_files_are_refused_without_opening_them(tmp_path: Path) -> None:
    for k in range(10_000):
        (tmp_path / f"notes{k}.txt").touch()
    start = time.process_time()
    with pytest.raises(ReadError, match="no tiles"):
        read(tmp_path)
    assert time.process_time() - start < 5  # the aim is one second; each open would cost far more


def test_real_mosaic(txm_data: Path) -> None:
    scan = read(txm_data / "bl01b_sb_2x2")
    assert (scan.kind, scan.grid, scan.binning, scan.exposure_s) == ("mosaic", (2, 2), 2, 60)
    assert [name[-4:] for name in scan.names] == ["0001", "0002", "0003", "0004"]
    assert scan.positions_px is not None
    assert scan.positions_px.tolist() == [[409, 0], [409, 409], [0, 0], [0, 409]]
    assert scan.pixel_nm == pytest.approx(29.3, abs=0.01)
    medians = np.median(scan.tiles[:], axis=(1, 2))
    assert ((medians > 5300) & (medians < 6100)).all()


def test_of_a_scan_with_a_reference_inside_only_that_is_taken(tmp_path: Path) -> None:
    tiles = np.full((4, 16, 16), 700, np.uint16)
    inside = np.full((16, 16), 1000, np.uint16)
    mosaic = write_xradia(
        tmp_path / "mosaic.xrm", tiles, grid=(2, 2), version=5.0, reference=inside
    )
    np.testing.assert_array_equal(read_references([mosaic]).images[:], inside[None])
    single = write_xradia(tmp_path / "ref_1.xrm", tiles[:1], reference=inside)
    np.testing.assert_array_equal(read_references([single]).images[:], tiles[:1])


def test_a_path_that_cannot_exist_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300)):
        with pytest.raises(ReadError, match="check the path"):
            read(path)


def test_a_grid_that_is_mostly_empty_is_told(tmp_path):
    for k in range(6):
        tifffile.imwrite(tmp_path / f"t_{k + 1:04d}.tif", np.full((8, 8), 9 + k, np.uint16))
    with pytest.raises(ReadError, match="6 tiles do not fill one row of a grid of 9 x 9"):
        read(tmp_path, grid=(9, 9))
    scan = read(tmp_path, grid=(4, 4))
    assert scan.grid == (4, 4)
    assert any("6 of the 16 tiles of a grid of 4 x 4" in note for note in scan.notes)
