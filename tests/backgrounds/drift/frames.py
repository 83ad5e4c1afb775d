"""Cells of a scan whose levels, drift and pattern are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.backgrounds.drift.types import DriftFit, Frames, OverlapBlocks
from napari_txm_bgcorr.core.polynomials import legendre, terms

Floats = NDArray[np.float64]
SIZE = (32, 32)


@dataclass(frozen=True, eq=False)
class Known:
    """Frames, and what they were made of.

    Attributes
    ----------
    frames : Frames
    beams : (T, y, x) float64
        True log backgrounds against the prior pattern, level included.
    free : (T, y, x) bool
        Where no sample is.
    places : (T, 2) int
        Top left corners of the tiles, cells.
    """

    frames: Frames
    beams: Floats
    free: NDArray[np.bool_]
    places: NDArray[np.int64]

    def errors(self, found: DriftFit) -> Floats:
        """What is off, log, one scale for all left out."""
        off: Floats = found.model() - self.beams
        return off - np.median(off)

    def shape_errors(self, found: DriftFit) -> Floats:
        """The same, with one scale for each tile left out."""
        off: Floats = found.model() - self.beams
        return off - np.median(off, axis=(1, 2), keepdims=True)


def smooth(size: tuple[int, int], sigma: float, rng: np.random.Generator) -> Floats:
    """A random field of variance 1."""
    image = ndimage.gaussian_filter(rng.standard_normal(size), sigma, mode="wrap")
    out: Floats = (image - image.mean()) / image.std()
    return out


def polynomial(size: tuple[int, int], coefficients: Floats, degree: int) -> Floats:
    """Sum of Legendre terms from degree 1 on."""
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n * 2 - 1 for n in size), indexing="ij")
    values = legendre(terms(degree)[1:], y.ravel(), x.ravel())
    out: Floats = (values @ coefficients).reshape(size)
    return out


def known(
    grid: tuple[int, int] = (4, 4), *, covered: float = 0.65, drift: float = 0.012,
    levels: float = 0.03, pattern: float = 0.03, overlap: float = 0.2, seed: int = 0,
    size: tuple[int, int] = SIZE, noise: float = 0.003, slab: int | None = None,
) -> Known:  # fmt: skip
    """Tiles of a mosaic under a drifting beam, `covered` of the area sample.

    Where the sample is, it takes 5 to 60 per cent. A slab that halves the beam covers the whole
    of tile `slab`, and its neighbours where they overlap with it.
    """
    rng = np.random.default_rng(seed)
    rows, columns = grid
    step = np.rint(np.array(size) * (1 - overlap)).astype(int)
    places = np.array([(r * step[0], c * step[1]) for r in range(rows) for c in range(columns)])
    whole = tuple(int(n) for n in places.max(axis=0) + size)
    rough = smooth(whole, 3, rng)
    edge = np.quantile(rough, covered)
    thick = np.where(rough < edge, 0.05 + 0.25 * (edge - rough), 0)
    if slab is not None:
        y, x = places[slab]
        thick[y : y + size[0], x : x + size[1]] += 0.7
    count = rows * columns
    walk = np.cumsum(rng.normal(0, 1, (count, 5)), axis=0) / np.sqrt(count)
    common = pattern * 0.5 * smooth(size, 6, rng)
    common += polynomial(size, pattern * rng.normal(0, 1, 9) / 3, 3)
    beams, seen, free = [], [], []
    level = levels * np.cumsum(rng.normal(0, 1, count)) / np.sqrt(count)
    for k, (y, x) in enumerate(places):
        beam = common + polynomial(size, drift * walk[k], 2) + level[k]
        sample = thick[y : y + size[0], x : x + size[1]]
        beams.append(beam)
        seen.append(beam - sample + noise * rng.standard_normal(size))
        free.append(sample == 0)
    residual = np.array(seen)
    frames = Frames(
        residual.astype(np.float32), np.ones(size, bool), np.arange(count) * 85 / 3600,
        overlaps(residual, places, grid),
    )  # fmt: skip
    return Known(frames, np.array(beams), np.array(free), places)


def overlaps(
    residual: Floats, places: NDArray[np.int64], grid: tuple[int, int]
) -> list[OverlapBlocks]:
    """Differences of neighbours, cell by cell."""
    number = np.arange(len(places)).reshape(grid)
    pairs = [*zip(number[:, :-1].ravel(), number[:, 1:].ravel(), strict=True)]
    pairs += [*zip(number[:-1].ravel(), number[1:].ravel(), strict=True)]
    return [blocks(residual, places, int(i), int(j)) for i, j in pairs]


def blocks(residual: Floats, places: NDArray[np.int64], i: int, j: int) -> OverlapBlocks:
    """Differences of two tiles."""
    size = np.array(residual.shape[1:])
    low, high = np.maximum(places[i], places[j]), np.minimum(places[i], places[j]) + size
    y, x = (a.ravel() for a in np.mgrid[low[0] : high[0], low[1] : high[1]])
    at = np.stack([y, x], axis=1)
    one, two = at - places[i], at - places[j]
    difference = residual[i][one[:, 0], one[:, 1]] - residual[j][two[:, 0], two[:, 1]]
    return OverlapBlocks(i, j, (one + 0.5) / size * 2 - 1, (two + 0.5) / size * 2 - 1, difference)


def reordered(one: Known, order: NDArray[np.int64]) -> Known:
    """The same tiles in another order, each with its own time."""
    place = np.argsort(order)
    moved = [
        replace(o, first=int(place[o.first]), second=int(place[o.second]))
        for o in one.frames.overlaps
    ]
    frames = replace(
        one.frames, residual=one.frames.residual[order], hours=one.frames.hours[order],
        overlaps=moved,
    )  # fmt: skip
    return Known(frames, one.beams[order], one.free[order], one.places[order])
