"""The equations of the joint stage: overlaps, drift in time, and what the method itself says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from napari_txm_bgcorr.core.beam_levels import TILE_H, shown_terms
from napari_txm_bgcorr.core.bordered import Bordered
from napari_txm_bgcorr.core.joint_options import JointOptions
from napari_txm_bgcorr.core.legendre import Order, legendre, terms
from napari_txm_bgcorr.core.overlaps import Overlap
from napari_txm_bgcorr.core.overview import Overview
from napari_txm_bgcorr.core.shapes import spread_indices

__all__ = ["MANY", "System", "differences", "scatter"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int32]

SHARE = 0.5  # how far a candidate's share may lie from an equal one, as a standard deviation
ALIKE = 12.0  # blocks of one overlap count as this many independent ones, at most
HUBER = 1.5  # standard deviations
AGREE = 12.0  # of usual drift: least error ascribed to a method's own differences
AGREE_KNOWN = 1.0  # the same where the method does not guess them from the tiles
MANY = 40  # tiles enough to judge levels by without a plane, and to tell which show the beam
FLOOR = 0.005  # least noise of a block, log
JUDGED = 128  # levels whose error is worked out; between them it changes little


def scatter(values: Floats) -> float:
    """Rms about zero of the inner part, as if normal."""
    return 1.4826 * float(np.median(np.abs(values)))


def differences(overlaps: Sequence[Overlap]) -> Floats:
    """Differences of all blocks `(n,)`."""
    return np.concatenate([o.difference for o in overlaps])


class System:
    """Normal equations of all overlaps, drift in time, and what the method itself says.

    Unknowns: shares of other shapes; f, without the constant; for each tile the terms of g_i and,
    last, the slow part of its level.

    Parameters
    ----------
    overlaps : sequence of Overlap
    positions_px : (T, 2) float64
    hours : (T,) float64 or None
    overview : Overview
    options : JointOptions

    Attributes
    ----------
    method_level : (T,) float64
        The method's own log level of each tile; NaN where it was not asked.
    """

    def __init__(
        self,
        overlaps: Sequence[Overlap],
        positions_px: Floats,
        hours: Floats | None,
        overview: Overview,
        options: JointOptions,
    ) -> None:
        self.count, self.positions_px = len(positions_px), positions_px
        self.f_order, self.g_order = terms(options.shared_degree)[1:], terms(options.tile_degree)
        self.shares = overlaps[0].others.shape[1]  # unknowns before those of f
        self.f_size, self.g_size = self.shares + len(self.f_order), len(self.g_order) + 1
        self.level = np.zeros(self.g_size)
        self.level[[0, -1]] = 1  # the level of a tile is the sum of its fast and its slow part
        whole = sparse.eye_array(len(self.g_order), self.g_size, format="lil")
        whole[0] = self.level
        self.whole = sparse.csr_array(sparse.kron(sparse.eye_array(self.count), whole))
        self.first = np.array([o.first for o in overlaps], np.int32)
        self.second = np.array([o.second for o in overlaps], np.int32)
        self.sizes = np.array([o.difference.size for o in overlaps])
        self.difference = differences(overlaps)
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
        self.agree = AGREE_KNOWN if overview.knows_drift else AGREE
        self.own = _own_terms(overview, self.g_order)
        self.method_level = self.own[:, 0].copy()
        self.own -= np.nanmedian(self.own, axis=0)
        self.shown = shown_terms(overview, self.g_order) if self.count >= MANY else None
        self.order, gap_h = _order_in_time(hours, self.count)
        self.prior = self._prior((self.order, gap_h), options)

    def _rows(self, overlaps: Sequence[Overlap]) -> Floats:
        """`(n, C + K_f + 2 K_g + 2)` of all blocks: other shapes, f, g of both tiles."""
        one = [np.concatenate([o.place_first[axis] for o in overlaps]) for axis in (0, 1)]
        two = [np.concatenate([o.place_second[axis] for o in overlaps]) for axis in (0, 1)]
        level = np.ones((len(one[0]), 1))
        return np.hstack([
            np.concatenate([o.others for o in overlaps]),
            legendre(self.f_order, *one) - legendre(self.f_order, *two),
            legendre(self.g_order, *one), level, -legendre(self.g_order, *two), -level,
        ])  # fmt: skip

    def _index(self) -> tuple[Indices, tuple[Indices, Indices]]:
        """Unknowns `(E, 2 K)` of both tiles of each pair, and the places of their products."""
        pairs = np.stack([self.first, self.second], axis=1)
        own = pairs[:, :, None] * self.g_size + np.arange(self.g_size, dtype=np.int32)
        index: Indices = own.reshape(len(pairs), -1).astype(np.int32)
        width = index.shape[1]
        places = np.repeat(index, width, axis=1).ravel(), np.tile(index, width).ravel()
        return index, places

    def _prior(
        self, order: tuple[NDArray[np.int64], Floats], options: JointOptions
    ) -> sparse.csc_array:
        """Precision matrix of drift, the fast and the slow."""
        level, shape, slow = np.zeros((3, self.g_size))
        level[0], shape[1:-1] = self.g_prior[0] ** -2.0, self.g_prior[1:] ** -2.0
        slow[-1] = options.slow_drift**-2.0
        parts = (options.level_h, level), (options.shape_h, shape), (options.slow_h, slow)
        return sparse.csc_array(sum(
            sparse.kron(_chain(order, memory_h), sparse.diags_array(precision))
            for memory_h, precision in parts
        ))  # fmt: skip

    def terms_of(self, drift: Floats) -> Floats:
        """Terms of g_i `(T, K)`, the first is the whole level."""
        out: Floats = (self.whole @ drift.ravel()).reshape(self.count, -1)
        return out

    def _trusted(self, drift: Floats) -> tuple[sparse.csc_array, Floats]:
        """Prior and right side of drift with the method's own terms, by how both agree.

        What a method guesses from tiles is their specimen's, too, and alike in neighbours: it is
        believed little, however well it agrees; not at all where it was not asked. Of many tiles,
        those that show the beam tell its drift, too, whatever the method says.
        """
        off = self.own - self.terms_of(drift)
        asked = np.flatnonzero(np.isfinite(off[:, 0]))
        if len(asked) >= MANY:
            # Overlaps take a plane in the levels for a tilt of f: no reason for distrust.
            off[asked, 0] -= _plane(self.positions_px[asked], off[asked, 0])
        off -= np.nanmedian(off, axis=0)
        spread = 1.4826 * np.nanmedian(np.abs(off), axis=0)
        faith = np.isfinite(self.own) / (spread**2 + (self.agree * self.g_prior) ** 2)
        told = np.nan_to_num(self.own) * faith
        if self.shown is not None:
            found = self.terms_of(drift)
            shown, precision = self.shown.evidence(found, self.positions_px, self.g_prior)
            faith += precision
            told += precision * shown
        own = self.whole.T @ sparse.diags_array(faith.ravel()) @ self.whole
        return sparse.csc_array(self.prior + own), self.whole.T @ told.ravel()

    def solve(self, step: Callable[[int], None], rounds: int) -> tuple[Floats, Floats, float]:
        """Huber's estimate: unknowns of all tiles, of each tile, noise of a block."""
        shared, drift = np.zeros(self.f_size), np.zeros((self.count, self.g_size))
        noise = max(scatter(self.residuals(shared, drift)), FLOOR)
        prior = self.prior, np.zeros(self.count * self.g_size)
        for k in range(rounds):
            step(k)
            if k == rounds // 2:
                prior = self._trusted(drift)
            weights = self._weights(self.residuals(shared, drift), noise)
            self.matrix, right = self._normal(weights, *prior)
            found = self.matrix.solve(right)
            shared = found[: self.f_size]
            drift = found[self.f_size :].reshape(self.count, self.g_size)
            noise = max(scatter(self.residuals(shared, drift)), FLOOR)
        return shared, drift, noise

    def level_errors(self) -> Floats:
        """Standard deviation `(T,)` of each level against the mean of all, as last solved.

        Overlaps cannot tell tilts of whole rows from steps of their levels: here it shows where
        nothing else does.
        """
        order = self.order
        asked = np.array(spread_indices(self.count, JUDGED))
        sums = np.zeros((self.count, self.g_size, len(asked)))
        sums[order[asked], :, np.arange(len(asked))] = self.level
        sums -= sums.mean(axis=0)
        found = np.sqrt(self.matrix.variances(sums.reshape(-1, len(asked))))
        out = np.empty(self.count)
        out[order] = np.interp(np.arange(self.count), asked, found)
        return out

    def _weights(self, residuals: Floats, noise: float) -> Floats:
        off = np.maximum(np.abs(residuals) / noise, 1e-12)
        alike = np.repeat(np.minimum(1.0, ALIKE / self.sizes), self.sizes)
        out: Floats = alike * np.minimum(1.0, HUBER / off) / noise**2
        return out

    def residuals(self, shared: Floats, drift: Floats) -> Floats:
        """Differences left in all blocks."""
        of_first = np.repeat(drift[self.first], self.sizes, axis=0)
        of_second = np.repeat(drift[self.second], self.sizes, axis=0)
        f, g, h = np.split(self.rows, [self.f_size, self.f_size + self.g_size], axis=1)
        out: Floats = self.difference - np.einsum("nk,k->n", f, shared)
        out -= np.einsum("nk,nk->n", g, of_first) + np.einsum("nk,nk->n", h, of_second)
        return out

    def _normal(
        self, weights: Floats, prior: sparse.csc_array, base: Floats
    ) -> tuple[Bordered, Floats]:
        """Matrix and right side of the weighted blocks, added to the priors'.

        Returns
        -------
        Bordered, (n,) float64
            f first.
        """
        shared = self.rows[:, : self.f_size]
        weighted = self.rows * weights[:, None]
        corner = weighted[:, : self.f_size].T @ shared + np.diag(self.f_prior**-2.0)
        starts = np.cumsum(self.sizes) - self.sizes
        width = self.index.shape[1]
        blocks = np.empty((len(self.sizes), width, width))
        beside = np.empty((len(self.sizes), width, self.f_size))
        for size in np.unique(self.sizes).tolist():  # pairs with as many blocks, all at once
            chosen = np.flatnonzero(self.sizes == size)
            at = starts[chosen, None] + np.arange(size)
            own = weighted[at][:, :, self.f_size :].transpose(0, 2, 1)
            rows = self.rows[at]
            blocks[chosen] = own @ rows[:, :, self.f_size :]
            beside[chosen] = own @ rows[:, :, : self.f_size]
        edge = np.zeros((len(base), self.f_size))
        np.add.at(edge, self.index, beside)
        inner = sparse.coo_array((blocks.ravel(), self.places), shape=prior.shape)
        sums = np.add.reduceat(weighted * self.difference[:, None], starts, axis=0)
        alone = np.bincount(
            self.index.ravel(), sums[:, self.f_size :].ravel(), minlength=len(base)
        )  # fmt: skip
        first = self.expected + sums[:, : self.f_size].sum(axis=0)
        matrix = Bordered(corner, edge, inner.tocsc() + prior)
        return matrix, np.concatenate([first, base + alone])


