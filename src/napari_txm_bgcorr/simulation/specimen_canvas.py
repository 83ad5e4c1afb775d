"""Tiles of a mosaic, cut out of one large specimen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .random_fields import Floats
from .specimens import draw_specimen

__all__ = ["cut_out", "once"]

CANVAS_PX = 2560  # a specimen larger than this is continued by mirroring


def cut_out(
    at: NDArray[np.float64],
    size: int,
    specimen: str | None,
    rngs: tuple[np.random.Generator, np.random.Generator],
    under: NDArray[np.float64],
) -> Callable[[int], Floats]:
    """Function that draws the transmission of each tile of a mosaic.

    Parameters
    ----------
    at : (T, 2) float64
        Top left corners (y, x), pixels.
    size : int
        Pixels along a tile.
    specimen : str or None
        Name in `SPECIMENS`; None mixes kinds.
    rngs : pair of Generator
        Of the specimen and of the slab.
    under : (N, 2) float64
        Corners of the tiles that lie under a slab; may be none.

    Returns
    -------
    callable
        Transmission `(Y, X)` float32 of tile `i`. The specimen is drawn at the first call.
    """
    whole = tuple(int(n) + size for n in at.max(axis=0))
    most = max(size, min(CANVAS_PX, 8 * size))
    shape = (min(whole[0], most), min(whole[1], most))
    canvas = once(lambda: draw_specimen(rngs[0], shape, specimen, field_px=size))
    slab = once(lambda: draw_specimen(rngs[1], shape, "slab", field_px=size))

    def cut(i: int) -> Floats:
        corner = (int(at[i, 0]), int(at[i, 1]))
        tile = _cut(canvas(), corner, size)
        if not len(under):
            return tile
        band = (float(under[:, 0].min()), float(under[:, 0].max()) + size)
        if corner[0] > band[1] + size or corner[0] + size < band[0] - size:
            return tile
        return _covered(tile, _cut(slab(), corner, size), corner, band)

    return cut


def once(make: Callable[[], Any]) -> Callable[[], Any]:
    """Call `make` on the first use only, whichever thread comes first."""
    lock = threading.Lock()
    made: list[Any] = []

    def get() -> Any:
        with lock:
            if not made:
                made.append(make())
        return made[0]

    return get


def _cut(canvas: Floats, corner: tuple[int, int], size: int) -> Floats:
    """Tile of a canvas that goes on beyond its edges as its own mirror image."""
    y, x = (
        _mirrored(np.arange(start, start + size), length)
        for start, length in zip(corner, canvas.shape, strict=True)
    )
    return canvas[np.ix_(y, x)]


def _covered(
    tile: Floats, slab: Floats, corner: tuple[int, int], band: tuple[float, float]
) -> Floats:
    """Transmission of a tile with a slab over the rows of a band, its edges uneven."""
    size = len(tile)
    y, x = (start + np.arange(size, dtype=np.float64) for start in corner)
    uneven = 0.03 * size * (3 + sum(np.sin(x / (size * p) + p) for p in (0.9, 0.37, 0.13)))
    depth = np.minimum(y[:, None] - band[0] + uneven, band[1] - y[:, None] + uneven)
    inside = np.clip(1 + depth / (0.04 * size), 0, 1)  # whole at the edge of the band
    thickness = inside * (0.35 - np.log(slab))
    return np.maximum(tile * np.exp(-thickness), 0.02).astype(np.float32)


def _mirrored(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    folded = index % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)
