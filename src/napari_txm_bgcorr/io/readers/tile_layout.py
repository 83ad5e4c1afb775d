"""Positions of the tiles of a mosaic: Fiji's TileConfiguration, grids, order of tiles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.guard import reading

from .filename_metadata import acquisition_numbers

__all__ = [
    "absent_cells",
    "find_tile_configuration",
    "numbered_cells",
    "order_on_grid",
    "parse_tile_configuration",
    "tile_configuration_text",
]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LINE = re.compile(rf"^(.*?)\s*;[^;]*;\s*\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*(?:,[^)]*)?\)\s*$")
NAMED = 4  # empty cells that a note lists
_FILES = ("TileConfiguration.registered.txt", "TileConfiguration.txt")


def find_tile_configuration(folder: Path) -> Path | None:
    """Fiji's table of tile positions in `folder`, the registered one preferred."""
    return next((folder / name for name in _FILES if (folder / name).is_file()), None)


def parse_tile_configuration(path: Path) -> dict[str, tuple[float, float]]:
    """Read tile positions from the text format of Fiji's Grid/Collection stitching.

    Parameters
    ----------
    path : Path
        Lines ``name; ; (x, y)`` in pixels, y downwards; ``#`` comments and ``dim = 2``.

    Returns
    -------
    dict
        File name to (y, x), in the file's order.

    Raises
    ------
    ReadError
        If a line is not understood, a name comes twice, or there is no tile.
    """
    with reading(path, "tile positions"):
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    positions: dict[str, tuple[float, float]] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#") or re.match(r"dim\s*=|multiseries\s*=", text):
            continue
        found = _LINE.match(text)
        if found is None or not np.isfinite([float(found[2]), float(found[3])]).all():
            raise ReadError(f"{path}: line {number}: not 'name; ; (x, y)': {text[:60]!r}; fix it")
        if found[1] in positions:
            raise ReadError(f"{path}: line {number}: {found[1]} comes twice; remove one line")
        positions[found[1]] = (float(found[3]), float(found[2]))
    if not positions:
        raise ReadError(f"{path}: no tile position in it; remove the file or pass --grid")
    return positions


def tile_configuration_text(names: Sequence[str], positions_px: NDArray[np.float64]) -> str:
    """Table of tile positions that Fiji's Grid/Collection stitching reads.

    Parameters
    ----------
    names : sequence of str
        File names with suffix.
    positions_px : (T, 2) float64
        (y, x) in pixels, y downwards.

    Returns
    -------
    str
    """
    head = "# Define the number of dimensions we are working on\ndim = 2\n\n"
    head += "# Define the image coordinates\n"
    rows = zip(names, positions_px.tolist(), strict=True)
    return head + "".join(f"{name}; ; ({x!r}, {y!r})\n" for name, (y, x) in rows)


def order_on_grid(
    positions_px: NDArray[np.float64], where: Path
) -> tuple[NDArray[np.int64], tuple[int, int], NDArray[np.int64]]:
    """Order of tiles that follows the raster from bottom left, the grid, and their cells in it.

    Neighbours are found around the nominal step, so jitter and the skew of rows that builds up
    over a wide mosaic do not confuse rows with columns. Cells may be empty.

    Parameters
    ----------
    positions_px : (T, 2) float64
        (y, x) in pixels, y downwards.
    where : Path
        File, for the message.

    Returns
    -------
    order : (T,) int64
        ``positions_px[order]`` runs bottom left first, rightwards, then up.
    grid : (rows, columns)
    raster_index : (T,) int64
        Cell of each tile in that order, ascending: row from the bottom x columns + column.

    Raises
    ------
    ReadError
        If positions are no grid.
    """
    cells = _cells(np.asarray(positions_px, np.float64))
    rows, columns = (int(n) for n in cells.max(axis=0) + 1)
    if len(np.unique(cells, axis=0)) < len(cells) or (cells < 0).any():
        raise ReadError(f"{where}: positions do not form one grid; remove it or pass --grid")
    raster = (rows - 1 - cells[:, 0]) * columns + cells[:, 1]
    order = np.argsort(raster, kind="stable")
    return order.astype(np.int64), (rows, columns), raster[order]


