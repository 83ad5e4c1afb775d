"""Background and transmission of every tile that a run has produced so far, and their pictures."""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_txm_bgcorr.core import BackgroundMethod, LazyTiles, Scan, TileResult
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io.output import TileParts
from napari_txm_bgcorr.mosaic import VALID

from .blending import BlendedArray, BlendedTiles, Growing
from .canvas import (
    LAZY_STEPS,
    CachedTiles,
    CanvasLayout,
    MosaicArray,
    StackArray,
    paste,
    reduce_tile,
)
from .corners import LOOKS, Corners
from .uncertainty import StatedUncertainty

__all__ = [
    "IN_MEMORY_BYTES",
    "PicturePyramid",
    "Result",
    "allocate",
    "raw_picture",
    "saved_picture",
]

IN_MEMORY_BYTES = 256 * 2**20
SPARE_BYTES = 512 * 2**20


def allocate(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Allocate an array for results: in memory, or in a temporary file if it is large.

    The file has no name where the system allows it, so it vanishes with the last picture that
    shows it, or with the process.

    Raises
    ------
    WriteError
        If the temporary folder is full.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY_BYTES:
        return np.zeros(shape, dtype)
    folder = tempfile.gettempdir()
    room = shutil.disk_usage(folder).free
    if room < size + SPARE_BYTES:
        raise WriteError(
            f"{folder}: {room / 1e9:.1f} GB free, {size / 1e9:.1f} GB needed for the results; "
            "free some space or set TMPDIR to a larger disk"
        )
    try:
        with tempfile.TemporaryFile(prefix="txm-bgcorr-") as file:
            if hasattr(os, "posix_fallocate"):
                # A hole in the file would be found out by a bus error when the disk is full.
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.dtype(dtype), "w+", shape=shape)
    except OSError as error:
        raise WriteError(
            f"{folder}: cannot keep {size / 1e9:.1f} GB of results: {error.strerror}; "
            "set TMPDIR to a larger disk"
        ) from error


