"""The figures of `TileQuality`, each from the small pictures that a `Gauge` keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.mosaic import blend, neighbours

from .metrics import LEAST_CONTRAST

__all__ = [
    "Sides",
    "TilePairs",
    "departures",
    "ghosts",
    "overlaps",
    "picture",
    "residues",
    "sides_of",
    "structure",
]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

BLOCKS = 16  # across a tile: overlaps are compared in blocks, where photon noise averages out
COARSE = (1 / 16, 1 / 4)  # of the field: band of coarse structure
CHUNK = 64  # tiles turned to float32 at once


@dataclass(frozen=True, eq=False)
class TilePairs:
    """Overlaps of neighbouring tiles, `(E,)` each.

    Attributes
    ----------
    first, second : int64
        Tiles.
    before, after : float64
        Rms over blocks of the log difference, raw and corrected.
    bend : float64
        As `after`, less the mean difference.
    offset : float64
        Mean log difference, corrected: first less second.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    before: Floats
    after: Floats
    bend: Floats
    offset: Floats


@dataclass(frozen=True, eq=False)
class Sides:
    """`(T, 4)` float64 each, by `quality.table.SIDES`; NaN on sides without a neighbour."""

    before: Floats
    after: Floats
    bend: Floats
    offset: Floats


def overlaps(
    raw: NDArray[np.float16],
    raw_level: Floats,
    corrected: NDArray[np.float16],
    seen: Mask,
    positions_px: Floats | None,
    size: tuple[int, int],
    bin_px: int,
) -> TilePairs:
    """Compare neighbours where they show the same place.

    Parameters
    ----------
    raw, corrected : (T, y, x) float16
        Logarithms on bins; NaN where not to be trusted.
    raw_level : (T,) float64
        To add to `raw`.
    seen : (T,) bool
        Tiles to take part.
    positions_px : (T, 2) float64 or None
        Top left corners; None: no overlaps.
    size : (Y, X)
        Of a tile in pixels.
    bin_px : int
    """
    pairs = [] if positions_px is None else neighbours(positions_px, size)
    pairs = [(i, j) for i, j in pairs if seen[i] and seen[j]]
    out = np.full((len(pairs), 4), np.nan)
    if positions_px is not None:
        corners = np.rint(positions_px / bin_px).astype(int)
        for e, (i, j) in enumerate(pairs):
            windows = _windows(corners[j] - corners[i], corrected.shape[1:])
            if windows is not None:
                out[e] = _compare(raw, raw_level, corrected, (i, j), windows)
    index = np.array(pairs, np.int64).reshape(-1, 2)
    return TilePairs(index[:, 0], index[:, 1], out[:, 0], out[:, 1], out[:, 2], out[:, 3])


