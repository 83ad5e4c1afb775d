"""What the tiles of a scan share, from answers whose errors differ.

The median of single predictions keeps what the network takes for illumination in most tiles.
Upper quantiles of the raw tiles keep what the specimen absorbs wherever it rarely leaves; how far
two of them differ tells how far they can be trusted. At each pixel the middle one of the three
counts: the prediction where it lies between the quantiles, else the quantile next to it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core.beam_levels import BeamLevels
from napari_txm_bgcorr.core.medians import median_of, quantiles_of
from napari_txm_bgcorr.core.pixels import lit_field
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import Coarse, upper
from napari_txm_bgcorr.engine.priors import TILE_DRIFT_RMS, Prior, log_counts, spread_indices

__all__ = ["mixed_prior", "shared_prior"]

Image = NDArray[np.float32]
Predict = Callable[[Image], Image]

MAX_TILES = 48
MAX_PIXELS = 3 * 2**23  # of all tiles read: 96 MiB, and as much again for the predictions
QUANTILES = (0.75, 0.95)
FINE = 0.05  # of the field: what is finer comes from the tiles, not from the predictions
SPREAD, OF_FEW = 0.85, 2.7  # error over the rms difference of the quantiles, and over that / tiles
TOLD, TOLD_MIXED = 0.55, 0.75  # of it: the network does best where it changes such a prior little


def shared_prior(scan: Scan, dark: Image | None, predict: Predict, workers: int = 1) -> Prior:
    """The middle one of predictions' median and two upper quantiles, at each pixel.

    Of at most `MAX_TILES` tiles, spread over the scan; two are enough. The quantiles are taken
    with each tile at the level of the beam (of a mosaic: `core.beam_levels`). Its error is
    estimated from how far they differ; `benchmarks/shared_prior.py` prints the constants.

    Parameters
    ----------
    scan : Scan
    dark : (Y, X) float32, counts, or None
    predict : callable
        `(Y, X)` log counts to the log background predicted without a prior.
    workers : int
        Threads; the same bits for any number.
    """
    size = int(np.prod(scan.tiles.shape[1:]))
    chosen = spread_indices(len(scan), max(2, min(MAX_TILES, MAX_PIXELS // size)))
    with ThreadPoolExecutor(workers) as pool:
        logs = np.stack(list(pool.map(lambda i: log_counts(scan.tiles[i], dark), chosen)))
        predicted = _predicted(logs, list(pool.map(predict, logs)), workers)
    levels = _levels(scan, chosen, logs, predicted)
    own = _own_levels(logs, predicted)
    if levels is not None:
        own = [levels.believed(level, i) for level, i in zip(own, chosen, strict=True)]
    low, high = _quantiles(logs, np.array(own, np.float32), workers)
    lit = lit_field(np.exp(predicted))
    answers = [image - np.median(image[lit]) for image in (predicted, low, high)]
    shape: Image = np.median(np.stack(answers), axis=0).astype(np.float32)
    error = (SPREAD + OF_FEW / len(chosen)) * _rms((high - low)[lit])
    rms = float(np.hypot(error, TILE_DRIFT_RMS))
    found = _levels(scan, chosen, logs, shape)
    return Prior("shared", lambda i: shape, lambda i: rms, levels=found, told=TOLD)


def mixed_prior(reference: Prior, shared: Prior) -> Prior:
    """A reference and what the tiles share, by the errors expected of them in each tile.

    They err in different ways: one is old, the other holds specimen. Level and drift of the
    tiles are those that the reference tells.
    """

    def share(i: int | None) -> float:
        own, other = reference.rms(i) ** 2, shared.rms(i) ** 2
        return other / (own + other)

    def of(i: int | None) -> Image:
        known = reference.of(i)
        off = shared.of(i) - known
        out: Image = known + np.float32(1 - share(i)) * (off - np.median(off[::4, ::4]))
        return out

    def rms(i: int | None) -> float:
        part = share(i)
        return float(np.hypot(part * reference.rms(i), (1 - part) * shared.rms(i)))

    return Prior("mixed", of, rms, told=TOLD_MIXED)


def _predicted(logs: Image, shapes: list[Image], workers: int) -> Image:
    """Median over tiles of predictions, and the fine pattern that all tiles show beside it."""
    fine = median_of(logs - np.stack(shapes), workers)
    fine -= ndimage.gaussian_filter(fine, FINE * min(fine.shape), mode="nearest")
    layers = np.stack([shape - np.median(shape) for shape in shapes])
    out: Image = median_of(layers, workers) + fine
    return out


def _own_levels(logs: Image, shape: Image) -> list[float]:
    """Log level `(N,)` that each tile shows where it is emptiest, relative to a shape."""
    coarse = Coarse(shape.shape)
    cells, everywhere = coarse.mean(shape), np.ones(coarse.size, bool)
    return [upper(coarse.mean(log) - cells, everywhere) for log in logs]


def _levels(scan: Scan, chosen: list[int], logs: Image, shape: Image) -> BeamLevels | None:
    """Of the beam; None where tiles may be of different exposures."""
    if scan.kind != "mosaic":
        return None
    return BeamLevels.of(scan, chosen, np.array(_own_levels(logs, shape)))


def _quantiles(logs: Image, levels: Image, workers: int) -> Image:
    """Upper quantiles `(2, Y, X)` of the tiles, each less its level."""

    def layers(rows: slice) -> Image:
        out: Image = logs[:, rows] - levels[:, None, None]
        return out

    size = (logs.shape[1], logs.shape[2])
    return quantiles_of(layers, size, QUANTILES, workers)


def _rms(values: Image) -> float:
    """Scale-free, without the outermost 2 % on both sides."""
    low, high = np.percentile(values, [2, 98])
    return float(np.std(np.clip(values, low, high)))
