"""Prior backgrounds of a scan, and how far each is expected to be off.

All stacks here hold logarithms of counts (dark removed where known) at the tiles' full size,
so that a prior keeps its finest pattern; only the network's correction passes through the
field. At most `MAX_TILES` tiles (fewer where they are large), spread over the scan, are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from napari_txm_bgcorr.core.beam_levels import BeamLevels
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import Coarse, upper
from napari_txm_bgcorr.core.tile_median import TileMedian
from napari_txm_bgcorr.engine.prior_error import (
    BY_AGE,
    UNDATED,
    UNDATED_RMS,
    belief,
    drift_factor,
    rms_change,
)
from napari_txm_bgcorr.engine.tensors import despike

__all__ = [
    "COMPARED",
    "MAX_TILES",
    "Prior",
    "blind_error",
    "dated",
    "expected_drift",
    "log_counts",
    "measured",
    "predicted_median",
    "reference_prior",
    "shared_error",
    "spread_indices",
    "tile_median",
    "to_beam_level",
    "to_empty_level",
    "to_prior_level",
]

Image = NDArray[np.float32]
MAX_TILES = 64
MAX_PIXELS = 2**25  # of all tiles read for a prior: 128 MiB a stack
MAX_FLATS = 16
LEAVE_ONE_OUT = 16  # scans up to this length: a tile is left out of its own prior
FAST_DRIFT = (0.019, 0.12)  # rms and hours: within minutes, then no more
SLOW_DRIFT = (0.09, 40.0)  # rms and hours: over days
ROBUST_SHARE = 0.4  # of the plain median's error that is left where specimen is masked
COMPARED = 5  # tiles that tell how far a reference is off
LEAST_GAP_H = 1 / 12  # between references that tell how fast the illumination drifts
TILE_DRIFT_RMS = 0.012  # change between the tiles of one mosaic that no fixed shape follows


@dataclass(frozen=True)
class Prior:
    """A prior background for each tile of a scan.

    Attributes
    ----------
    kind : str
        ``reference``, ``shared``, ``mixed`` (of these), ``tile-median`` or ``predicted-median``.
    of : callable
        `of(i) -> (Y, X)` float32 log counts for tile `i` of the scan, or None: unknown tile.
    rms : callable
        `rms(i) -> float`: expected scale-free error of its logarithm.
    known : (mean, sd)
        Of a reference: logarithm of its true error over that; see `prior_error.belief`.
    levels : BeamLevels or None
        Of the beam, relative to the prior of each tile.
    told : float
        Of `rms`, what the network is told.
    """

    kind: str
    of: Callable[[int | None], Image]
    rms: Callable[[int | None], float]
    known: tuple[float, float] = BY_AGE
    levels: BeamLevels | None = None
    told: float = 1.0

    @property
    def knows_level(self) -> bool:
        """Whether its level is that of the beam, as a reference's is."""
        return self.kind in ("reference", "mixed")

    def beam_shift(self, off: Image, place: int | None) -> np.float32:
        """What brings a tile's own level to that of the beam, log.

        Parameters
        ----------
        off : (y, x) float32
            Its log background less the prior; the median counts.
        place : int or None
            Of the tile in the scan; 0 for those that it does not hold.
        """
        if self.levels is None or place is None:
            return np.float32(0)
        own = float(np.median(off))
        return np.float32(self.levels.believed(own, place) - own)


