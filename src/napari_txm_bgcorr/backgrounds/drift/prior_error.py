"""Expected error of a prior pattern, and acquisition times of tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import Scan

from .types import FitOptions

__all__ = ["PriorError", "prior_error", "tile_hours"]

Floats = NDArray[np.float64]

HOUR = np.timedelta64(1, "h")
TILE_H = 85 / 3600  # a tile of 60 s and the motor, where times are not known
AGE_H = 0.4  # of references whose time is not known
AGE_RATE = 0.02  # log, of a smooth term in the square root of an hour
FOLLOWED = 0.6  # of that is left where the ways in which references vary were fitted
FRESH, STALE = 0.01, 0.1  # log, least and greatest error of a smooth term of a reference
LEVEL_LEAST, LEVEL_RATE, LEVEL_MOST = 0.02, 0.09, 0.25  # log, of a reference's level, likewise
GUESSED = 0.1  # log, error of a smooth term of a pattern that is no reference


@dataclass(frozen=True)
class PriorError:
    """Expected error of the prior pattern, log.

    Attributes
    ----------
    shared_sd : float
        Standard deviation of a smooth term of degree 1.
    field_sd : float
        Standard deviation of a smooth field on top.
    level_sd : float or None
        Standard deviation of the level; None: the prior states no level.
    """

    shared_sd: float
    field_sd: float
    level_sd: float | None = None


def prior_error(scan: Scan, from_references: bool, followed: bool = False) -> PriorError:
    """Estimate the error of a prior pattern from the age of its references; else a fixed guess.

    Parameters
    ----------
    scan : Scan
    from_references : bool
        The pattern comes from references; False: it is a guess, for example of a network.
    followed : bool
        The shapes of the references were fitted to each tile.
    """
    if not from_references:
        return PriorError(GUESSED, FitOptions.field_sd)
    age = _age_h(scan)
    rate = AGE_RATE * (FOLLOWED if followed else 1)
    smooth = float(np.clip(rate * np.sqrt(age), FRESH, STALE))
    level = min(float(np.hypot(LEVEL_LEAST, LEVEL_RATE * np.sqrt(age))), LEVEL_MOST)
    return PriorError(smooth, min(max(smooth / 2, FRESH), FitOptions.field_sd), level)


def _age_h(scan: Scan) -> float:
    """Hours from the nearest reference to the middle of the scan, as a median over tiles."""
    if scan.times is None or scan.flat_times is None:
        return AGE_H
    tiles, flats = np.asarray(scan.times), np.asarray(scan.flat_times)
    if np.isnat(tiles).any() or np.isnat(flats).all():
        return AGE_H
    gap = np.abs(tiles[:, None] - flats[None, ~np.isnat(flats)]) / HOUR
    return float(np.median(gap.min(axis=1)))


def tile_hours(scan: Scan) -> Floats:
    """Hours of the tiles since the first one; one after the other where unknown."""
    if scan.times is None or np.isnat(scan.times).any():
        return np.arange(len(scan), dtype=np.float64) * TILE_H
    out: Floats = np.asarray((scan.times - scan.times.min()) / HOUR, np.float64)
    return out
