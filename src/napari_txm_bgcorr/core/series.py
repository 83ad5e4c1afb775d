"""A series of one field, as a tomogram: one pattern, and a level that drifts smoothly.

The background of projection i is ``S + c_i + g_i`` in logarithms: S the shape that all share,
taken from the references where there are any, c_i what the method says of projection i, smoothed
over time, g_i the drift of the level. A cell of a flat specimen
absorbs ``a u_i``, ``u_i = 1 / cos(angle)`` (of one that stands free about the same at all
angles, ``u_i = 1``); what is left, and common to the field, is drift or the specimen's own
change. The two are told apart by how much and how fast a beam drifts, and by the references,
which see drift alone. Tilts cannot be told apart: a specimen that turns moves across the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from napari_txm_bgcorr.core.beam_levels import hours_of
from napari_txm_bgcorr.core.captured import visits
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.level import Level, find_level
from napari_txm_bgcorr.core.overview import BACKGROUND_CELLS, Overview, bin_mean, survey
from napari_txm_bgcorr.core.refined import Joined
from napari_txm_bgcorr.core.scan import LazyTiles, Scan, TileArray
from napari_txm_bgcorr.core.shapes import Coarse, log_beam, spread_indices, to_counts
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["SeriesBackgrounds", "SeriesOptions", "steady"]

Image = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SeriesOptions:
    """What is usual of a beam's drift, and of a specimen's change.

    Attributes
    ----------
    fast, slow : (rms, hours)
        Two bounded random walks of the level; measured: 1-4 % within 16 minutes, 10 % over
        days.
    change : tuple of float
        Rms of the specimen's own change, over the whole field: the likeliest is taken.
    change_share : float
        Of the scan's duration over which that change is alike.
    smooth_h : float
        The method's backgrounds are smoothed over this time (standard deviation).
    least_tiles : int
        With fewer the stage steps aside.
    least_change : float
        Log rms below which there is nothing to gain.
    """

    fast: tuple[float, float] = (0.015, 0.3)
    slow: tuple[float, float] = (0.05, 10.0)
    change: tuple[float, ...] = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)
    change_share: float = 0.3
    smooth_h: float = 0.1
    least_tiles: int = 6
    least_change: float = 0.002


DEFAULT = SeriesOptions()
CELLS = 16  # across the field, in which projections are compared
TILE_H = 85 / 3600  # a projection of 60 s and the motor, where times are not known
FLAT_NOISE = 0.002  # log, of a term seen by a visit to the reference position
CELL_NOISE = 0.001  # log, of a term seen by one projection
FREE = 1.0  # log: the specimen's mean thickness is not known beforehand
MAX_NODES = 512  # times at which the drift is computed; between them linear
MAX_FLATS = 32
TURN = 20.0  # degrees: with less, thickness hardly changes
HOUR = np.timedelta64(1, "h")
STAGE = "following the drift"


def steady(
    scan: Scan,
    backgrounds: TileArray,
    *,
    overview: Overview | None = None,
    options: SeriesOptions = DEFAULT,
    workers: int = 1,
    i0: float | None = None,
    watch: Watch = SILENT,
) -> Joined:
    """Refine the backgrounds of a series together; see the page "Series" of the documentation.

    Parameters
    ----------
    scan : Scan
        Its references, where it has any with times, tie the drift.
    backgrounds : (T, Y, X) array-like, counts
        Of any method, dark included.
    overview : Overview or None
        Of an earlier `survey` of the same backgrounds.
    options : SeriesOptions
    workers : int
        Threads that look at tiles.
    i0 : float or None
        Counts of the open beam, dark removed: median over the lit field.
    watch : Watch
        Told how far it is.

    Returns
    -------
    Joined
        With a reason and the backgrounds as given where it cannot help.

    Raises
    ------
    StoppedError
        If the watch ended it.
    """
    if len(scan) < options.least_tiles:
        return Joined(
            backgrounds, f"{len(scan)} projections; a drift needs {options.least_tiles} or more"
        )
    if overview is None:
        overview = survey(scan, backgrounds, workers=workers, watch=watch)
    drift = _Drift(scan, overview, options, watch)
    if float(np.std(drift.g)) + drift.changed < options.least_change:
        return Joined(
            backgrounds,
            f"no drift of more than {100 * options.least_change:.1f} % stands out of what the "
            "specimen itself changes",
        )
    return _joined(scan, overview, drift, i0)


def _joined(scan: Scan, overview: Overview, drift: _Drift, i0: float | None) -> Joined:
    levels = drift.g + drift.own.mean(axis=(1, 2))
    level = _level(scan, overview, levels, bool(len(drift.visits)), i0)
    lazy = SeriesBackgrounds(
        scan.dark(), overview.shape + drift.pattern, drift.own, drift.g + level.shift
    )
    facts = {
        "reference_visits": len(drift.visits),
        "specimen": drift.model,
        "drift_rms": round(float(np.std(drift.g)), 5),
    }
    return Joined(lazy, "", None, levels + level.shift, level, facts)


def _level(scan: Scan, overview: Overview, levels: Floats, tied: bool, i0: float | None) -> Level:
    """Level of a series. Its smoothest, brightest places say nothing: no tile need be empty."""
    if i0 is None and tied:
        return Level("references")
    return find_level(scan, overview, None, i0=i0, found_level=float(np.median(levels)))


class SeriesBackgrounds(LazyTiles):
    """Backgrounds `(T, Y, X)` in counts: common log shape, cells of each projection, level.

    Parameters
    ----------
    dark : (Y, X) float32, counts, or None
    shape : (Y, X) float32
        Log.
    cells : (T, y, x) float32
        Log, about `BACKGROUND_CELLS` across the field.
    levels : (T,) float64
        Log counts on top of these, dark removed.
    """

    def __init__(self, dark: Image | None, shape: Image, cells: Image, levels: Floats) -> None:
        rows, columns = shape.shape
        super().__init__((len(levels), rows, columns), np.float32, self._background)
        self._dark, self._log, self._levels = dark, shape, levels
        self._own = _Cells(cells, shape.shape)

    def _background(self, i: int) -> Image:
        log: Image = self._own(i) + self._log
        log += np.float32(self._levels[i])
        return to_counts(log, self._dark)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds, by name, for `of`."""
        found: dict[str, NDArray[Any]] = {
            "shape": self._log,
            "cells": self._own.cells,
            "levels": self._levels,
        }
        return found if self._dark is None else found | {"dark": self._dark}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make them from `arrays`; the same bits.

        Raises
        ------
        KeyError
            If one is missing.
        """
        return cls(arrays.get("dark"), arrays["shape"], arrays["cells"], arrays["levels"])


class _Cells:
    """Cells `(T, y, x)` to pixels."""

    def __init__(self, cells: Image, shape: tuple[int, ...]) -> None:
        self.cells = cells
        self.coarse = Coarse((shape[0], shape[1]), BACKGROUND_CELLS)

    def __call__(self, i: int) -> Image:
        return self.coarse.expand(self.cells[i])


class _Drift:
    """Drift of the level `g` (T,), and a `pattern` (Y, X) common to all, both logarithms."""

    def __init__(
        self, scan: Scan, overview: Overview, options: SeriesOptions, watch: Watch
    ) -> None:
        self.options, count = options, len(overview)
        hours = hours_of(scan)
        self.hours: Floats = (
            np.arange(count, dtype=np.float64) * TILE_H if hours is None else hours
        )
        rest: Image = overview.rest
        self.visits = [] if hours is None else visits(scan)
        if not self.visits:  # the level of one projection alone is a guess
            mean = rest.mean(axis=(1, 2), keepdims=True)
            rest = (rest - mean + np.median(mean)).astype(np.float32)
        self.own = _smoothed(rest, self.hours, options.smooth_h)
        self.pattern = np.zeros(overview.shape.shape, np.float32)
        when, at_visits = self._references(scan, overview)
        self.changed = float(np.sqrt(np.mean((self.own - rest) ** 2))) + float(self.pattern.std())
        seen_level, self.model = self._projections(scan, overview, watch)
        watch.check()
        self.g = self._follow(seen_level, when, at_visits)

    def _references(self, scan: Scan, overview: Overview) -> tuple[Floats, Floats]:
        """Hours of each visit, and the level seen there against what is taken for the method's.

        References before and after the scan say more than any method: they are interpolated
        in place of it. A visit on one side only may be stale: it ties the level.
        """
        logs = [self._visit(scan, group) - overview.shape for group in self.visits]
        start = np.asarray(scan.times).min() if self.visits else None
        when = np.array([
            float(np.mean((np.asarray(scan.flat_times)[group] - start) / HOUR))
            for group in self.visits
        ])  # fmt: skip
        if not len(when) or when[0] > self.hours.min() or when[-1] < self.hours.max():
            levels = [
                float(np.median((log - self._own_near(hour, log.shape))[overview.lit]))
                for log, hour in zip(logs, when, strict=True)
            ]
            return when, np.array(levels)
        rows, columns = overview.rest.shape[1:]
        cell = max(1, min(overview.shape.shape) // BACKGROUND_CELLS)
        cells = np.stack([bin_mean(log, cell)[:rows, :columns] for log in logs])
        place = np.interp(self.hours, when, np.arange(len(when)))
        low = np.minimum(place.astype(int), len(when) - 1)
        high, part = np.minimum(low + 1, len(when) - 1), (place - low)[:, None, None]
        self.own = ((1 - part) * cells[low] + part * cells[high]).astype(np.float32)
        spread = _Cells(cells, overview.shape.shape)
        self.pattern = np.mean([log - spread(k) for k, log in enumerate(logs)], axis=0)
        return when, np.zeros(len(when))

    def _visit(self, scan: Scan, group: NDArray[np.intp]) -> Image:
        chosen = [int(group[k]) for k in spread_indices(len(group), MAX_FLATS)]
        stack: Any = scan.flats
        dark = scan.dark()
        out: Image = np.median([log_beam(stack[k], dark) for k in chosen], axis=0)
        return out

    def _own_near(self, hour: float, shape: tuple[int, ...]) -> Image:
        return _Cells(self.own, shape)(int(np.argmin(np.abs(self.hours - hour))))

    def _projections(self, scan: Scan, overview: Overview, watch: Watch) -> tuple[Floats, str]:
        """Level of each projection once the specimen is taken away, and the way it was."""
        shared = bin_mean(self.pattern, overview.bin_px)
        block = max(1, min(overview.raw.shape[1:]) // CELLS)
        own = _Cells(self.own, overview.shape.shape)
        lit = bin_mean(overview.lit_bins.astype(np.float32), block) > 0.999
        logs = np.empty((len(overview), *lit.shape))
        for i in range(len(overview)):
            watch.step(STAGE, i, len(overview))
            log = overview.raw[i] + np.float32(overview.raw_level[i]) - shared
            logs[i] = bin_mean(log - bin_mean(own(i), overview.bin_px), block)
        best = None
        for name, thickness in _thicknesses(scan):
            absorbed = np.median(logs / thickness[:, None, None], axis=0)
            left = logs - absorbed * thickness[:, None, None]
            found = _robust_mean(left[:, lit])
            size = float(np.mean(np.abs(left[:, lit] - left[:, lit].mean())))
            if best is None or size < best[0]:
                best = (size, found, name, thickness)
        if best is None:
            raise MethodError(f"{scan.source.path}: no projections to follow; choose --no-joint")
        self.thickness = best[3]
        return best[1], best[2]

    def _follow(self, seen: Floats, when: Floats, at_visits: Floats) -> Floats:
        """Drift of the level at all projections: Gaussian process regression.

        C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning (2006),
        equations 2.23 and 2.30: the specimen's change is the one of greatest likelihood.
        """
        nodes = spread_indices(len(seen), MAX_NODES)
        times = np.concatenate([self.hours[nodes], when])
        offset = float(np.mean(at_visits)) if len(when) else float(np.median(seen))
        values = np.concatenate([seen[nodes], at_visits]) - offset
        prior = sum(
            rms**2 * np.exp(-np.abs(times[:, None] - times) / hours)
            for rms, hours in (self.options.fast, self.options.slow)
        )
        alike = np.exp(-np.abs(times[:, None] - times) / self._memory())
        known = np.arange(len(times)) >= len(nodes)
        alike[known] = alike[:, known] = 0
        thickness = np.concatenate([self.thickness[nodes], np.zeros(len(when))])
        noise = np.diag(np.where(known, FLAT_NOISE, CELL_NOISE) ** 2)
        noise = noise + FREE**2 * np.outer(thickness, thickness)
        best, most = values, -np.inf
        for change in self.options.change:
            factor = linalg.cho_factor(prior + noise + change**2 * alike, lower=True)
            weights = linalg.cho_solve(factor, values)
            likely = -0.5 * values @ weights - np.log(np.diag(factor[0])).sum()
            if likely > most:
                best, most = np.asarray(prior @ weights), float(likely)
        order = np.argsort(self.hours[nodes], kind="stable")
        out: Floats = offset + np.interp(
            self.hours, self.hours[nodes][order], best[: len(nodes)][order]
        )
        return out

    def _memory(self) -> float:
        return max(self.options.change_share * float(np.ptp(self.hours)), 1e-3)


def _thicknesses(scan: Scan) -> list[tuple[str, Floats]]:
    """Ways in which absorption goes with the angle, relative."""
    out = [("free", np.ones(len(scan)))]
    angles = scan.angles_deg
    if angles is not None and np.isfinite(angles).all() and np.ptp(angles) > TURN:
        tilt = np.cos(np.deg2rad(np.asarray(angles, np.float64)))
        if tilt.min() > 0.3:
            out.append(("slab", 1 / tilt))
    return out


def _robust_mean(values: Floats) -> Floats:
    """Mean over the last axis of `(N, C)`, what is far off left out little by little."""
    found: Floats = np.median(values, axis=1, keepdims=True)
    for _ in range(8):
        off = values - found
        scale = np.maximum(1.4826 * np.median(np.abs(off), axis=1, keepdims=True), 1e-6)
        weight = 1 / (1 + (off / scale) ** 2)
        found = (weight * values).sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
    return found[:, 0]


def _smoothed(rest: Image, hours: Floats, width_h: float) -> Image:
    """The method's own part of all projections `(T, y, x)`, a Gaussian mean over time."""
    near = np.exp(-0.5 * ((hours[:, None] - hours) / width_h) ** 2)
    near /= near.sum(axis=1, keepdims=True)
    out: Image = np.tensordot(near.astype(np.float32), rest, 1)
    return out
