"""The parts of a result written by `correct`: raw, background, corrected tiles and mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core import Scan, lit_field, optical_density, saturated
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.guard import reading
from napari_txm_bgcorr.io.readers.dispatch import read
from napari_txm_bgcorr.mosaic import FILLED, UNKNOWN, VALID, Status

__all__ = ["DOMAINS", "TileParts", "open_parts"]

Image = NDArray[np.float32]

_PARTS = ("raw", "background", "corrected", "mask")
DOMAINS = ("transmission", "od")
"""What a corrected mosaic is blended and written in: transmission, or optical density."""


@dataclass(frozen=True, eq=False)
class TileParts:
    """The tiles of one result, part by part.

    Attributes
    ----------
    path : Path
        Store or folder.
    scans : mapping of str to Scan
        Some of ``raw``, ``background``, ``corrected``, ``mask``; equal in number and size.
    provenance : mapping
        Of the corrected tiles.
    """

    path: Path
    scans: Mapping[str, Scan]
    provenance: Mapping[str, Any]

    @property
    def corrected(self) -> Scan:
        """The corrected tiles, which every result to be stitched has."""
        return self.scans["corrected"]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        _, y, x = self.corrected.tiles.shape
        return int(y), int(x)

    def load(
        self, i: int, parts: Sequence[str], domain: str = "transmission"
    ) -> tuple[Status, dict[str, NDArray[Any]]]:
        """Read one tile.

        Parameters
        ----------
        i : int
        parts : sequence of str
            Of them, pixels are given.
        domain : {"transmission", "od"}
            Of the corrected part.

        Returns
        -------
        status : (Y, X) uint8
            See `mosaic.blending.VALID`.
        planes : dict of str to (Y, X)
            Finite.
        """
        corrected = np.asarray(self.corrected.tiles[i], np.float32)
        raw = self._plane("raw", i, parts)
        background = self._plane("background", i, parts)
        status = self._status(corrected, raw, background, i)
        planes: dict[str, NDArray[Any]] = {}
        for part, plane in (("raw", raw), ("background", background), ("corrected", corrected)):
            if part in parts and plane is not None:
                od = part == "corrected" and domain == "od"
                planes[part] = optical_density(plane) if od else plane
        for part, plane in planes.items():
            finite = np.isfinite(plane)
            if not finite.all():
                status = np.where(finite, status, np.uint8(UNKNOWN))
                planes[part] = np.where(finite, plane, plane.dtype.type(0))
        return status, planes

    def _plane(self, part: str, i: int, parts: Sequence[str]) -> NDArray[Any] | None:
        """Raw or background where they are asked for, or tell what is valid."""
        if part not in self.scans or (part not in parts and "mask" in self.scans):
            return None
        return np.asarray(self.scans[part].tiles[i])

    def _status(
        self,
        corrected: Image,
        raw: NDArray[Any] | None,
        background: NDArray[Any] | None,
        i: int,
    ) -> Status:
        """Trust in each pixel: by the mask, else by raw and background, else by the filling.

        The correction fills isolated bad pixels from their neighbours and saturated ones with
        their bound (`FILLED` here), and everything else that it cannot know with exactly 1.
        """
        one = corrected == np.float32(1)
        finite = np.isfinite(corrected)
        status: Status = np.full(corrected.shape, VALID, np.uint8)
        if "mask" in self.scans:
            bad = np.asarray(self.scans["mask"].tiles[i]) == 0
            status[bad] = FILLED
            status[(bad & one) | ~finite] = UNKNOWN
            return status
        if raw is not None:
            status[saturated(raw, None) | (raw <= 0)] = FILLED
        if background is not None:
            status[~lit_field(background)] = UNKNOWN
        elif _corner_is(one):
            status[ndimage.binary_opening(one, np.ones((3, 3), bool))] = UNKNOWN
        status[~finite] = UNKNOWN
        return status


def _corner_is(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[0, 0] or mask[0, -1] or mask[-1, 0] or mask[-1, -1])


def open_parts(path: str | Path) -> TileParts:
    """Open a result of `correct`: OME-Zarr store, folder of TIFF tiles or of OME-TIFF stacks.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ReadError
        If it is no such result, holds no corrected tiles, or its parts do not fit together.
    """
    where = Path(path)
    with reading(where, "path"):
        where.stat()
    found: dict[str, Path] = {}
    for part in _PARTS:
        for place in (where / f"{part}.ome.tif", where / part):
            if place.exists():
                found[part] = place
    if "corrected" not in found:
        raise ReadError(
            f"{where}: no corrected tiles in it; give a result of `txm-bgcorr correct` "
            "saved with its corrected part"
        )
    scans = {part: read(place) for part, place in found.items()}
    corrected = scans["corrected"]
    provenance = corrected.provenance
    if provenance is None:
        raise ReadError(f"{where}: corrected by another program; correct the raw tiles first")
    if provenance.get("stitched"):
        raise ReadError(f"{where}: stitched already; give the result with the single tiles")
    for part, scan in scans.items():
        if tuple(scan.tiles.shape) != tuple(corrected.tiles.shape):
            raise ReadError(
                f"{where}: {part} tiles {tuple(scan.tiles.shape)}, corrected ones "
                f"{tuple(corrected.tiles.shape)}; correct the raw tiles again"
            )
    return TileParts(where, scans, provenance)
