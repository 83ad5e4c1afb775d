"""How the illumination of a mosaic changes its shape with time, from tiles that show the beam.

The smooth terms of a tile (`joint`) are of degree 2. What they leave at one place of the field is
either the beam's, which changes slowly from tile to tile, or specimen, which lies below and is
another one in the next tile. So it is averaged over tiles of the same hours, each weighted by the
probability that it shows the beam there, and believed as far as every second tile tells the same
as the others, and as far as the overlaps grow more alike by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, linalg, ndimage

from napari_txm_bgcorr.core.beam_levels import TILE_H, shows_beam
from napari_txm_bgcorr.core.overlaps import Overlap
from napari_txm_bgcorr.core.shapes import UPPER
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["CELLS", "Change", "change_of"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

CELLS = 32  # across a tile; the smooth part of an illumination needs no finer ones
MEMORIES_H = (0.5, 0.1, 0.03, 0.01)  # of the averages, long to short, hours
WIDTHS = (0.15, 0.1, 0.06, 0.04, 0.03, 0.02, 0.02)  # of the beam's edge, log, a round each
LATER_WIDTHS = (0.03, 0.02, 0.02)  # where a longer average has been taken off
LITTLE = 1.0  # tiles' weight that counts as nothing told
BANDS = (0.5, 1.2, 2.3, 3.7, 5.5, 8.5, 13.0)  # half periods across the field
HALF = 0.5  # share of each part, and its standard deviation, before the overlaps are looked at
ALIKE = 12.0  # neighbouring blocks of an overlap count as one
HUBER = 1.5  # standard deviations
FLOOR = 0.003  # least noise of a block, log
ROUNDS = 8
STAGE = "following the beam"
PASSES = 2  # the second finds what the first has left out
DILUTED = 2.0  # what tiles tell is noisy, so overlaps show less of it than there is
FIRST = 0.9  # quantile of the tiles' levels that stands for the beam's to begin with


@dataclass(frozen=True, eq=False)
class Change:
    """What the log background of each tile differs from the smooth one found for it.

    Attributes
    ----------
    cells : (T, y, x) float32
        Log; mean 0 over all.
    left : (n,) float64
        Differences that are left in the blocks of the overlaps.
    """

    cells: Image
    left: Floats


def change_of(
    residuals: Image,
    known: Mask,
    hours: Floats | None,
    overlaps: Sequence[Overlap],
    left: Floats,
    watch: Watch = SILENT,
) -> Change:
    """Find what changes, from what the smooth terms leave.

    Parameters
    ----------
    residuals : (T, y, x) float32
        Log counts of cells less the smooth background: log transmission, up to one level.
    known : (y, x) bool
        Cells that are wholly lit.
    hours : (T,) float64 or None
        When each tile was taken; None: one after the other.
    overlaps : sequence of Overlap
    left : (n,) float64
        Differences that the smooth terms leave in their blocks.
    watch : Watch
        Told after each average.

    Returns
    -------
    Change

    Raises
    ------
    StoppedError
        If the watch ended it.
    """
    total = np.zeros_like(residuals)
    if not known.any():
        return Change(total, left)
    told: Floats = TILE_H * np.arange(len(residuals), dtype=np.float64)
    told = told if hours is None else hours
    order = np.argsort(told, kind="stable")
    values = residuals[:, known]
    values -= np.quantile(np.quantile(values, UPPER, axis=1), FIRST)  # the beam is about 0 then
    for once in range(PASSES):
        found = np.zeros_like(values)
        share = np.full((len(values), 1), 0.5, np.float32)
        for k, memory_h in enumerate(MEMORIES_H):
            watch.step(STAGE, once * len(MEMORIES_H) + k, PASSES * len(MEMORIES_H))
            keep = np.exp(-np.diff(told[order]) / memory_h).astype(np.float32)
            widths = LATER_WIDTHS if k else WIDTHS
            more, share = _slow((values - found)[order], share, known, keep, widths)
            found[order] += more
        found -= found.mean()
        common = found.mean(axis=0)
        parts = _filled(common[None], known), _filled(found - common, known)
        one, two = _shares(overlaps, left, parts)
        step: Image = np.float32(one) * parts[0] + np.float32(two) * parts[1]
        total += step
        values -= step[:, known]
        left = left - _differences(overlaps, step)
    return Change(total, left)


def _slow(
    rest: Image, share: Image, known: Mask, keep: Image, widths: Sequence[float]
) -> tuple[Image, Image]:
    """What changes slowly in known cells `(T, n)` of tiles in order of time.

    `share` `(T, 1)` of the cells of each tile show the beam, as far as is known; returned anew.
    """
    found = np.zeros_like(rest)
    for width in widths:
        off = rest - found
        trust = shows_beam(off, share, width)
        share = np.clip(trust.mean(axis=1, keepdims=True), 0.05, 0.95)
        trust *= np.minimum(1, width / np.maximum(off, np.float32(1e-9)))
        found = _average(trust, rest, keep, LITTLE)
    every_second = (np.arange(len(rest)) % 2 == 0)[:, None]
    one, two = (
        _average(trust * half, rest, keep, LITTLE / 2) for half in (every_second, ~every_second)
    )
    return _agreeing(one, two, found, known), share


def _average(weights: Image, values: Image, keep: Image, nothing: float) -> Image:
    """Mean over the tiles before and after, each tile counting less the longer ago it is.

    Parameters
    ----------
    weights, values : (T, n) float32
    keep : (T - 1,) float32
        How much less from each tile to the next.
    nothing : float
        Weight of the value 0 beside them.
    """
    sums = np.stack([weights, weights * values], axis=1)
    total: Image = sums.copy()
    for way in (1, -1):  # an exponential on either side is a recursion
        run, faded = np.zeros_like(sums[0]), keep[::way]
        for t, here in enumerate(sums[::way]):
            if t:
                total[::way][t] += run * faded[t - 1]
                run *= faded[t - 1]
            run += here
    out: Image = total[:, 1] / (total[:, 0] + np.float32(nothing))
    return out


def _agreeing(one: Image, two: Image, whole: Image, known: Mask) -> Image:
    """Shrink `(T, n)` band by band to the part that two halves of the tiles share.

    With r the correlation of the halves the mean of both holds ``2 r / (1 + r)`` of signal
    (Spearman 1910 and Brown 1910, Brit. J. Psychol. 3).
    """
    a, b, both = (
        fft.dctn(_filled(part, known), axes=(1, 2), norm="ortho") for part in (one, two, whole)
    )
    y, x = np.indices(known.shape)
    band = np.digitize(np.hypot(y, x), BANDS)
    for k in range(len(BANDS) + 1):
        here = band == k
        alike = float((a[:, here] * b[:, here]).sum())
        power = float((a[:, here] ** 2 + b[:, here] ** 2).sum()) / 2
        r = max(alike, 0.0) / max(power, 1e-30)
        both[:, here] *= np.float32(2 * r / (1 + r))
    out: Image = fft.idctn(both, axes=(1, 2), norm="ortho")[:, known]
    return out


def _filled(values: Image, known: Mask) -> Image:
    """`(T, n)` of known cells to `(T, y, x)`: the others take their nearest one's."""
    out = np.zeros((len(values), *known.shape), np.float32)
    out[:, known] = values
    y, x = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return out[:, y, x]


