"""One background for a whole mosaic: a shared shape, smooth errors of it, one scale.

With the background of a tile written ``b_i = S + f + g_i`` (logarithms; S the shared shape,
f what it is off everywhere, g_i the drift of tile i, both low Legendre polynomials), two tiles
that show the same place of the specimen differ there by ``(f + g_i)(x) - (f + g_j)(x')``, x and
x' being the place in each tile. These differences are solved for f and all g_i at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from napari_txm_bgcorr.core.joint_options import JointOptions
from napari_txm_bgcorr.core.overlap_system import MANY, System, differences, scatter
from napari_txm_bgcorr.core.overlaps import Overlap, find_overlaps
from napari_txm_bgcorr.core.overview import Overview
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["JointOptions", "Solution", "solve", "too_few"]

Floats = NDArray[np.float64]


DEFAULT = JointOptions()
ROUNDS = 8  # of weighting, the second half with what the method itself says
STAGE = "solving for all tiles"
TRIAL = 4  # enough to see which candidates are of no use


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
        backgrounds, and with these terms.
    level_errors : (T,) float64
        Standard deviation of each level against the mean of all.
    shares : (C,) float64
        0 to 1, of the overview's `others` in the shape that `shared` and `tiles` belong to.
    compared : tuple of Overlap
        What was compared.
    left : (n,) float64
        Differences that are left in their blocks.
    """

    shared: Floats
    tiles: Floats
    method_level: Floats
    overlaps: int
    noise: float
    seam_before: float
    seam_after: float
    level_errors: Floats
    shares: Floats = field(default_factory=lambda: np.empty(0))
    compared: tuple[Overlap, ...] = ()
    left: Floats = field(default_factory=lambda: np.empty(0))


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
    own = own[np.isfinite(own)] if np.isfinite(own).any() else differences(overlaps)
    before = scatter(own)
    worst = max(before, _tail(own))
    if worst < options.least_seam:
        return f"the backgrounds agree within {100 * worst:.1f} % already; nothing to gain"
    number = len(overview.others)
    left = list(range(-1, number))  # candidates; -1 is the overview's own shape
    final = number == 0
    before_last = 0 if final else TRIAL
    progress = _Rounds(watch, before_last + ROUNDS)
    while True:
        seen = [_seen_from(o, left) for o in overlaps]
        system = System(seen, positions_px, hours, overview, options)
        progress.start = before_last if final else 0
        found, drift, noise = system.solve(progress, ROUNDS if final else TRIAL)
        share = dict(zip(left[1:], found.tolist(), strict=False))
        share[left[0]] = 1 - sum(share.values())
        worst = min(left, key=lambda k: share[k])
        if share[worst] < 0:
            left.remove(worst)  # the others do better without it
        elif final:
            break
        else:
            final = True
    residuals = system.residuals(found, drift)
    after = scatter(residuals)
    if count >= MANY and after > options.greatest_seam:
        return _no_one_shape(count, after)
    shares = np.array([share.get(k, 0.0) if k in left else 0.0 for k in range(number)])
    return Solution(
        found[len(left) - 1 :], system.terms_of(drift), system.method_level, len(overlaps), noise,
        before, after, system.level_errors(), shares, tuple(overlaps), residuals,
    )  # fmt: skip


def _no_one_shape(count: int, seam: float) -> str:
    return (
        f"the overlaps of {count} tiles still differ by {100 * seam:.0f} %: the illumination "
        "changed its shape too much to be one; correct shorter parts by themselves"
    )


class _Rounds:
    """Tells how far several solutions are, as one; trials that are repeated tell nothing new."""

    def __init__(self, watch: Watch, total: int) -> None:
        self.watch, self.total, self.start, self.told = watch, total, 0, 0

    def __call__(self, done: int) -> None:
        self.told = max(self.told, self.start + done)
        self.watch.step(STAGE, self.told, self.total)


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


def _tail(values: Floats) -> float:
    """Rms as the outer twentieth tells it, if normal: one tile that is off shows here."""
    return float(np.quantile(np.abs(values), 0.95)) / 1.96


def _connected(count: int, overlaps: Sequence[Overlap]) -> bool:
    first, second = [o.first for o in overlaps], [o.second for o in overlaps]
    graph = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return int(sparse.csgraph.connected_components(graph, directed=False)[0]) == 1
