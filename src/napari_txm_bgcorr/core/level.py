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

from napari_txm_bgcorr.core.overview import Overview, bin_mean
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import log_beam, spread_indices
from napari_txm_bgcorr.core.threads import spread
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["Level", "LevelSource", "empty_areas", "find_level"]

Floats = NDArray[np.float64]
Image = NDArray[np.float32]
LevelSource = Literal["I0", "empty areas", "references", "relative"]

BLOCKS = 32  # across a tile
LEAST_BLOCK = 4  # pixels along one
SMOOTH = 1.6  # times the noise: nothing is there
QUIET = 0.25  # quantile of a tile's blocks that stands for its noise
PATTERN = 0.003  # log: what is left of the fixed pattern
LEAST_SHARE = 0.15  # of one tile's lit blocks in the cluster of the empty ones
CLUSTER = 0.012  # half width of that cluster, log
DRIFT = 0.12  # log: a level further below the references' is no empty one
MAX_FLATS = 16


@dataclass(frozen=True)
class Level:
    """How the level of a scan was set.

    Attributes
    ----------
    source : {"I0", "empty areas", "references", "relative"}
    shift : float
        To add to the log levels found so far.
    share : float
        Of the emptiest tile that is empty; 0 where nothing is.
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
    workers: int = 1,
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
    workers : int
        Threads; the same result for any number.
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
        level, share = empty_areas(overview, residual, watch, workers)
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
    overview: Overview,
    residual: Callable[[int], Image],
    watch: Watch = SILENT,
    workers: int = 1,
) -> tuple[float | None, float]:
    """Log transmission, up to the level, where no specimen is: the brightest smooth areas.

    Blocks whose texture is that of white noise alone are smooth. Of their values the highest
    cluster that fills enough of one tile is taken: nothing in a scan is brighter over an area
    than the open beam, fringes are not smooth, and smooth specimens lie lower.

    Parameters
    ----------
    overview : Overview
    residual : callable
        `residual(i) -> (y, x)` log transmission of tile `i` on bins.
    watch : Watch
        Asked before each tile.
    workers : int
        Threads; the same result for any number.

    Returns
    -------
    level : float or None
        None where there are no such areas.
    share : float
        Of the lit blocks of the emptiest tile.
    """
    lit = overview.lit_bins
    size = max(LEAST_BLOCK, min(lit.shape) // BLOCKS)
    whole = bin_mean(lit.astype(np.float32), size) > 0.999

    def smooth_blocks(i: int) -> Image:
        watch.check()
        image = residual(i)
        mean = bin_mean(image, size)
        texture, noise = _texture(image, mean, size), _noise(image, size)
        quiet = float(np.quantile(noise[whole], QUIET))
        found: Image = mean[whole & (texture <= np.hypot(SMOOTH * quiet, PATTERN))]
        return found

    if not whole.any():
        return None, 0.0
    smooth = list(spread(smooth_blocks, range(len(overview)), workers))
    owner = np.repeat(np.arange(len(smooth)), [len(values) for values in smooth])
    return _top_cluster(np.concatenate(smooth), owner, int(whole.sum()))


def _texture(image: Image, mean: Image, size: int) -> Image:
    """Rms within blocks, and of the block against its neighbours: both see a specimen."""
    rows, columns = (n * size for n in mean.shape)
    off = image[:rows, :columns] - mean.repeat(size, axis=0).repeat(size, axis=1)
    padded = np.pad(mean, 1, mode="edge")
    around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    out: Image = np.hypot(np.sqrt(bin_mean(np.square(off, out=off), size)), 2 * (mean - around))
    return out


def _noise(image: Image, size: int) -> Image:
    """Rms of blocks if it were all white noise, from neighbouring pixels in a block."""
    squares = np.zeros_like(image)
    squares[:, :-1] = np.square(image[:, 1:] - image[:, :-1])
    squares[:, size - 1 :: size] = 0  # across two blocks
    down = np.square(image[1:] - image[:-1])
    down[size - 1 :: size] = 0
    squares[:-1] += down
    out: Image = np.sqrt(bin_mean(squares, size) * np.float32(size / (size - 1) / 4))
    return out


def _top_cluster(
    smooth: Image, owner: NDArray[np.int64], blocks: int
) -> tuple[float | None, float]:
    """Middle of the highest cluster that fills enough of one tile, and its share of that tile.

    Parameters
    ----------
    smooth : (n,) float32
        Values of smooth blocks.
    owner : (n,) int
        Their tiles.
    blocks : int
        Lit blocks of a tile.
    """
    values = smooth
    while values.size:
        # Among the brightest: the fullest window that begins within two widths of the top.
        ordered = np.sort(values)[::-1]
        ends = np.searchsorted(-ordered, -(ordered - 2 * CLUSTER), side="right")
        near = ordered > ordered[0] - 4 * CLUSTER
        counts = (ends - np.arange(len(ordered)))[near]
        middle = float(ordered[int(np.argmax(counts))]) - CLUSTER
        inside = np.abs(smooth - middle) <= CLUSTER
        share = float(np.bincount(owner[inside], minlength=1).max()) / max(blocks, 1)
        if share >= LEAST_SHARE:
            return float(np.median(smooth[inside])), share
        values = values[values < middle - CLUSTER]
    return None, 0.0
