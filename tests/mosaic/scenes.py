"""A small mosaic with everything known, for the tests of quality figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_txm_bgcorr.core.correction import TileResult
from napari_txm_bgcorr.core.scan import Scan, Source, raster_positions
from napari_txm_bgcorr.quality.measurement import Gauge
from napari_txm_bgcorr.quality.table import TileQuality

SIZE, STEP = 64, 48


@dataclass
class Scene:
    """3 x 3 tiles without noise: raw = background * transmission, exactly."""

    scan: Scan
    backgrounds: np.ndarray
    transmissions: np.ndarray

    @property
    def corrected(self) -> np.ndarray:
        return (np.asarray(self.scan.tiles[:]) / self.backgrounds).astype(np.float32)

    def result(self, i: int) -> TileResult:
        corrected = self.corrected[i]
        return TileResult(
            i,
            np.asarray(self.scan.tiles[i]),
            self.backgrounds[i],
            corrected,
            np.ones(corrected.shape, bool),
        )

    def table(self) -> TileQuality:
        gauge = Gauge(self.scan)
        for i in range(len(self.scan)):
            gauge.add(self.result(i))
        return gauge.table()


def make_scene(
    side: int = 3, *, kind: str = "mosaic", size: int = SIZE, grain: float = 0.02
) -> Scene:
    rng = np.random.default_rng(7)
    step = size * STEP // SIZE
    places = raster_positions((side, side), (float(step), float(step)))
    length = (side - 1) * step + size
    rough = ndimage.gaussian_filter(rng.normal(size=(length, length)), size / 12)
    fine = ndimage.gaussian_filter(rng.normal(size=(length, length)), size / 64)
    canvas = np.exp(-0.3 * rough / rough.std() + grain * fine / fine.std() - 0.6)
    corners = places.astype(int)
    transmissions = np.stack([canvas[y : y + size, x : x + size] for y, x in corners])
    y, x = np.mgrid[:size, :size] / size - 0.5
    shape = 5000 * np.exp(0.4 * x - 0.3 * y * y)
    backgrounds = np.repeat(shape[None], side * side, axis=0).astype(np.float32)
    mosaic = kind == "mosaic"
    scan = Scan(
        tiles=(backgrounds * transmissions).astype(np.float32),
        kind=kind,
        source=Source(Path("scene"), "test"),
        names=tuple(f"t{k}" for k in range(side * side)),
        grid=(side, side) if mosaic else None,
        positions_px=places if mosaic else None,
        times=np.datetime64("2026-01-01T00:00:00", "s") + 60 * np.arange(side * side),
    )
    return Scene(scan, backgrounds, transmissions.astype(np.float32))
