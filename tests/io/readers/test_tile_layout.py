"""Tables of positions come back to the last digit; grids are found from any order of tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.readers.tile_layout import (
    NAMED,
    absent_cells,
    find_tile_configuration,
    numbered_cells,
    order_on_grid,
    parse_tile_configuration,
    tile_configuration_text,
)

WHERE = Path("scan")
finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(places=st.lists(st.tuples(finite, finite), min_size=1, max_size=8))
def test_a_table_comes_back_to_the_last_bit(
    tmp_path: Path, places: list[tuple[float, float]]
) -> None:
    names = [f"a b;_{k}.tif" if k % 2 else f"t\u00b5_{k}.xrm" for k in range(len(places))]
    table = tmp_path / "TileConfiguration.txt"
    table.write_text(tile_configuration_text(names, np.array(places)), "utf-8")
    found = parse_tile_configuration(table)
    assert list(found) == names
    np.testing.assert_array_equal(list(found.values()), places)


def test_a_table_of_another_number_of_names_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        tile_configuration_text(["a"], np.zeros((2, 2)))


def test_registered_places_are_preferred(tmp_path: Path) -> None:
    assert find_tile_configuration(tmp_path) is None
    plain = tmp_path / "TileConfiguration.txt"
    plain.write_text("x")
    assert find_tile_configuration(tmp_path) == plain
    registered = tmp_path / "TileConfiguration.registered.txt"
    registered.mkdir()
    assert find_tile_configuration(tmp_path) == plain  # a folder is no table
    registered.rmdir()
    registered.write_text("y")
    assert find_tile_configuration(tmp_path) == registered


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    step=st.tuples(st.floats(40, 200), st.floats(40, 200)),
    seed=st.integers(0, 10_000),
    jitter=st.floats(0, 0.08),
)
def test_tiles_in_any_order_find_their_cells(
    rows: int, columns: int, step: tuple[float, float], seed: int, jitter: float
) -> None:
    ratio = step[0] / step[1]
    if not 0.6 < ratio < 1.6:  # beyond, nearest neighbours lie along one axis only
        return
    rng = np.random.default_rng(seed)
    row, column = (a.ravel() for a in np.mgrid[:rows, :columns])
    places = np.stack([row * step[0], column * step[1]], axis=1) + rng.uniform(-999, 999, 2)
    places += rng.uniform(-1, 1, places.shape) * jitter * min(step)
    shuffle = rng.permutation(rows * columns)
    order, grid, raster = order_on_grid(places[shuffle], WHERE)
    assert grid == (rows, columns)
    assert raster.tolist() == list(range(rows * columns))
    found = shuffle[order]
    assert row[found].tolist() == [rows - 1 - k // columns for k in range(rows * columns)]
    assert column[found].tolist() == [k % columns for k in range(rows * columns)]


def test_two_tiles_in_one_place_are_no_grid() -> None:
    with pytest.raises(ReadError, match="do not form one grid"):
        order_on_grid(np.array([[0.0, 0], [0, 50], [50, 0], [50, 50], [50, 50]]), WHERE)


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_numbers_from_nought_or_one_are_cells(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 30))
    first = data.draw(st.sampled_from([0, 1]))
    cells = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=2)) | {0})
    names = [f"t{n + first:04d}" for n in cells]
    assert numbered_cells(names, count, WHERE).tolist() == cells


def test_a_counter_that_goes_on_begins_at_its_first() -> None:
    assert numbered_cells(["t_101", "t_102", "t_104"], 4, WHERE).tolist() == [0, 1, 3]


def test_names_without_numbers_are_one_after_another() -> None:
    assert numbered_cells(["a", "b", "c"], 9, WHERE).tolist() == [0, 1, 2]


@pytest.mark.parametrize("names", [["t_1", "t_99"], ["t_2", "t_1"], ["t_5", "t_9", "t_7"]])
def test_numbers_that_fit_no_grid_are_named(names: list[str]) -> None:
    with pytest.raises(ReadError, match=f"between {names[0]} and {names[-1]}"):
        numbered_cells(names, 4, WHERE)


@settings(deadline=None)
@given(grid=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 99))
def test_absent_cells_are_counted_and_the_first_named(grid: tuple[int, int], seed: int) -> None:
    count = grid[0] * grid[1]
    there = np.flatnonzero(np.random.default_rng(seed).random(count) < 0.6)
    said, gone = absent_cells(there, grid), sorted(set(range(count)) - set(there.tolist()))
    if not gone:
        assert said == ""
        return
    assert said.startswith(f"{len(gone)} of the {count} tiles of a grid of {grid[0]} x {grid[1]}")
    for k in gone[:NAMED]:
        assert f"row {k // grid[1] + 1}, column {k % grid[1] + 1}" in said
    assert (f"; {len(gone) - NAMED} more" in said) == (len(gone) > NAMED)
    assert said.count("row ") == min(len(gone), NAMED)
