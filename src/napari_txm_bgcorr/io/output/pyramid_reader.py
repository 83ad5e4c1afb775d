"""Stitched mosaics read back, level by level and lazily: what viewers show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.guard import reading
from napari_txm_bgcorr.io.record import KEY

__all__ = ["Pyramid", "open_pyramid"]

_PARTS = ("raw", "background", "corrected")


@dataclass(frozen=True, eq=False)
class Pyramid:
    """A stitched mosaic in an OME-Zarr store.

    Attributes
    ----------
    path : Path
    levels : mapping of str to tuple of zarr.Array
        For each part its levels `(H, W)`, the finest first; each halves the one before it.
        Unknown pixels are NaN, in integer (raw) parts 0.
    pixel_nm : float or None
        Of the finest level.
    names : tuple of str
        Of the tiles.
    corners_px : (T, 2) int64
        Top left pixel (y, x) of each tile at the finest level.
    tile_px : (Y, X)
        Size of a tile.
    domain : {"transmission", "od"}
        Of the corrected part.
    provenance : mapping
        Of the correction.
    """

    path: Path
    levels: Mapping[str, tuple[Any, ...]]
    pixel_nm: float | None
    names: tuple[str, ...]
    corners_px: NDArray[np.int64]
    tile_px: tuple[int, int]
    domain: str
    provenance: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the mosaic."""
        height, width = next(iter(self.levels.values()))[0].shape
        return int(height), int(width)

    def tile_at(self, y: float, x: float) -> int | None:
        """Tile whose middle is nearest to a pixel, among those that hold it; None outside."""
        size = np.asarray(self.tile_px)
        inside = ((self.corners_px <= (y, x)) & ((y, x) < self.corners_px + size)).all(axis=1)
        if not inside.any():
            return None
        middle = self.corners_px + size / 2
        away = np.where(inside, np.hypot(middle[:, 0] - y, middle[:, 1] - x), np.inf)
        return int(np.argmin(away))


def open_pyramid(path: str | Path) -> Pyramid:
    """Open a stitched mosaic; nothing but metadata is read.

    Parameters
    ----------
    path : str or Path
        Store written by `stitch` in the format ``omezarr``.

    Raises
    ------
    ReadError
        If it is no such store.
    """
    where = Path(path)
    if not (where / "zarr.json").is_file():
        raise ReadError(f"{where}: no stitched OME-Zarr mosaic; give one made by stitch")
    with reading(where, "stitched mosaic"):
        root = zarr.open_group(where, mode="r")
        facts: Mapping[str, Any] = root.attrs.asdict()
        if "stitched" not in facts.get(KEY, {}):
            raise ReadError(f"{where}: not stitched; stitch it first")
        levels: dict[str, tuple[Any, ...]] = {}
        block: Mapping[str, Any] = {}
        for part in _PARTS:
            if part not in root:
                continue
            attributes: Mapping[str, Any] = root[part].attrs.asdict()
            block = attributes[KEY]
            datasets = attributes["ome"]["multiscales"][0]["datasets"]
            levels[part] = tuple(root[f"{part}/{one['path']}"] for one in datasets)
        stitched, record = block["stitched"], block["scan"]
        height, width = (int(n) for n in stitched["tile_px"])
        return Pyramid(
            path=where,
            levels=levels,
            pixel_nm=record["pixel_nm"],
            names=tuple(str(name) for name in record["names"]),
            corners_px=np.asarray(stitched["corners_px"], np.int64).reshape(-1, 2),
            tile_px=(height, width),
            domain=str(stitched["as"]),
            provenance=dict(block["provenance"]),
        )
