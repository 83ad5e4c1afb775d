"""OME-Zarr 0.4 and 0.5: our own outputs and those of others."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaozarrs
import zarr
from numpy.typing import NDArray

from napari_txm_bgcorr.core import LazyTiles, Scan, Source
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.chunk_file import frame_reader
from napari_txm_bgcorr.io.guard import MAX_PIXELS, check_frame, one_line, reading
from napari_txm_bgcorr.io.record import KEY, restore

from .acquisition_metadata import frame_names, nanometres, with_grid

__all__ = ["can_read", "read"]

_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_ROLES = ("raw", "corrected", "background", "mask", "uncertainty")


def can_read(path: Path) -> bool:
    """Return True if a folder is a Zarr group or array."""
    return any((path / mark).is_file() for mark in _MARKS)


def read(path: Path, *, grid: tuple[int, int] | None = None) -> Scan:
    """Read one OME-Zarr image lazily, or the raw tiles of one of our outputs.

    Parameters
    ----------
    path : Path
        Group of an image; of one of our outputs also the store, whose raw tiles are read
        (without them the corrected ones; of a stitched mosaic the corrected part).
    grid : (rows, columns), optional
        Takes the images as tiles of a mosaic, bottom left first, rightwards, then up.

    Returns
    -------
    Scan

    Raises
    ------
    ReadError
        If the metadata are not valid OME-Zarr, or it is a plate, or has several stacks.
    """
    with reading(path, "Zarr"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is unusual but allowed in the files of others
        node = zarr.open(store=path, mode="r")
        if isinstance(node, zarr.Array):
            raise ReadError(f"{path}: a Zarr array without OME metadata; give its OME-Zarr image")
        attributes: dict[str, Any] = node.attrs.asdict()
        ours = attributes.get(KEY)
        stitched = isinstance(ours, Mapping) and "stitched" in ours
        roles = ("corrected", *_ROLES) if stitched else _ROLES
        inner = next((role for role in roles if role in node), None)
        if "ome" not in attributes and "multiscales" not in attributes:
            if KEY in attributes and inner is not None:
                return read(path / inner, grid=grid)
            raise ReadError(f"{path}: no OME-Zarr image; give the group with 'multiscales' in it")
        scan = _image(path, node, attributes)
    block = attributes.get(KEY)
    scan = with_grid(scan, grid)
    return restore(scan, block) if isinstance(block, Mapping) else scan


def _multiscale(path: Path, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """First ``multiscales`` entry after checking the metadata against the specification."""
    ome = attributes.get("ome", attributes)
    for kind in ("plate", "well", "bioformats2raw.layout"):
        if kind in ome and "multiscales" not in ome:
            raise ReadError(f"{path}: OME-Zarr {kind}; give one of the images inside it")
    try:
        if "ome" in attributes:
            yaozarrs.validate_ome_object({"ome": ome}, yaozarrs.v05.OMEAttributes)
        else:
            yaozarrs.validate_ome_object({"multiscales": ome["multiscales"]}, yaozarrs.v04.Image)
    except ValueError as error:
        raise ReadError(
            f"{path}: OME-Zarr metadata: {one_line(error)}; write it again as OME-Zarr 0.5"
        ) from error
    multiscale: Mapping[str, Any] = ome["multiscales"][0]
    return multiscale


def _image(path: Path, group: zarr.Group, attributes: Mapping[str, Any]) -> Scan:
    """Scan of level 0 of an image group."""
    multiscale = _multiscale(path, attributes)
    dataset = multiscale["datasets"][0]
    array = group[dataset["path"]]
    if not isinstance(array, zarr.Array):
        raise ReadError(f"{path}: {dataset['path']}: no array; copy the store again")
    axes = [str(axis["name"]) for axis in multiscale["axes"]]
    if axes[-2:] != ["y", "x"] or len(axes) != array.ndim or 0 in array.shape:
        raise ReadError(f"{path}: axes {axes} of shape {array.shape}; save it as (t, y, x)")
    ours = attributes.get(KEY)
    stitched = isinstance(ours, Mapping) and "stitched" in ours
    check_frame(path, array.shape[-2:], array.dtype, limit=math.inf if stitched else MAX_PIXELS)
    lead = tuple(int(n) for n in array.shape[:-2])
    if sum(n > 1 for n in lead) > 1 or ("c" in axes and array.shape[axes.index("c")] > 1):
        raise ReadError(
            f"{path}: axes {axes} of shape {array.shape}; save one stack of grey images (t, y, x)"
        )
    count = math.prod(lead)
    height, width = array.shape[-2:]
    files = _files(path)
    notes = _not_stored(path, path / str(dataset["path"]), array, files, whole=bool(ours))
    name = path.stem or path.resolve().stem
    return Scan(
        tiles=LazyTiles((count, height, width), array.dtype, _reader(path, array, lead)),
        kind="single" if count == 1 else "series",
        source=Source(path, "omezarr", files),
        names=frame_names(Path(name), count),
        notes=notes,
        pixel_nm=_pixel_nm(multiscale),
    )


def _reader(path: Path, array: Any, lead: tuple[int, ...]) -> Any:
    ours = frame_reader(array, path / array.basename) if len(lead) == 1 else None

    def tile(i: int) -> NDArray[Any]:
        with reading(path, f"image {i}"):
            if ours is not None:
                return ours(i)
            return np.asarray(array[(*np.unravel_index(i, lead),)] if lead else array[...])

    return tile


def _not_stored(
    path: Path, folder: Path, array: Any, files: tuple[Path, ...], *, whole: bool
) -> tuple[str, ...]:
    """Describe chunks without a file, which Zarr reads as the fill value.

    Parameters
    ----------
    path, folder : Path
        Of the image and of its array.
    array : zarr.Array
    files : tuple of Path
        All files of the image.
    whole : bool
        Written by this program, which writes every chunk of its tiles.

    Raises
    ------
    ReadError
        If chunks of a `whole` one are missing.
    """
    if whole and frame_reader(array, folder) is not None:
        held = frozenset(files)
        chunks = [folder / "c" / str(i) / "0" / "0" for i in range(array.shape[0])]
        missing = [chunk for chunk in chunks if chunk not in held]
        if missing:
            first = missing[0].relative_to(path)
            raise ReadError(
                f"{path}: {first}: missing, {len(missing)} of {len(chunks)} chunks are; copy the "
                "store again, or give the command that made it again to finish it"
            )
        return ()
    expected = math.prod(-(-n // c) for n, c in zip(array.shape, _stored(array), strict=True))
    found = sum(folder in file.parents and file.name not in _METADATA for file in files)
    if found >= expected:
        return ()
    return (
        f"{expected - found} of {expected} chunks are not stored and read as {array.fill_value}: "
        "areas that the writer left out, or an incomplete copy; compare with the original",
    )


def _stored(array: Any) -> tuple[int, ...]:
    """Size of what one file holds: a chunk, or a shard of several."""
    return tuple(array.shards or array.chunks)


def _files(path: Path) -> tuple[Path, ...]:
    """All files of the image, for its hash; a store is many small files."""
    return tuple(sorted(p for p in path.rglob("*") if p.is_file()))


def _pixel_nm(multiscale: Mapping[str, Any]) -> float | None:
    """Pixel size along x at level 0 in nm, where its unit is a length."""
    unit = multiscale["axes"][-1].get("unit")
    if not unit:
        return None
    size = 1.0
    steps = [*multiscale["datasets"][0].get("coordinateTransformations", [])]
    for step in [*steps, *multiscale.get("coordinateTransformations", [])]:
        if step.get("type") == "scale":
            size *= float(step["scale"][-1])
    return nanometres(size, str(unit))
