"""Pictures and places of a whole mosaic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import Scan, TileArray

__all__ = ["blend", "registered"]

Image = NDArray[np.float32]
Floats = NDArray[np.float64]


def registered(scan: Scan, described: Mapping[str, Any]) -> Scan:
    """A scan at the places that a fitted method has found; unchanged where it has found none.

    Parameters
    ----------
    scan : Scan
    described : mapping
        What the fitted method says of itself. Places are to 0.01 px there: what is finer
        differs from machine to machine.
    """
    stage = described.get("joint")
    if not isinstance(stage, Mapping) or len(stage.get("positions_px", ())) != len(scan):
        return scan
    places = np.asarray(stage["positions_px"], np.float64)
    return replace(scan, positions_px=places, notes=(*scan.notes, str(stage["registration"])))


def blend(
    tiles: TileArray,
    positions_px: Floats,
    valid: TileArray | None = None,
) -> Image:
    """Put tiles into one picture, feathered linearly towards their edges.

    Parameters
    ----------
    tiles : (T, Y, X) float32
        Transmissions.
    positions_px : (T, 2) float64
        Top left corners, rounded to whole pixels.
    valid : (T, Y, X) bool or None
        Pixels to leave out.

    Returns
    -------
    (H, W) float32
        Weights sum to 1 wherever a tile is; NaN where none is.
    """
    corners = np.rint(positions_px - positions_px.min(axis=0)).astype(int)
    rows, columns = (int(n) for n in tiles.shape[1:])
    total = np.zeros((corners[:, 0].max() + rows, corners[:, 1].max() + columns), np.float32)
    mass = np.zeros_like(total)
    ramps = [np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) for n in (rows, columns)]
    feather = (ramps[0][:, None] * ramps[1] / (rows * columns)).astype(np.float32)
    for i, (y, x) in enumerate(corners.tolist()):
        weight = feather if valid is None else feather * valid[i]
        part = np.s_[y : y + rows, x : x + columns]
        total[part] += weight * np.where(weight > 0, tiles[i], 0)
        mass[part] += weight
    out: Image = np.where(mass > 0, total / np.maximum(mass, 1e-12), np.nan).astype(np.float32)
    return out
