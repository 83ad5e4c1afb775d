"""The background model of a scan: pattern, drift walking in time, levels; for 1 tile to 961.

A single image, a series and a mosaic are the same problem with less or more of it: `drift_fit`
solves, this method brings together what is known. See docs/decisions/0021-drift-model.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.backgrounds.drift_fit import fit_drift
from napari_txm_bgcorr.backgrounds.fit_types import LEVEL_SD, DriftFit, FitOptions, Frames
from napari_txm_bgcorr.backgrounds.lazy_backgrounds import DriftBackgrounds, closed_field
from napari_txm_bgcorr.backgrounds.overlap_blocks import find_overlaps
from napari_txm_bgcorr.backgrounds.prior_error import PriorError, prior_error, tile_hours
from napari_txm_bgcorr.backgrounds.static_pattern import static_pattern
from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.overview import FEW, MethodBackgrounds, Overview, bin_mean, survey
from napari_txm_bgcorr.core.registration import Positions, register
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.threads import cpu_cores, one_algebra_thread
from napari_txm_bgcorr.core.tile_median import robust_median
from napari_txm_bgcorr.core.watch import SILENT, Watch, fit_method

__all__ = ["DriftModel", "FromReferences", "Level", "PriorError"]

Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Source = Literal["I0", "empty areas", "references", "relative"]

SHARED_GUESS = 0.05  # the same of what many tiles agree on
WIDEST = 0.15  # log, of free places in the first round
SINGLE_DEGREE = 8
MANY_DEGREE, MANY_ROUNDS = 3, 9  # of more tiles than `FEW`: seconds, not minutes
LEAST_SHARE = 0.15  # of a tile, that is free, to set the level
DIMMER = 0.12  # log: free areas this far below the references' level are none
CLEARLY = 1.15  # more evidence than this moves from the method's pattern to the tiles' median
LEAST_TILES = 3  # that a median says something of
DIM = 0.03  # of the median: cells that no tile shows brighter say nothing


@runtime_checkable
class FromReferences(Protocol):
    """A background method that takes its backgrounds from references, when fitted."""

    knows_drift: bool


@dataclass(frozen=True)
class Level:
    """How the level of a scan was set.

    Attributes
    ----------
    source : {"I0", "empty areas", "references", "relative"}
    share : float
        Of the emptiest tile that is free of sample.
    """

    source: Source
    share: float = 0.0

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"from": self.source, "empty_share": round(self.share, 4)}


class DriftModel:
    """One background model for the whole scan, on top of a method that gives a prior pattern.

    Fitting asks the method for the backgrounds of some tiles, or of all where it takes them
    from references; afterwards backgrounds come from what was solved, without the method.

    Parameters
    ----------
    method : BackgroundMethod
        Fitted here. References where it has some, else a guess such as the generator's.
    positions_px : (T, 2) float64 or None
        Places of the tiles of a mosaic, (y, x); None: registered here.
    name : str or None
        Of this method; None: that of `method` and ``+joint``.
    i0 : float or None
        Counts of the open beam, dark removed, as the median over the lit field.
    watch : Watch
        Of `fit`; `fit_watched` takes another.

    Attributes
    ----------
    positions : Positions or None
        Where the tiles of the last mosaic lie; None for other scans.
    backgrounds : DriftBackgrounds or None
        Of the last fit.
    solution : DriftFit or None
        Of the last fit; does not travel to other processes.

    Raises
    ------
    MethodError
        If `i0` is not above 0.
    """

    def __init__(
        self,
        method: BackgroundMethod,
        positions_px: Floats | None = None,
        *,
        name: str | None = None,
        i0: float | None = None,
        watch: Watch = SILENT,
    ) -> None:
        if i0 is not None and not (np.isfinite(i0) and i0 > 0):
            raise MethodError(f"i0 {i0}: give the counts of the open beam, above 0")
        self.method, self.i0, self.watch = method, i0, watch
        self.name = f"{method.name}+joint" if name is None else name
        self.positions: Positions | None = None
        self.backgrounds: DriftBackgrounds | None = None
        self.solution: DriftFit | None = None
        self._given = positions_px
        self._told: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """All but the solution: backgrounds are all that another process needs."""
        return vars(self) | {"solution": None}

    @property
    def workers(self) -> int:
        """Threads that may each ask for a background."""
        return int(getattr(self.method, "workers", 1))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the last fit, a sentence each."""
        return tuple(self._stage()["notes"])

    def _stage(self) -> dict[str, Any]:
        if self.backgrounds is None:
            raise MethodError(f"{self.name}: not fitted; call fit(scan) first")
        return self._told

    def fit(self, scan: Scan) -> Self:
        """Fit the method, look at all tiles, register and solve.

        Raises
        ------
        MethodError
            If the method cannot work on this scan.
        StoppedError
            If the watch ended it.
        """
        return self.fit_watched(scan, self.watch)

    def fit_watched(self, scan: Scan, watch: Watch) -> Self:
        """As `fit`, under a watch of its own."""
        self.positions = self.backgrounds = self.solution = None
        fit_method(self.method, scan, watch)
        known = isinstance(self.method, FromReferences) and self.method.knows_drift
        own = MethodBackgrounds(scan, self.method, known)
        overview = survey(scan, own, workers=self.workers, watch=watch)
        mosaic = scan.kind == "mosaic" and len(scan) > 1
        positions = self._places(scan, overview, watch) if mosaic else None
        followed = bool(getattr(self.method, "follows_shape", False))
        error = prior_error(_referenced(self.method, scan), known, followed)
        with one_algebra_thread():
            works = [_Work(scan, overview, positions, error, watch, pattern)
                     for pattern in _starts(scan, overview)]
            found = [(work, work.solve()) for work in works]
        work, self.solution = found[0]
        for other in found[1:]:
            if _evidence(other[1]) > CLEARLY * _evidence(self.solution):
                work, self.solution = other
        self.positions = positions
        level, shift = work.level(self.solution, self.i0)
        self.backgrounds = work.backgrounds(self.solution, shift)
        self._told = self._described(work, self.solution, level)
        return self

    def _places(self, scan: Scan, overview: Overview, watch: Watch) -> Positions:
        if self._given is not None:
            return Positions(np.asarray(self._given, np.float64), (), "as given")
        return register(scan, overview=overview, workers=cpu_cores(), watch=watch)

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Backgrounds of tiles `(N, Y, X)` in counts; see `BackgroundMethod`.

        Tiles that the scan does not hold get the method's own.
        """
        self._stage()
        if index is None or self.backgrounds is None:
            return self.method.background(tiles, index)
        out = np.empty(tiles.shape, np.float32)
        for k, i in enumerate(index):
            out[k] = self.backgrounds[int(i)]
        return out

    def uncertainty(self, index: int) -> Image:
        """Standard deviation `(Y, X)` of the log background of a tile, its level left out.

        Raises
        ------
        MethodError
            Before `fit`.
        """
        self._stage()
        if self.backgrounds is None:
            raise MethodError(f"{self.name}: not fitted; call fit(scan) first")
        return self.backgrounds.uncertainty(index)

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        return {"method": self.method.name, **self.method.describe(), "joint": dict(self._told)}

    def _described(self, work: _Work, found: DriftFit, level: Level) -> dict[str, Any]:
        stage: dict[str, Any] = {
            "options": asdict(work.options) | {"width": list(work.options.width)},
            "prior": asdict(work.error),
        }
        if self.positions is not None:
            stage["registration"] = self.positions.note
            stage["pairs"] = len(self.positions.edges)
            stage["pairs_registered"] = self.positions.used
            if self.positions.used:
                stage["positions_px"] = np.round(self.positions.positions_px, 2).tolist()
        stage["level"] = level.describe()
        stage["overlaps"] = work.overlaps
        if np.isfinite(found.seam):
            stage["seam_after"] = round(found.seam, 5)
        stage["free_share"] = np.round(found.free_share, 3).tolist()
        stage["level_errors"] = np.round(found.level_sd, 4).tolist()
        stage["notes"] = list(_notes(level, found))
        return stage


def _starts(scan: Scan, overview: Overview) -> list[Image]:
    """Prior patterns to solve from: the method's, and of a mosaic its tiles' median."""
    starts = [overview.pattern.copy()]
    if scan.kind == "mosaic" and overview.change is None and len(overview.chosen) >= LEAST_TILES:
        median = robust_median(overview.stack.astype(np.float32))
        starts.append(median - np.median(median[overview.lit]))
    return starts


def _evidence(found: DriftFit) -> float:
    """How much a solution explains: places free of sample, and overlaps that agree."""
    share = float(found.free_share.mean())
    return share / found.seam if np.isfinite(found.seam) else share


class _Work:
    """One fit: the frames of a scan, and its backgrounds."""

    def __init__(
        self, scan: Scan, overview: Overview, positions: Positions | None, error: PriorError,
        watch: Watch, pattern: Image,
    ) -> None:  # fmt: skip
        self.scan, self.overview, self.positions = scan, overview, positions
        self.watch, self.coarse = watch, overview.coarse
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
        self.overlaps = 0

    def solve(self) -> DriftFit:
        """Levels, drift and the pattern's error."""
        if self.told_all:
            return self._as_told()
        found = fit_drift(self._frames(), self.options, self.watch, self._refresh)
        self.pattern += self._fine(found.model(), found.width)
        return found

    @property
    def told_all(self) -> bool:
        """Whether references tell every background: those of a series, which is never free."""
        return self.scan.kind == "series" and self.overview.change is not None

    def _as_told(self) -> DriftFit:
        """What the references say, and their error by age."""
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
                self.watch, cpu_cores(),
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

    def level(self, found: DriftFit, i0: float | None) -> tuple[Level, Floats]:
        """Where the level comes from, and what to add to the log level of each tile."""
        told, share = self.overview.levels, float(found.free_share.max())
        if i0 is not None:
            middle = float(np.median(self.pattern[self.overview.lit]))
            now = float(np.median(found.levels + (0 if told is None else told)))
            return Level("I0", share), self._alike(float(np.log(i0)) - middle - now)
        if self.told_all:
            return Level("references", share), self._alike()
        if told is None:
            empty = share >= LEAST_SHARE and self.scan.kind != "series"  # it may never be free
            return Level("empty areas" if empty else "relative", share), self._alike()
        below = float(np.median(found.levels[found.free_share >= min(LEAST_SHARE, share)]))
        if share < LEAST_SHARE or below < -DIMMER:
            return Level("references", share), self._alike(-below)
        return Level("empty areas", share), self._alike()

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


def _referenced(method: BackgroundMethod, scan: Scan) -> Scan:
    """The scan with the references that the method used, which may be its own."""
    attach = getattr(method, "with_references", None)
    with_own: Scan = scan if attach is None else attach(scan)
    return with_own


def _notes(level: Level, found: DriftFit) -> tuple[str, ...]:
    if level.source != "relative":
        return ()
    return (
        "the level is relative: no empty area, reference or I0 sets it "
        "(transmission is known up to one factor for the whole scan)",
    )
