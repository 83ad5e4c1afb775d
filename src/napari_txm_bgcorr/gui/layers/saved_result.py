"""Finished outputs on disk, opened again: results like those of the running session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import LazyTiles, TileArray, TileResult, pixels_sha256
from napari_txm_bgcorr.errors import ReadError, TxmError
from napari_txm_bgcorr.io.output import FinishedOutput, open_finished
from napari_txm_bgcorr.quality import trusted

from .canvas import CachedTiles
from .convert import LayerTuple, result_layers, scan_layer
from .outputs import parts, result_name
from .result import IN_MEMORY_BYTES, Result, allocate

__all__ = ["OpenedResult", "Revised", "open_result", "saved_result"]

PLACE = ("scale", "units", "axis_labels")
NO_DARK = (
    "The dark image of the correction was not found: figures of raw tiles and backgrounds "
    "include the pedestal."
)
OTHER_DARK = (
    "The dark images at hand are not those of this correction: a tile corrected again would not "
    "fit the others. Correct the raw layer again instead."
)


class Revised(LazyTiles):
    """Tiles on disk `(T, Y, X)` float32, of which some are replaced here and not there.

    Parameters
    ----------
    tiles : (T, Y, X) array-like
    """

    def __init__(self, tiles: TileArray) -> None:
        cached = CachedTiles(tiles)
        shape = tuple(int(n) for n in tiles.shape)
        self._few: dict[int, NDArray[np.float32]] = {}
        self._room: NDArray[np.float32] | None = None
        self.replaced = np.zeros(shape[0], bool)

        def read(i: int) -> NDArray[Any]:
            if not self.replaced[i]:
                return np.asarray(cached[i], np.float32)
            return self._few[i] if self._room is None else self._room[i]

        super().__init__(shape, np.float32, read)  # type: ignore[arg-type]

    def __setitem__(self, i: int, tile: NDArray[np.float32]) -> None:
        """Replace a tile.

        Raises
        ------
        WriteError
            If the temporary folder is full.
        """
        if self._room is None and sum(t.nbytes for t in self._few.values()) > IN_MEMORY_BYTES:
            room = allocate(self.shape, np.float32)
            for k, kept in self._few.items():
                room[k] = kept
            self._room = room
            self._few.clear()
        if self._room is None:
            self._few[i] = np.array(tile, np.float32)
        else:
            self._room[i] = tile
        self.replaced[i] = True


class OpenedResult(Result):
    """A finished output on disk; its tiles are read when they are looked at.

    Nothing on the disk is changed: tiles that are corrected again live until napari is closed,
    or are saved elsewhere.

    Parameters
    ----------
    output : io.output.FinishedOutput
    name : str
        Shared by its layers.

    Attributes
    ----------
    path : Path
        The output.
    fixed : str
        Why no tile can be corrected again; empty where that can be.
    """

    def __init__(self, output: FinishedOutput, name: str) -> None:
        self.path, self._output = output.path, output
        self._known = np.zeros(len(output.scan), bool)
        super().__init__(output.scan, name)
        self._dark = output.scan.dark()
        self.done[:] = True
        if output.uncertainty is not None:
            self.uncertainty.take_stored(output.uncertainty)
        self._redone = [*output.provenance.get("redone", [])]
        self.finish(output.provenance)
        if self._dark is None and output.provenance.get("darks_sha256"):
            self.notes.append(NO_DARK)
        self.fixed = self._look_at_darks()
        self.original = replace(self.scan, source=output.raw_source)
        self._raw_layer, pyramid = scan_layer(self.original, "raw", name)
        if pyramid is not None:
            self._pyramids.append(("raw", pyramid))

    def _look_at_darks(self) -> str:
        """Say why tiles cannot be redone: what is dark now is not what was dark then."""
        now = pixels_sha256(self.scan.darks)
        return "" if now == self._output.provenance.get("darks_sha256") else OTHER_DARK

    def _stores(self) -> tuple[Any, Any]:
        return Revised(self._output.background), Revised(self._output.corrected)

    def tile(self, i: int) -> TileResult:
        """Read one tile."""
        if self.corrected.replaced[i]:
            return super().tile(i)
        raw = np.asarray(self.scan.tiles[i])
        background, transmission = self.background[i], self.corrected[i]
        mask = self._output.mask
        valid = (
            trusted(raw, background, transmission, self._dark)
            if mask is None
            else np.asarray(mask[i]) > 0
        )
        return TileResult(i, raw, background, transmission, valid)

    def valid(self, i: int) -> NDArray[np.bool_]:
        """Pixels of a tile that can be trusted, (Y, X) bool; looked up once.

        Of a tile that cannot be read all: drawing it says so.
        """
        if not (self._known[i] or self.corrected.replaced[i]):
            try:
                self._note(self.tile(i))
            except TxmError:
                return np.ones(self.scan.tiles.shape[1:], bool)
        return super().valid(i)

    def _note(self, tile: TileResult) -> None:
        """Keep what the disk tells; a tile that was replaced meanwhile knows better."""
        if not self.corrected.replaced[tile.index]:
            self._valid[tile.index] = np.packbits(tile.valid)
            self._known[tile.index] = True

    def fill(self) -> Iterator[int]:
        """Draw every tile on the overviews, one for each step of the iterator."""
        if any(pyramid.coarse for _, pyramid in self._pyramids):
            for i in range(len(self)):
                tile = self.tile(i)
                self._note(tile)
                self.draw(tile)
                yield i

    def layers(self) -> list[LayerTuple]:
        """Raw, background and corrected layer."""
        arguments = self._raw_layer[1]
        place = {key: arguments[key] for key in PLACE if key in arguments}
        return [self._raw_layer, *result_layers(self, place, arguments["contrast_limits"])]


def open_result(path: Path) -> OpenedResult:
    """Open a finished output, or one of its parts.

    Raises
    ------
    ReadError
        If it is none, or tiles are missing in it.
    """
    output = open_finished(path)
    return OpenedResult(output, result_name(output.path))


def saved_result(path: Path) -> OpenedResult | None:
    """Open a saved result that has all that belongs to one; None for anything else."""
    roles = {role for _, role, _ in parts(path)}
    if not {"background", "corrected"} <= roles:
        return None
    try:
        return open_result(path)
    except ReadError:  # its parts may be readable one by one
        return None
