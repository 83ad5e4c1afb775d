"""One way in: find the reader of a path by its content, read scans and references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from napari_txm_bgcorr.core import ASKED, References, Scan, TileArray, with_pedestal
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.guard import one_line, reading, require_file

from .acquisition_metadata import with_grid

__all__ = ["APERTURE", "READERS", "from_aperture", "read", "read_references"]

APERTURE = "aperture"  # in place of a path of darks

_HERE = "napari_txm_bgcorr.io.readers"
READERS: dict[str, str] = {
    "xradia": f"{_HERE}.xradia",
    "tiff": f"{_HERE}.tiff",
    "hdf5": f"{_HERE}.hdf5",
    "omezarr": f"{_HERE}.omezarr",
    "folder": f"{_HERE}.tile_folder",
}
"""Name of a format to the module that reads it, in the order in which they are asked."""


def read(
    path: str | Path, *, grid: tuple[int, int] | None = None, pixel_nm: float | None = None
) -> Scan:
    """Read a file or folder of any known format as one scan; pixels are read when asked for.

    Parameters
    ----------
    path : str or Path
        Xradia, TIFF, HDF5 or OME-Zarr, or a folder of tiles. The content decides, not the name.
    grid : (rows, columns), optional
        Takes the images as tiles of a mosaic: bottom left first, rightwards, then up.
    pixel_nm : float, optional
        Pixel size on the sample in nm; overrides what the file says.

    Returns
    -------
    Scan

    Raises
    ------
    ReadError
        One line with file, field and remedy, whatever is wrong with the input.
    """
    where = Path(path)
    if pixel_nm is not None and not (math.isfinite(pixel_nm) and pixel_nm > 0):
        raise ReadError(f"{where}: pixel size {pixel_nm} nm; give a positive number")
    reader = _reader_of(where)
    with reading(where, "image"):
        scan: Scan = reader.read(where) if grid is None else reader.read(where, grid=grid)
        scan = with_grid(scan, grid)
    return scan if pixel_nm is None else replace(scan, pixel_nm=float(pixel_nm))


def _reader_of(path: Path) -> Any:
    """Module that reads `path`."""
    with reading(path, "path"):
        status = path.stat()  # a missing path, a loop of links, no permission
        folder = path.is_dir()
    if not folder:
        require_file(path)
    for module in READERS.values():
        reader = import_module(module)
        with reading(path, "content"):
            if reader.can_read(path):
                return reader
    if folder:
        raise ReadError(
            f"{path}: no tiles (.tif, .tiff, .xrm) and no OME-Zarr in this folder; "
            "give the folder of the tiles itself"
        )
    raise ReadError(
        f"{path}: {status.st_size} bytes that are neither Xradia, TIFF nor HDF5; "
        "give a .xrm, .txrm, .tif or .h5 file"
    )


def read_references(
    paths: Sequence[str | Path],
    *,
    like: Scan | None = None,
    role: Literal["flats", "darks"] = "flats",
) -> References:
    """Read references (or darks) from files, stacks and folders as one lazy stack.

    Darks may also be those that closed corners show: the one path `APERTURE`, unless there is a
    file of that name.

    Parameters
    ----------
    paths : sequence of str or Path
        Images without sample; of a file or folder that holds both, its own references.
    like : Scan, optional
        The scan they are for; sizes must agree.
    role : {"flats", "darks"}
        Which images to take of a file or folder that holds several kinds.

    Returns
    -------
    `References`
        Images, and how each was taken as far as the files tell.

    Raises
    ------
    ReadError
        If none is given, one cannot be read, or sizes or binnings differ.
    """
    if not paths:
        raise ReadError("references: none given; name files or folders")
    if role == "darks" and like is not None and from_aperture(paths):
        return References(_behind_aperture(like))
    parts: list[References] = []
    for path in paths:
        scan = read(path)
        # one Xradia image is the reference itself, though it may hold an older one
        itself = scan.source.format == "xradia" and scan.kind == "single"
        own = References.of(scan) if role == "flats" else _darks(scan)
        part = References.of_tiles(scan) if itself or own is None else own
        want = like.tiles if like is not None else (parts or [part])[0].images
        _check_fit(path, scan, part.images, want, None if like is None else like.binning)
        parts.append(part)
    return References.joined(parts)


def _darks(scan: Scan) -> References | None:
    return None if scan.darks is None else References(scan.darks)


def _check_fit(
    path: str | Path, scan: Scan, stack: TileArray, want: TileArray, binning: int | None
) -> None:
    """Refuse references of another size or binning than the tiles'."""
    y, x = want.shape[1:]
    if tuple(stack.shape[1:]) != (y, x):
        raise ReadError(
            f"{path}: reference of {_size(stack)} px for tiles of {y} x {x} px; "
            "give references taken with the same binning"
        )
    if scan.binning is not None and binning is not None and scan.binning != binning:
        raise ReadError(
            f"{path}: reference of binning {scan.binning} for tiles of binning {binning}; "
            "give references taken with the same binning"
        )


def from_aperture(paths: Sequence[str | Path]) -> bool:
    """Return True if the dark level is to be measured behind the aperture of the scan itself."""
    return len(paths) == 1 and Path(paths[0]).name == APERTURE and not Path(paths[0]).exists()


def _behind_aperture(scan: Scan) -> TileArray:
    known, _ = with_pedestal(replace(scan, darks=None), least=ASKED)
    if known.darks is None:
        raise ReadError(
            f"{scan.source.path}: no corner of the field is closed by an aperture, or too small a "
            "one, so nothing shows the counts without beam; give dark images"
        )
    return known.darks


def _size(stack: TileArray) -> str:
    return one_line(" x ".join(str(n) for n in stack.shape[1:]))
