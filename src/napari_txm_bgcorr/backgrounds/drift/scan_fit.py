"""One fit of the drift model to a scan: its frames on cells, its level, its backgrounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.backgrounds.tile_median import robust_median
from napari_txm_bgcorr.core import Progress, Scan, cpu_cores
from napari_txm_bgcorr.mosaic import FEW, Overview, Positions, bin_mean

from .fit import DriftProblem, run_rounds
from .lazy_backgrounds import DriftBackgrounds, closed_field
from .overlap_blocks import find_overlaps
from .prior_error import PriorError, tile_hours
from .static_pattern import static_pattern
from .types import LEVEL_SD, DriftFit, FitOptions, Frames

__all__ = ["ScanFit", "ScanLevel", "best_fit"]

Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Source = Literal["I0", "empty areas", "references", "relative"]

SHARED_GUESS = 0.05  # the same of what many tiles agree on
WIDEST = 0.15  # log, of free places in the first round
SINGLE_DEGREE = 8
MANY_DEGREE, MANY_ROUNDS = 3, 9  # of more tiles than `FEW`: seconds, not minutes
LEAST_FREE = 0.02  # of all tiles, that is free, to leave what references tell
LEAST_SHARE = 0.15  # of a tile, that is free, to set the level
DIMMER = 0.12  # log: free areas this far below the references' level are none
CLEARLY = 1.15  # more evidence than this moves from the method's pattern to the tiles' median
LEAST_TILES, MEDIAN_TILES = 3, 32  # that a median says something of, and that are enough for it
DIM = 0.03  # of the median: cells that no tile shows brighter say nothing


@dataclass(frozen=True)
class ScanLevel:
    """Source of the level of a scan.

    Attributes
    ----------
    source : {"I0", "empty areas", "references", "relative"}
    share : float
        Share of the emptiest tile that is free of sample.
    """

    source: Source
    share: float = 0.0

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"from": self.source, "empty_share": round(self.share, 4)}


def best_fit(
    scan: Scan,
    overview: Overview,
    positions: Positions | None,
    error: PriorError,
    progress: Progress,
) -> tuple[ScanFit, DriftFit]:
    """Solve from each prior pattern that there is; the solution that explains most.

    The method's own pattern is kept where the evidence is about equal.
    """
    starts = _starts(scan, overview)
    fits = [
        ScanFit(scan, overview, positions, error, progress.part(k, len(starts)), pattern)
        for k, pattern in enumerate(starts)
    ]
    if fits[0].told_all:
        return fits[0], fits[0].as_told()
    problems = [fit.solve() for fit in fits]
    best = 0
    for k, problem in enumerate(problems[1:], 1):
        if problem.evidence() > CLEARLY * problems[best].evidence():
            best = k
    if overview.change is not None and problems[best].free_share().mean() < LEAST_FREE:
        return fits[best], fits[best].as_told()  # overlaps alone tell no pattern
    # A median over tiles that all hold the like sample calls that free: each start must agree.
    fits[best].most_empty = min(float(problem.free_share().max()) for problem in problems)
    return fits[best], fits[best].solution(problems[best])


class ScanFit:
    """The frames of a scan, the solution from one prior pattern, and its backgrounds.

    Parameters
    ----------
    scan : Scan
    overview : Overview
    positions : Positions or None
        Of the tiles of a mosaic.
    error : PriorError
    progress : Progress
    pattern : (Y, X) float32
        Log, median 0; changed in place while solving.
    """

    def __init__(
        self, scan: Scan, overview: Overview, positions: Positions | None, error: PriorError,
        progress: Progress, pattern: Image,
    ) -> None:  # fmt: skip
        self.scan, self.overview, self.positions = scan, overview, positions
        self.progress, self.coarse = progress, overview.coarse
        self.pattern = pattern
        many = len(scan) > 1
        if error.level_sd is None and many:
            error = replace(error, shared_sd=SHARED_GUESS)
        self.error = error
        self.options = FitOptions(
            shared_degree=FitOptions.shared_degree if many else SINGLE_DEGREE,
            drift_degree=FitOptions.drift_degree if len(scan) <= FEW else MANY_DEGREE,
            rounds=FitOptions.rounds if len(scan) <= FEW else MANY_ROUNDS,
            shared_sd=error.shared_sd,
            field_sd=error.field_sd,
            width=(min(max(1.5 * error.shared_sd, 0.03), WIDEST), FitOptions.width[1]),
        )
        brightest = overview.cells.max(axis=0)
        lit = self.coarse.mean(overview.lit.astype(np.float32)) > 0.999
        self.usable = lit & (brightest > np.median(brightest) + np.log(DIM))
        if not self.usable.any():
            self.usable = np.ones_like(lit)
        self.overlaps, self.most_empty = 0, 1.0

    def solve(self) -> DriftProblem:
        """Levels, drift and the pattern's error."""
        return run_rounds(self._frames(), self.options, self.progress, self._refresh)

    def solution(self, problem: DriftProblem) -> DriftFit:
        """The same with its uncertainty, and the fine pattern that tiles still show."""
        found = problem.solution()
        self.pattern += self._fine(found.model(), found.width)
        if len(self.scan) == 1 and self.overview.prior_sd is not None:
            # Nothing but this tile says what is free: half way from the method's word, and no
            # surer than the method is of it.
            half, sd = found.cells * np.float32(0.5), self.overview.prior_sd
            found = replace(found, cells=half, sd=np.maximum(found.sd, sd))
        return found

    @property
    def told_all(self) -> bool:
        """True if the references give every background: a series, which may never be free."""
        return self.scan.kind == "series" and self.overview.change is not None

    def as_told(self) -> DriftFit:
        """Solution taken from the references alone, with the error expected for their age."""
        cells = np.zeros_like(self.overview.cells)
        sd, level_sd = np.full_like(cells, self.error.shared_sd), self.error.level_sd or LEVEL_SD
        each = np.ones(len(cells))
        return DriftFit(
            0 * each, cells, sd, level_sd * each, 0 * each, cells, float("nan"),
            self.options.width[1],
        )  # fmt: skip

    def _frames(self) -> Frames:
        overview, small = self.overview, self.coarse.mean(self.pattern)
        residual = overview.cells - small
        if overview.change is not None and overview.levels is not None:
            residual -= overview.change + overview.levels[:, None, None].astype(np.float32)
        overlaps = []
        if self.positions is not None:
            overlaps = find_overlaps(
                overview, self.positions.positions_px, bin_mean(self.pattern, overview.bin_px),
                self.progress, cpu_cores(),
            )  # fmt: skip
            overlaps = [self._less_known(o) for o in overlaps]
        self.overlaps = len(overlaps)
        level = None if self.error.level_sd is None else 0.0
        return Frames(
            residual, self.usable, tile_hours(self.scan), overlaps, level,
            self.error.level_sd or 1.0, overview.free,
        )  # fmt: skip

    def _less_known(self, overlap: Any) -> Any:
        """An overlap less what references know of its two tiles."""
        change, levels = self.overview.change, self.overview.levels
        if change is None or levels is None:
            return overlap
        size = np.array(change.shape[1:])
        told = 0.0
        for sign, tile, place in (
            (1, overlap.first, overlap.place_first),
            (-1, overlap.second, overlap.place_second),
        ):
            at = np.clip(((place + 1) / 2 * size).astype(int), 0, size - 1)
            told = told + sign * (change[tile][at[:, 0], at[:, 1]] + levels[tile])
        return replace(overlap, difference=overlap.difference - told)

    def _refresh(self, model: Image, width: float) -> Frames:
        self.pattern += self._fine(model, width)
        return self._frames()

    def _fine(self, model: Image, width: float) -> Image:
        """Fine pattern that tiles still show beside a model `(T, y, x)` on cells."""
        overview, dtype = self.overview, np.float32
        whole = model if overview.change is None else model + overview.change
        levels = np.zeros(len(overview)) if overview.levels is None else overview.levels

        def residual(k: int) -> Image:
            i = overview.chosen[k]
            off = dtype(overview.raw_level[i] - levels[i])
            log = overview.stack[k].astype(dtype) - self.pattern + off
            out: Image = log - self.coarse.expand(whole[i])
            return out

        shape = (overview.lit.shape[0], overview.lit.shape[1])
        return static_pattern(residual, len(overview.chosen), shape, width, cpu_cores())

    def level(self, found: DriftFit, i0: float | None) -> tuple[ScanLevel, Floats]:
        """Source of the level, and the correction `(T,)` to add to the log level of each tile."""
        told = self.overview.levels
        share = min(self.most_empty, float(found.free_share.max()))
        if i0 is not None:
            middle = float(np.median(self.pattern[self.overview.lit]))
            now = float(np.median(found.levels + (0 if told is None else told)))
            return ScanLevel("I0", share), self._alike(float(np.log(i0)) - middle - now)
        if self.told_all:
            return ScanLevel("references", share), self._alike()
        if told is None:
            empty = share >= LEAST_SHARE and self.scan.kind != "series"  # it may never be free
            return ScanLevel("empty areas" if empty else "relative", share), self._alike()
        below = float(np.median(found.levels[found.free_share >= min(LEAST_SHARE, share)]))
        if share < LEAST_SHARE or below < -DIMMER:
            return ScanLevel("references", share), self._alike(-below)
        return ScanLevel("empty areas", share), self._alike()

    def _alike(self, shift: float = 0.0) -> Floats:
        return np.full(len(self.scan), shift)

    def backgrounds(self, found: DriftFit, shift: Floats) -> DriftBackgrounds:
        """Lazy backgrounds of all tiles."""
        overview = self.overview
        pattern, closed = self.pattern.copy(), closed_field(overview.lit)
        if closed.any():
            pattern[closed] = np.float32(overview.unlit_level)
        change, levels = found.cells, found.levels + shift
        if overview.change is not None and overview.levels is not None:
            change, levels = change + overview.change, levels + overview.levels
        return DriftBackgrounds(
            self.scan.dark(), pattern, ~closed, change, levels, found.sd, self.coarse.cell
        )


def _starts(scan: Scan, overview: Overview) -> list[Image]:
    """Prior patterns to solve from: the method's, and of a mosaic its tiles' median."""
    starts = [overview.pattern.copy()]
    blind = scan.kind == "mosaic" and overview.change is None
    if blind and LEAST_TILES <= len(scan) <= FEW:  # of more tiles a second fit takes too long
        some = overview.stack[:: -(-len(overview.chosen) // MEDIAN_TILES)]
        median = robust_median(some.astype(np.float32))
        starts.append(median - np.median(median[overview.lit]))
    return starts
