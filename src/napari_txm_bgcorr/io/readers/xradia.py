"""Read Xradia ``.xrm``, ``.txrm`` and ``.txm`` files (OLE2 compound files) as lazy scans.

The format is undocumented; what is assumed is written in ``docs/reference/xradia.md``. Rows
are stored bottom-up and are flipped here, so that row 0 of every tile is its top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count as count_up
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    Kind,
    LazyTiles,
    References,
    Scan,
    Source,
    first_and_each,
    one_or_each,
    raster_positions,
)
from napari_txm_bgcorr.errors import ReadError

from .acquisition_metadata import with_name_facts
from .byte_map import ByteMap
from .filename_metadata import name_facts
from .ole_container import OLE_MAGIC, Container, open_container
from .xradia_header import Fields, stage_positions

__all__ = ["DTYPES", "SUFFIXES", "can_read", "read"]

SUFFIXES = (".xrm", ".txrm", ".txm")

DTYPES: dict[int, np.dtype[Any]] = {
    2: np.dtype("<i1"), 3: np.dtype("<u1"), 4: np.dtype("<i2"), 5: np.dtype("<u2"),
    6: np.dtype("<i4"), 7: np.dtype("<u4"), 8: np.dtype("<i8"), 9: np.dtype("<u8"),
    10: np.dtype("<f4"), 11: np.dtype("<f8"),
}  # fmt: skip

_MOST_TILES = 100_000  # a larger grid is a damaged header
_BY_ITEMSIZE = {1: 3, 2: 5, 4: 10, 8: 11}  # the usual code for a size, where none is given


def can_read(path: Path) -> bool:
    """Return True if a file's content is that of an Xradia file.

    Returns
    -------
    bool
        True for an OLE2 file with Xradia's streams. Also for a damaged OLE2 file with a suffix
        of `SUFFIXES`, so that `read` can say what is wrong with it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(len(OLE_MAGIC)) != OLE_MAGIC:
                return False
        with open_container(path) as ole:
            return any(name.startswith(("imageinfo/", "imagedata")) for name in ole.names)
    except ReadError:
        return path.suffix.lower() in SUFFIXES
    except OSError:
        return False


def read(
    path: Path, *, pixel_nm: float | None = None, grid: tuple[int, int] | None = None
) -> Scan:
    """Read an Xradia file; pixels are left in the file until a tile is asked for.

    Parameters
    ----------
    path : Path
        ``.xrm``, ``.txrm`` or ``.txm`` file.
    pixel_nm : float, optional
        Pixel size (nm) instead of the file's own.
    grid : (rows, columns), optional
        Take the file for a mosaic of this size, whatever it says.

    Returns
    -------
    Scan
        Single image, mosaic or series, with the reference inside the file, if any, as `flats`.

    Raises
    ------
    ReadError
        If the file is damaged, no Xradia file, or contradicts itself.
    """
    path = Path(path)
    _check_arguments(path, pixel_nm, grid)
    with open_container(path) as ole:
        fields = Fields(ole, path)
        layout = _layout(ole, fields, grid)
        tiles = layout.tiles
        kept = _without_blank_tail(layout, fields)
        references = _reference(ole, fields, layout)
        fields.note_divided()
        pixel_nm = pixel_nm or fields.pixel_nm()
        energy_ev, energies_ev = first_and_each(fields.energies_ev(kept))
        exposure_s, exposures_s = first_and_each(fields.exposures_s(kept))
        scan = Scan(
            tiles=LazyTiles((kept, *tiles.shape), tiles.dtype, tiles),
            kind=layout.kind,
            source=Source(path, "xradia", (path,)),
            names=_names(path.stem, kept),
            grid=layout.grid,
            positions_px=_positions(fields, layout, kept, pixel_nm),
            times=fields.times("ImageInfo", kept, quiet=layout.canvas),
            pixel_nm=pixel_nm,
            energy_ev=energy_ev,
            energies_ev=energies_ev,
            exposure_s=exposure_s,
            exposures_s=exposures_s,
            monitor=fields.monitor(kept),
            binning=fields.binning(),
            angles_deg=fields.angles_deg(kept) if layout.kind != "mosaic" else None,
            notes=tuple(fields.notes),
        )
        named = with_name_facts(scan, replace(name_facts(path.stem), binning=None))
        return named if references is None else references.attach(named)


