"""Figures of a correction where the true background is known from references."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

__all__ = ["Figures", "Scene", "log_error", "mean_truth"]

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]

LIT = 0.25  # of the truth's median: what is darker is not judged
ERODE_PX = 6
SMOOTH_PX = 2
LEAST_OVERLAP = 4000  # lit pixels of an overlap that counts as a seam
ERROR_LIMIT, SEAM_LIMIT = 1.0, 0.3  # of a pixel's logarithm


@dataclass(frozen=True)
class Figures:
    """Shares of 1; None where a figure cannot be had.

    Attributes
    ----------
    error : float or None
        Rms of ``log(B / B_true)`` over the lit field, one scale removed a tile; mean over tiles.
    worst : float or None
        The largest of the tiles' errors.
    spread : float or None
        Standard deviation of ``log(raw / B)``, smoothed by 2 px, in the areas free of sample;
        mean over tiles.
    seam : float or None
        Rms log difference of corrected tiles in their overlaps.
    """

    error: float | None = None
    worst: float | None = None
    spread: float | None = None
    seam: float | None = None


def mean_truth(images: Iterable[NDArray[Any]]) -> Image:
    """True background from references `(Y, X)`: mean of each over its median."""
    counts = [np.asarray(image, np.float64) for image in images]
    truth: Image = np.mean([image / np.median(image) for image in counts], axis=0)
    return truth


def _log(image: NDArray[Any], least: float) -> Image:
    out: Image = np.log(np.maximum(image.astype(np.float64), least))
    return out


@dataclass(frozen=True, eq=False)
class Scene:
    """Raw tiles of a case and what is known of them.

    Attributes
    ----------
    raws : mapping of str to (Y, X)
        Counts, by the tile's name.
    truth : (Y, X) float64
        True background, of any scale.
    judged : frozenset of str
        Tiles whose error counts.
    free : mapping of str to (Y, X) bool
        Areas free of sample, of the tiles where they are known.
    places : mapping of str to (y, x), or None
        Top left corners in pixels.
    """

    raws: Mapping[str, NDArray[Any]]
    truth: Image
    judged: frozenset[str]
    free: Mapping[str, Mask]
    places: Mapping[str, tuple[float, float]] | None = None

    @property
    def lit(self) -> Mask:
        """Field that is judged: a quarter of the truth's median and more, less a rim."""
        bright = self.truth > LIT * np.median(self.truth)
        lit: Mask = binary_erosion(bright, iterations=ERODE_PX)
        return lit

    def judge(self, backgrounds: Mapping[str, NDArray[Any]]) -> Figures:
        """Figures of backgrounds `(Y, X)` in counts, by the tile's name."""
        lit = self.lit
        logs = {name: _log(backgrounds[name], 1e-3) for name in sorted(self.raws)}
        raws = {name: gaussian_filter(_log(r, 1.0), SMOOTH_PX) for name, r in self.raws.items()}
        true = _log(self.truth, 1e-3)
        errors = [log_error(logs[name], true, lit) for name in logs if name in self.judged]
        spreads = [
            float((raws[name] - gaussian_filter(logs[name], SMOOTH_PX))[lit & area].std())
            for name, area in self.free.items()
        ]
        seam = None
        if self.places is not None:
            seam = _seam({name: raws[name] - logs[name] for name in logs}, self.places, lit)
        return Figures(
            error=float(np.mean(errors)) if errors else None,
            worst=max(errors, default=None),
            spread=float(np.mean(spreads)) if spreads else None,
            seam=seam,
        )


def log_error(log_background: Image, log_truth: Image, lit: Mask) -> float:
    """Rms of the difference of two log backgrounds over the lit field, one scale removed."""
    off = (log_background - log_truth)[lit]
    return float(np.sqrt(np.mean(np.clip(off - np.median(off), -ERROR_LIMIT, ERROR_LIMIT) ** 2)))


def _seam(
    tiles: Mapping[str, Image], places: Mapping[str, tuple[float, float]], lit: Mask
) -> float | None:
    """Rms difference of log tiles in their overlaps, every pair with the same weight."""
    found = []
    for one, other in combinations(tiles, 2):
        dy, dx = (round(q - p) for p, q in zip(places[one], places[other], strict=True))
        here = tuple(_shared(n, d) for n, d in zip(lit.shape, (dy, dx), strict=True))
        there = tuple(_shared(n, -d) for n, d in zip(lit.shape, (dy, dx), strict=True))
        both = lit[here] & lit[there]
        if both.sum() >= LEAST_OVERLAP:
            off = (tiles[one][here] - tiles[other][there])[both]
            found.append(np.mean(np.clip(off, -SEAM_LIMIT, SEAM_LIMIT) ** 2))
    return float(np.sqrt(np.mean(found))) if found else None


def _shared(size: int, shift: int) -> slice:
    """Part of an axis that a tile has in common with one that begins `shift` pixels later."""
    return slice(min(size, max(0, shift)), max(0, min(size, size + shift)))
