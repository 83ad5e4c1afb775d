"""Input and result of the drift model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVEL_SD", "DriftFit", "FitOptions", "Frames", "OverlapBlocks"]

Floats = NDArray[np.float64]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
LEVEL_SD = 1.0  # log: nothing is known of the level of a scan


@dataclass(frozen=True)
class FitOptions:
    """Prior and noise standard deviations of the drift model; all of logarithms.

    Standard deviations of cells are those of one of 64 x 64 cells of a tile. They hold the
    correlated errors of free places (weak sample, what is left of the pattern), not the noise
    alone, which is smaller.

    Attributes
    ----------
    shared_degree, drift_degree : int
        Highest degree of the smooth terms of the pattern's error, and of the drift.
    shared_sd, field_sd : float
        How far the prior pattern is off: of a term of degree d ``shared_sd / d``, and of a
        smooth field that reaches `field_reach` of the tile.
    drift_sd, drift_rate, jitter : float
        Drift of a term of degree d: ``1 / sqrt(d)`` of these. Rms over the scan; growth in the
        square root of an hour; and change from tile to tile on top.
    level_rate, level_jitter : float
        The same of the level.
    free_sd, overlap_sd : float
        Of one cell that is free, and of the difference of two cells of one place.
    overlap_scale : float
        Differences far above this are outliers: the two tiles do not show the same.
    width : (first, last)
        Standard deviation of free cells, in the first round and in the last ones.
    veil_degree, veil_level, veil_sd : int, float, float
        A veil: weak sample that passes for free of sample, with a smooth shape in each tile. Its
        mean has a standard deviation of `veil_level`, a term of degree d ``veil_sd / d``. Part
        of the covariance, not of the solution.
    tails : float
        On all standard deviations: errors have longer tails than a normal density.
    rounds : int
    """

    shared_degree: int = 5
    drift_degree: int = 4
    shared_sd: float = 0.05
    field_sd: float = 0.03
    field_reach: float = 0.16
    drift_sd: float = 0.02
    drift_rate: float = 0.02
    jitter: float = 0.005
    level_rate: float = 0.09
    level_jitter: float = 0.01
    free_sd: float = 0.042
    overlap_sd: float = 0.006
    overlap_scale: float = 0.035
    width: tuple[float, float] = (0.03, 0.012)
    veil_degree: int = 3
    veil_level: float = 0.03
    veil_sd: float = 0.05
    tails: float = 1.3
    rounds: int = 12


@dataclass(frozen=True, eq=False)
class OverlapBlocks:
    """Blocks of the overlap of two tiles, and the log difference there, first less second.

    Attributes
    ----------
    first, second : int
        Tiles.
    place_first, place_second : (n, 2) float64
        (y, x) in each tile, -1 to 1.
    difference : (n,) float64
        Log counts less the prior pattern, level included.
    """

    first: int
    second: int
    place_first: Floats
    place_second: Floats
    difference: Floats


@dataclass(frozen=True, eq=False)
class Frames:
    """Observations of the tiles of a scan, on cells.

    Attributes
    ----------
    residual : (T, y, x) float32
        Log counts less the prior pattern, level included.
    usable : (y, x) bool
        Lit cells.
    hours : (T,) float64
        Acquisition time of each tile.
    overlaps : sequence of OverlapBlocks
    level : float or None
        Log level given by references, against the prior pattern.
    level_sd : float
        Standard deviation of `level`.
    free : (T, y, x) float32 or None
        Probabilities to be free of sample, known beforehand.
    """

    residual: Image
    usable: Mask
    hours: Floats
    overlaps: Sequence[OverlapBlocks] = ()
    level: float | None = None
    level_sd: float = LEVEL_SD
    free: Image | None = None


@dataclass(frozen=True, eq=False)
class DriftFit:
    """Solution.

    Attributes
    ----------
    levels : (T,) float64
        Log counts of each tile against the prior pattern.
    cells : (T, y, x) float32
        What each background is off the prior pattern, its level left out.
    sd : (T, y, x) float32
        Standard deviation of that.
    level_sd : (T,) float64
        Of each level.
    free_share : (T,) float64
        Of the usable cells of each tile that are free of sample.
    free : (T, y, x) float32
        Probabilities of the last round.
    seam : float
        Robust rms of what is left in the overlaps; NaN without any.
    width : float
        Standard deviation of free cells in the last round.
    """

    levels: Floats
    cells: Image
    sd: Image
    level_sd: Floats
    free_share: Floats
    free: Image
    seam: float
    width: float

    def model(self) -> Image:
        """Log backgrounds of all tiles `(T, y, x)` against the prior pattern, level included."""
        out: Image = self.cells + self.levels[:, None, None].astype(np.float32)
        return out