def _windows(
    shift: NDArray[np.int_], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Common part in each of two tiles of which the second lies `shift` bins further."""
    one, two = [], []
    for d, n in zip(shift.tolist(), shape, strict=True):
        if abs(d) >= n:
            return None
        one.append(slice(max(0, d), n + min(0, d)))
        two.append(slice(max(0, -d), n + min(0, -d)))
    return (one[0], one[1]), (two[0], two[1])


def _compare(
    raw: NDArray[np.float16],
    raw_level: Floats,
    corrected: NDArray[np.float16],
    pair: tuple[int, int],
    windows: tuple[tuple[slice, slice], tuple[slice, slice]],
) -> tuple[float, float, float, float]:
    """Rms before, after and after without its mean; mean after."""
    (i, j), (one, two) = pair, windows
    known = np.isfinite(corrected[i][one]) & np.isfinite(corrected[j][two])
    before = raw[i][one].astype(np.float32) - raw[j][two].astype(np.float32)
    after = corrected[i][one].astype(np.float32) - corrected[j][two].astype(np.float32)
    side = max(1, max(corrected.shape[1:]) // BLOCKS)
    raw_blocks = _blocks(before, known, side) + (raw_level[i] - raw_level[j])
    blocks = _blocks(after, known, side)
    if not blocks.size:
        return (np.nan,) * 4
    return (
        float(np.sqrt(np.mean(raw_blocks**2))),
        float(np.sqrt(np.mean(blocks**2))),
        float(np.std(blocks)),
        float(blocks.mean()),
    )


def _blocks(image: Image, known: Mask, side: int) -> Floats:
    """Means `(n,)` over blocks that are known for the most part; cut blocks count alike."""
    value = np.where(known, image, np.float32(0))
    starts = [np.arange(0, max(1, n - side // 2), side) for n in image.shape]

    def summed(x: NDArray[Any]) -> Floats:
        rows = np.add.reduceat(x.astype(np.float64), starts[0], axis=0)
        out: Floats = np.add.reduceat(rows, starts[1], axis=1)
        return out

    total, mass, room = summed(value), summed(known), summed(np.ones(image.shape))
    chosen = (mass > 0.5 * room) & (mass >= 0.25 * side * side)
    out: Floats = total[chosen] / mass[chosen]
    return out


def sides_of(pairs: TilePairs, positions_px: Floats | None, count: int) -> Sides:
    """Overlaps by side of each tile."""
    out = Sides(*(np.full((count, 4), np.nan) for _ in range(4)))
    if positions_px is None:
        return out
    for e, (i, j) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        dy, dx = positions_px[j] - positions_px[i]
        upright = abs(dy) > abs(dx)
        mine = (3 if dy > 0 else 0) if upright else (2 if dx > 0 else 1)
        for tile, side, sign in ((i, mine, 1.0), (j, 3 - mine, -1.0)):
            out.before[tile, side] = pairs.before[e]
            out.after[tile, side] = pairs.after[e]
            out.bend[tile, side] = pairs.bend[e]
            out.offset[tile, side] = sign * pairs.offset[e]
    return out


def residues(fine: NDArray[np.float16], seen: Mask) -> Floats:
    """Mean correlation of each tile's fine part `(T, y, x)`, norm 1, with the other tiles'."""
    return _mean_correlation(fine, seen)


def ghosts(coarse: Image, seen: Mask) -> Floats:
    """Mean correlation of each tile's coarse structure `(T, y, x)`, norm 1, with the others'."""
    return _mean_correlation(coarse, seen)


def _mean_correlation(vectors: NDArray[Any], seen: Mask) -> Floats:
    """Mean of the products of a vector of norm 1 with all others; NaN for fewer than two."""
    out = np.full(len(vectors), np.nan)
    flat = vectors.reshape(len(vectors), -1)
    some = [i for i in np.flatnonzero(seen).tolist() if flat[i].any()]
    if len(some) < 2:
        return out
    parts = [some[k : k + CHUNK] for k in range(0, len(some), CHUNK)]
    total = np.zeros(flat.shape[1])
    for part in parts:
        total += flat[part].astype(np.float32).sum(axis=0)
    for part in parts:
        own = flat[part].astype(np.float32)
        square = np.einsum("ij,ij->i", own, own)
        out[part] = (own @ total - square) / (len(some) - 1)
    return out


def structure(log: Image) -> tuple[Image, Floats]:
    """Coarse structure of log tiles on cells, NaN where unknown.

    Parameters
    ----------
    log : (T, y, x) float32

    Returns
    -------
    (T, y, x) float32
        Band of `COARSE`, norm 1; zero where unknown or where there is nothing.
    (T,) float64
        Rms of the low-passed tile about its mean.
    """
    out = np.zeros(log.shape, np.float32)
    cover = np.full(len(log), np.nan)
    sigma = [share * max(log.shape[1:]) for share in COARSE]
    for i, tile in enumerate(log):
        known = np.isfinite(tile)
        if known.any():
            low = [_smooth(tile, known, s) for s in sigma]
            cover[i] = float(low[0][known].std())
            band = np.where(known, low[0] - low[1], np.float32(0))
            band[known] -= band[known].mean()
            norm = float(np.linalg.norm(band))
            out[i] = band / np.float32(norm) if norm > 0 else 0
    return out, cover


def _smooth(image: Image, known: Mask, sigma: float) -> Image:
    weight = known.astype(np.float32)
    mass: Image = np.maximum(ndimage.gaussian_filter(weight, sigma), np.float32(1e-6))
    filled: Image = np.where(known, image, np.float32(0))
    out: Image = ndimage.gaussian_filter(filled, sigma) / mass
    return out


def departures(
    backgrounds: Image,
    tiles: Image,
    times: NDArray[np.datetime64] | None,
    seen: Mask,
) -> tuple[Floats, Floats, Floats]:
    """Departure of each background from the scan's others, and leakage of the tile into it.

    Parameters
    ----------
    backgrounds, tiles : (T, y, x) float32
        Log counts on cells, NaN where not to be trusted.
    times : (T,) datetime64 or None
        None: tiles are in order of acquisition.
    seen : (T,) bool

    Returns
    -------
    departure, jump, leakage : (T,) float64
        See `TileQuality`.
    """
    departure, jump, leak = (np.full(len(backgrounds), np.nan) for _ in range(3))
    some = np.flatnonzero(seen & np.isfinite(backgrounds).any(axis=(1, 2)))
    if len(some) < 2:
        return departure, jump, leak
    shapes = np.stack([_levelled(backgrounds[i]) for i in some])
    common = np.isfinite(shapes).mean(axis=0) > 0.5
    shared = np.full(common.shape, np.nan, np.float32)
    shared[common] = np.nanmedian(shapes[:, common], axis=0)
    off = shapes - shared
    for k, i in enumerate(some.tolist()):
        departure[i] = _rms(off[k])
        leak[i] = _slope(off[k], _levelled(tiles[i]) - shared)
    order = (
        some
        if times is None or np.isnat(times).any()
        else some[np.argsort(times[some], kind="stable")]
    )
    place = {int(i): k for k, i in enumerate(some.tolist())}
    for k, i in enumerate(order.tolist()):
        beside = [place[int(order[n])] for n in (k - 1, k + 1) if 0 <= n < len(order)]
        jump[i] = _rms(off[place[i]] - off[beside].mean(axis=0))
    return departure, jump, leak


def _levelled(log: Image) -> Image:
    out: Image = log - np.nanmedian(log) if np.isfinite(log).any() else log
    return out


def _rms(image: Image) -> float:
    """Rms about the mean of the finite values; NaN if there are none."""
    values = image[np.isfinite(image)]
    return float(values.std()) if values.size else float("nan")


def _slope(background: Image, own: Image) -> float:
    """Slope of the low-passed background on the low-passed tile, both about their means."""
    known = np.isfinite(background) & np.isfinite(own)
    if known.sum() < 2:
        return float("nan")
    sigma = COARSE[0] * max(own.shape)
    x, y = (_smooth(a, known, sigma)[known].astype(np.float64) for a in (own, background))
    x, y = x - x.mean(), y - y.mean()
    if np.sqrt(np.mean(x * x)) < LEAST_CONTRAST:
        return float("nan")
    return float((x @ y) / (x @ x))


def picture(
    logs: NDArray[np.float16], levels: Floats, positions_px: Floats, bin_px: int, longest_px: int
) -> Image:
    """Blend small log tiles into one picture, made smaller still where needed.

    Parameters
    ----------
    logs : (T, y, x) float16
        On bins; NaN where unknown.
    levels : (T,) float64
        To add.
    positions_px : (T, 2) float64
        Top left corners in pixels.
    bin_px : int
    longest_px : int
        Longer side of the picture, at most.

    Returns
    -------
    (H, W) float32
        No longer logarithms; NaN where no tile is known.
    """
    corners = (positions_px - positions_px.min(axis=0)) / bin_px
    whole = float((corners.max(axis=0) + logs.shape[1:]).max())
    step = max(1, int(np.ceil(whole / longest_px)))
    rows, columns = (max(1, n // step) for n in logs.shape[1:])
    small = np.zeros((len(logs), rows, columns), np.float32)
    known = np.zeros(small.shape, bool)
    for i, (log, level) in enumerate(zip(logs, levels, strict=True)):
        part = log[: rows * step, : columns * step].astype(np.float32)
        good = np.isfinite(part)
        mass = good.reshape(rows, step, columns, step).sum(axis=(1, 3))
        value = np.exp(np.where(good, part, 0) + np.float32(level if np.isfinite(level) else 0))
        value = np.where(good, value, 0).reshape(rows, step, columns, step).sum(axis=(1, 3))
        known[i] = mass > 0
        small[i] = value / np.maximum(mass, 1)
    return blend(small, corners / step, known)
