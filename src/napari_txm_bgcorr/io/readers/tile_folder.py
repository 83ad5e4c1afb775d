"""Folders of numbered tiles, one file each, with or without Fiji's TileConfiguration."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    LazyTiles,
    References,
    Scan,
    Source,
    first_and_each,
    joined_facts,
    joined_times,
)
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.guard import reading
from napari_txm_bgcorr.io.json_file import read_json
from napari_txm_bgcorr.io.record import KEY, restore

from . import tiff
from .acquisition_metadata import with_grid, with_name_facts
from .filename_metadata import acquisition_numbers, is_dark, is_flat, name_facts, natural_key
from .tile_layout import (
    absent_cells,
    find_tile_configuration,
    order_on_grid,
    parse_tile_configuration,
)

__all__ = ["can_read", "read"]

_TIFF = (".tif", ".tiff")
_XRADIA = (".xrm",)
_ROLES = ("raw", "corrected", "background")  # folders of an output of ours, the first is opened


@dataclass(frozen=True)
class _Listing:
    """Image files of one folder by their part, in natural order."""

    tiles: tuple[Path, ...]
    flats: tuple[Path, ...]
    darks: tuple[Path, ...]


def can_read(path: Path) -> bool:
    """Return True if a folder (or one of the role folders of an output) holds image files."""
    if not path.is_dir():
        return False
    return _role_folder(path) is not None or bool(_image_files(path))


def _role_folder(path: Path) -> Path | None:
    """Folder of tiles inside one of our TIFF outputs."""
    if not (path / "provenance.json").is_file():
        return None
    names = [n for role in _ROLES for n in (role, f"{role}.ome.tif")]
    return next((path / name for name in names if (path / name).exists()), None)


def _image_files(folder: Path) -> list[Path]:
    """TIFF files of a folder, or else its Xradia images; hidden ones left out."""
    with reading(folder, "folder"), os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith((".", "~"))]
    for suffixes in (_TIFF, _XRADIA):
        found = [n for n in names if os.path.splitext(n)[1].lower() in suffixes]
        if found:
            return [folder / n for n in sorted(found, key=natural_key)]
    return []


def _list(folder: Path) -> _Listing:
    files = _image_files(folder)
    flats = tuple(f for f in files if is_flat(f.stem))
    darks = tuple(f for f in files if is_dark(f.stem))
    tiles = tuple(f for f in files if not is_flat(f.stem) and not is_dark(f.stem))
    if tiles:
        return _Listing(tiles, flats, darks)
    if flats:  # a folder of nothing but references is read for their own sake
        return _Listing(flats, (), darks)
    return _Listing(darks, (), ())


def read(path: Path, *, grid: tuple[int, int] | None = None) -> Scan:
    """Read a folder of tiles lazily as a mosaic or a series.

    Parameters
    ----------
    path : Path
        Folder of TIFF files, or of single Xradia images, one tile each. Files whose names begin
        with ref, flat or dark are taken as references and darks.
    grid : (rows, columns), optional
        Of the mosaic, where no TileConfiguration and no name says it.

    Returns
    -------
    Scan
        Tiles from bottom left, rightwards, then up where there is a grid.

    Raises
    ------
    ReadError
        If tiles differ in size, a file is damaged, or a table names none of the tiles.
    """
    inner = _role_folder(path)
    if inner is not None:
        return read(inner, grid=grid) if inner.is_dir() else tiff.read(inner, grid=grid)
    listing = _list(path)
    if not listing.tiles:
        raise ReadError(f"{path}: no tiles (.tif, .tiff, .xrm) in this folder; give their folder")
    if len(listing.tiles) == 1:
        scan = _read_image(listing.tiles[0], grid)
        scan = replace(scan, source=replace(scan.source, path=path, format="folder"))
    else:
        scan = _stack(path, listing.tiles)
        scan = _arranged(scan, grid)
    return _with_references(scan, listing)


def _read_image(file: Path, grid: tuple[int, int] | None = None) -> Scan:
    """Read one image file by what it is."""
    if file.suffix.lower() in _XRADIA:
        from . import xradia

        return with_grid(xradia.read(file), grid)
    return tiff.read(file, grid=grid)


def _stack(folder: Path, files: Sequence[Path]) -> Scan:
    """Stack the images of many files, in the order given, read one by one when asked for."""
    first = _read_image(files[0])
    _, y, x = first.tiles.shape
    shape, dtype = (y, x), first.tiles.dtype
    size = files[0].stat().st_size
    # plain TIFFs of equal size hold equal images, most likely; all else is opened to be sure
    every = first.times is not None or len(first) > 1
    odd = {f: _image_like(f, shape, dtype) for f in files if every or f.stat().st_size != size}
    scans = [odd.get(f, first) for f in files]
    named = {f: name_facts(f.stem) for f in files}

    def each(name: str) -> tuple[float | None, NDArray[np.float64] | None]:
        """Fact of the first file, and of each: its own, else of its name, else the first's."""
        one = getattr(first, name)
        return first_and_each(
            [getattr(odd.get(f, named[f]), name) or (None if f in odd else one) for f in files]
        )

    energy_ev, energies_ev = each("energy_ev")
    exposure_s, exposures_s = each("exposure_s")
    monitor = joined_facts([scan.monitor for scan in scans], [1] * len(files))
    names = tuple(f.stem for f in files)
    return replace(
        first,
        tiles=LazyTiles(
            (len(files), y, x), dtype, lambda i: _image_like(files[i], shape, dtype).tiles[0]
        ),
        kind="series",
        grid=None,
        positions_px=None,
        source=Source(folder, "folder", tuple(files)),
        names=names if len(set(names)) == len(names) else tuple(f.name for f in files),
        times=joined_times([scan.times for scan in scans]) if len(odd) == len(files) else None,
        energy_ev=energy_ev,
        energies_ev=energies_ev,
        exposure_s=exposure_s,
        exposures_s=exposures_s,
        monitor=monitor,
        angles_deg=None,
    )


