"""Tiles of a mosaic as something to see and to click: outlines, coloured cells, a marked tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .canvas import CanvasLayout

__all__ = ["cell_picture", "cells_layer", "frame", "outlines_layer", "tile_at"]

CELL_PX = 16  # least pixels along a tile in the picture of coloured cells
PICTURE_PX = 1000  # along that picture, where its cells allow it


def frame(layout: CanvasLayout, i: int) -> NDArray[np.float64]:
    """Edges of one tile as vectors.

    Returns
    -------
    (4, 2, 2) float64
        Start and direction (y, x) of each edge, pixels of the canvas.
    """
    height, width = layout.tile
    y, x = layout.corners[i] - 0.5  # napari puts the centre of the first pixel at 0
    return np.array([
        [[y, x], [0, width]],
        [[y + height, x], [0, width]],
        [[y, x], [height, 0]],
        [[y, x + width], [height, 0]],
    ], np.float64)  # fmt: skip


def outlines_layer(
    layout: CanvasLayout, place: Mapping[str, Any], name: str, indices: Sequence[int] | None = None
) -> tuple[Any, dict[str, Any], str]:
    """Lines round the tiles as a napari vectors layer.

    Parameters
    ----------
    layout : CanvasLayout
    place : mapping
        Scale, units and position of the mosaic's layers.
    name : str
    indices : sequence of int or None
        Only round these tiles.

    Returns
    -------
    (data, arguments, "vectors")
        A layer data tuple; thousands of edges draw at once, where shapes would take seconds.
    """
    chosen = range(len(layout.corners)) if indices is None else indices
    edges = [frame(layout, i) for i in chosen]
    arguments = {
        "name": name,
        "edge_color": "#ffb000",
        "edge_width": max(layout.shape) / 600,
        "vector_style": "line",
        "opacity": 0.8,
        **place,
    }
    return np.concatenate([np.empty((0, 2, 2)), *edges]), arguments, "vectors"


def tile_at(
    layout: CanvasLayout, at_px: Sequence[float] | NDArray[np.floating[Any]]
) -> int | None:
    """Tile under a place of the canvas; where tiles overlap, the one whose centre is nearest.

    Parameters
    ----------
    layout : CanvasLayout
    at_px : (y, x)
        Pixels of the canvas.

    Returns
    -------
    int or None
        None where there is no tile.
    """
    at = np.asarray(at_px, np.float64) + 0.5
    inside = np.all((at >= layout.corners) & (at < layout.corners + layout.tile), axis=1)
    if not inside.any():
        return None
    centres = layout.corners + np.asarray(layout.tile) / 2
    distance = np.where(inside, np.hypot(*(at - centres).T), np.inf)
    return int(np.argmin(distance))


def cell_picture(
    layout: CanvasLayout, values: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float32], float]:
    """Paint every tile in one value; each place takes the value of its nearest tile.

    Parameters
    ----------
    layout : CanvasLayout
    values : (T,) float
        NaN: nothing known, transparent.

    Returns
    -------
    picture : (H, W) float32
    step : float
        Pixels of the canvas along a pixel of the picture.
    """
    step = max(min(min(layout.tile) // CELL_PX, max(layout.shape) // PICTURE_PX), 1)
    shape = (layout.shape[0] // step, layout.shape[1] // step)  # nothing beyond the mosaic
    picture = np.full(shape, np.nan, np.float32)
    nearest = np.full(shape, np.inf, np.float32)
    for corner, value in zip(layout.corners, values, strict=True):
        first = corner // step
        last = np.minimum(-(-(corner + layout.tile) // step), shape)
        spans = [np.arange(a, b) for a, b in zip(first, last, strict=True)]
        away = [
            (span + 0.5) * step - start - side / 2
            for span, start, side in zip(spans, corner, layout.tile, strict=True)
        ]
        distance = np.hypot(away[0][:, None], away[1][None, :]).astype(np.float32)
        part = np.s_[first[0] : last[0], first[1] : last[1]]
        closer = distance < nearest[part]
        nearest[part] = np.where(closer, distance, nearest[part])
        picture[part] = np.where(closer, np.float32(value), picture[part])
    return picture, float(step)


def cells_layer(
    layout: CanvasLayout,
    values: NDArray[np.floating[Any]],
    place: Mapping[str, Any],
    name: str,
    limits: tuple[float, float],
) -> tuple[Any, dict[str, Any], str]:
    """Coloured cells over a mosaic as a napari image layer.

    Parameters
    ----------
    layout : CanvasLayout
    values : (T,) float
    place : mapping
        Scale, units and position of the mosaic's layers.
    name : str
    limits : (low, high)
        Values of the first and the last colour.

    Returns
    -------
    (data, arguments, "image")
    """
    picture, step = cell_picture(layout, values)
    scale = np.asarray(place.get("scale", (1.0, 1.0)), np.float64)
    shift = np.asarray(place.get("translate", (0.0, 0.0)), np.float64)
    arguments = {
        **place,
        "name": name,
        "scale": scale * step,
        # the first cell's centre lies in the middle of its `step` pixels
        "translate": shift + scale * (step - 1) / 2,
        "contrast_limits": limits,
        "colormap": "inferno",
        "opacity": 0.55,
        "blending": "translucent",
        "interpolation2d": "nearest",
        "rgb": False,
    }
    return picture, arguments, "image"
