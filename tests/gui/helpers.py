"""Scans made of arrays, and a method under the tests' control."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from napari_txm_bgcorr.core.scan import Scan, Source, raster_positions
from napari_txm_bgcorr.workflows import CorrectionConfig


def make_scan(kind="mosaic", grid=(2, 2), size=32, overlap=8, seed=0, name="sample", **facts):
    """Tiles of one smooth background with noise; a mosaic overlaps by `overlap` px."""
    rng = np.random.default_rng(seed)
    count = {"single": 1, "series": 5}.get(kind, grid[0] * grid[1])
    y, x = np.mgrid[:size, :size] / size
    background = 1000 * (1 + 0.3 * np.sin(3 * x) * np.cos(2 * y))
    tiles = rng.poisson(background * rng.uniform(0.5, 1, (count, 1, 1))).astype(np.uint16)
    place = {}
    if kind == "mosaic":
        step = (size - overlap, size - overlap)
        place = {"grid": grid, "positions_px": raster_positions(grid, step)}
    return Scan(
        tiles=tiles,
        kind=kind,
        source=Source(Path(f"/nowhere/{name}.tif"), "test"),
        names=tuple(f"{name}_{i}" for i in range(count)),
        pixel_nm=facts.pop("pixel_nm", 29.3),
        **place,
        **facts,
    )


class Steady:
    """A method under the tests' control: half the tile's mean, as slow as wanted."""

    name, workers = "steady", 1
    hold = threading.Event()  # cleared: tiles wait until it is set,
    free = 0  # but for so many batches
    fail: Exception | None = None
    fail_at = 2

    def __init__(self):
        self.count = 0

    def fit(self, scan, progress=None):
        for i in range(len(scan)):
            scan.tiles[i]
            if progress is not None:
                progress.step("preparing steady", i + 1, len(scan))
        return self

    def background(self, tiles, index=None):
        if self.count >= self.free:
            type(self).hold.wait(20)
        self.count += 1
        if self.fail is not None and self.count > self.fail_at:
            raise self.fail
        tiles = np.asarray(tiles, np.float32)
        return np.broadcast_to(tiles.mean((1, 2), keepdims=True) * 2, tiles.shape).copy()

    def describe(self):
        return {"device": "cpu"}


def chosen(method, *, joint=False, again=False, **more):
    """Options of a job as the panel makes them."""
    return CorrectionConfig(method=method, device="cpu", joint=joint, force=again, **more)