def _chain(order: tuple[NDArray[np.int64], Floats], memory_h: float) -> sparse.coo_array:
    """Precision `(T, T)` of an Ornstein-Uhlenbeck process of rms 1 at the times of the tiles.

    ``g_i - r g_before ~ N(0, 1 - r^2)`` with ``r = exp(-gap / memory)``.
    """
    index, gap_h = order
    count = len(index)
    memory = np.exp(-gap_h / memory_h)
    free = np.maximum(1 - memory**2, 1e-4)
    diagonal = np.zeros(count)
    diagonal[index[0]] += 1
    diagonal[index[1:]] += 1 / free
    diagonal[index[:-1]] += memory**2 / free
    beside = -memory / free
    return sparse.coo_array(
        (np.r_[diagonal, beside, beside],
         (np.r_[np.arange(count), index[:-1], index[1:]],
          np.r_[np.arange(count), index[1:], index[:-1]])),
    )  # fmt: skip


def _plane(places: Floats, values: Floats) -> Floats:
    """Plane through values at places `(n, 2)`, outliers left out."""
    columns = np.column_stack([np.ones(len(places)), places / np.abs(places).max()])
    used = np.ones(len(places), bool)
    for _ in range(3):
        fit = columns @ linalg.lstsq(columns[used], values[used])[0]
        off = np.abs(values - fit)
        used = off <= 3 * 1.4826 * np.median(off) + 1e-9
    return np.asarray(fit, np.float64)


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
