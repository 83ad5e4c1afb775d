"""TIFF files: one image, a multi-page stack, OME and ImageJ metadata, BigTIFF."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_txm_bgcorr.core import LazyTiles, Scan, Source
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.guard import MAX_PIXELS, check_frame, reading, require_file
from napari_txm_bgcorr.io.record import KEY, find_block, restore

from .acquisition_metadata import frame_names, nanometres, with_grid, with_name_facts
from .filename_metadata import name_facts

__all__ = ["TiffStack", "can_read", "inspect", "read", "read_frame"]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY = (0, 1)  # PhotometricInterpretation: white is zero, black is zero
_COARSEST_NM = 10_000.0  # a resolution in inches beyond this is a printer's, not a microscope's


class Frame(NamedTuple):
    """Location of one image: page `page` of `file`, or uncompressed at byte `offset`."""

    file: Path
    page: int
    offset: int | None


@dataclass(frozen=True)
class TiffStack:
    """Content of the headers of a TIFF.

    Attributes
    ----------
    path : Path
    shape : (T, Y, X)
    dtype : numpy.dtype
        With the file's byte order.
    frames : tuple of Frame
        One per tile.
    pixel_nm, exposure_s : float or None
    block : mapping or None
        Record that this program embedded in its own output.
    notes : tuple of str
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    frames: tuple[Frame, ...]
    pixel_nm: float | None = None
    exposure_s: float | None = None
    block: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def can_read(path: Path) -> bool:
    """Return True if a file begins as a classic or BigTIFF."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) in _MAGIC


def read(path: Path, *, grid: tuple[int, int] | None = None) -> Scan:
    """Read one TIFF file lazily as a single image or a series.

    Parameters
    ----------
    path : Path
    grid : (rows, columns), optional
        Takes the pages as tiles of a mosaic, bottom left first, rightwards, then up.

    Returns
    -------
    Scan

    Raises
    ------
    ReadError
        If the file is damaged, is no grey image, or its size lies.
    """
    stack = inspect(path)
    scan = Scan(
        tiles=LazyTiles(
            stack.shape, stack.dtype.newbyteorder("="), lambda i: read_frame(stack, i)
        ),
        kind="single" if stack.shape[0] == 1 else "series",
        source=Source(path, "tiff", tuple(dict.fromkeys(f.file for f in stack.frames))),
        names=frame_names(path, stack.shape[0]),
        pixel_nm=stack.pixel_nm,
        exposure_s=stack.exposure_s,
        notes=stack.notes,
    )
    if stack.block is not None:
        return restore(with_grid(scan, grid), stack.block)
    named = name_facts(path.stem)
    if grid is None and named.grid is not None and math.prod(named.grid) == stack.shape[0] > 1:
        grid = named.grid
        scan = replace(scan, notes=(*scan.notes, f"grid {grid[0]} x {grid[1]} from the name"))
    return with_name_facts(with_grid(scan, grid), named)


def inspect(path: Path) -> TiffStack:
    """Read the headers of a TIFF and check that the pixels they promise are there.

    Parameters
    ----------
    path : Path

    Returns
    -------
    TiffStack

    Raises
    ------
    ReadError
        If the file is damaged, is no grey image, or its size lies.
    """
    require_file(path)
    with reading(path, "TIFF header"), tifffile.TiffFile(path) as tif:
        series = [s for s in tif.series if not s.keyframe.is_reduced]
        if not series:
            raise ReadError(f"{path}: no image in it; copy the file again")
        block = find_block(_texts(tif))
        limit = math.inf if block is not None and "stitched" in block else MAX_PIXELS
        shape, dtype = _frame_type(path, series, limit)
        frames = [frame for one in series for frame in _frames(path, one, shape, dtype)]
        notes = ["photometric: white is zero; values are taken as they are"]
        return TiffStack(
            path=path,
            shape=(len(frames), *shape),
            dtype=dtype.newbyteorder(tif.byteorder),
            frames=tuple(frames),
            pixel_nm=_pixel_nm(tif),
            exposure_s=_ome_exposure(tif.ome_metadata),
            block=block,
            notes=tuple(notes if tif.pages.first.photometric == 0 else ()),
        )


def _frame_type(
    path: Path, series: Sequence[tifffile.TiffPageSeries], limit: float
) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Size `(Y, X)` and type common to all pages."""
    key = series[0].keyframe
    if key.samplesperpixel > 1 or int(key.photometric) not in _GREY:
        raise ReadError(
            f"{path}: colour image ({key.axes}, {key.shape}); save the grey raw counts instead"
        )
    if key.dtype is None or key.imagedepth > 1:
        raise ReadError(f"{path}: pixels of unknown type or depth; save it as grey integers")
    shape = (int(key.imagelength), int(key.imagewidth))
    check_frame(path, shape, key.dtype, limit)
    for other in series[1:]:
        size = (int(other.keyframe.imagelength), int(other.keyframe.imagewidth))
        if size != shape or other.keyframe.dtype != key.dtype:
            raise ReadError(
                f"{path}: pages of {shape} and {size} px or of different types; "
                "save one file a size"
            )
    return shape, key.dtype


