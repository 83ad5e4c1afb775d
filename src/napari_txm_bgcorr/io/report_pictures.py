"""Pictures of the quality report as PNG bytes, drawn with NumPy: no plotting is needed."""

from __future__ import annotations

import base64
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

__all__ = ["data_uri", "grey_png", "grid_png", "legend_png", "percentiles"]

Image = NDArray[np.float32]
Bytes = NDArray[np.uint8]

ANCHORS = np.array(
    [[240, 246, 250], [178, 212, 226], [104, 169, 199], [49, 112, 158], [22, 58, 95]], np.float64
)  # light to dark, so that a print without colour keeps the order
UNKNOWN = (222, 222, 222)
FLAGGED = (213, 60, 40)
CELL_PX = 12


def data_uri(png: bytes) -> str:
    """PNG as an address that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def grey_png(image: NDArray[Any], limits: tuple[float, float] | None = None) -> bytes:
    """Image `(Y, X)` in grey; NaN is white.

    Parameters
    ----------
    image : (Y, X)
    limits : (low, high) or None
        Values for black and white; None: the image's 0.5 and 99.5 percentiles.
    """
    known = np.isfinite(image)
    low, high = percentiles(image) if limits is None else limits
    span = max(high - low, 1e-12)
    shade = np.clip((np.where(known, image, low) - low) / span, 0, 1) * 255
    return _png(np.where(known, np.rint(shade), 255).astype(np.uint8))


def percentiles(image: NDArray[Any]) -> tuple[float, float]:
    """Range of the known values without their outermost half per cent at either end."""
    some = image[np.isfinite(image)]
    if not some.size:
        return 0.0, 1.0
    low, high = np.percentile(some, [0.5, 99.5])
    return float(low), float(high)


def grid_png(
    values: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    cells: NDArray[np.int64],
    high: float,
) -> bytes:
    """One coloured cell a tile; flagged ones are framed.

    Parameters
    ----------
    values : (T,) float64
        From 0; NaN is grey.
    flagged : (T,) bool
    cells : (T, 2) int64
        (row from the top, column).
    high : float
        Value of the darkest colour.
    """
    rows, columns = (int(n) + 1 for n in cells.max(axis=0))
    out = np.full((rows * CELL_PX + 1, columns * CELL_PX + 1, 3), 255, np.uint8)
    for value, mark, (row, column) in zip(values, flagged, cells.tolist(), strict=True):
        part = out[
            row * CELL_PX + 1 : (row + 1) * CELL_PX, column * CELL_PX + 1 : (column + 1) * CELL_PX
        ]
        part[:] = FLAGGED if mark else UNKNOWN
        inner = part[2:-2, 2:-2] if mark else part
        inner[:] = colour(value / high) if np.isfinite(value) else UNKNOWN
    return _png(out)


def legend_png() -> bytes:
    """Strip of the colours from 0 (left) to the highest (right)."""
    return _png(np.stack([[colour(x) for x in np.linspace(0, 1, 128)]] * 8).astype(np.uint8))


def colour(share: float) -> tuple[int, int, int]:
    """Colour for 0..1, light to dark."""
    place = float(np.clip(share, 0, 1)) * (len(ANCHORS) - 1)
    low = min(int(place), len(ANCHORS) - 2)
    mixed = ANCHORS[low] + (place - low) * (ANCHORS[low + 1] - ANCHORS[low])
    red, green, blue = np.rint(mixed).astype(int).tolist()
    return red, green, blue


def _png(pixels: Bytes) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=6))
