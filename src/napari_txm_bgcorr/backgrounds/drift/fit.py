"""Level, pattern and drift of all tiles at once, from free places, overlaps and priors.

    log(raw_i - dark) = level_i + P(x) + sum_k c_ik phi_k(x) + t_i(x) + noise

P is a prior pattern that is corrected by smooth terms and a smooth field; c_i is the drift of
tile i and walks slowly in time; t_i is the sample, 0 where a place is free of it. Everything is
an observation of one weighted least-squares problem on a coarse grid of cells, solved in rounds
in which the probability of each cell to be free, and the trust in each overlap, are found anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import SILENT, Progress, legendre, terms

from .block_system import BlockSystem
from .first_levels import first_levels
from .gaussian_field import SmoothField
from .sample_probability import free_probability, highest_mode
from .types import LEVEL_SD, DriftFit, FitOptions, Frames, OverlapBlocks

__all__ = ["DriftProblem", "fit_drift", "run_rounds"]

Floats = NDArray[np.float64]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

STAGE = "solving for all tiles"
DEFAULT = FitOptions()
DIMMER, UNLIKELY = 0.12, 2.5  # log, and standard deviations of the level: no free place is so dim
TINY = 1e-6  # log: a seam of tiles without noise
NARROW = 0.8  # of the rounds: from then on free places are as narrow as they get
SETTLED = 2 / 3  # of the rounds: from then on the smooth field is solved for, too


def fit_drift(
    frames: Frames,
    options: FitOptions = DEFAULT,
    progress: Progress = SILENT,
    refresh: Callable[[Image, float], Frames] | None = None,
) -> DriftFit:
    """Solve for the backgrounds of all tiles.

    Parameters
    ----------
    frames : Frames
    options : FitOptions
    progress : Progress
        Told after each round.
    refresh : callable or None
        `refresh(background, width)` gives the frames anew when two thirds of the rounds are
        done, with the fine pattern that the tiles share taken away.

    Raises
    ------
    StoppedError
        If the progress ended it.
    """
    return run_rounds(frames, options, progress, refresh).solution()


def run_rounds(
    frames: Frames,
    options: FitOptions = DEFAULT,
    progress: Progress = SILENT,
    refresh: Callable[[Image, float], Frames] | None = None,
) -> DriftProblem:
    """As `fit_drift`, the covariance not yet taken."""
    problem = DriftProblem(frames, options)
    for number in range(options.rounds):
        progress.step(STAGE, number, options.rounds)
        if refresh is not None and number == int(options.rounds * SETTLED):
            problem.replace(refresh(problem.model(), problem.width))
        problem.round(number)
    return problem


class DriftProblem:
    """State of the rounds."""

    def __init__(self, frames: Frames, options: FitOptions) -> None:
        self.options, self.frames = options, frames
        self.count, rows, columns = frames.residual.shape
        self.size = (rows, columns)
        y, x = np.meshgrid(*(((np.arange(n) + 0.5) / n * 2 - 1) for n in self.size), indexing="ij")
        order = terms(options.drift_degree if self.count > 1 else 0)
        shared = terms(options.shared_degree)[1:]
        self.order, self.shared_order = order, shared
        self.degree = np.array([sum(p) for p in order])
        self.shared_degree = np.array([sum(p) for p in shared])
        self.phi = legendre(order, y.ravel(), x.ravel()).astype(np.float32)
        self.psi = legendre(shared, y.ravel(), x.ravel()).astype(np.float32)
        # What passes for free and is not: a weak sample over much of a tile, of its own shape.
        veil = terms(options.veil_degree)
        self.veil = legendre(veil, y.ravel(), x.ravel())
        sd = [options.veil_level if sum(p) == 0 else options.veil_sd / sum(p) for p in veil]
        self.veil_precision = np.diag(1 / np.square(sd))
        self.usable = frames.usable.ravel()
        # Cells of a finer or coarser grid weigh alike together.
        self.per_cell = 64 * 64 / self.usable.size
        self.reach = options.field_reach * max(self.size)
        self.field = np.zeros(self.size)
        self.smooth = SmoothField(self.size, options.field_sd, self.reach)
        self.replace(frames)
        first = np.array([highest_mode(tile[self.usable]) for tile in self.residual])
        self.drift = np.zeros((self.count, len(order)))
        self.drift[:, 0] = first_levels(first, map(_step, frames.overlaps))
        self.drift[self._covered(), 0] = frames.level
        self.shared = np.zeros(len(shared))
        self.free = np.zeros_like(self.residual)
        self.width = options.width[0]
        self.walk = self._walk()
        self.still = self._prior()

    def replace(self, frames: Frames) -> None:
        """Take frames anew, of the same tiles."""
        self.frames = frames
        self.residual = frames.residual.reshape(self.count, -1)
        self.known = None if frames.free is None else frames.free.reshape(self.count, -1)
        self.blocks = [_Block.of(o, self.order, self.shared_order) for o in frames.overlaps]

    def round(self, number: int) -> None:
        """Free cells anew, then drift and shared terms, then the smooth field."""
        first, last = self.options.width
        share = min(1.0, number / (self.options.rounds * NARROW))
        self.width = first * (last / first) ** share
        base = self.field.ravel().astype(np.float32)
        fitted = self._smooth_part() + base
        self.free = free_probability(self.residual - fitted, self.width, self.known)
        self.free *= self.usable
        self.free[self._covered()] = 0
        degree = min(self.options.shared_degree, 1 + number)
        self.system = self._system(base, degree)
        self.drift, self.shared = self.system[0].solve(*self.system[1:])
        if number >= self.options.rounds * SETTLED:
            self._update_field()

    def _covered(self) -> Mask:
        """Tiles `(T,)` whose free places are too dim for the level that references tell.

        They are all sample. Overlaps, where there are any, tell that better.
        """
        if self.frames.level is None or self.blocks:
            return np.zeros(self.count, bool)
        dimmer = max(DIMMER, UNLIKELY * self.frames.level_sd)
        out: Mask = self.drift[:, 0] < self.frames.level - dimmer
        return out

    def _smooth_part(self) -> Image:
        """Level, drift and shared terms of all tiles `(T, n)`."""
        out: Image = (self.drift.astype(np.float32) @ self.phi.T) + (
            self.psi @ self.shared.astype(np.float32)
        )
        return out

    def _system(
        self, base: Image, degree: int, veiled: bool = False
    ) -> tuple[BlockSystem, Floats, Floats]:
        """Normal equations; `veiled`: the errors of the free cells of a tile are correlated."""
        weight = self.free * np.float32(self.per_cell / self.options.free_sd**2)
        own, border, corner, right, common = self._free_equations(
            weight, self.residual - base, veiled
        )
        pairs = dict(self.walk)
        for block in self.blocks:
            here, there = self.drift[block.first], self.drift[block.second]
            block.add(own, pairs, border, corner, right, common, base_at=self._field_at(block),
                      left=(here, there, self.shared), options=self.options)  # fmt: skip
        own += self.still
        own[:, 0, 0] += 1 / (LEVEL_SD**2 * self.count)
        if self.frames.level is not None:
            told = 1 / (self.frames.level_sd**2 * self.count)
            own[:, 0, 0] += told
            right[:, 0] += told * self.frames.level
        sd = self.options.shared_sd / self.shared_degree
        precision = np.where(self.shared_degree <= degree, 1 / sd**2, 1e12)
        corner = corner + np.diag(precision)
        return BlockSystem(own, pairs, border, corner), right, common

    def _free_equations(
        self, weight: Image, values: Image, veiled: bool
    ) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Normal equations of the free cells of each tile; `veiled`: its veil is eliminated."""
        phi, psi = self.phi.astype(np.float64), self.psi.astype(np.float64)
        k, f = phi.shape[1], psi.shape[1]
        both = np.concatenate([phi, psi, *([self.veil] if veiled else [])], axis=1)
        some = np.r_[:k, k + f : both.shape[1]]
        own, border = np.empty((self.count, k, k)), np.empty((self.count, k, f))
        right, common = np.empty((self.count, k)), np.zeros(f)
        corner = (psi.T * weight.sum(axis=0, dtype=np.float64)) @ psi
        for i in range(self.count):
            w = weight[i].astype(np.float64)
            known, told = (both[:, some].T * w) @ both, both.T @ (w * values[i])
            own[i], border[i] = known[:k, :k], known[:k, k : k + f]
            right[i] = told[:k]
            common += told[k : k + f]
            if veiled:
                u, v = known[k:, :k].T, known[k:, k : k + f].T
                part = np.linalg.solve(
                    known[k:, k + f :] + self.veil_precision,
                    np.column_stack([known[k:, : k + f], told[k + f :]]),
                )
                own[i] -= u @ part[:, :k]
                border[i] -= u @ part[:, k : k + f]
                corner -= v @ part[:, k : k + f]
                right[i] -= u @ part[:, -1]
                common -= v @ part[:, -1]
        return own, border, corner, right, common

    def _field_at(self, block: _Block) -> Floats:
        """The smooth field's part of the differences of an overlap."""
        scale = np.array(self.size)
        out: list[Floats] = []
        for place in (block.place_first, block.place_second):
            at = np.clip(((place + 1) / 2 * scale).astype(int), 0, scale - 1)
            out.append(self.field[at[:, 0], at[:, 1]])
        return out[0] - out[1]

    def _update_field(self) -> None:
        left = self.residual - self._smooth_part()
        total = self.free.sum(axis=0, dtype=np.float64)
        mean = (self.free * left).sum(axis=0, dtype=np.float64) / np.maximum(total, 1e-9)
        self.total = total * self.per_cell / (0.5 * self.options.free_sd) ** 2
        self.field = self.smooth.mean(mean.reshape(self.size), self.total.reshape(self.size))

    def _walk(self) -> dict[tuple[int, int], Floats]:
        """Couplings of tiles that follow each other in time."""
        order = np.argsort(self.frames.hours, kind="stable")
        out: dict[tuple[int, int], Floats] = {}
        for i, j in pairwise(order):
            hours = abs(float(self.frames.hours[j] - self.frames.hours[i]))
            out[min(i, j), max(i, j)] = -np.diag(self._step_precision(hours))
        return out

    def _step_precision(self, hours: float) -> Floats:
        o, degree = self.options, np.maximum(self.degree, 1)
        change = (o.drift_rate**2 * hours + 2 * o.jitter**2) / degree
        change[0] = o.level_rate**2 * hours + 2 * o.level_jitter**2
        out: Floats = 1 / change
        return out

    def _prior(self) -> Floats:
        """Diagonal of the drift's prior `(T, K, K)`: about 0, and the walk's own part."""
        own = np.zeros((self.count, len(self.degree), len(self.degree)))
        rest = np.diag(self.degree / self.options.drift_sd**2)
        own += rest
        for (i, j), coupling in self.walk.items():
            own[i] -= coupling
            own[j] -= coupling
        return own

    def model(self) -> Image:
        """Background of each tile on cells `(T, y, x)`, log, against the prior pattern."""
        whole = self._smooth_part() + self.field.ravel().astype(np.float32)
        return whole.reshape(self.count, *self.size)

    def free_share(self) -> Floats:
        """Share `(T,)` of the usable cells of each tile that are free of sample."""
        total: Floats = self.free.sum(axis=1, dtype=np.float64)
        return total / max(int(self.usable.sum()), 1)

    def seam(self) -> float:
        """Robust rms of what is left in the overlaps; NaN without any."""
        left = [
            block.left(self.drift, self.shared, self._field_at(block)) for block in self.blocks
        ]
        return _scatter(np.concatenate(left)) if left else float("nan")

    def evidence(self) -> float:
        """Score of the fit: mean sample-free share, divided by the overlap residual if known."""
        share, seam = float(self.free_share().mean()), self.seam()
        return share / max(seam, TINY) if np.isfinite(seam) else share

    def solution(self) -> DriftFit:
        """Solution of the last round, with its uncertainty."""
        levels = self.drift[:, 0].copy()
        cells = self.model() - levels[:, None, None].astype(np.float32)
        # A smooth error does not average out over many cells; the veil term bounds it from below.
        base, degree = self.field.ravel().astype(np.float32), self.options.shared_degree
        own, cross, common = self._system(base, degree, veiled=True)[0].covariance()
        field_variance = self._field_variance(max(1, max(self.size) // 32))
        sd = np.empty_like(cells)
        psi = self.psi.astype(np.float64)
        phi = self.phi.astype(np.float64)[:, 1:]
        shared = ((psi @ common) * psi).sum(axis=1)
        for i in range(self.count):
            variance = shared + ((phi @ own[i, 1:, 1:]) * phi).sum(axis=1)
            variance += 2 * ((phi @ cross[i, 1:]) * psi).sum(axis=1)
            sd[i] = np.sqrt(np.maximum(variance, 0)).reshape(self.size)
        sd = np.sqrt(sd**2 + field_variance.astype(np.float32))
        seam = self.seam()
        # Where overlaps leave more than they should, all is further off; errors have long tails.
        more = max(1.0, seam / (np.sqrt(2) * self.options.overlap_sd)) if self.blocks else 1.0
        more *= self.options.tails
        sd *= np.float32(more)
        return DriftFit(
            levels, cells, sd, more * np.sqrt(own[:, 0, 0]),
            self.free_share(), self.free.reshape(self.count, *self.size), seam, self.width,
        )  # fmt: skip

    def _field_variance(self, coarse: int) -> Floats:
        rows, columns = (n // coarse for n in self.size)
        weight = self.total.reshape(self.size)[: rows * coarse, : columns * coarse]
        weight = weight.reshape(rows, coarse, columns, coarse).sum(axis=(1, 3))
        small = SmoothField((rows, columns), self.options.field_sd, self.reach / coarse)
        variance = small.variance(weight).repeat(coarse, 0).repeat(coarse, 1)
        pad = [(0, n - m) for n, m in zip(self.size, variance.shape, strict=True)]
        return np.pad(variance, pad, mode="edge")


@dataclass(frozen=True, eq=False)
class _Block:
    """Terms of one overlap at its places."""

    first: int
    second: int
    place_first: Floats
    place_second: Floats
    difference: Floats
    here: Floats
    there: Floats
    shared: Floats

    @classmethod
    def of(cls, o: OverlapBlocks, order: tuple, shared: tuple) -> _Block:  # type: ignore[type-arg]
        one, two = o.place_first, o.place_second
        between = legendre(shared, one[:, 0], one[:, 1]) - legendre(shared, two[:, 0], two[:, 1])
        return cls(
            o.first, o.second, one, two, o.difference,
            legendre(order, one[:, 0], one[:, 1]), legendre(order, two[:, 0], two[:, 1]), between,
        )  # fmt: skip

    def left(self, drift: Floats, shared: Floats, base_at: Floats) -> Floats:
        """Differences that the present terms leave."""
        told = self.here @ drift[self.first] - self.there @ drift[self.second]
        out: Floats = self.difference - base_at - told - self.shared @ shared
        return out

    def add(self, own, pairs, border, corner, right, common, *, base_at, left, options) -> None:  # type: ignore[no-untyped-def]
        """Add the equations of this overlap, in place."""
        values = self.difference - base_at
        off = values - self.here @ left[0] + self.there @ left[1] - self.shared @ left[2]
        weight = 1 / options.overlap_sd**2 / (1 + (off / options.overlap_scale) ** 2) ** 2
        i, j = self.first, self.second
        here, there, both = self.here.T * weight, self.there.T * weight, self.shared.T * weight
        own[i] += here @ self.here
        own[j] += there @ self.there
        cross = -(here @ self.there)
        key = (i, j) if i < j else (j, i)
        pairs[key] = pairs.get(key, 0) + (cross if i < j else cross.T)
        border[i] += here @ self.shared
        border[j] -= there @ self.shared
        corner += both @ self.shared
        right[i] += here @ values
        right[j] -= there @ values
        common += both @ values


def _step(overlap: OverlapBlocks) -> tuple[int, int, tuple[int, int], float]:
    """Direction from the first tile to the second, and their log difference."""
    away = (overlap.place_first - overlap.place_second).mean(axis=0)
    y, x = (int(n) for n in np.where(np.abs(away) >= np.abs(away).max(), np.sign(away), 0))
    return overlap.first, overlap.second, (y, x), float(np.median(overlap.difference))


def _scatter(values: Floats) -> float:
    """Robust standard deviation about 0."""
    return float(1.4826 * np.median(np.abs(values)))