def _cells(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cell (row from the top, column) of each point; -1 where it hangs on no neighbour."""
    tree = cKDTree(points)
    step = _steps(points, tree)
    cells = np.full((len(points), 2), -1, np.int64)
    seen = {0: (0, 0)}
    queue = [0]
    moves = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    while queue:
        here = queue.pop()
        for move in moves:
            length = abs(float(np.dot(move, step)))
            if length == 0:
                continue
            gap, there = tree.query(points[here] + np.multiply(move, step))
            if gap < 0.4 * length and int(there) not in seen:
                seen[int(there)] = (seen[here][0] + move[0], seen[here][1] + move[1])
                queue.append(int(there))
        if not queue:
            queue = _across_gap(points, step, seen)
    found = np.array(list(seen.values()))
    cells[list(seen)] = found - found.min(axis=0)
    return cells


def _across_gap(
    points: NDArray[np.float64], step: NDArray[np.float64], seen: dict[int, tuple[int, int]]
) -> list[int]:
    """Add to `seen` the nearest tile beyond empty cells, whole steps away; none where none is."""
    known, rest = list(seen), [k for k in range(len(points)) if k not in seen]
    if not rest or not step.all():
        return []
    gaps, at = cKDTree(points[known]).query(points[rest])
    k = int(np.argmin(gaps))
    here, there = known[int(np.asarray(at)[k])], rest[k]
    offset = (points[there] - points[here]) / step
    whole = np.rint(offset)
    if np.abs(offset - whole).max() > 0.4:
        return []
    seen[there] = (seen[here][0] + int(whole[0]), seen[here][1] + int(whole[1]))
    return [there]


def _steps(points: NDArray[np.float64], tree: cKDTree) -> NDArray[np.float64]:
    """Typical distance (y, x) between neighbours; 0 along an axis with one tile."""
    near = tree.query(points, k=min(9, len(points)))[1].reshape(len(points), -1)
    offsets = np.abs(points[near] - points[:, None]).reshape(-1, 2)
    dy, dx = offsets.T
    along_y, along_x = dy[(dy > 2 * dx)], dx[(dx > 2 * dy)]
    return np.array([_least_group(along_y), _least_group(along_x)])


def _least_group(distances: NDArray[np.float64]) -> float:
    """Median of the distances that are about the least one: one step, not two."""
    if not distances.size:
        return 0.0
    return float(np.median(distances[distances < 1.5 * distances.min()]))


def numbered_cells(names: Sequence[str], count: int, where: Path) -> NDArray[np.int64]:
    """Cells of a mosaic's tiles in order of acquisition, from the running numbers in their names.

    Parameters
    ----------
    names : sequence of str
        Names in order, without suffix.
    count : int
        Cells of the grid.
    where : Path
        Folder, for the message.

    Returns
    -------
    (T,) int64
        Counted from the number 0 or 1; 0, 1, 2 ... where names have no running number.

    Raises
    ------
    ReadError
        If numbers are missing and the rest fits no such grid.
    """
    numbers = np.array(acquisition_numbers(names) or range(len(names)), np.int64)
    raster = numbers - min(1, int(numbers.min()))
    if raster[-1] >= count or (np.diff(raster) < 1).any():
        raster = numbers - numbers[0]  # a camera's counter that goes on from scan to scan
    if raster[-1] >= count or (np.diff(raster) < 1).any():
        raise ReadError(
            f"{where}: tiles are missing between {names[0]} and {names[-1]}, and the numbers of "
            f"the others lie beyond a grid of {count} tiles; add them, or rename the folder to "
            "read the rest as a series"
        )
    return raster


def absent_cells(raster_index: NDArray[np.int64], grid: tuple[int, int]) -> str:
    """Name the empty cells of a mosaic; empty where there are none.

    Parameters
    ----------
    raster_index : (T,) int64
        Cells with a tile.
    grid : (rows, columns)
    """
    absent = np.setdiff1d(np.arange(grid[0] * grid[1]), raster_index)
    if not absent.size:
        return ""
    named = [f"row {k // grid[1] + 1}, column {k % grid[1] + 1}" for k in absent[:NAMED].tolist()]
    more = f"; {len(absent) - NAMED} more" if len(absent) > NAMED else ""
    return (
        f"{len(absent)} of the {grid[0] * grid[1]} tiles of a grid of {grid[0]} x {grid[1]} are "
        f"absent and left as gaps (rows from the bottom: {'; '.join(named)}{more})"
    )
