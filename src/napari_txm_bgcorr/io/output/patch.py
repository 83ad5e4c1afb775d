"""A finished output of this program: read whole, and tiles of an OME-Zarr one replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    ASKED,
    References,
    Scan,
    Source,
    TileArray,
    TileResult,
    discard,
    pixels_sha256,
    replace_file,
    with_pedestal,
)
from napari_txm_bgcorr.errors import ReadError, WriteError
from napari_txm_bgcorr.io.guard import reading, writing
from napari_txm_bgcorr.io.json_file import read_json, write_json
from napari_txm_bgcorr.io.readers.dispatch import read
from napari_txm_bgcorr.io.record import KEY

__all__ = ["FinishedOutput", "Patch", "holds_tiles", "open_finished"]

_BLOSC = Blosc(cname="lz4", clevel=1, shuffle=Blosc.SHUFFLE)  # as the writer's chunks
_RECORDS = ("zarr.json", "provenance.json")
_FIELDS = {
    "background": "background",
    "corrected": "transmission",
    "mask": "valid",
    "uncertainty": "uncertainty",
}


@dataclass(frozen=True, eq=False)
class FinishedOutput:
    """A finished output, opened by `open_finished`.

    Attributes
    ----------
    path : Path
        The store or folder.
    scan : Scan
        Raw tiles; references and darks of the original source where it is still at hand.
    background, corrected : (T, Y, X) lazy float32
        Counts with the dark included, and transmission.
    mask : (T, Y, X) lazy uint8 or None
        1 where the correction is valid.
    uncertainty : (T, Y, X) lazy float32 or None
        Standard deviation of the log background; NaN where nothing states it.
    provenance : mapping
    raw_source : Source
        The files that the raw tiles are read from.
    """

    path: Path
    scan: Scan
    background: TileArray
    corrected: TileArray
    mask: TileArray | None
    uncertainty: TileArray | None
    provenance: Mapping[str, Any]
    raw_source: Source


def open_finished(path: Path) -> FinishedOutput:
    """Open a finished output of `txm-bgcorr correct`: OME-Zarr, OME-TIFF or folders of TIFFs.

    The raw tiles are taken from the output, or else from the source that it names. Files that
    cannot be found any more cost the darks and references, which the output does not hold.

    Parameters
    ----------
    path : Path
        The store or folder, or one of its parts.

    Raises
    ------
    ReadError
        If it is no such output, or background, corrected or raw tiles are missing.
    """
    part = path.name.removesuffix(".ome.tif") in ("raw", *_FIELDS)
    store = path.parent if part else path
    provenance = _provenance(store, path)
    places = {role: place for role in ("raw", *_FIELDS) if (place := _place(store, role))}
    missing = [role for role in ("background", "corrected") if role not in places]
    if missing:
        raise ReadError(
            f"{store}: {missing[0]} is missing; correct with --save raw,background,corrected"
        )
    source = _source(provenance)
    tiles = {role: read(place) for role, place in places.items()}
    corrected = tiles["corrected"]
    scan = tiles.get("raw", source)
    if scan is None or not _same_tiles(scan, corrected):
        raise ReadError(f"{store}: raw tiles are missing; correct with --save raw or restore them")
    if source is not None and tuple(source.tiles.shape[1:]) == tuple(scan.tiles.shape[1:]):
        scan = _with_references(replace(scan, darks=source.darks), References.of(source))
    raw_source = scan.source
    # Grid and places as they were in the correction. Its many files are not to be hashed again:
    # the provenance has the original's hash.
    references = References.of(scan)
    scan = replace(
        corrected,
        tiles=scan.tiles,
        darks=scan.darks,
        source=Source(store, scan.source.format),
        provenance=None,
    )
    scan = _with_dark(_with_references(scan, references), provenance)
    mask, sd = (tiles[n].tiles if n in tiles else None for n in ("mask", "uncertainty"))
    return FinishedOutput(
        store, scan, tiles["background"].tiles, corrected.tiles, mask, sd, provenance, raw_source
    )


def holds_tiles(place: Path) -> bool:
    """Tell whether a place is an output of corrected tiles, and no stitched picture."""
    try:
        _provenance(place, place)
    except ReadError:
        return False
    return True


def is_record(path: Path) -> bool:
    """Tell whether a file is named like the record of an output."""
    return path.name in _RECORDS


def recorded_config(path: Path) -> Mapping[str, Any]:
    """Options that an output was made with, as its record holds them.

    Parameters
    ----------
    path : Path
        The store or folder, one of its parts, or its record.

    Raises
    ------
    ReadError
        If it is no output of this program, or of a version that did not keep them.
    """
    inside = path.name.removesuffix(".ome.tif") in ("raw", *_FIELDS) or is_record(path)
    provenance = _provenance(path.parent if inside else path, path)
    found = provenance.get("config")
    if not isinstance(found, dict):
        raise ReadError(
            f"{path}: its record has no options; it was made by an earlier version of this program"
        )
    if not found:
        raise ReadError(
            f"{path}: made of arrays or layers in memory; it cannot be repeated from its record"
        )
    if provenance.get("redone"):
        raise ReadError(
            f"{path}: some of its tiles were redone by another method; give --config a file, and "
            "redo these tiles again"
        )
    return found


def _with_references(scan: Scan, references: References | None) -> Scan:
    return scan if references is None else references.attach(scan)


def _with_dark(scan: Scan, provenance: Mapping[str, Any]) -> Scan:
    """The dark that was read behind the aperture, if it was that one."""
    wanted = provenance.get("darks_sha256")
    if scan.dark() is not None or not wanted:
        return scan
    known, _ = with_pedestal(scan, least=ASKED)
    return known if pixels_sha256(known.darks) == wanted else scan


def _provenance(store: Path, given: Path) -> Mapping[str, Any]:
    """Provenance, from the output's own record."""
    record = next((store / n for n in _RECORDS if (store / n).is_file()), None)
    if record is None:
        raise ReadError(
            f"{given}: no output of txm-bgcorr correct; give the folder or .ome.zarr that it wrote"
        )
    content = read_json(record)
    attributes = content.get("attributes")
    block = content.get(KEY) or (attributes.get(KEY) if isinstance(attributes, dict) else None)
    if not isinstance(block, dict) or not isinstance(block.get("provenance"), dict):
        raise ReadError(
            f"{store}: {record.name}: no {KEY} record; give the OUT of txm-bgcorr correct"
        )
    if block.get("stitched"):
        raise ReadError(f"{store}: a stitched picture; give the output that it was made of")
    found: Mapping[str, Any] = block["provenance"]
    return found