def _frames(
    path: Path,
    series: tifffile.TiffPageSeries,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
) -> list[Frame]:
    """Place of every image of one series, checked against the bytes that are there."""
    nbytes = math.prod(shape) * dtype.itemsize
    count, rest = divmod(math.prod(series.get_shape(False)), math.prod(shape))
    sizes = zip(series.get_axes(False), series.get_shape(False), strict=True)
    stacked = [axis for axis, n in sizes if axis not in "YXS" and n > 1]
    if rest or len(stacked) > 1:
        raise ReadError(
            f"{path}: axes {series.axes} of {series.shape}; save one axis of images (T, Y, X)"
        )
    if series.dataoffset is not None:
        first = int(series.dataoffset)
        _check_end(path, first + count * nbytes)
        return [Frame(path, 0, first + k * nbytes) for k in range(count)]
    named = list(series.pages)
    pages = [page for page in named if page is not None]
    if not len(pages) == len(named) == count:
        raise ReadError(f"{path}: {len(named)} pages for {count} images; copy the file again")
    places = [Path(page.parent.filehandle.path) for page in pages]
    for place, page in zip(places, pages, strict=True):
        _check_segments(place, page, nbytes)
    return [Frame(p, int(page.index), None) for p, page in zip(places, pages, strict=True)]


def _check_segments(path: Path, page: Any, nbytes: int) -> None:
    """Refuse a page whose strips or tiles are missing, cut off, or cannot hold its image."""
    needed = math.prod(page.keyframe.chunked)
    counts, offsets = page.databytecounts, page.dataoffsets
    if len(counts) < needed or len(offsets) < needed or min(counts, default=0) < 1:
        raise ReadError(
            f"{path}: page {page.index}: {len(offsets)} of {needed} strips; copy the file again"
        )
    _check_end(path, max(o + c for o, c in zip(offsets, counts, strict=False)))
    if nbytes > 64 * 2**20 + 2000 * sum(counts):  # beyond what deflate or LZW can pack
        raise ReadError(
            f"{path}: page {page.index}: {sum(counts)} bytes cannot hold its {nbytes} bytes of "
            "pixels; its header lies, copy the file again"
        )


def _check_end(path: Path, end: int) -> None:
    size = path.stat().st_size
    if end > size:
        raise ReadError(
            f"{path}: pixels should end at byte {end}, the file ends at {size}; "
            "it is cut short, copy it again"
        )


def read_frame(stack: TiffStack, i: int) -> NDArray[Any]:
    """Read image `i` `(Y, X)` of an inspected TIFF; opens and closes the file.

    Raises
    ------
    ReadError
        If the file went away, changed or is damaged.
    """
    frame, shape = stack.frames[i], stack.shape[1:]
    with reading(frame.file, f"image {i}"):
        if frame.offset is not None:
            count = math.prod(shape)
            pixels = np.fromfile(frame.file, stack.dtype, count, offset=frame.offset)
            return pixels.reshape(shape).astype(stack.dtype.newbyteorder("="), copy=False)
        with tifffile.TiffFile(frame.file) as tif:
            return np.asarray(tif.pages[frame.page].asarray()).reshape(shape)


def _texts(tif: tifffile.TiffFile) -> list[str]:
    """Every text in which an output of this program may carry its record."""
    texts = [(tif.imagej_metadata or {}).get("Info"), tif.pages.first.description]
    if tif.ome_metadata and KEY in tif.ome_metadata:
        texts = [e.text for e in ElementTree.fromstring(tif.ome_metadata).iter()]
    return [text for text in texts if isinstance(text, str)]


def _pixel_nm(tif: tifffile.TiffFile) -> float | None:
    """Pixel size from OME, ImageJ or a resolution in centimetres, in this order."""
    if tif.ome_metadata:
        return _ome_pixel_nm(tif.ome_metadata)
    tag = tif.pages.first.tags.get("XResolution")
    if tag is None:
        return None
    per_unit = tag.value[0] / tag.value[1] if tag.value[1] else 0.0
    if not per_unit > 0:
        return None
    if tif.is_imagej:
        return nanometres(1 / per_unit, str((tif.imagej_metadata or {}).get("unit", "")))
    unit = {2: "inch", 3: "cm"}.get(int(tif.pages.first.resolutionunit), "")
    pixel = nanometres(1 / per_unit, unit)
    return pixel if pixel is not None and pixel < _COARSEST_NM else None


def _ome(xml: str | None, tag: str) -> Mapping[str, str]:
    """Attributes of the first element `tag` of an OME-XML document."""
    if not xml:
        return {}
    found = next(
        (e for e in ElementTree.fromstring(xml).iter() if e.tag.rpartition("}")[2] == tag), None
    )
    return {} if found is None else found.attrib


def _ome_pixel_nm(xml: str) -> float | None:
    pixels = _ome(xml, "Pixels")
    if "PhysicalSizeX" not in pixels:
        return None
    return nanometres(float(pixels["PhysicalSizeX"]), pixels.get("PhysicalSizeXUnit", "µm"))


def _ome_exposure(xml: str | None) -> float | None:
    plane = _ome(xml, "Plane")
    unit = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}.get(plane.get("ExposureTimeUnit", "s"))
    value = plane.get("ExposureTime")
    return None if value is None or unit is None else float(value) * unit
