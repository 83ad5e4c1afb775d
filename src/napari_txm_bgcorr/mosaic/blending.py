"""Tiles into one picture, block by block: linear feather weights that sum to 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.errors import MethodError

__all__ = [
    "FILLED",
    "UNKNOWN",
    "VALID",
    "Box",
    "Layout",
    "Piece",
    "common_unlit",
    "either_unlit",
    "feather",
    "halve",
    "lay_out",
    "mix",
    "share_out",
]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Status = NDArray[np.uint8]

UNKNOWN, FILLED, VALID = 0, 1, 2
"""Of a pixel of a tile: nothing known there, a stand-in, a measured value."""

SPARSEST = 1000  # mosaic area over that of its tiles: beyond it a position is wrong
TAPER = 1 / 16  # of the tile: width over which weights rise from the edge of an unlit corner
SPECK = 5  # px: smaller unlit spots are dead pixels, no corner


class Box(NamedTuple):
    """Part of the mosaic, pixels: first row and column, one beyond the last."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True, eq=False)
class Layout:
    """Positions of tiles in a mosaic, in whole pixels.

    Attributes
    ----------
    corners : (T, 2) int64
        Top left pixel (y, x) of each tile, least value 0.
    tile : (Y, X)
        Size of a tile.
    shape : (H, W)
        Size of the mosaic.
    """

    corners: NDArray[np.int64]
    tile: tuple[int, int]
    shape: tuple[int, int]

    def touching(self, box: Box) -> list[int]:
        """Tiles that have pixels in `box`, in order."""
        y, x = self.corners[:, 0], self.corners[:, 1]
        down = (y < box.bottom) & (y + self.tile[0] > box.top)
        across = (x < box.right) & (x + self.tile[1] > box.left)
        return [int(i) for i in np.flatnonzero(down & across)]


def lay_out(positions_px: NDArray[np.float64], tile: tuple[int, int]) -> Layout:
    """Put tiles on whole pixels: no value is interpolated, a tile is off by half a pixel at most.

    Parameters
    ----------
    positions_px : (T, 2) float64
        Top left corners (y, x) in pixels, y downwards.
    tile : (Y, X)

    Raises
    ------
    MethodError
        If a position is not finite, or tiles lie absurdly far apart.
    """
    positions = np.asarray(positions_px, np.float64)
    if positions.ndim != 2 or positions.shape[1:] != (2,) or not len(positions):
        raise MethodError(f"positions: shape {positions.shape}; give (T, 2) pixels")
    if not np.isfinite(positions).all():
        wrong = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        raise MethodError(f"positions: tile {wrong} lies at {positions[wrong]}; give numbers")
    extent = np.ptp(positions, axis=0) + tile
    if float(np.prod(extent)) > SPARSEST * len(positions) * tile[0] * tile[1]:
        raise MethodError(
            f"positions: {len(positions)} tiles of {tile[0]} x {tile[1]} px would make a mosaic "
            f"of {extent[0]:.0f} x {extent[1]:.0f} px; give positions in pixels"
        )
    corners = np.rint(positions - positions.min(axis=0)).astype(np.int64)
    height, width = (int(n) for n in corners.max(axis=0) + tile)
    return Layout(corners, (int(tile[0]), int(tile[1])), (height, width))


def common_unlit(statuses: Iterable[Status]) -> Mask | None:
    """Find the corners that no tile sees, cut off by an aperture.

    Parameters
    ----------
    statuses : iterable of (Y, X) uint8
        Of some tiles, see `VALID`.

    Returns
    -------
    (Y, X) bool or None
        Unknown in more than half of the tiles, specks left out; None if there is no such place.
    """
    unseen: NDArray[np.int64] | None = None
    count = 0
    for status in statuses:
        one = (status == UNKNOWN).astype(np.int64)
        unseen = one if unseen is None else unseen + one
        count += 1
    if unseen is None:
        return None
    unlit: Mask = unseen * 2 > count
    if unlit.all() or not unlit.any():
        return None
    # Beyond the field all is unlit too: a corner's own outline must not be taken off.
    padded = np.pad(unlit, SPECK, mode="edge")
    opened: Mask = ndimage.binary_opening(padded, np.ones((SPECK, SPECK), bool))
    unlit = opened[SPECK:-SPECK, SPECK:-SPECK]
    return unlit if unlit.any() else None


def either_unlit(one: Mask | None, other: Mask | None) -> Mask | None:
    """Corners that statuses or raw tiles tell; None where that is nothing or the whole field.

    Raw tiles tell it best: a background of poor level may lift the corners' pedestal.
    """
    unlit = other if one is None else one if other is None else one | other
    return None if unlit is None or unlit.all() or not unlit.any() else unlit