def _place(store: Path, role: str) -> Path | None:
    """Path of one part of an output; None: the part was not saved."""
    return next((p for p in (store / role, store / f"{role}.ome.tif") if p.exists()), None)


def _same_tiles(scan: Scan, other: Scan) -> bool:
    return scan.tiles.shape == other.tiles.shape and scan.names == other.names


def _source(provenance: Mapping[str, Any]) -> Scan | None:
    """The scan that was corrected, where it can still be read."""
    path = Path(str(provenance.get("source_path", "")))
    try:
        return read(path) if path.is_absolute() and path.exists() else None
    except ReadError:
        return None


class Patch:
    """Replaces tiles of a finished output; other tiles and the raw ones are not touched.

    Each chunk is written under another name and then renamed. The output's record names the
    tiles before the first is replaced, and is marked as complete after the last.

    Parameters
    ----------
    output : FinishedOutput
    tiles : sequence of int
        That will be replaced.
    provenance : mapping
        JSON-ready: by what.

    Raises
    ------
    ReadError, WriteError
        If the store is laid out otherwise than this program does, or cannot be written.
    """

    def __init__(
        self, output: FinishedOutput, tiles: Sequence[int], provenance: Mapping[str, Any]
    ) -> None:
        if not (output.path / "zarr.json").is_file():
            raise WriteError(
                f"{output.path}: tiles of TIFF files are not replaced; correct to OME-Zarr"
            )
        self.output = output
        self.roles = [role for role in _FIELDS if (output.path / role).is_dir()]
        self._levels = {role: _levels(output.path / role, output.scan) for role in self.roles}
        plain = json.loads(json.dumps(dict(provenance), default=str))
        self._entry = {"tiles": sorted(int(i) for i in tiles), **plain, "complete": False}
        self._wanted, self._written = set(self._entry["tiles"]), set[int]()
        self._previous = [
            entry
            for entry in output.provenance.get("redone", [])
            if entry.get("complete") or not self._wanted >= set(entry.get("tiles", []))
        ]
        self._record()

    def write(self, result: TileResult) -> None:
        """Replace one tile.

        Raises
        ------
        WriteError
            If the tile is not among those announced, is of another size, or cannot be written.
        """
        index, shape = int(result.index), tuple(self.output.scan.tiles.shape[1:])
        if index not in self._wanted or result.transmission.shape != shape:
            raise WriteError(f"{self.output.path}: tile {index}: not among those to replace")
        for role in self.roles:
            plane = np.asarray(getattr(result, _FIELDS[role]))
            if role == "uncertainty" and result.uncertainty is None:  # the old one holds no more
                plane = np.full(shape, np.nan, np.float32)
            for level, kind in enumerate(self._levels[role]):
                plane = plane.astype(kind) if level == 0 else _halved(plane)
                self._replace(self.output.path / role / str(level), index, plane)
        self._written.add(index)

    def _replace(self, array: Path, index: int, plane: NDArray[Any]) -> None:
        chunk = array / "c" / str(index) / "0" / "0"
        new = chunk.with_name(chunk.name + f".new-{os.getpid()}")
        little = np.ascontiguousarray(plane, plane.dtype.newbyteorder("<"))
        with writing(chunk):
            chunk.parent.mkdir(parents=True, exist_ok=True)
            try:
                new.write_bytes(_BLOSC.encode(little))
                replace_file(new, chunk)
            finally:
                discard(new)

    def close_complete(self) -> None:
        """Mark the record as complete.

        Raises
        ------
        WriteError
            If tiles are missing.
        """
        missing = self._wanted - self._written
        if missing:
            raise WriteError(
                f"{self.output.path}: {len(missing)} tiles not replaced; run the same again"
            )
        self._entry["complete"] = True
        self._record()

    def _record(self) -> None:
        """Write the record of redone tiles into the store and each of its images."""
        store = self.output.path
        files = [store / "zarr.json", *(store / role / "zarr.json" for role in self.roles)]
        with writing(store):
            for file in files:
                content = read_json(file)
                block = content["attributes"][KEY]
                block["provenance"]["redone"] = [*self._previous, self._entry]
                write_json(file, content)


def _levels(image: Path, scan: Scan) -> list[np.dtype[Any]]:
    """Pixel type of each level of an image, after checking that one chunk holds one tile."""
    out = []
    with reading(image, "Zarr"):
        for folder in sorted(p for p in image.iterdir() if p.name.isdigit()):
            array = read_json(folder / "zarr.json")
            shape = [int(n) for n in array["shape"]]
            chunk = array["chunk_grid"]["configuration"]["chunk_shape"]
            codecs = [codec["name"] for codec in array["codecs"]]
            if shape[0] != len(scan) or chunk != [1, *shape[1:]] or codecs != ["bytes", "blosc"]:
                raise ReadError(
                    f"{folder}: not one chunk a tile; only outputs of this program can be changed"
                )
            out.append(np.dtype(array["data_type"]))
    return out


def _halved(plane: NDArray[Any]) -> NDArray[Any]:
    """Mean of 2 x 2 pixels, as `write_zarr` makes its second level."""
    from . import zarr as write_zarr

    return write_zarr._halved(plane)