def _image_like(file: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> Scan:
    """Read one tile; refuse it where size, type or number of images is not the first one's."""
    scan = _read_image(file)
    if len(scan) != 1 or tuple(scan.tiles.shape[1:]) != shape:
        _refuse(file, scan, shape)
    if scan.tiles.dtype != dtype:
        raise ReadError(
            f"{file}: pixels of type {scan.tiles.dtype}, the first tile has {dtype}; "
            "remove the file or save all tiles alike"
        )
    return scan


def _refuse(file: Path, scan: Scan, shape: tuple[int, ...]) -> None:
    count, y, x = scan.tiles.shape
    what = f"{count} images in a folder of tiles" if count > 1 else f"{y} x {x} px"
    raise ReadError(
        f"{file}: {what}, the first tile has {shape[0]} x {shape[1]} px; "
        "remove the file or open it on its own"
    )


def _arranged(scan: Scan, grid: tuple[int, int] | None) -> Scan:
    """Lay the tiles out by TileConfiguration, by `grid`, or by the grid in a name."""
    folder = scan.source.path
    named = name_facts(scan.names[0], folder.name)
    block, table = _own_record(scan), find_tile_configuration(folder)
    if block is not None:
        return with_grid(_by_record(scan, block), grid)
    if table is not None:
        scan = _by_table_or_grid(scan, table, grid)
    elif grid is not None:
        scan = with_grid(scan, grid)
    elif named.grid is not None:
        scan = _by_name(scan, named.grid)
    return with_name_facts(scan, named)


def _by_table_or_grid(scan: Scan, table: Path, grid: tuple[int, int] | None) -> Scan:
    """Lay the tiles out by Fiji's table, unless the user gave another grid."""
    try:
        placed = _by_table(scan, table)
    except ReadError:
        if grid is None:
            raise
        placed = scan
    if grid is None or placed.grid == grid:
        return placed
    note = f"{table.name} is left out: it does not give the grid {grid[0]} x {grid[1]}"
    return with_grid(replace(scan, notes=(*scan.notes, note)), grid)


def _by_name(scan: Scan, grid: tuple[int, int]) -> Scan:
    """Take the grid of the name where the tiles fit it, else a series with a note."""
    size = f"{grid[0]} x {grid[1]}"
    last = max(acquisition_numbers(scan.names) or [0])
    if not grid[1] <= len(scan) <= math.prod(grid) or (len(scan) < math.prod(grid) < last):
        note = f"{len(scan)} tiles do not fit the grid {size} of the name: read as a series"
        return replace(scan, notes=(*scan.notes, note))
    return with_grid(replace(scan, notes=(*scan.notes, f"grid {size} from the name")), grid)


def _by_table(scan: Scan, table: Path) -> Scan:
    """Lay the tiles out by Fiji's table, in the order bottom left, rightwards, then up.

    Tiles of the table that are not in the folder leave gaps.
    """
    positions = parse_tile_configuration(table)
    files = {file.name: k for k, file in enumerate(scan.source.files)}
    if not any(name in files for name in positions):
        raise ReadError(
            f"{scan.source.path}: no tile of {table.name} is in this folder (its first is "
            f"{next(iter(positions))}); give the table of this mosaic, or remove it"
        )
    place = np.array(list(positions.values()), np.float64)
    order, grid, raster = order_on_grid(place, table)
    index = np.array([files.get(name, -1) for name in positions])[order]
    order, raster, index = (values[index >= 0] for values in (order, raster, index))
    notes = [absent_cells(raster, grid)] if raster[-1] >= len(raster) else []
    if len(index) < len(files):
        notes.append(f"{len(files) - len(index)} files not in {table.name} are left out")
    if (np.diff(index) < 0).any():
        notes.append(f"tiles put into raster order by {table.name}")
    return replace(
        _reordered(scan, index),
        kind="mosaic",
        grid=grid,
        raster_index=raster if raster[-1] >= len(raster) else None,
        positions_px=place[order] - place[order].min(axis=0),
        notes=(*scan.notes, *notes),
    )


def _own_record(scan: Scan) -> dict[str, Any] | None:
    """Record beside the role folders of a TIFF output of this program, if it is of these tiles."""
    folder = scan.source.path
    record = folder.parent / "provenance.json"
    if folder.name not in (*_ROLES, "mask", "uncertainty") or not record.is_file():
        return None
    block = read_json(record).get(KEY)
    if not isinstance(block, dict) or not isinstance(block.get("scan"), dict):
        return None
    names = block["scan"].get("names") or []
    if sorted(map(str, names)) != sorted(scan.names):
        raise ReadError(
            f"{folder}: {len(scan)} tiles, {record.name} beside it lists {len(names)}; "
            "restore the missing files, or move the folder to read the rest"
        )
    return {**block, "role": folder.name}


def _by_record(scan: Scan, block: dict[str, Any]) -> Scan:
    """Put the tiles of one of our outputs into its order and take up its facts."""
    place = {name: k for k, name in enumerate(scan.names)}
    index = np.array([place[str(name)] for name in block["scan"]["names"]])
    return restore(_reordered(scan, index), block)


def _reordered(scan: Scan, index: NDArray[np.int64]) -> Scan:
    """Tiles `index` of a scan, in that order."""
    _, y, x = scan.tiles.shape
    tiles = scan.tiles
    return replace(
        scan,
        tiles=LazyTiles(
            (len(index), y, x), tiles.dtype, lambda i: np.asarray(tiles[int(index[i])])
        ),
        source=replace(scan.source, files=tuple(scan.source.files[i] for i in index)),
        names=tuple(scan.names[i] for i in index),
        times=_at(scan.times, index),
        energies_ev=_at(scan.energies_ev, index),
        exposures_s=_at(scan.exposures_s, index),
        monitor=_at(scan.monitor, index),
    )


def _at(values: NDArray[Any] | None, index: NDArray[np.int64]) -> NDArray[Any] | None:
    return None if values is None else values[index]


def _with_references(scan: Scan, listing: _Listing) -> Scan:
    """Attach the references and darks that lie beside the tiles."""
    notes = list(scan.notes)
    for label, files in (("flats", listing.flats), ("darks", listing.darks)):
        if not files:
            continue
        found = References.joined([References.of_tiles(_read_image(f)) for f in files])
        scan = found.attach(scan) if label == "flats" else replace(scan, darks=found.images)
        notes.append(f"{len(files)} files taken as {label} by their names")
    return replace(scan, notes=tuple(notes))