def log_counts(counts: Any, dark: Image | None) -> Image:
    """Logarithm of one image `(Y, X)`: dark removed, spikes clamped, floored at 2 % of median."""
    values = np.nan_to_num(np.asarray(counts, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if dark is not None:
        values = values - dark
    clean = despike(torch.from_numpy(values)[None, None])[0, 0].numpy()
    floor = max(0.02 * float(np.median(clean)), 1e-3)
    out: Image = np.log(np.maximum(clean, floor))
    return out


def spread_indices(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` places, spread evenly."""
    return sorted(set(np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()))


def expected_drift(age_h: float) -> float:
    """Expected error of a reference of that age.

    ``sqrt(sum(r^2 (1 - exp(-age / t))))`` over a fast part (1.9 % in 0.12 h) and a slow one
    (9 % in 40 h): two bounded random walks through what was measured at TLS BL01B (1.5 % after
    ten minutes, about 10 % after two months) and the simulator's medians between. Never below
    0.3 %.
    """
    squares = [r * r * (1 - np.exp(-abs(age_h) / t)) for r, t in (FAST_DRIFT, SLOW_DRIFT)]
    return max(0.003, float(np.sqrt(sum(squares))))


def blind_error(stated: Mapping[str, float]) -> float:
    """Error expected without a prior, from the validation errors of a model.

    The mean over the kinds of images: what a fine-tuned model says of the few references that
    it learned from (``none``) is too good, of other instruments (``simulated-none``) too bad.
    Infinite where nothing is stated.
    """
    found = [float(v) for case, v in stated.items() if case == "none" or case.endswith("-none")]
    return float(np.mean(found)) if found else math.inf


def dated(scan: Scan) -> bool:
    """Whether times tell how old its references are."""
    return scan.times is not None and scan.flat_times is not None


def reference_prior(scan: Scan, dark: Image | None) -> Prior:
    """Prior from the scan's references, interpolated in time where times are known.

    Its error is the one that their age suggests; `prior_error` corrects it.

    Parameters
    ----------
    scan : Scan
    dark : (Y, X) float32 or None

    Raises
    ------
    MethodError
        If there are no references.
    """
    if scan.flats is None or scan.flats.shape[0] == 0:
        raise MethodError(f"{scan.source.path}: no references; attach some or choose prior none")
    chosen = spread_indices(scan.flats.shape[0], MAX_FLATS)
    logs = np.stack([log_counts(scan.flats[i], dark) for i in chosen])
    mean: Image = logs.mean(axis=0)
    if scan.flat_times is None or scan.times is None:
        return Prior("reference", lambda i: mean, lambda i: UNDATED_RMS, UNDATED)
    flat_h, tile_h = _hours(scan.flat_times[chosen]), _hours(scan.times)
    order = np.argsort(flat_h, kind="stable")
    flat_h, logs = flat_h[order], logs[order]

    def interpolated(i: int | None) -> Image:
        if i is None:
            return mean
        place = float(np.interp(tile_h[i], flat_h, np.arange(len(flat_h))))
        low = int(place)
        high = min(low + 1, len(flat_h) - 1)
        out: Image = logs[low] + np.float32(place - low) * (logs[high] - logs[low])
        return out

    def error(i: int | None) -> float:
        ages = tile_h[:, None] if i is None else tile_h[i : i + 1, None]
        return expected_drift(float(np.median(np.abs(flat_h - ages).min(axis=1))))

    return Prior("reference", interpolated, error, belief(_log_ratios(flat_h, logs)))


def measured(reference: Prior, scan: Scan, change: Callable[[int], float]) -> Prior:
    """A reference whose error is told by what the network would change in it, too.

    Parameters
    ----------
    reference : Prior
        Of `reference_prior`.
    scan : Scan
    change : callable
        `change(i) -> float`: `prior_error.rms_change` for tile `i`; asked of few tiles.
    """
    chosen = spread_indices(len(scan), COMPARED)
    suggested = float(np.median([reference.rms(i) for i in chosen]))
    specimens = 1 if scan.kind == "series" else len(chosen)
    changes = [change(i) for i in chosen]
    factor = drift_factor(suggested, changes, specimens, reference.known)
    return replace(reference, rms=lambda i: factor * reference.rms(i))


def _log_ratios(hours: NDArray[np.float64], logs: NDArray[np.float32]) -> list[float]:
    """How much more neighbours in time differ than the time between suggests, as logarithms.

    Over coarse cells, whose noise is small. Those of the same few minutes tell nothing.
    """
    coarse = Coarse((logs.shape[1], logs.shape[2]))
    first = np.flatnonzero(np.diff(hours, prepend=-np.inf) >= LEAST_GAP_H)
    cells = [coarse.mean(logs[k]) for k in first]
    return [
        float(np.log(max(rms_change(b - a, 1), 1e-4) / expected_drift(gap)))
        for a, b, gap in zip(cells, cells[1:], np.diff(hours[first]), strict=False)
    ]


def _hours(times: NDArray[np.datetime64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = times.astype("datetime64[s]").astype(np.int64) / 3600.0
    return out


def tile_median(scan: Scan, dark: Image | None) -> Prior:
    """Median of the log tiles with the specimen left out where it can be told.

    How far it is off is told from the plain medians of two halves of the tiles, which see
    more of the specimen, and from the drift between tiles that no shared shape follows.
    """
    found = TileMedian(tiles=MAX_TILES).fit(scan)
    shape = found.shape
    coarse = Coarse((shape.shape[0], shape.shape[1]))
    layers = []
    for i in spread_indices(len(scan), MAX_TILES):
        layer = coarse.log_cells(scan.tiles[i], dark)
        layers.append(layer - np.median(layer))
    error = float(np.hypot(ROBUST_SHARE * shared_error(layers, 1), TILE_DRIFT_RMS))
    return Prior("tile-median", lambda i: shape, lambda i: error, levels=found.levels)


def predicted_median(
    scan: Scan, dark: Image | None, predict: Callable[[Image], Image], workers: int = 1
) -> Prior:
    """Median of the backgrounds predicted tile by tile, plus the shared fine residue.

    Leakage is each tile's own while the illumination is shared; the residue (log raw less
    prediction) that all tiles share, high-passed, is pattern that the predictions missed.

    Parameters
    ----------
    predict : callable
        `(Y, X)` log counts to the log background predicted without a prior.
    workers : int
        Threads that predict.
    """
    chosen, logs = _read(scan, dark)
    with ThreadPoolExecutor(workers) as pool:
        shapes = list(pool.map(predict, logs))
    for log, shape in zip(logs, shapes, strict=True):
        log -= shape  # the residue, in place: these stacks are large
    fine = _median(logs)
    fine -= ndimage.gaussian_filter(fine, 0.05 * min(fine.shape), mode="nearest")
    for shape in shapes:
        shape += fine - np.median(shape)
    return _median_prior("predicted-median", chosen, shapes)


def _read(scan: Scan, dark: Image | None) -> tuple[list[int], list[Image]]:
    """Places and log counts of the tiles that a median is taken over."""
    limit = max(LEAVE_ONE_OUT, MAX_PIXELS // int(np.prod(scan.tiles.shape[1:])))
    chosen = spread_indices(len(scan), min(limit, MAX_TILES))
    return chosen, [log_counts(scan.tiles[i], dark) for i in chosen]


def _median_prior(kind: str, chosen: list[int], layers: list[Image]) -> Prior:
    """Median of layers; each tile is left out of its own where there are few."""
    whole = _median(layers)
    error = float(np.hypot(shared_error(layers), TILE_DRIFT_RMS))
    if len(layers) > LEAVE_ONE_OUT or len(layers) < 3:
        return Prior(kind, lambda i: whole, lambda i: error)
    own = {i: _median(layers[:k] + layers[k + 1 :]) for k, i in enumerate(chosen)}
    return Prior(kind, lambda i: whole if i is None else own.get(i, whole), lambda i: error)


def _median(layers: list[Image]) -> Image:
    """Median over layers, by bands of rows so that no second stack is needed."""
    out = np.empty_like(layers[0])
    for first in range(0, out.shape[0], 64):
        band = torch.from_numpy(np.stack([layer[first : first + 64] for layer in layers]))
        out[first : first + 64] = _middle(band).numpy()
    return out


def _middle(band: Tensor) -> Tensor:
    """Median along the first axis; the mean of the two middle values of an even count."""
    ordered = band.sort(dim=0).values
    count = band.shape[0]
    return 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])


def to_empty_level(log_backgrounds: Image, counts: Image) -> None:
    """Bring backgrounds, in place, to the level that each tile shows where it is empty.

    With a good shape, raw over background is highest and even where there is no specimen: its
    upper quantile over coarse cells is that level. (Without a prior the network's own level
    is kept: it has seen what specimens look like, the quantile has not.)

    Parameters
    ----------
    log_backgrounds : (N, Y, X) float32
        Log counts, dark removed.
    counts : (N, Y, X) float32
        Raw tiles, dark removed.
    """
    coarse = Coarse((counts.shape[1], counts.shape[2]))
    everywhere = np.ones(coarse.size, bool)
    for log_background, raw in zip(log_backgrounds, counts, strict=True):
        ratio = coarse.log_cells(raw, None) - coarse.mean(log_background)
        log_background += np.float32(upper(ratio, everywhere))


def to_beam_level(
    log_backgrounds: Image, counts: Image, prior: Prior, places: Sequence[int | None]
) -> None:
    """Bring backgrounds, in place, to the level of the beam.

    That is the level where each tile is empty, unless the prior tells that none of it is.

    Parameters
    ----------
    log_backgrounds, counts : (N, Y, X) float32
        As in `to_empty_level`.
    prior : Prior
    places : sequence of int or None
        Of the tiles in the scan.
    """
    to_empty_level(log_backgrounds, counts)
    for log_background, i in zip(log_backgrounds, places, strict=True):
        log_background += prior.beam_shift((log_background - prior.of(i))[::4, ::4], i)


def to_prior_level(log_backgrounds: Image, priors: Sequence[Image]) -> None:
    """Bring backgrounds, in place, to the level of their priors.

    A reference knows the level of the beam, which a tile that the specimen covers does not.

    Parameters
    ----------
    log_backgrounds : (N, Y, X) float32
        Log counts, dark removed.
    priors : sequence of (Y, X) float32
        Log counts of the references, dark removed.
    """
    for log_background, prior in zip(log_backgrounds, priors, strict=True):
        log_background += np.float32(np.median((prior - log_background)[::4, ::4]))


def shared_error(layers: list[Image], step: int = 4) -> float:
    """Error of the median, from the difference of the medians of two halves.

    Medians of halves differ by ``2`` times the error of the median of all, if layers are
    independent (each half's variance is twice the whole's, the difference adds two).
    """
    if len(layers) < 4:
        return 0.05
    coarse = [layer[::step, ::step] for layer in layers]
    difference = _median(coarse[::2]) - _median(coarse[1::2])
    return float(np.std(difference) / 2)