class PicturePyramid:
    """The canvas of a mosaic at several sizes, put together on demand or tile by tile.

    The two finest levels are read from the tiles when shown; the coarser ones are kept in
    memory and grow with `put`.

    Parameters
    ----------
    tiles : (T, Y, X) array-like
    layout : CanvasLayout
    done : (T,) bool or None
        Tiles that may be shown; None for all.
    gap : float
        Value where no tile is yet.
    owner : object
        See `canvas.Picture`.
    blend : BlendedTiles or None
        How tiles share their overlaps; None: later tiles lie over earlier ones.
    """

    def __init__(
        self,
        tiles: Any,
        layout: CanvasLayout,
        *,
        done: NDArray[np.bool_] | None = None,
        gap: float = 0.0,
        owner: Any = None,
        blend: BlendedTiles | None = None,
    ) -> None:
        self.tiles, self.layout, self.gap = tiles, layout, gap
        self.steps = layout.steps()
        self.coarse = {
            step: np.full(layout.level_shape(step), gap, tiles.dtype)
            for step in self.steps
            if step not in LAZY_STEPS
        }
        self._growing = None if blend is None else Growing(tiles, blend, self.coarse)
        more = {"done": done, "fill": lambda: self.gap, "owner": owner}
        lazy = {
            step: MosaicArray(tiles, layout, step=step, **more)
            if blend is None
            else BlendedArray(tiles, blend, step=step, **more)
            for step in self.steps
            if step in LAZY_STEPS
        }
        self.levels: list[Any] = [{**lazy, **self.coarse}[step] for step in self.steps]

    @property
    def data(self) -> Any:
        """Data of a napari layer: one array, or a list of levels."""
        return self.levels if len(self.levels) > 1 else self.levels[0]

    def put(self, i: int, tile: NDArray[Any]) -> None:
        """Draw tile `i` on the levels that are kept in memory."""
        if self._growing is not None:
            self._growing.put(i, tile)
            return
        corner = self.layout.corners[i]
        for step, canvas in self.coarse.items():
            paste(canvas, reduce_tile(tile, corner, step), -(-corner // step))

    def fill(self) -> Iterator[int]:
        """Draw every tile on the coarse levels, one for each step of the iterator."""
        if self.coarse:
            for i in range(len(self.layout.corners)):
                self.put(i, self.tiles[i])
                yield i

    def close_gaps(self) -> None:
        """Show zero where there is no tile."""
        self.gap = 0.0
        for canvas in self.coarse.values():
            np.nan_to_num(canvas, copy=False)


def raw_picture(scan: Scan) -> tuple[Any, PicturePyramid | None]:
    """Raw counts as napari shows them, and the pyramid still to be filled, if there is one."""
    if scan.kind == "mosaic":
        pyramid = PicturePyramid(CachedTiles(scan.tiles), CanvasLayout.of(scan), owner=scan)
        return pyramid.data, pyramid
    return StackArray(scan.tiles, flat=scan.kind == "single", owner=scan), None


def saved_picture(scan: Scan) -> tuple[Any, PicturePyramid | None]:
    """Saved transmissions as napari shows them; what may be trusted is told by them alone."""
    if scan.kind != "mosaic" or np.dtype(scan.tiles.dtype).kind != "f":
        return raw_picture(scan)
    tiles = CachedTiles(scan.tiles)
    source = TileParts(scan.source.path, {"corrected": replace(scan, tiles=tiles)}, {})
    shape = tuple(int(n) for n in scan.tiles.shape)
    trusted = LazyTiles(shape, bool, lambda i: source.load(i, ())[0] == VALID)  # type: ignore[arg-type]
    corners = Corners(source)
    corners.look(np.ones(len(scan), bool))
    blend = BlendedTiles(CanvasLayout.of(scan), CachedTiles(trusted).__getitem__, corners)
    pyramid = PicturePyramid(tiles, blend.layout, owner=scan, blend=blend)
    return pyramid.data, pyramid


class Result:
    """Backgrounds and transmissions of a scan, filled tile by tile by the worker.

    Attributes
    ----------
    scan : Scan
        Scan that is corrected, with the references used.
    name : str
        Name shared by the layers.
    original : Scan
        As it was given; `scan` has registered positions once they are found.
    registered : bool
        Whether the tiles lie where they were found to lie, not where the stage said.
    method : BackgroundMethod or None
        Method that made it, if known.
    notes : list of str
        Remarks for the user.
    doubts : list of str
        Warnings that the data lie outside the range of the model that made it.
    pictures : dict
        Data of the layers, by role; `relocate` makes new ones.
    done : (T,) bool
        Tiles that are there.
    background, corrected : (T, Y, X) float32
        Counts, and transmission; zero where not done.
    uncertainty : StatedUncertainty
        Of the background of each tile, as far as what made it says so.
    provenance : mapping or None
        Known when the run has ended.
    """

    def __init__(self, scan: Scan, name: str) -> None:
        shape = tuple(int(n) for n in scan.tiles.shape)
        self.scan = self.original = scan
        self.name, self.registered = name, False
        self.method: BackgroundMethod | None = None
        self.notes: list[str] = []
        self.doubts: list[str] = []
        self.done = np.zeros(shape[0], bool)
        self.uncertainty = StatedUncertainty(shape)  # type: ignore[arg-type]
        self.background, self.corrected = self._stores()
        self._valid = np.zeros((shape[0], -(-shape[1] * shape[2] // 8)), np.uint8)
        self._pyramids: list[tuple[str, PicturePyramid]] = []
        self._corners = Corners(self._parts())
        self._gap = math.nan  # napari shows NaN as transparent: the raw data stay in sight
        self._unsynced = 0
        self._redone: list[dict[str, Any]] = []
        self.provenance: Mapping[str, Any] | None = None
        self.pictures = self._make_pictures()

    def _stores(self) -> tuple[Any, Any]:
        """Arrays for backgrounds and transmissions `(T, Y, X)` float32."""
        shape = tuple(int(n) for n in self.scan.tiles.shape)
        return allocate(shape, np.float32), allocate(shape, np.float32)

    def __len__(self) -> int:
        return len(self.done)

    @property
    def complete(self) -> bool:
        """True once every tile is there."""
        return bool(self.done.all())

    def put(self, result: TileResult) -> None:
        """Take in one tile."""
        i, new = result.index, not self.done[result.index]
        self.background[i] = result.background
        self.corrected[i] = result.transmission
        self._valid[i] = np.packbits(result.valid)
        self.done[i] = True
        self.draw(result)
        if new and int(self.done.sum()) in LOOKS:
            self._look_for_corners()
        self._release(2 * result.background.nbytes)

    def draw(self, result: TileResult) -> None:
        """Draw one tile on the pictures that are kept in memory."""
        parts = {
            "raw": result.raw,
            "background": result.background,
            "corrected": result.transmission,
        }
        for role, pyramid in self._pyramids:
            pyramid.put(result.index, parts[role])

    def _look_for_corners(self) -> None:
        """Let the blending know of corners without beam; draw anew what did not know of them."""
        if self.scan.kind == "mosaic" and self._corners.look(self.done):
            for role, pyramid in self._pyramids:
                for i in self.done.nonzero()[0].tolist() if role == "corrected" else ():
                    pyramid.put(i, self.corrected[i])

    def relocate(self, scan: Scan) -> None:
        """Take the places that were found for the tiles.

        `pictures` are new ones then, the raw tiles' among them; each tile has to be drawn
        again. The old ones live on for as long as layers show them.
        """
        self.scan, self.registered = scan, True
        self._corners.look(self.done)
        self.pictures = self._make_pictures()
        data, pyramid = raw_picture(scan)
        self.pictures["raw"] = data
        if pyramid is not None:
            self._pyramids.append(("raw", pyramid))

    def made_by(self, method: BackgroundMethod) -> None:
        """Note which method made all tiles."""
        self.method = method
        self.uncertainty.take(method)

    def refined_only(
        self, indices: Sequence[int], method: str, parameters: Mapping[str, Any]
    ) -> None:
        """Note that only some tiles were refined: the provenance will say so."""
        self.uncertainty.take(None, indices)
        self._redone.append(_redone_row(indices, method, parameters))

    def tile(self, i: int) -> TileResult:
        """Give one tile back as the correction made it."""
        return TileResult(
            index=i,
            raw=np.asarray(self.scan.tiles[i]),
            background=np.array(self.background[i]),
            transmission=np.array(self.corrected[i]),
            valid=self.valid(i),
        )

    def valid(self, i: int) -> NDArray[np.bool_]:
        """Pixels of a tile that can be trusted, (Y, X) bool."""
        height, width = (int(n) for n in self.scan.tiles.shape[1:])
        bits = np.unpackbits(self._valid[i], count=height * width)
        return bits.view(bool).reshape(height, width)

    def note_redone(
        self, indices: Sequence[int], method: str, parameters: Mapping[str, Any]
    ) -> None:
        """Note in the provenance that tiles were corrected again, and how."""
        self.uncertainty.take(None, indices)
        self._redone.append(_redone_row(indices, method, parameters))
        self.provenance = {**(self.provenance or {}), "redone": list(self._redone)}

    def finish(self, provenance: Mapping[str, Any] | None) -> None:
        """Note what was done; a complete result shows zero where the scan has no tile."""
        self.provenance = provenance
        if provenance is not None and self._redone:
            self.provenance = {**provenance, "redone": list(self._redone)}
        if self.scan.kind == "mosaic":
            self._corners.look(self.done)
        if self.complete:
            self._gap = 0.0
            for _, pyramid in self._pyramids:
                pyramid.close_gaps()

    def _parts(self) -> TileParts:
        """The tiles as stitching takes them."""
        shape = tuple(int(n) for n in self.scan.tiles.shape)
        mask = LazyTiles(shape, np.uint8, lambda i: self.valid(i).view(np.uint8))  # type: ignore[arg-type]
        stores = {"raw": self.scan.tiles, "corrected": self.corrected, "mask": mask}
        scans = {part: replace(self.scan, tiles=tiles) for part, tiles in stores.items()}
        return TileParts(self.scan.source.path, scans, {})

    def _make_pictures(self) -> dict[str, Any]:
        stores = {"background": self.background, "corrected": self.corrected}
        return {role: self._picture(role, store) for role, store in stores.items()}

    def _picture(self, role: str, store: Any) -> Any:
        if self.scan.kind == "mosaic":
            layout = CanvasLayout.of(self.scan)
            blend = (
                BlendedTiles(layout, self.valid, self._corners) if role == "corrected" else None
            )
            pyramid = PicturePyramid(
                store, layout, done=self.done, gap=self._gap, owner=self, blend=blend
            )
            self._pyramids.append((role, pyramid))
            return pyramid.data
        frames = LazyTiles(
            store.shape,
            store.dtype,
            lambda i: store[i] if self.done[i] else np.full(store.shape[1:], self._gap, "f4"),
        )
        return StackArray(frames, flat=self.scan.kind == "single", owner=self)

    def _release(self, written: int) -> None:
        """Hand written pages back to the system now and then: the file keeps them."""
        self._unsynced += written
        if self._unsynced < 64 * 2**20 or not sys.platform.startswith("linux"):
            return
        import mmap

        self._unsynced = 0
        for store in (self.background, self.corrected):
            if isinstance(store, np.memmap):
                store._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def _redone_row(
    indices: Sequence[int], method: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    row = {"tiles": sorted(int(i) for i in indices), "method": method}
    return {**row, "parameters": dict(parameters)}
