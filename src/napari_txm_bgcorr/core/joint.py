"""One background for a whole mosaic: a shared shape, smooth errors of it, one scale.

With the background of a tile written ``b_i = S + f + g_i`` (logarithms; S the shared shape,
f what it is off everywhere, g_i the drift of tile i, both low Legendre polynomials), two tiles
that show the same place of the specimen differ there by ``(f + g_i)(x) - (f + g_j)(x')``, x and
x' being the place in each tile. These differences are solved for f and all g_i at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from napari_txm_bgcorr.core.bordered import solve_bordered
from napari_txm_bgcorr.core.legendre import Order, legendre, terms
from napari_txm_bgcorr.core.overlaps import Overlap, find_overlaps
from napari_txm_bgcorr.core.overview import Overview
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["JointOptions", "Solution", "solve", "too_few"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class JointOptions:
    """How much each part may change; all amplitudes are of Legendre terms of the logarithm.

    Attributes
    ----------
    shared_degree, tile_degree : int
        Of f and of g_i.
    level_drift, shape_drift : float
        Rms of a tile's level and tilt about the scan's mean. A term of degree d has
        ``shape_drift / d^1.5``. Measured between empty tiles of one mosaic at TLS BL01B: level
        1-4 %, smooth change 1-3.5 % rms.
    shared_error : float
        Rms of each term of f, by degree likewise: error of a reference of yesterday.
    memory_h : float
        Hours over which drift forgets; tiles taken closer together are alike.
    least_tiles, least_overlaps : int
        With fewer, the stage steps aside.
    least_seam : float
        Log difference in the overlaps (of blocks) below which there is nothing to gain: on
        simulated mosaics the stage itself is off by 0.5-1 %.
    """

    shared_degree: int = 5
    tile_degree: int = 2
    level_drift: float = 0.02
    shape_drift: float = 0.02
    shared_error: float = 0.06
    memory_h: float = 0.3
    least_tiles: int = 4
    least_overlaps: int = 4
    least_seam: float = 0.007


DEFAULT = JointOptions()
SHARE = 0.5  # how far a candidate's share may lie from an equal one, as a standard deviation
ALIKE = 12.0  # blocks of one overlap count as this many independent ones, at most
HUBER = 1.5  # standard deviations
ROUNDS = 8
STAGE = "solving for all tiles"
AGREE = 1.0  # of usual drift: least error ascribed to a method's own differences
FLOOR = 0.005  # least noise of a block, log
TILE_H = 85 / 3600  # a tile of 60 s and the motor, where times are not known


@dataclass(frozen=True, eq=False)
class Solution:
    """What the overlaps tell.

    Attributes
    ----------
    shared : (K_f,) float64
        Terms of f: tilts and higher.
    tiles : (T, K_g) float64
        Terms of g_i, the first is the level.
    method_level : (T,) float64
        The method's own log level of each tile, against the shared shape; NaN where it was
        not asked.
    overlaps : int
        Pairs of tiles compared.
    noise : float
        Robust rms of a block's difference that is left.
    seam_before, seam_after : float
        Robust rms log difference of blocks in the overlaps: with the method's own
        backgrounds, and now.
    shares : (C,) float64
        0 to 1, of the overview's `others` in the shape that `shared` and `tiles` belong to.
    """

    shared: Floats
    tiles: Floats
    method_level: Floats
    overlaps: int
    noise: float
    seam_before: float
    seam_after: float
    shares: Floats = field(default_factory=lambda: np.empty(0))


def too_few(count: int, options: JointOptions = DEFAULT) -> str:
    """Say that there are too few tiles."""
    return f"{count} tiles; the joint stage needs {options.least_tiles} or more"


def solve(
    overview: Overview,
    positions_px: Floats,
    hours: Floats | None = None,
    options: JointOptions = DEFAULT,
    watch: Watch = SILENT,
    workers: int = 1,
) -> Solution | str:
    """Find the smooth errors of the shared shape from the overlaps.

    Parameters
    ----------
    overview : Overview
    positions_px : (T, 2) float64
        Registered places.
    hours : (T,) float64 or None
        When each tile was taken; None: one after the other.
    options : JointOptions
    watch : Watch
        Told after each overlap and each round.
    workers : int
        Threads that compare overlaps; the same result for any number.

    Returns
    -------
    Solution or str
        The reason where the stage steps aside.

    Raises
    ------
    StoppedError
        If the watch ended it.
    """
    count = len(overview)
    if count < options.least_tiles:
        return too_few(count, options)
    overlaps = find_overlaps(overview, positions_px, watch, workers)
    if len(overlaps) < max(options.least_overlaps, count - 1):
        return (
            f"{len(overlaps)} usable overlaps for {count} tiles; "
            f"the joint stage needs {max(options.least_overlaps, count - 1)} or more"
        )
    if not _connected(count, overlaps):
        return "the overlaps do not connect all tiles"
    own = np.concatenate([o.own_difference for o in overlaps])
    # Of few pairs the method was asked about both tiles; of none: what the shape alone leaves.
    own = own[np.isfinite(own)] if np.isfinite(own).any() else _all(overlaps)
    before = _scatter(own)
    worst = max(before, _tail(own))
    if worst < options.least_seam:
        return f"the backgrounds agree within {100 * worst:.1f} % already; nothing to gain"
    number = len(overview.others)
    left = list(range(-1, number))  # candidates; -1 is the overview's own shape
    while True:
        seen = [_seen_from(o, left) for o in overlaps]
        system = _System(seen, count, hours, overview, options)
        found, tiles, noise = system.solve(watch)
        share = dict(zip(left[1:], found.tolist(), strict=False))
        share[left[0]] = 1 - sum(share.values())
        worst = min(left, key=lambda k: share[k])
        if share[worst] >= 0:
            break
        left.remove(worst)  # the others do better without it
    after = _scatter(system.residuals(found, tiles))
    shares = np.array([share.get(k, 0.0) if k in left else 0.0 for k in range(number)])
    return Solution(
        found[len(left) - 1 :], tiles, system.method_level, len(overlaps), noise, before, after,
        shares,
    )  # fmt: skip


def _seen_from(overlap: Overlap, left: Sequence[int]) -> Overlap:
    """The overlap about the first of the candidates that are left, the others against it."""
    first, others = left[0], overlap.others
    if first < 0:
        return replace(overlap, others=others[:, left[1:]])
    base = others[:, first]
    return replace(
        overlap,
        difference=overlap.difference - base,
        others=others[:, left[1:]] - base[:, None],
    )


def _scatter(values: Floats) -> float:
    """Rms about zero of the inner part, as if normal."""
    return 1.4826 * float(np.median(np.abs(values)))


def _tail(values: Floats) -> float:
    """Rms as the outer twentieth tells it, if normal: one tile that is off shows here."""
    return float(np.quantile(np.abs(values), 0.95)) / 1.96


def _all(overlaps: Sequence[Overlap]) -> Floats:
    """Differences of all blocks."""
    return np.concatenate([o.difference for o in overlaps])


def _connected(count: int, overlaps: Sequence[Overlap]) -> bool:
    first, second = [o.first for o in overlaps], [o.second for o in overlaps]
    graph = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return int(sparse.csgraph.connected_components(graph, directed=False)[0]) == 1


class _System:
    """Normal equations of all overlaps, drift in time, and what the method itself says."""

    def __init__(
        self,
        overlaps: Sequence[Overlap],
        count: int,
        hours: Floats | None,
        overview: Overview,
        options: JointOptions,
    ) -> None:
        self.count = count
        self.f_order, self.g_order = terms(options.shared_degree)[1:], terms(options.tile_degree)
        self.shares = overlaps[0].others.shape[1]  # unknowns before those of f
        self.f_size, self.g_size = self.shares + len(self.f_order), len(self.g_order)
        self.first = np.array([o.first for o in overlaps])
        self.second = np.array([o.second for o in overlaps])
        self.sizes = np.array([o.difference.size for o in overlaps])
        self.difference = _all(overlaps)
        self.rows = self._rows(overlaps)
        self.index, self.places = self._index()
        self.f_prior = np.array([
            *[SHARE] * self.shares, *(options.shared_error / sum(p) ** 1.5 for p in self.f_order)
        ])  # fmt: skip
        self.expected = np.zeros(self.f_size)
        self.expected[: self.shares] = 1 / (self.shares + 1) / SHARE**2
        self.g_prior = np.array([
            options.shape_drift / sum(p) ** 1.5 if sum(p) else options.level_drift
            for p in self.g_order
        ])  # fmt: skip
        self.own = _own_terms(overview, self.g_order)
        self.method_level = self.own[:, 0].copy()
        self.own -= np.nanmedian(self.own, axis=0)
        self.prior = self._prior(_order_in_time(hours, count), options.memory_h)

    def _rows(self, overlaps: Sequence[Overlap]) -> Floats:
        """`(n, C + K_f + 2 K_g)` of all blocks: other shapes, f, g of both tiles."""
        one = [np.concatenate([o.place_first[axis] for o in overlaps]) for axis in (0, 1)]
        two = [np.concatenate([o.place_second[axis] for o in overlaps]) for axis in (0, 1)]
        return np.hstack([
            np.concatenate([o.others for o in overlaps]),
            legendre(self.f_order, *one) - legendre(self.f_order, *two),
            legendre(self.g_order, *one), -legendre(self.g_order, *two),
        ])  # fmt: skip

    def _index(self) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Unknowns `(E, K)` that each pair's rows meet, and the places of their products."""
        own = self.f_size + np.arange(self.g_size)
        index = np.concatenate([
            np.tile(np.arange(self.f_size), (len(self.sizes), 1)),
            own + self.first[:, None] * self.g_size, own + self.second[:, None] * self.g_size,
        ], axis=1)  # fmt: skip
        width = index.shape[1]
        return index, (np.repeat(index, width, axis=1).ravel(), np.tile(index, width).ravel())

    def _prior(self, order: tuple[NDArray[np.int64], Floats], memory_h: float) -> sparse.csr_array:
        """Precision matrix of f and of drift.

        Drift is an Ornstein-Uhlenbeck process: ``g_i - r g_before ~ N(0, G^2 (1 - r^2))``.
        """
        index, gap_h = order
        memory = np.exp(-gap_h / memory_h)
        free = np.maximum(1 - memory**2, 1e-4)
        diagonal = np.zeros(self.count)
        diagonal[index[0]] += 1
        diagonal[index[1:]] += 1 / free
        diagonal[index[:-1]] += memory**2 / free
        beside = -memory / free
        chain = sparse.coo_array(
            (np.r_[diagonal, beside, beside],
             (np.r_[np.arange(self.count), index[:-1], index[1:]],
              np.r_[np.arange(self.count), index[1:], index[:-1]])),
        )  # fmt: skip
        blocks = sparse.kron(chain, sparse.diags_array(self.g_prior**-2.0))
        return sparse.csr_array(
            sparse.block_diag([sparse.diags_array(self.f_prior**-2.0), blocks])
        )

    def _trusted(self, tiles: Floats) -> tuple[sparse.csr_array, Floats]:
        """Prior and right side with the method's own terms, by how they agree with `tiles`.

        They agree by accident, too, so no more faith in them than in drift being usual; none
        where the method was not asked.
        """
        off = self.own - tiles
        off -= np.nanmedian(off, axis=0)
        scatter = 1.4826 * np.nanmedian(np.abs(off), axis=0)
        faith = np.isfinite(self.own) / (scatter**2 + (AGREE * self.g_prior) ** 2)
        own = np.concatenate([np.zeros(self.f_size), faith.ravel()])
        right = np.concatenate([self.expected, (np.nan_to_num(self.own) * faith).ravel()])
        return self.prior + sparse.diags_array(own), right

    def solve(self, watch: Watch) -> tuple[Floats, Floats, float]:
        """Huber's estimate by reweighting."""
        shared, tiles = np.zeros(self.f_size), np.zeros((self.count, self.g_size))
        noise = max(_scatter(self.residuals(shared, tiles)), FLOOR)
        none = np.zeros(self.count * self.g_size)
        prior = (self.prior, np.concatenate([self.expected, none]))
        for k in range(ROUNDS):
            watch.step(STAGE, k, ROUNDS)
            if k == ROUNDS // 2:
                prior = self._trusted(tiles)
            weights = self._weights(self.residuals(shared, tiles), noise)
            matrix, right = self._normal(weights, *prior)
            found = solve_bordered(sparse.csc_array(matrix), right, self.f_size)
            shared = found[: self.f_size]
            tiles = found[self.f_size :].reshape(self.count, self.g_size)
            noise = max(_scatter(self.residuals(shared, tiles)), FLOOR)
        return shared, tiles, noise

    def _weights(self, residuals: Floats, noise: float) -> Floats:
        off = np.maximum(np.abs(residuals) / noise, 1e-12)
        alike = np.repeat(np.minimum(1.0, ALIKE / self.sizes), self.sizes)
        out: Floats = alike * np.minimum(1.0, HUBER / off) / noise**2
        return out

    def residuals(self, shared: Floats, tiles: Floats) -> Floats:
        """Differences left in all blocks."""
        of_first = np.repeat(tiles[self.first], self.sizes, axis=0)
        of_second = np.repeat(tiles[self.second], self.sizes, axis=0)
        f, g, h = np.split(self.rows, [self.f_size, self.f_size + self.g_size], axis=1)
        out: Floats = self.difference - np.einsum("nk,k->n", f, shared)
        out -= np.einsum("nk,nk->n", g, of_first) + np.einsum("nk,nk->n", h, of_second)
        return out

    def _normal(
        self, weights: Floats, prior: sparse.csr_array, base: Floats
    ) -> tuple[Any, Floats]:
        """Matrix and right side of the weighted blocks, added to the prior's."""
        width = self.index.shape[1]
        weighted = self.rows * weights[:, None]
        starts = np.cumsum(self.sizes) - self.sizes
        blocks = np.empty((len(self.sizes), width, width))
        for size in np.unique(self.sizes).tolist():  # pairs with as many blocks, all at once
            chosen = np.flatnonzero(self.sizes == size)
            at = starts[chosen, None] + np.arange(size)
            blocks[chosen] = weighted[at].transpose(0, 2, 1) @ self.rows[at]
        sums = np.add.reduceat(weighted * self.difference[:, None], starts, axis=0)
        right = base + np.bincount(self.index.ravel(), sums.ravel(), minlength=len(base))
        data = sparse.coo_array((blocks.ravel(), self.places), shape=prior.shape)
        return data.tocsr() + prior, right


