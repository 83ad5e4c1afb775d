"""Sinks for TIFF: one file a tile as ImageJ and Fiji read it, or one OME-TIFF a role."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_txm_bgcorr.io.json_file import write_json
from napari_txm_bgcorr.io.readers.tiff import inspect
from napari_txm_bgcorr.io.readers.tile_layout import tile_configuration_text
from napari_txm_bgcorr.io.record import KEY
from napari_txm_bgcorr.mosaic import nominal_positions

from .job import OutputJob

__all__ = ["OmeTiffSink", "TiffSink"]

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_BIGTIFF_FROM = 2**32 - 2**26  # leaves space for the page headers


class TiffSink:
    """``OUT/<role>/<tile name>.tif``, with ``TileConfiguration.txt`` where there is a grid."""

    def __init__(self, job: OutputJob) -> None:
        self._job = job
        self._names = tuple(f"{name}.tif" for name in job.names)

    def create(self) -> None:
        """Make the folders, the record of the whole and the tables of positions."""
        scan = self._job.scan
        for role in self._job.save:
            (self._job.part / role).mkdir(exist_ok=True)
            if scan.grid is not None:
                positions = nominal_positions(scan)
                table = self._job.part / role / "TileConfiguration.txt"
                table.write_text(tile_configuration_text(self._names, positions), "utf-8")
        _write_record(self._job)

    def write(self, index: int, planes: Mapping[str, NDArray[Any]]) -> None:
        """Write one file a role."""
        for role, plane in planes.items():
            path = self._job.part / role / self._names[index]
            one = len(self._job.scan) == 1
            block = self._job.block(role, whole=True) if one else self._job.tile_block(role, index)
            _write_tile(path, plane, json.dumps({KEY: block}), self._job.scan.pixel_nm)

    def finish(self) -> None:
        """Nothing is left to do."""


def _write_tile(path: Path, plane: NDArray[Any], text: str, pixel_nm: float | None) -> None:
    """Write one image with its size in micrometre and its record, for ImageJ where it can."""
    per_um = None if pixel_nm is None else (1000 / pixel_nm, 1000 / pixel_nm)
    options: dict[str, Any] = {"photometric": "minisblack"}
    if plane.dtype.name in _IMAGEJ_TYPES:
        unit = {} if per_um is None else {"unit": "micron"}
        options |= {"imagej": True, "metadata": {"Info": text, **unit}, "resolution": per_um}
    else:
        options |= {"description": text, "metadata": None}
        if per_um is not None:
            options |= {"resolution": (per_um[0] * 1e4, per_um[1] * 1e4)}
            options |= {"resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, plane, **options)


def _write_record(job: OutputJob) -> None:
    """Write ``provenance.json``: what was done and the facts of the scan."""
    write_json(job.part / "provenance.json", {KEY: job.output_block(whole=True)})


class OmeTiffSink:
    """``OUT/<role>.ome.tif``: laid out whole and empty first, then filled page by page.

    Pages are not compressed, so each has its place before its pixels are known: memory stays at
    one tile, tiles may come in any order, and an interrupted file is simply filled further.
    """

    def __init__(self, job: OutputJob) -> None:
        self._job = job
        self._paths = {role: job.part / f"{role}.ome.tif" for role in job.save}
        self._offsets: dict[str, list[int]] = {}

    def create(self) -> None:
        """Lay out each file with its metadata and space for every page."""
        for role, path in self._paths.items():
            self._lay_out(role, path)
        _write_record(self._job)

    def _lay_out(self, role: str, path: Path) -> None:
        shape, dtype = self._job.scan.tiles.shape, self._job.dtype(role)
        pixel_nm = self._job.scan.pixel_nm
        size = math.prod(shape) * dtype.itemsize + 2000 * shape[0]
        tifffile.imwrite(
            path,
            shape=shape,
            dtype=dtype,
            ome=True,
            bigtiff=size > _BIGTIFF_FROM,
            photometric="minisblack",
            resolution=None if pixel_nm is None else (1e7 / pixel_nm, 1e7 / pixel_nm),
            resolutionunit=None if pixel_nm is None else "CENTIMETER",
            metadata=self._metadata(role),
        )

    def _metadata(self, role: str) -> dict[str, Any]:
        """Axes, physical size, plane positions and record in terms of the OME model."""
        scan = self._job.scan
        block = self._job.block(role, whole=True)
        metadata: dict[str, Any] = {
            "axes": "TYX",
            "Name": f"{scan.source.path.stem} {role}",
            "CommentAnnotation": {"Namespace": KEY, "Value": json.dumps({KEY: block})},
        }
        plane: dict[str, Any] = {}
        if scan.exposure_s is not None:
            plane |= {"ExposureTime": [scan.exposure_s] * len(scan)}
            plane |= {"ExposureTimeUnit": ["s"] * len(scan)}
        if scan.pixel_nm is not None:
            pixel_um = scan.pixel_nm / 1000
            for k, axis in enumerate("YX"):
                metadata |= {f"PhysicalSize{axis}": pixel_um, f"PhysicalSize{axis}Unit": "µm"}
                if scan.positions_px is not None:
                    plane[f"Position{axis}"] = (scan.positions_px[:, k] * pixel_um).tolist()
                    plane[f"Position{axis}Unit"] = ["µm"] * len(scan)
        return metadata | ({"Plane": plane} if plane else {})

    def write(self, index: int, planes: Mapping[str, NDArray[Any]]) -> None:
        """Put one page of each file into its place."""
        for role, plane in planes.items():
            if role not in self._offsets:
                frames = inspect(self._paths[role]).frames
                self._offsets[role] = [frame.offset or 0 for frame in frames]
            with self._paths[role].open("r+b") as stream:
                stream.seek(self._offsets[role][index])
                stream.write(np.ascontiguousarray(plane).tobytes())

    def finish(self) -> None:
        """Nothing is left to do."""