def _shares(
    overlaps: Sequence[Overlap], left: Floats, parts: Sequence[Image]
) -> tuple[float, float]:
    """How much of each part makes the overlaps alike: Huber's estimate, 0 to 1."""
    columns = np.column_stack([_differences(overlaps, part) for part in parts])
    shares = np.full(2, HALF)
    for _ in range(ROUNDS):
        off = left - columns @ shares
        noise = max(1.4826 * float(np.median(np.abs(off))), FLOOR)
        weights = np.minimum(1, HUBER * noise / np.maximum(np.abs(off), 1e-9)) / noise**2 / ALIKE
        weighted = columns.T * weights
        matrix = weighted @ columns + np.eye(2) / HALF**2
        shares = linalg.solve(matrix, weighted @ left + HALF / HALF**2, assume_a="pos")
    one, two = np.clip(DILUTED * shares, 0, 1).tolist()
    return one, two


def _differences(overlaps: Sequence[Overlap], cells: Image) -> Floats:
    """What cells `(T, y, x)`, or `(1, y, x)` of all tiles, take off the differences of blocks."""
    one = len(cells) == 1  # common to all tiles
    return np.concatenate([
        _at(cells[0 if one else o.first], o.place_first)
        - _at(cells[0 if one else o.second], o.place_second)
        for o in overlaps
    ])  # fmt: skip


def _at(cells: Image, place: tuple[Floats, Floats]) -> Floats:
    """Values at places in -1..1 of a tile, linear between cells."""
    at = [(p + 1) / 2 * n - 0.5 for p, n in zip(place, cells.shape, strict=True)]
    out: Floats = ndimage.map_coordinates(cells, at, np.float64, order=1, mode="nearest")
    return out
