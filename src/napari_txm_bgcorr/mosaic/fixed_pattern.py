"""The fine pattern that the tiles of a scan share, kept where halves of the tiles agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core import Coarse, cpu_cores, median_of

__all__ = ["SmoothedTile", "agreeing", "shared_pattern"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

CLIP = 0.5  # of a log residual: nothing shared lies beyond
CELLS_PER_SIGMA = 2  # on which images are smoothed
BANDS = (1 / 512, 1 / 128, 1 / 64, 1 / 32, 1 / 16)  # of the field: where residuals are split


def shared_pattern(residuals: NDArray[np.float16], lit: Mask) -> tuple[Image, NDArray[np.float64]]:
    """Estimate the pattern that high-passed log residuals of the tiles share.

    The specimen moves from tile to tile and the pattern does not: of the median over tiles,
    each band is kept by its share of signal, ``S / (S + N)``, with S and N from the medians of
    the two halves of the tiles (their covariance, and a quarter of the power of their
    difference). A band in which halves do not agree is left out.

    Parameters
    ----------
    residuals : (N, Y, X) float16
        Log raw less log background, each less its median.
    lit : (Y, X) bool

    Returns
    -------
    pattern : (Y, X) float32
        Zero where unlit.
    kept : (B,) float64
        Weight of each band, fine to coarse.
    """
    if len(residuals) < 4:
        return np.zeros(lit.shape, np.float32), np.zeros(len(BANDS))
    one, two = (median_of(residuals[k::2], cpu_cores()) for k in (0, 1))
    whole: Image = ((one + two) / 2).astype(np.float32)
    if len(residuals) > 4:
        whole = median_of(residuals, cpu_cores())
    return agreeing(one, two, whole, lit)


def agreeing(
    one: Image, two: Image, whole: Image, known: Mask
) -> tuple[Image, NDArray[np.float64]]:
    """Shrink an estimate, band by band, by how its two halves agree; see `shared_pattern`.

    Parameters
    ----------
    one, two, whole : (Y, X) float32
        From half of the data, the other half, and all.
    known : (Y, X) bool

    Returns
    -------
    (Y, X) float32, (B,) float64
        Estimate without its smooth part, zero where unknown; and the weights.
    """
    kept = np.zeros(len(BANDS))
    out = np.zeros(known.shape, np.float32)
    smooths = [SmoothedTile(known, share) for share in (*BANDS[1:], 1 / 8)]
    parts = (_bands(image, smooths) for image in (one, two, whole))
    for band, (a, b, both) in enumerate(zip(*parts, strict=True)):
        signal = float(np.mean(a[known] * b[known]))
        noise = float(np.mean((a[known] - b[known]) ** 2)) / 4
        # The covariance is itself uncertain: a band of the field's 1/16 has few degrees.
        scale = BANDS[band] * max(known.shape)
        degrees = max(1.0, known.sum() / (4 * np.pi * max(scale, 0.5) ** 2))
        signal -= 2 * (signal + 2 * noise) / np.sqrt(degrees)
        kept[band] = max(0.0, signal / max(signal + noise, 1e-12))
        out += np.float32(kept[band]) * both
    out[~known] = 0
    return out, kept


def _bands(image: Image, smooths: Sequence[SmoothedTile]) -> list[Image]:
    """Split a log image by scale; their sum is the image less its smooth part."""
    here = np.clip(image, -CLIP, CLIP)
    bands = []
    for smooth in smooths:
        coarser = smooth(here)
        bands.append(here - coarser)
        here = coarser
    return bands


class SmoothedTile:
    """Gaussian mean over the known pixels.

    Taken on cells of half its sigma, with what the cells blur taken off the sigma: nothing that
    is left would need finer ones, and it costs a fiftieth.
    """

    def __init__(self, known: Mask, share: float) -> None:
        self.coarse = Coarse(known.shape, max(1, round(CELLS_PER_SIGMA / share)))
        variance = (share * max(known.shape)) ** 2
        self.sigma = [np.sqrt(variance - (n * n - 1) / 12) / n for n in self.coarse.cell]
        self.weight = known.astype(np.float32)
        self.mass: Image = np.maximum(self._blurred(self.weight), np.float32(1e-6))

    def _blurred(self, image: Image) -> Image:
        out: Image = ndimage.gaussian_filter(self.coarse.mean(image), self.sigma, truncate=3)
        return out

    def __call__(self, image: Image) -> Image:
        """Means `(Y, X)`."""
        cells = self._blurred(image * self.weight) / self.mass
        return cells if self.coarse.cell == (1, 1) else self.coarse.expand(cells)