def feather(tile: tuple[int, int], unlit: Mask | None = None) -> Image:
    """Weight of each pixel of a tile: falls linearly towards the edges.

    Parameters
    ----------
    tile : (Y, X)
    unlit : (Y, X) bool or None
        Corners without beam: weights fall to 0 at their edge too, over `TAPER` of the tile, so
        that the edge leaves no line in the mosaic.

    Returns
    -------
    (Y, X) float32
        Above 0 and up to 1 where lit, 0 where unlit.
    """
    ramps = [
        (np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) / ((n + 1) // 2)).astype(np.float32)
        for n in tile
    ]
    weight: Image = ramps[0][:, None] * ramps[1]
    if unlit is not None:
        away = ndimage.distance_transform_edt(~unlit).astype(np.float32)
        weight *= np.minimum(away / np.float32(max(1.0, TAPER * max(tile))), np.float32(1))
    return weight


class Piece(NamedTuple):
    """Part of one tile in a block of the mosaic.

    Attributes
    ----------
    tile : int
    inner : (slice, slice)
        Part of the tile.
    outer : (slice, slice)
        Part of the block.
    share : (y, x) float32
        Weight of the tile's pixels, over that of all tiles there.
    """

    tile: int
    inner: tuple[slice, slice]
    outer: tuple[slice, slice]
    share: Image


def share_out(
    layout: Layout, box: Box, weight: Image, status: Callable[[int], Status]
) -> tuple[list[Piece], Mask]:
    """Weights of all tiles in one block of the mosaic.

    Only valid pixels count. Where no tile has one, the stand-ins of isolated bad pixels do.

    Parameters
    ----------
    layout : Layout
    box : Box
        The block.
    weight : (Y, X) float32
        From `feather`.
    status : callable
        ``status(i) -> (Y, X) uint8`` of tile `i`, see `VALID`.

    Returns
    -------
    pieces : list of Piece
        Shares sum to 1 wherever something is known.
    known : (h, w) bool
        Where that is.
    """
    mass = np.zeros(box.shape, np.float32)
    pieces = []
    for i in layout.touching(box):
        inner, outer = _parts(layout, box, i)
        share: Image = weight[inner] * (status(i)[inner] == VALID)
        mass[outer] += share
        pieces.append(Piece(i, inner, outer, share))
    holes = mass == 0
    if pieces and holes.any():
        for piece in pieces:
            here = weight[piece.inner]
            spare = holes[piece.outer] & (status(piece.tile)[piece.inner] == FILLED) & (here > 0)
            if spare.any():
                piece.share[spare] = here[spare]
                mass[piece.outer][spare] += piece.share[spare]
    known: Mask = mass > 0
    mass[~known] = 1
    for piece in pieces:
        np.divide(piece.share, mass[piece.outer], out=piece.share)
    return pieces, known


def _parts(layout: Layout, box: Box, i: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Part of tile `i` that lies in `box`, and where in the box."""
    top, left = (int(n) for n in layout.corners[i])
    y0, y1 = max(top, box.top), min(top + layout.tile[0], box.bottom)
    x0, x1 = max(left, box.left), min(left + layout.tile[1], box.right)
    inner = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    outer = slice(y0 - box.top, y1 - box.top), slice(x0 - box.left, x1 - box.left)
    return inner, outer


def mix(pieces: Sequence[Piece], known: Mask, values: Callable[[int], NDArray[Any]]) -> Image:
    """Blend one block of the mosaic.

    Parameters
    ----------
    pieces : sequence of Piece
    known : (h, w) bool
        Both from `share_out`.
    values : callable
        ``values(i) -> (Y, X)`` of tile `i`, finite.

    Returns
    -------
    (h, w) float32
        Where one tile alone counts, its very values; NaN where nothing is known.
    """
    total = np.zeros(known.shape, np.float32)
    for piece in pieces:
        total[piece.outer] += piece.share * values(piece.tile)[piece.inner]
    if not known.all():
        total[~known] = np.nan
    return total


def halve(image: Image) -> Image:
    """Next coarser level of a pyramid: means over 2 x 2 pixels, unknown (NaN) ones left out.

    Parameters
    ----------
    image : (Y, X) float32
        An odd last row or column is averaged by itself.

    Returns
    -------
    (ceil(Y / 2), ceil(X / 2)) float32
        NaN where all four are NaN.
    """
    y, x = image.shape
    if y % 2 or x % 2:
        image = np.pad(image, ((0, y % 2), (0, x % 2)), constant_values=np.nan)
    corners = [image[a::2, b::2] for a in (0, 1) for b in (0, 1)]
    total: Image = (corners[0] + corners[1]) + (corners[2] + corners[3])
    total *= np.float32(0.25)
    at = np.flatnonzero(np.isnan(total))
    if at.size:
        rows, columns = np.divmod(at, total.shape[1])
        four = np.stack([corner[rows, columns] for corner in corners])
        there = np.isfinite(four)
        count = there.sum(axis=0)
        summed = np.where(there, four, np.float32(0)).sum(axis=0)
        mean = np.full(at.size, np.nan, np.float32)
        mean[count > 0] = summed[count > 0] / count[count > 0].astype(np.float32)
        total[rows, columns] = mean
    return total
