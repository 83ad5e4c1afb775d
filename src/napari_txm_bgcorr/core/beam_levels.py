"""The level of the beam in each tile of a mosaic, from the tiles that show it.

A tile that the specimen covers shows a lower level than the beam's. Alone it cannot tell; beside
tiles of the same hours it can, since the beam changes little between them. A tile's own level,
that of its emptiest parts, shows either the beam, within the usual drift, or specimen, anything
below: both likelihoods give the probability that it is the beam's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from napari_txm_bgcorr.core.overview import Overview, bin_mean
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import upper

__all__ = ["TILE_H", "BeamLevels", "beam_plane", "hours_of", "shown_levels"]

Floats = NDArray[np.float64]

TILE_H = 85 / 3600  # a tile of 60 s and the motor, where times are not known
USUAL = 0.02  # rms drift of the level between neighbours, log
SLOW_RMS, SLOW_H = 0.09, 40.0  # of its drift over days, log and hours
ANY = 1.0  # rms of the level itself, log: nothing is known of it
DEEP = 0.4  # mean absorption of what covers a tile, log
FIRST = 0.9  # quantile of the tiles' levels to begin with
ROUNDS = 8
WIDTHS = (0.1, 0.08, 0.06, 0.045, 0.035, 0.03, 0.025, USUAL, USUAL, USUAL)  # a plane's rounds
STEEP = 0.15  # rms of such a plane from the middle to the edge, log
CELLS = 32  # of a tile for its level


@dataclass(frozen=True, eq=False)
class BeamLevels:
    """Levels of the beam through one mosaic, and how far a tile's own is believed.

    The beam's level is the mean of a slow drift, given the tiles' own levels weighted by the
    probability that they show it.

    Attributes
    ----------
    hours : (T,) float64
        Of all tiles of the scan.
    levels : (T,) float64
        Log level of the beam at each of them.
    share : float
        Of the tiles, that show the beam.
    """

    hours: Floats
    levels: Floats
    share: float

    @classmethod
    def of(cls, scan: Scan, chosen: list[int], own: Floats) -> Self:
        """From some tiles of a mosaic.

        Parameters
        ----------
        scan : Scan
        chosen : list of int
            Tiles looked at.
        own : (len(chosen),) float64
            Log level that each of them shows, relative to one shape.
        """
        found = hours_of(scan)
        hours: Floats = TILE_H * np.arange(len(scan), dtype=np.float64) if found is None else found
        seen = hours[chosen]
        drift = ANY**2 + SLOW_RMS**2 * np.exp(-np.abs(seen[:, None] - seen) / SLOW_H)
        levels, share = np.full(len(own), np.quantile(own, FIRST)), 0.5
        for _ in range(ROUNDS):
            trust = _shows_beam(own - levels, share)
            share = float(np.clip(trust.mean(), 0.05, 0.95))
            noise = np.diag(USUAL**2 / np.maximum(trust, 1e-6))
            middle = float(np.average(own, weights=trust + 1e-9))
            levels = middle + drift @ linalg.solve(drift + noise, own - middle, assume_a="pos")
        order = np.argsort(seen, kind="stable")
        beam = np.asarray(np.interp(hours, seen[order], levels[order]), np.float64)
        return cls(hours, beam, share)

    def believed(self, own: float, index: int) -> float:
        """Log level of tile `index` that shows `own` where it is emptiest."""
        beam = float(self.levels[index])
        trust = float(_shows_beam(np.array([own - beam]), self.share)[0])
        return beam + trust * (own - beam)


def shown_levels(overview: Overview) -> Floats:
    """Log level `(T,)` that each tile shows where it is emptiest, relative to the shared shape."""
    lit = overview.lit_bins
    bins = max(1, min(lit.shape) // CELLS)
    whole = bin_mean(lit.astype(np.float32), bins) > 0.999
    shown = [upper(bin_mean(raw, bins), whole) for raw in overview.raw]
    return np.asarray(overview.raw_level + np.array(shown), np.float64)


def beam_plane(off: Floats, places: Floats) -> tuple[Floats, float]:
    """Which tiles show the beam, if levels found otherwise may be off by a plane.

    Overlaps take a tilt of the shared shape for a plane in the levels, so levels that they tell
    are to be compared up to one. It is fitted to the upper edge of the differences, from a wide
    edge to one as narrow as usual drift.

    Parameters
    ----------
    off : (T,) float64
        Log level that each tile shows, less the one found otherwise.
    places : (T, 2) float64
        Of the tiles.

    Returns
    -------
    (T,) float64, float
        Probability that a tile shows the beam, and the plane's mean.
    """
    reach = np.ptp(places, axis=0).max()
    columns = np.column_stack([np.ones(len(places)), 2 * (places - places.mean(axis=0)) / reach])
    plane, share, trust = np.full(len(off), np.quantile(off, FIRST)), 0.5, np.ones(len(off))
    for width in WIDTHS:
        trust = _shows_beam(off - plane, share, width)
        share = float(np.clip(trust.mean(), 0.05, 0.95))
        weights = trust * np.minimum(1, width / np.maximum(off - plane, 1e-9))
        weighted = columns.T * weights
        prior = np.diag([1e-9, *[(width / STEEP) ** 2] * 2])
        plane = columns @ linalg.solve(weighted @ columns + prior, weighted @ off, assume_a="pos")
    return trust, float(plane.mean())


def _shows_beam(off: Floats, share: float, width: float = USUAL) -> Floats:
    """Probability that tiles so far off the beam's level show it.

    Parameters
    ----------
    off : (N,) float64
        Log level less the beam's.
    share : float
        Of the tiles that do, beforehand.
    width : float
        Rms drift of the beam, log.
    """
    beam = np.exp(-0.5 * (np.minimum(off, 0) / width) ** 2) / (np.sqrt(2 * np.pi) * width)
    specimen = np.where(off < 0, np.exp(np.minimum(off, 0) / DEEP) / DEEP, 0)
    out: Floats = share * beam / (share * beam + (1 - share) * specimen + 1e-300)
    return out


def hours_of(scan: Scan) -> Floats | None:
    """Hours of the tiles since the first one; None where a time is unknown."""
    if scan.times is None or np.isnat(scan.times).any():
        return None
    seconds = (scan.times - scan.times.min()) / np.timedelta64(1, "s")
    out: Floats = np.asarray(seconds, np.float64) / 3600
    return out
