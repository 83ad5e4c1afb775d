"""The level of the beam in each tile of a mosaic, from the tiles that show it.

A tile that the specimen covers shows a lower level than the beam's. Alone it cannot tell; beside
tiles of the same hours it can, since the beam changes little between them. A tile's own level,
that of its emptiest parts, shows either the beam, within the usual drift, or specimen, anything
below: both likelihoods give the probability that it is the beam's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from napari_txm_bgcorr.core.legendre import Order, legendre
from napari_txm_bgcorr.core.overview import Overview, bin_mean
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import UPPER

__all__ = ["TILE_H", "BeamLevels", "Shown", "beam_plane", "hours_of", "shown_terms", "shows_beam"]

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
CELLS = 32  # of a tile for its terms
ALIKE = 64.0  # independent ones among them
TILE_WIDTHS = (0.08, 0.06, 0.05, 0.04, 0.03, USUAL, USUAL, USUAL)  # a tile's rounds
TERM = 0.03  # rms of a term of degree 1, log
BLOCK = 64  # tiles at once
LITTLE, MOST = 0.3, 0.7  # of a tile explained: from none to all of its terms are believed
LEVEL_SURE, TERM_SURE = 0.7, 1.0  # of usual drift: least errors of what is shown
SHOWN = 0.3  # of a tile's weight: neighbours in a row show the same specimen
LEAST_STEPS = 6  # between tiles in a row that both show the beam


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
            trust = shows_beam(own - levels, share)
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
        trust = float(shows_beam(np.array([own - beam]), self.share)[0])
        return beam + trust * (own - beam)


@dataclass(frozen=True, eq=False)
class Shown:
    """What tiles show where they are emptiest.

    Attributes
    ----------
    terms : (T, K) float64
        Legendre terms of the log counts there, relative to the shared shape; the first is the
        level.
    share : (T,) float64
        Of a tile's cells that these terms explain.
    """

    terms: Floats
    share: Floats

    def evidence(self, drift: Floats, places: Floats, usual: Floats) -> tuple[Floats, Floats]:
        """What the tiles that show the beam say of its drift, and with which precision.

        How well a tile tells a term is seen from neighbours in time: what the overlaps left
        undecided changes slowly from tile to tile, what a specimen leaks does not.

        Parameters
        ----------
        drift : (T, K) float64
            Terms found otherwise: the level up to a plane, the others up to a constant.
        places : (T, 2) float64
            Of the tiles.
        usual : (K,) float64
            Rms of usual drift.

        Returns
        -------
        (T, K) float64, (T, K) float64
            Terms, and one over their squared error; 0 where nothing is told.
        """
        off = self.terms - drift
        trust, middle = beam_plane(off[:, 0], places)
        whole = trust * np.clip((self.share - LITTLE) / (MOST - LITTLE), 0, 1)
        faith = np.column_stack([trust, *[whole] * (len(usual) - 1)])
        found, precision = self.terms.copy(), np.zeros_like(faith)
        for k, least in enumerate(np.r_[LEVEL_SURE, [TERM_SURE] * (len(usual) - 1)] * usual):
            good = faith[:, k] > 0.5
            steps = np.diff(off[:, k])[good[1:] & good[:-1]]
            if len(steps) < LEAST_STEPS:
                continue
            error = 1.4826 * float(np.median(np.abs(steps))) / np.sqrt(2)
            precision[:, k] = SHOWN * faith[:, k] / (error**2 + least**2)
            found[:, k] -= middle if k == 0 else float(np.median(off[good, k]))
        return found, precision


def shown_terms(overview: Overview, order: Order) -> Shown:
    """Terms that each tile shows where it is emptiest: what absorbs is left out step by step."""
    lit = overview.lit_bins
    bins = max(1, min(lit.shape) // CELLS)
    whole = bin_mean(lit.astype(np.float32), bins) > 0.999
    y, x = (((np.arange(n) + 0.5) / n * 2 - 1) for n in whole.shape)
    basis = legendre(order, np.repeat(y, len(x)), np.tile(x, len(y)))[whole.ravel()]
    ridge = np.diag([(sum(o) ** 1.5 / TERM) ** 2 if sum(o) else 1e-6 for o in order])
    terms, share = np.zeros((len(overview), len(order))), np.zeros(len(overview))
    for first in range(0, len(overview), BLOCK):
        part = slice(first, first + BLOCK)
        cells = np.stack([bin_mean(raw, bins)[whole] for raw in overview.raw[part]])
        terms[part], share[part] = _upper_terms(cells.astype(np.float64), basis, ridge)
    terms[:, 0] += overview.raw_level
    return Shown(terms, share)


def _upper_terms(values: Floats, basis: Floats, ridge: Floats) -> tuple[Floats, Floats]:
    """Terms of the upper edge of cells `(N, n)`, and the share of them that lies there."""
    pairs = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), -1)
    terms: Floats = np.zeros((len(values), basis.shape[1]))
    terms[:, 0] = np.quantile(values, UPPER, axis=1)
    share: Floats = np.full(len(values), 0.5)
    for width in TILE_WIDTHS:
        off = values - terms @ basis.T
        trust = shows_beam(off, share[:, None], width)
        share = np.asarray(np.clip(trust.mean(axis=1), 0.05, 0.95), np.float64)
        weights = trust * np.minimum(1, width / np.maximum(off, 1e-9))
        weights *= ALIKE / len(basis) / width**2
        matrix = (weights @ pairs).reshape(len(values), len(ridge), -1) + ridge
        right = (weights * values) @ basis
        terms = np.asarray(np.linalg.solve(matrix, right[:, :, None])[:, :, 0], np.float64)
    return terms, share


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
        trust = shows_beam(off - plane, share, width)
        share = float(np.clip(trust.mean(), 0.05, 0.95))
        weights = trust * np.minimum(1, width / np.maximum(off - plane, 1e-9))
        weighted = columns.T * weights
        prior = np.diag([1e-9, *[(width / STEEP) ** 2] * 2])
        plane = columns @ linalg.solve(weighted @ columns + prior, weighted @ off, assume_a="pos")
    return trust, float(plane.mean())


def shows_beam(
    off: NDArray[Any], share: float | NDArray[Any], width: float = USUAL
) -> NDArray[Any]:
    """Probability that tiles, or cells of one, so far off the beam's level show it.

    Parameters
    ----------
    off : (...) float
        Log level less the beam's.
    share : float or float that broadcasts
        Of the tiles that do, beforehand.
    width : float
        Rms drift of the beam, log.

    Returns
    -------
    (...) of the type of `off`
    """
    below = np.minimum(off, 0)
    beam = share * np.exp(-0.5 * (below / width) ** 2) / (math.sqrt(2 * math.pi) * width)
    specimen = np.where(off < 0, np.exp(below / DEEP) / DEEP, 0)
    out: NDArray[Any] = beam / (beam + (1 - share) * specimen + 1e-30)
    return out


def hours_of(scan: Scan) -> Floats | None:
    """Hours of the tiles since the first one; None where a time is unknown."""
    if scan.times is None or np.isnat(scan.times).any():
        return None
    seconds = (scan.times - scan.times.min()) / np.timedelta64(1, "s")
    out: Floats = np.asarray(seconds, np.float64) / 3600
    return out