@dataclass(frozen=True, eq=False)
class _TileReader:
    """Reader of tile `i`; holds no open file, so that threads and processes may share it.

    Attributes
    ----------
    streams : tuple of ByteMap
        One an image, or the one canvas.
    shape : (Y, X)
        Of one tile.
    dtype : dtype
    columns : int or None
        Columns of a canvas; None where each tile is a stream.
    """

    streams: tuple[ByteMap, ...]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    columns: int | None = None

    def _place(self, i: int) -> tuple[ByteMap, int, int]:
        """Stream, first byte and distance of the rows of tile `i`."""
        height, width = self.shape[0], self.shape[1] * self.dtype.itemsize
        if self.columns is None:
            return self.streams[i], 0, width
        row, column = divmod(i, self.columns)
        stride = width * self.columns
        return self.streams[0], row * height * stride + column * width, stride

    def __call__(self, i: int) -> NDArray[Any]:
        """Tile `i` as `(Y, X)`, top row first."""
        stream, first, stride = self._place(i)
        width = self.shape[1] * self.dtype.itemsize
        data = stream.read_rows(first, stride, width, self.shape[0])
        return np.ascontiguousarray(np.frombuffer(data, self.dtype).reshape(self.shape)[::-1])

    def is_blank(self, i: int) -> bool:
        """Return True if the lowest, middle and highest row of tile `i` hold zeros only."""
        stream, first, stride = self._place(i)
        width = self.shape[1] * self.dtype.itemsize
        rows = {0, self.shape[0] // 2, self.shape[0] - 1}
        return not any(any(stream.read(first + row * stride, width)) for row in rows)


@dataclass(frozen=True)
class _Layout:
    """Arrangement of the file's images in the scan."""

    tiles: _TileReader
    count: int
    kind: Kind
    grid: tuple[int, int] | None

    @property
    def canvas(self) -> bool:
        """True if one stream holds all tiles of a mosaic."""
        return self.tiles.columns is not None


def _check_arguments(path: Path, pixel_nm: float | None, grid: tuple[int, int] | None) -> None:
    if pixel_nm is not None and not (np.isfinite(pixel_nm) and pixel_nm > 0):
        raise ReadError(f"{path}: pixel size of {pixel_nm} nm; give a positive number")
    if grid is not None and (len(grid) != 2 or min(grid) < 1):
        raise ReadError(f"{path}: grid {grid}; give rows and columns of at least 1")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise ReadError(f"{path}: {what}; give a .xrm, .txrm or .txm file")


def _layout(ole: Container, fields: Fields, given: tuple[int, int] | None) -> _Layout:
    """Decide what the images are: one, a series, or a mosaic of either format version."""
    height, width = (fields.length(f"ImageInfo/Image{side}") for side in ("Height", "Width"))
    grid = given or _grid(fields)
    if grid is not None and grid[0] * grid[1] > _MOST_TILES:
        raise ReadError(
            f"{fields.path}: a grid of {grid[0]} x {grid[1]} tiles, at most {_MOST_TILES} are "
            "possible; pass --grid ROWSxCOLUMNS"
        )
    count = _count(ole, fields, mosaic=grid is not None)
    streams = _streams(ole, count)
    dtype = _dtype(fields, streams[0], height * width)
    if grid is not None and count == 1 and (given or fields.version() < 5):
        size = _cut(fields, (height, width), grid)
        _check_sizes(fields, streams, (height, width), dtype)
        tiles = _TileReader(streams, size, dtype, columns=grid[1])
        return _Layout(tiles, grid[0] * grid[1], "mosaic", grid)
    _check_sizes(fields, streams, (height, width), dtype)
    _note_interruption(fields, count)
    tiles = _TileReader(streams, (height, width), dtype)
    if grid is not None and count > grid[0] * grid[1]:
        if given:
            raise ReadError(
                f"{fields.path}: {count} images do not fit a grid of {grid[0]} x {grid[1]}; "
                "give a larger --grid"
            )
        fields.note(f"{count} images do not fit the grid of {grid[0]} x {grid[1]}: a series")
        grid = None
    kind: Kind = "mosaic" if grid is not None else "single" if count == 1 else "series"
    return _Layout(tiles, count, kind, grid)


def _grid(fields: Fields) -> tuple[int, int] | None:
    """Rows and columns that the file claims, None for no mosaic."""
    rows = fields.integer("ImageInfo/MosiacRows", "ImageInfo/MosaicRows") or 0
    columns = fields.integer("ImageInfo/MosiacColumns", "ImageInfo/MosaicColumns") or 0
    mode = fields.integer("ImageInfo/MosiacMode", "ImageInfo/MosaicMode")
    if min(rows, columns) < 0:
        raise ReadError(
            f"{fields.path}: ImageInfo/MosiacRows and MosiacColumns are {rows} and {columns}; "
            "pass --grid ROWSxCOLUMNS"
        )
    if rows * columns < 2:
        return None
    if mode == 0 and fields.version() < 5:
        fields.note(
            f"ImageInfo/MosiacMode is 0, so the grid of {rows} x {columns} is not used; "
            f"pass --grid {rows}x{columns} to cut the image"
        )
        return None
    if fields.integer("ImageInfo/MosaicFastAxis", "ImageInfo/MosiacFastAxis"):
        fields.note("ImageInfo/MosaicFastAxis is not 0; the tiles are laid out row by row")
    return rows, columns


def _count(ole: Container, fields: Fields, *, mosaic: bool) -> int:
    """Number of images to read: as many as were taken."""
    present = next(i for i in count_up() if _stream_name(i + 1).lower() not in ole.names)
    taken = fields.integer("ImageInfo/ImagesTaken") or 0
    planned = fields.integer("ImageInfo/NoOfImages") or 0
    if not present:
        raise ReadError(
            f"{fields.path}: {_stream_name(1)} is missing; this OLE2 file holds no Xradia image"
        )
    count = taken if taken > 0 else planned if planned > 0 else present
    if count > present and not mosaic:
        field = "ImagesTaken" if taken > 0 else "NoOfImages"
        raise ReadError(
            f"{fields.path}: ImageInfo/{field} is {count}, but {_stream_name(present + 1)} is "
            "missing; copy the file again from the instrument"
        )
    if present > count:
        fields.note(f"{present} images are stored, but only {count} are said to be taken")
    return min(count, present)


def _note_interruption(fields: Fields, count: int) -> None:
    """Say that images are missing at the end."""
    taken = fields.integer("ImageInfo/ImagesTaken") or 0
    planned = max(fields.integer("ImageInfo/NoOfImages") or 0, taken)
    if planned > count:
        fields.note(f"{planned} images were planned, {count} are there: the scan was interrupted")


def _stream_name(number: int) -> str:
    """Stream of image `number`, counted from 1."""
    return f"ImageData{-(-number // 100)}/Image{number}"


def _streams(ole: Container, count: int) -> tuple[ByteMap, ...]:
    maps = (ole.stream(_stream_name(i + 1)) for i in range(count))
    return tuple(found for found in maps if found is not None)


def _dtype(fields: Fields, stream: ByteMap, pixels: int) -> np.dtype[Any]:
    """Type of the pixels by its code, else by the length of the stream."""
    code = fields.integer("ImageInfo/DataType")
    if code is None:
        code = _BY_ITEMSIZE.get(stream.size // pixels, 0) if stream.size % pixels == 0 else 0
        if not code:
            raise ReadError(
                f"{fields.path}: ImageInfo/DataType is missing, and {stream.size} bytes for "
                f"{pixels} pixels tell no type; export the file again at the instrument"
            )
        fields.note(f"ImageInfo/DataType is missing; taken for {DTYPES[code].name} by the size")
    if code not in DTYPES:
        raise ReadError(
            f"{fields.path}: ImageInfo/DataType is {code}, known are {min(DTYPES)} to "
            f"{max(DTYPES)}; export the file as 16-bit or float"
        )
    return DTYPES[code]


def _cut(fields: Fields, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Size of one tile of a canvas."""
    if size[0] % grid[0] or size[1] % grid[1]:
        raise ReadError(
            f"{fields.path}: a canvas of {size[0]} x {size[1]} px cannot be cut into {grid[0]} x "
            f"{grid[1]} equal tiles; pass --grid ROWSxCOLUMNS"
        )
    return size[0] // grid[0], size[1] // grid[1]


def _check_sizes(
    fields: Fields, streams: tuple[ByteMap, ...], size: tuple[int, int], dtype: np.dtype[Any]
) -> None:
    """Refuse images that are not as long as the header says."""
    expected = size[0] * size[1] * dtype.itemsize
    for stream in streams:
        if stream.size != expected:
            raise ReadError(
                f"{fields.path}: {stream.name} has {stream.size} bytes, but {size[0]} x {size[1]} "
                f"px of {dtype.name} take {expected}; copy the file again from the instrument"
            )


def _without_blank_tail(layout: _Layout, fields: Fields) -> int:
    """Number of tiles before the zeros that pad an interrupted mosaic."""
    if layout.kind != "mosaic":
        return layout.count
    kept = layout.count
    while kept and layout.tiles.is_blank(kept - 1):
        kept -= 1
    if not kept:
        fields.note("every tile seems to hold zeros only")
        return layout.count
    if kept < layout.count:
        fields.note(f"the last {layout.count - kept} tiles hold zeros only and are left out")
    return kept


def _reference(ole: Container, fields: Fields, layout: _Layout) -> References | None:
    """The reference inside the file, if there is one that fits the tiles."""
    stream = ole.stream("ReferenceData/Image")
    if stream is None or not stream.size:
        fields.note_reference_file()
        return None
    code = fields.integer("ReferenceData/DataType", "ReferenceData/ImageInfo/DataType")
    height, width = layout.tiles.shape
    pixels = height * width
    if code is None and stream.size % pixels == 0:
        code = _BY_ITEMSIZE.get(stream.size // pixels)
    dtype = DTYPES.get(code or 0)
    if dtype is None:
        fields.note(f"ReferenceData/DataType is {code}: the reference inside is left out")
        return None
    said = [fields.integer(f"ReferenceData/ImageInfo/Image{side}") for side in ("Height", "Width")]
    if stream.size != pixels * dtype.itemsize or said not in ([None, None], [height, width]):
        fields.note(
            f"the reference inside has {stream.size // dtype.itemsize} px, a tile {height} x "
            f"{width}: it is left out"
        )
        return None
    flats = _TileReader((stream,), (height, width), dtype)
    ion_chamber = fields.first_positive("ReferenceData/IonCurrent")
    return References(
        LazyTiles((1, height, width), dtype, flats),
        fields.times("ReferenceData/ImageInfo", 1, quiet=True),
        one_or_each(None, fields.first_positive("ReferenceData/ImageInfo/Energy"), 1),
        one_or_each(None, fields.reference_exposure_s(), 1),
        one_or_each(None, ion_chamber, 1),
    )


def _names(stem: str, count: int) -> tuple[str, ...]:
    return (stem,) if count == 1 else tuple(f"{stem}_{i + 1:04d}" for i in range(count))


def _positions(
    fields: Fields, layout: _Layout, count: int, pixel_nm: float | None
) -> NDArray[np.float64] | None:
    """Nominal positions of a mosaic's tiles: the stage's where they make sense, else abutted."""
    if layout.grid is None:
        return None
    shape = layout.tiles.shape
    if pixel_nm is not None:
        stage_um = np.stack([fields.floats(f"ImageInfo/{a}Position", count) for a in "YX"], -1)
        found = stage_positions(stage_um, layout.grid, shape, pixel_nm)
        if found is not None:
            return found
    fields.note("no usable stage positions: the tiles are laid out without overlap")
    return raster_positions(layout.grid, shape)[:count]
