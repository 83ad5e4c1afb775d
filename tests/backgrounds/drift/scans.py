"""Mosaics with everything known, and methods that give what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.polynomials import legendre
from napari_txm_bgcorr.core.progress import SILENT, Progress
from napari_txm_bgcorr.core.scan import Scan, Source, raster_positions
from napari_txm_bgcorr.core.tile_array import TileArray

SIZE, STEP, GRID = 96, 76, (4, 4)


class Given:
    """A background method that answers with arrays.

    Parameters
    ----------
    backgrounds : (T, Y, X) float32, counts
    knows_drift : bool
        As if they came from references.
    """

    name, workers = "given", 1

    def __init__(self, backgrounds: TileArray, knows_drift: bool = False) -> None:
        self.backgrounds, self.knows_drift = backgrounds, knows_drift

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        return self

    follows_shape = False

    def with_references(self, scan: Scan) -> Scan:
        return scan

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        if index is None:
            return np.repeat(self.backgrounds[0][None], len(tiles), axis=0)
        return np.stack([self.backgrounds[int(i)] for i in index]).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        return {}


def specimen(shape: tuple[int, ...], seed: int, contrast: float = 0.15) -> np.ndarray:
    """Log transmission with structure of all sizes, never above 0; about half is free of it."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    radius = np.hypot(fy[:, None], fx)
    radius[0, 0] = np.inf
    noise = np.fft.rfft2(rng.standard_normal(shape)) / radius**1.2
    image = np.fft.irfft2(noise, shape)
    thick = np.abs(image / image.std())
    return -contrast * np.maximum(thick - np.median(thick), 0)


def polynomial(coefficients: dict[tuple[int, int], float], size: int = SIZE) -> np.ndarray:
    """Sum of Legendre terms over a tile."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    order = tuple(coefficients)
    values = legendre(order, np.repeat(axis, size), np.tile(axis, size))
    return (values @ np.array(list(coefficients.values()))).reshape(size, size)


def make_scan(
    errors: np.ndarray, *, contrast: float = 0.15, seed: int = 0, grid: tuple[int, int] = GRID
) -> tuple[Scan, np.ndarray, np.ndarray]:
    """Scan, its true log backgrounds, and given ones that lack `errors` (T, Y, X)."""
    places = raster_positions(grid, (STEP, STEP))
    count = len(places)
    whole = tuple(int(n) + SIZE for n in places.max(axis=0))
    sample = specimen(whole, seed, contrast)
    rng = np.random.default_rng(seed + 1)
    shape = (
        9.0
        + polynomial({(0, 0): 0, (1, 0): 0.1, (0, 2): -0.15})
        + 0.03 * (rng.standard_normal((SIZE, SIZE)))
    )
    true = np.broadcast_to(shape, (count, SIZE, SIZE)) + errors
    corners = places.astype(int)
    tiles = np.stack([
        np.exp(b + sample[y : y + SIZE, x : x + SIZE])
        for b, (y, x) in zip(true, corners, strict=True)
    ])  # fmt: skip
    tiles *= 1 + 0.003 * rng.standard_normal(tiles.shape)
    scan = Scan(
        tiles=tiles.astype(np.float32), kind="mosaic", source=Source(Path("made"), "made"),
        names=tuple(f"t{k}" for k in range(count)), grid=grid, positions_px=places,
    )  # fmt: skip
    return scan, true, np.exp(np.broadcast_to(shape, true.shape)).astype(np.float32)


def one_scale_error(backgrounds: TileArray, true: np.ndarray) -> float:
    """Rms of the log error, one scale for the scan left out."""
    return float(np.std(np.log(np.asarray(backgrounds[:])) - true))
