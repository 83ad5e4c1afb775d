"""The absolute level of the backgrounds of a scan: where it comes from, and how sure it is.

Overlaps and neighbours in time tie tiles to one another; one factor for the whole scan is left.
An I0 reading, empty areas or references set it. Without any of them it is relative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.overview import Overview
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import log_beam, spread_indices
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["Level", "LevelSource", "empty_areas", "find_level"]

Floats = NDArray[np.float64]
Image = NDArray[np.float32]
LevelSource = Literal["I0", "empty areas", "references", "relative"]

BLOCKS = 32  # across a tile
SMOOTH = 1.3  # times the texture of the smoothest blocks: nothing is there
SMOOTHEST = 0.05  # quantile of the blocks' texture
LEAST_SHARE = 0.02  # of all lit blocks in the cluster of the empty ones
CLUSTER = 0.012  # half width of that cluster, log
DRIFT = 0.12  # log: a level further below the references' is no empty one
MAX_FLATS = 16
STEP = 0.004  # of the histogram, log


@dataclass(frozen=True)
class Level:
    """How the level of a scan was set.

    Attributes
    ----------
    source : {"I0", "empty areas", "references", "relative"}
    shift : float
        To add to the log levels found so far.
    share : float
        Of the lit blocks that are empty; 0 where none were found.
    """

    source: LevelSource
    shift: float = 0.0
    share: float = 0.0

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"from": self.source, "empty_share": round(self.share, 4)}


def find_level(
    scan: Scan,
    overview: Overview,
    residual: Callable[[int], Image] | None,
    *,
    i0: float | None = None,
    found_level: float = 0.0,
    watch: Watch = SILENT,
) -> Level:
    """Set the level of a scan by the best that there is: I0, empty areas, references.

    Parameters
    ----------
    scan : Scan
        Its flats are looked at.
    overview : Overview
    residual : callable or None
        `residual(i) -> (y, x)` log transmission of tile `i` on bins, up to the level; None: no
        place can be told to be empty.
    i0 : float or None
        Counts of the open beam, dark removed, as a median over the lit field.
    found_level : float
        Log counts of the shared shape's median as found so far (median over tiles).
    watch : Watch
        Asked before each tile.

    Returns
    -------
    Level
        Empty areas are believed unless they lie more than 12 % below the references.
    """
    if i0 is not None:
        median = float(np.median(overview.shape[overview.lit]))
        return Level("I0", float(np.log(i0)) - median - found_level)
    level, share = None, 0.0
    if residual is not None:
        level, share = empty_areas(overview, residual, watch)
    flat = _flat_level(scan, overview)
    if level is not None and (flat is None or level > flat - found_level - DRIFT):
        return Level("empty areas", level, share)
    if flat is not None:
        return Level("references", flat - found_level)
    return Level("relative")


def _flat_level(scan: Scan, overview: Overview) -> float | None:
    """Log level of the references against the shared shape; None without any."""
    if scan.flats is None or scan.flats.shape[0] == 0:
        return None
    dark = scan.dark()
    levels = [
        float(np.median((log_beam(scan.flats[i], dark) - overview.shape)[overview.lit]))
        for i in spread_indices(int(scan.flats.shape[0]), MAX_FLATS)
    ]
    return float(np.median(levels))


def empty_areas(
    overview: Overview, residual: Callable[[int], Image], watch: Watch = SILENT
) -> tuple[float | None, float]:
    """Log transmission, up to the level, where no specimen is: the brightest smooth areas.

    Blocks whose texture is that of the noise alone are smooth. Of their values the highest
    cluster that holds enough of the field is taken: nothing in a scan is brighter over an area
    than the open beam, fringes are not smooth, and smooth specimens lie lower.

    Returns
    -------
    level : float or None
        None where there are no such areas.
    share : float
        Of the lit blocks.
    """
    lit = overview.lit_bins
    size = max(1, min(lit.shape) // BLOCKS)
    rows, columns = (n // size for n in lit.shape)
    whole = _blocks(lit.astype(np.float32), size, rows, columns).min(axis=(1, 3)) > 0.5
    means, textures = [], []
    for i in range(len(overview)):
        watch.check()
        parts = _blocks(residual(i), size, rows, columns)
        mean = parts.mean(axis=(1, 3))
        means.append(mean[whole])
        textures.append(_texture(parts, mean)[whole])
    value, texture = np.concatenate(means), np.concatenate(textures)
    if not value.size:
        return None, 0.0
    smooth = value[texture <= SMOOTH * np.quantile(texture, SMOOTHEST)]
    return _top_cluster(smooth, value)


def _blocks(image: Image, size: int, rows: int, columns: int) -> Image:
    part = image[: rows * size, : columns * size]
    out: Image = part.reshape(rows, size, columns, size)
    return out


def _texture(parts: Image, mean: Image) -> Image:
    """Rms within blocks, and of the block against its neighbours: both see a specimen."""
    inner = parts.std(axis=(1, 3))
    padded = np.pad(mean, 1, mode="edge")
    around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    out: Image = np.hypot(inner, 2 * (mean - around)).astype(np.float32)
    return out


def _top_cluster(smooth: Image, value: Image) -> tuple[float | None, float]:
    """Middle of the highest cluster of the smooth values, and its share of all values."""
    if not smooth.size:
        return None, 0.0
    room = 2 * CLUSTER  # so that no window is wider than the histogram
    edges = np.arange(float(smooth.min()) - room, float(smooth.max()) + room, STEP)
    if len(edges) > 10_000:
        return None, 0.0
    counts = np.histogram(smooth, edges)[0].astype(np.float64)
    width = max(1, round(2 * CLUSTER / STEP))
    mass = np.convolve(counts, np.ones(width), mode="same")
    enough = mass >= max(0.15 * mass.max(), 4)
    peaks = np.flatnonzero(enough)
    if not peaks.size:
        return None, 0.0
    last = int(peaks[-1])
    first = last
    while first > 0 and mass[first - 1] > mass[first]:
        first -= 1  # up the slope to the cluster's top
    middle = (edges[first] + edges[first + 1]) / 2
    level = float(np.median(smooth[np.abs(smooth - middle) <= CLUSTER]))
    share = float(np.mean(np.abs(value - level) <= CLUSTER))
    return (level, share) if share >= LEAST_SHARE else (None, share)
