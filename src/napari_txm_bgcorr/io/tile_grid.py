"""Where the tiles of a mosaic lie: Fiji's TileConfiguration, grids, order of tiles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_txm_bgcorr.core.errors import ReadError
from napari_txm_bgcorr.io.guard import reading
from napari_txm_bgcorr.io.names import acquisition_numbers

__all__ = [
    "check_numbering",
    "find_tile_configuration",
    "order_on_grid",
    "parse_tile_configuration",
    "tile_configuration_text",
]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LINE = re.compile(rf"^(.*?)\s*;[^;]*;\s*\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*(?:,[^)]*)?\)\s*$")
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
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Order of tiles that follows the raster from bottom left, and the grid they fill.

    Neighbours are found around the nominal step, so jitter and the skew of rows that builds up
    over a wide mosaic do not confuse rows with columns.

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

    Raises
    ------
    ReadError
        If positions are no grid, or a cell other than the last ones has no tile.
    """
    cells = _cells(np.asarray(positions_px, np.float64))
    rows, columns = (int(n) for n in cells.max(axis=0) + 1)
    if len(np.unique(cells, axis=0)) < len(cells) or (cells < 0).any():
        raise ReadError(f"{where}: positions do not form one grid; remove it or pass --grid")
    raster = (rows - 1 - cells[:, 0]) * columns + cells[:, 1]
    order = np.argsort(raster, kind="stable")
    missing = np.setdiff1d(np.arange(len(cells)), raster)
    if missing.size:
        row, column = divmod(int(missing[0]), columns)
        raise ReadError(
            f"{where}: tile missing in row {row + 1} from the bottom, column {column + 1} of a "
            f"{rows} x {columns} grid; add it or remove the file and its line to read a series"
        )
    return order.astype(np.int64), (rows, columns)


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
    found = np.array(list(seen.values()))
    cells[list(seen)] = found - found.min(axis=0)
    return cells


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


def check_numbering(names: Sequence[str], where: Path) -> None:
    """Refuse a gap in the running numbers of a mosaic's tiles, naming the missing one.

    Parameters
    ----------
    names : sequence of str
        Names in order, without suffix.
    where : Path
        Folder, for the message.

    Raises
    ------
    ReadError
        If a number between the first (0 or 1 at most) and the last has no tile.
    """
    numbers = acquisition_numbers(names)
    if numbers is None:
        return
    first = min(1, min(numbers))
    gaps = (
        sorted(set(range(first, max(numbers) + 1)) - set(numbers)) if max(numbers) < 10**6 else []
    )
    if gaps:
        more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
        raise ReadError(
            f"{where}: tile {gaps[0]} is missing{more} between {names[0]} and {names[-1]}; "
            "add it, or rename the folder to read the rest as a series"
        )
