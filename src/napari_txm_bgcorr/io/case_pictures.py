"""Pictures of a judged correction as PNG: its tiles one below the other, and stitched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import spread_indices
from napari_txm_bgcorr.mosaic import blend

from .guard import writing
from .report_pictures import grey_png, percentiles

__all__ = ["sheet_png", "stitched_png", "write_pictures"]

Image = NDArray[np.floating]
Mask = NDArray[np.bool_]

TILE_PX, GAP_PX = 256, 4
MOST_TILES = 8
DIFFERENCE = 0.1  # of the logarithm of the background: black and white
STITCHED_PX = 2048


def write_pictures(
    folder: Path,
    method: str,
    raws: Mapping[str, NDArray[Any]],
    backgrounds: Mapping[str, NDArray[Any]],
    truth: Image,
    lit: Mask,
    places: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Write ``<method>.png``, and ``<method>-stitched.png`` where places are known.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    method : str
        Name of the files.
    raws, backgrounds : mapping of str to (Y, X)
        Counts, by the tile's name.
    truth : (Y, X)
        True background, of any scale.
    lit : (Y, X) bool
    places : mapping of str to (y, x) or None
        Top left corners in pixels.

    Raises
    ------
    WriteError
        If a file cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{method}.png").write_bytes(sheet_png(raws, backgrounds, truth, lit))
        if places is not None:
            picture = stitched_png(raws, backgrounds, lit, places)
            (folder / f"{method}-stitched.png").write_bytes(picture)


def sheet_png(
    raws: Mapping[str, NDArray[Any]],
    backgrounds: Mapping[str, NDArray[Any]],
    truth: Image,
    lit: Mask,
) -> bytes:
    """One row a tile: raw, background, corrected, difference of the background from the truth.

    Grey values: raw and background alike; all corrected tiles alike; the difference from
    -10 % (black) to 10 % (white) with the median removed. What is not judged is white.
    """
    names = sorted(raws)
    names = [names[i] for i in spread_indices(len(names), MOST_TILES)]
    raw = np.stack([_smaller(raws[name]) for name in names])
    background = np.stack([_smaller(backgrounds[name]) for name in names])
    seen = _smaller(lit) >= 1
    corrected = np.where(seen, _ratio(raw, background), np.nan)
    off = np.log(np.maximum(background, 1e-3) / np.maximum(_smaller(truth), 1e-6))
    off -= np.median(off[:, seen], axis=1)[:, None, None] if seen.any() else 0
    counts = percentiles(raw)
    columns = (
        _grey(raw, counts),
        _grey(background, counts),
        _grey(corrected, percentiles(corrected)),
        _grey(np.where(seen, off, np.nan), (-DIFFERENCE, DIFFERENCE)),
    )
    frame = ((0, 0), (0, GAP_PX), (0, GAP_PX))
    framed = [np.pad(column, frame, constant_values=np.nan) for column in columns]
    return grey_png(np.concatenate([np.concatenate(c) for c in framed], axis=1), (0, 1))


def stitched_png(
    raws: Mapping[str, NDArray[Any]],
    backgrounds: Mapping[str, NDArray[Any]],
    lit: Mask,
    places: Mapping[str, tuple[float, float]],
) -> bytes:
    """Corrected tiles at their places, feathered, nothing done to their levels."""
    names = sorted(raws)
    tiles = np.stack([_ratio(raws[name], backgrounds[name]) for name in names])
    valid = np.broadcast_to(lit, tiles.shape)
    picture = blend(tiles, np.array([places[name] for name in names]), valid)
    step = max(1, -(-max(picture.shape) // STITCHED_PX))
    return grey_png(picture[::step, ::step])


def _ratio(raw: NDArray[Any], background: NDArray[Any]) -> NDArray[np.float32]:
    counts = np.maximum(np.asarray(background, np.float32), 1e-3)
    return np.asarray(np.asarray(raw, np.float32) / counts, np.float32)


def _smaller(image: NDArray[Any]) -> NDArray[np.float32]:
    """Mean over blocks, so that the longer side has `TILE_PX` at most."""
    step = max(1, -(-max(image.shape) // TILE_PX))
    y, x = (n // step * step for n in image.shape)
    blocks = np.asarray(image[:y, :x], np.float32).reshape(y // step, step, x // step, step)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def _grey(images: NDArray[np.floating], limits: tuple[float, float]) -> NDArray[np.float32]:
    low, high = limits
    shade = np.clip((images - low) / max(high - low, 1e-12), 0, 1)
    return np.asarray(shade, np.float32)
