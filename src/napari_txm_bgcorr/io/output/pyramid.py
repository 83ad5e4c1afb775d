"""Sinks for stitched mosaics: a multiscale OME-Zarr or a pyramidal OME-TIFF, chunk by chunk."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from napari_txm_bgcorr.core import remove_file
from napari_txm_bgcorr.io.chunk_file import CODEC, read_chunk, write_chunk
from napari_txm_bgcorr.io.json_file import write_json
from napari_txm_bgcorr.io.multiscales import multiscales
from napari_txm_bgcorr.io.record import KEY, make_block

from .job import OutputJob

__all__ = ["PYRAMIDS", "PyramidJob", "PyramidSink", "ZarrPyramid", "level_shapes"]

Image = NDArray[np.float32]
_BIGTIFF_FROM = 2**32 - 2**26


def level_shapes(shape: tuple[int, int], least: int = 1024) -> tuple[tuple[int, int], ...]:
    """Sizes `(H, W)` of a pyramid's levels: halved until the longer side is `least` at most."""
    levels = [shape]
    while max(levels[-1]) > least:
        levels.append((-(-levels[-1][0] // 2), -(-levels[-1][1] // 2)))
    return tuple(levels)


@dataclass(frozen=True)
class PyramidJob(OutputJob):
    """A mosaic in the making.

    Attributes
    ----------
    shape : (H, W)
        Of the mosaic.
    chunk : int
        Side of a chunk (px), a multiple of 16.
    stitched : mapping
        JSON-ready: how tiles were laid out and blended.
    units : int
        Pieces of work, each noted when done.
    """

    shape: tuple[int, int] = (1, 1)
    chunk: int = 1024
    stitched: Mapping[str, Any] = field(default_factory=dict)
    units: int = 0

    @property
    def key(self) -> str:
        """Hash of everything that decides the pixels; no dates."""
        content = [super().key, list(self.shape), self.chunk, dict(self.stitched)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """Sizes of the levels, the finest first."""
        return level_shapes(self.shape, self.chunk)

    def chunks(self, level: int) -> tuple[int, int]:
        """Rows and columns of chunks at a level."""
        y, x = self.levels[level]
        return -(-y // self.chunk), -(-x // self.chunk)

    def dtype(self, role: str) -> np.dtype[Any]:
        """Raw mosaics keep the camera's integers, 0 where nothing is; all else is float32."""
        raw = np.dtype(str(self.stitched.get("raw_dtype", "float32")))
        return raw if role == "raw" and raw.kind == "u" else np.dtype(np.float32)

    def fill(self, role: str) -> float:
        """Value where nothing is known."""
        return 0.0 if self.dtype(role).kind == "u" else float("nan")

    def encode(self, role: str, image: Image) -> NDArray[Any]:
        """Pixels as they are stored, NaN being unknown."""
        dtype = self.dtype(role)
        if dtype.kind != "u":
            return image
        top = np.float32(np.iinfo(dtype).max)
        return np.clip(np.rint(np.nan_to_num(image, nan=0.0)), 0, top).astype(dtype)

    def decode(self, role: str, pixels: NDArray[Any]) -> Image:
        """Reverse of `encode`."""
        if self.dtype(role).kind != "u":
            return np.asarray(pixels, np.float32)
        out: Image = pixels.astype(np.float32)
        out[pixels == 0] = np.nan
        return out

    def part_block(self, role: str) -> dict[str, Any]:
        """Record to embed in the mosaic of one role."""
        return {**make_block(role, self.provenance, self.record), "stitched": dict(self.stitched)}

    def root_block(self) -> dict[str, Any]:
        """Record of the output as a whole."""
        block = make_block("output", self.provenance)
        return block | {
            "stitched": {k: v for k, v in self.stitched.items() if k != "corners_px"},
            "format": self.format,
            "save": list(self.save),
        }


class PyramidSink(Protocol):
    """One format, filled chunk by chunk in any order, from several threads."""

    def create(self) -> None:
        """Lay out an empty output."""

    def open(self) -> None:
        """Get ready to write and read, after `create` or in a run that goes on."""

    def write(self, role: str, level: int, at: tuple[int, int], image: Image) -> None:
        """Write chunk `at` (row, column) of a level; `image` is cut at the mosaic's edge."""

    def read(self, role: str, level: int, at: tuple[int, int]) -> Image:
        """Read a chunk that was written, cut at the mosaic's edge."""

    def close(self) -> None:
        """Let go of open files."""


def _padded(pixels: NDArray[Any], chunk: int, fill: float) -> NDArray[Any]:
    if pixels.shape == (chunk, chunk):
        return pixels
    out = np.full((chunk, chunk), fill, pixels.dtype)
    out[: pixels.shape[0], : pixels.shape[1]] = pixels
    return out


def _extent(job: PyramidJob, level: int, at: tuple[int, int]) -> tuple[int, int]:
    """Size of chunk `at` inside the mosaic."""
    (height, width), side = job.levels[level], job.chunk
    return min(side, height - at[0] * side), min(side, width - at[1] * side)


class ZarrPyramid:
    """``OUT/<role>``: multiscale OME-NGFF 0.5 images, axes y, x."""

    def __init__(self, job: PyramidJob) -> None:
        self._job = job

    def create(self) -> None:
        """Lay out groups, arrays and metadata."""
        job = self._job
        root = zarr.create_group(job.part, zarr_format=3, attributes={KEY: job.root_block()})
        for role in job.save:
            attributes = {"ome": self._ome(role), KEY: job.part_block(role)}
            group = root.create_group(role, attributes=attributes)
            for level, shape in enumerate(job.levels):
                group.create_array(
                    str(level),
                    shape=shape,
                    chunks=(job.chunk, job.chunk),
                    dtype=job.dtype(role),
                    fill_value=job.fill(role),
                    compressors=CODEC,
                    dimension_names=("y", "x"),
                )

    def _ome(self, role: str) -> dict[str, Any]:
        job = self._job
        name = f"{job.stitched.get('name', 'mosaic')} {role}"
        return multiscales(name, len(job.levels), job.scan.pixel_nm, type="mean")

    def open(self) -> None:
        """Do nothing: chunks are files of their own."""

    def _place(self, role: str, level: int, at: tuple[int, int]) -> Path:
        return self._job.part / role / str(level) / "c" / str(at[0]) / str(at[1])

    def write(self, role: str, level: int, at: tuple[int, int], image: Image) -> None:
        """Write a chunk file whole or not at all; none where nothing is known."""
        job = self._job
        if np.isnan(image).all():
            remove_file(self._place(role, level, at))
            return
        pixels = _padded(job.encode(role, image), job.chunk, job.fill(role))
        write_chunk(self._place(role, level, at), pixels)

    def read(self, role: str, level: int, at: tuple[int, int]) -> Image:
        """Read a chunk."""
        job, (y, x) = self._job, _extent(self._job, level, at)
        side = (job.chunk, job.chunk)
        pixels = read_chunk(self._place(role, level, at), side, job.dtype(role))
        if pixels is None:
            return np.full((y, x), np.nan, np.float32)
        return job.decode(role, pixels[:y, :x])

    def close(self) -> None:
        """Do nothing: no file is held open."""


class TiffPyramid:
    """``OUT/<role>.ome.tif``: tiled, not compressed, coarser levels as SubIFDs.

    Laid out whole first, so every chunk has its place before its pixels are known: chunks come
    in any order, and the disk is full before the work, not in the midst of it.
    """

    def __init__(self, job: PyramidJob) -> None:
        self._job = job
        self._offsets: dict[str, list[tuple[int, ...]]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._lock = threading.Lock()

    def create(self) -> None:
        """Lay out each file with its metadata and space for every chunk."""
        for role in self._job.save:
            self._lay_out(role)
        block = {**self._job.root_block(), "scan": self._job.record}
        write_json(self._job.part / "provenance.json", {KEY: block})

    def _lay_out(self, role: str) -> None:
        job, pixel_nm = self._job, self._job.scan.pixel_nm
        common: dict[str, Any] = {
            "dtype": job.dtype(role),
            "tile": (job.chunk, job.chunk),
            "photometric": "minisblack",
        }
        pixels = sum(int(np.prod(job.chunks(n))) for n in range(len(job.levels))) * job.chunk**2
        big = pixels * job.dtype(role).itemsize > _BIGTIFF_FROM
        with tifffile.TiffWriter(self._path(role), bigtiff=big, ome=True) as writer:
            for level, shape in enumerate(job.levels):
                size = None if pixel_nm is None else (1e7 / pixel_nm / 2**level,) * 2
                options: dict[str, Any] = {"subfiletype": 1, "metadata": None}
                if level == 0:
                    options = {
                        "subifds": len(job.levels) - 1,
                        "metadata": self._metadata(role),
                    }
                if size is not None:
                    options |= {"resolution": size, "resolutionunit": "CENTIMETER"}
                writer.write(None, shape=shape, **common, **options)

    def _metadata(self, role: str) -> dict[str, Any]:
        job, pixel_nm = self._job, self._job.scan.pixel_nm
        metadata: dict[str, Any] = {
            "axes": "YX",
            "Name": f"{job.stitched.get('name', 'mosaic')} {role}",
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{job.key} {role}")),  # same job, same
            "CommentAnnotation": {
                "Namespace": KEY,
                "Value": json.dumps({KEY: job.part_block(role)}),
            },
        }
        if pixel_nm is not None:
            for axis in "XY":
                metadata[f"PhysicalSize{axis}"] = pixel_nm / 1000
                metadata[f"PhysicalSize{axis}Unit"] = "µm"
        return metadata

    def _path(self, role: str) -> Path:
        return self._job.part / f"{role}.ome.tif"

    def open(self) -> None:
        """Find the places of all chunks and hold the files open for filling."""
        for role in self._job.save:
            with tifffile.TiffFile(self._path(role)) as tif:
                levels = tif.series[0].levels
                self._offsets[role] = [tuple(level.keyframe.dataoffsets) for level in levels]
            self._files[role] = self._path(role).open("r+b", buffering=0)

    def _offset(self, role: str, level: int, at: tuple[int, int]) -> int:
        columns = self._job.chunks(level)[1]
        return int(self._offsets[role][level][at[0] * columns + at[1]])

    def write(self, role: str, level: int, at: tuple[int, int], image: Image) -> None:
        """Put a chunk into its place."""
        job = self._job
        pixels = _padded(job.encode(role, image), job.chunk, job.fill(role))
        data = memoryview(pixels.tobytes())
        with self._lock:
            self._files[role].seek(self._offset(role, level, at))
            while data:
                data = data[self._files[role].write(data) :]

    def read(self, role: str, level: int, at: tuple[int, int]) -> Image:
        """Read a chunk."""
        job, (y, x) = self._job, _extent(self._job, level, at)
        dtype = job.dtype(role)
        count = job.chunk**2 * dtype.itemsize
        with self._lock:
            self._files[role].seek(self._offset(role, level, at))
            data = self._files[role].read(count)
        pixels = np.frombuffer(data, dtype).reshape(job.chunk, job.chunk)
        return job.decode(role, pixels[:y, :x])

    def close(self) -> None:
        """Close the files."""
        for stream in self._files.values():
            stream.close()
        self._files.clear()


def _tiff(job: PyramidJob) -> PyramidSink:
    return TiffPyramid(job)


def _zarr(job: PyramidJob) -> PyramidSink:
    return ZarrPyramid(job)


PYRAMIDS: dict[str, Callable[[PyramidJob], PyramidSink]] = {"omezarr": _zarr, "ometiff": _tiff}
"""Name of a format to its sink."""
