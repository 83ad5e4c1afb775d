"""Sample data: a simulated tile, series and mosaic."""

from __future__ import annotations

from typing import Any

from napari_txm_bgcorr.core import Scan

__all__ = ["mosaic", "series", "tile"]

SEED = 7


def tile() -> list[tuple[Any, ...]]:
    """Make one simulated tile."""
    from napari_txm_bgcorr.simulation import simulate_tile

    return _shown(simulate_tile(seed=SEED).scan)


def series() -> list[tuple[Any, ...]]:
    """Make a simulated series of twelve projections."""
    from napari_txm_bgcorr.simulation import simulate_series

    return _shown(simulate_series(12, seed=SEED).scan)


def mosaic() -> list[tuple[Any, ...]]:
    """Make a simulated mosaic of 4 x 4 tiles."""
    from napari_txm_bgcorr.simulation import simulate_mosaic

    return _shown(simulate_mosaic(4, 4, seed=SEED).scan)


def _shown(scan: Scan) -> list[tuple[Any, ...]]:
    from .layers.convert import scan_layer

    return [scan_layer(scan)[0]]