def _own_terms(overview: Overview, order: Order) -> Floats:
    """The method's own smooth terms of each tile `(T, K)`, by least squares on lit cells.

    NaN where it was not asked.
    """
    count, rows, columns = overview.rest.shape
    y, x = ((np.arange(n) + 0.5) / n * 2 - 1 for n in (rows, columns))
    fit = legendre(order, np.repeat(y, columns), np.tile(x, rows))
    places = (
        ((np.arange(n) + 0.5) / n * m).astype(int)
        for n, m in zip((rows, columns), overview.lit.shape, strict=True)
    )
    lit = overview.lit[np.ix_(*places)].ravel()
    asked = np.isfinite(overview.rest[:, 0, 0])
    values = overview.rest.reshape(count, -1)[asked][:, lit].astype(np.float64)
    out = np.full((count, len(order)), np.nan)
    out[asked] = linalg.lstsq(fit[lit], values.T)[0].T
    return out


def _order_in_time(hours: Floats | None, count: int) -> tuple[NDArray[np.int64], Floats]:
    """Tiles in order of time, and the gaps between them in hours."""
    if hours is None or not np.isfinite(hours).all():
        return np.arange(count), np.full(count - 1, TILE_H)
    index = np.argsort(hours, kind="stable")
    return index.astype(np.int64), np.maximum(np.diff(hours[index]), 1e-3)
