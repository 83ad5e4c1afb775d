"""Corrected mosaics as the stitched picture shows them: tiles blended where they overlap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.mosaic import Box, Image

from .canvas import CanvasLayout, MosaicArray, ShownStack, Valid, reduce_mask, reduce_tile
from .corners import Corners

__all__ = ["BlendedArray", "BlendedTiles", "Growing", "mix"]

NONE = np.finfo(np.float32).tiny  # a sum of no weights; lost in that of any, and can divide
KEPT_PX = 2**22  # of a view on a large screen


def mix(canvas: Image, mass: Image, part: Image, weight: Image) -> None:
    """Take one more tile into a weighted mean that grows with every tile; all in place.

    Parameters
    ----------
    canvas : (y, x) float32
        Mean of the tiles so far.
    mass : (y, x) float32
        Sum of their weights; begins as `NONE`. Where it still is that, the canvas holds what
        there is to show until a tile that can be trusted comes.
    part : (y, x) float32
        The tile.
    weight : (y, x) float32
        Its weights, 0 where it cannot be trusted; consumed.
    """
    there, new = np.isfinite(part), mass == NONE
    whole = there.all()
    if not whole:
        weight *= there
    np.copyto(canvas, part, where=new if whole else new & there)
    mass += weight
    if new.all():
        return
    weight /= mass
    step = part - canvas
    if not whole:
        step[~there] = 0
    step *= weight
    canvas += step


class _Scratch(threading.local):
    """Buffers for the weights of a view, kept: fresh memory costs more than the blending."""

    def __init__(self) -> None:
        self._plane = np.empty(0, np.float32)

    def plane(self, shape: tuple[int, int]) -> Image:
        """Sums of no weights, there until the next call from the same thread."""
        size = shape[0] * shape[1]
        if size > KEPT_PX:
            return np.full(shape, NONE)
        if self._plane.size < size:
            self._plane = np.empty(size, np.float32)
        plane = self._plane[:size].reshape(shape)
        plane.fill(NONE)
        return plane


_scratch = _Scratch()


class BlendedTiles:
    """Blend the tiles of a layout where they overlap, on every level of the canvas.

    The weights are those of the stitched picture. The part of a tile that overlaps no other, most
    of it, is pasted: that costs less than a weight of 1.

    Parameters
    ----------
    layout : canvas.CanvasLayout
    valid : callable
        Returns which pixels of a tile can be trusted, (Y, X) bool.
    corners : Corners
        Knows the weights.
    """

    def __init__(self, layout: CanvasLayout, valid: Valid, corners: Corners) -> None:
        self.layout, self.valid, self.corners = layout, valid, corners
        self._weight = corners.weight
        self._reduced: dict[tuple[int, ...], tuple[Image, NDArray[np.bool_]]] = {}
        self._edges: dict[int, NDArray[np.int64]] = {}
        self._cuts: dict[tuple[int, int], tuple[Box, tuple[Box, ...]]] = {}

    def place(self, i: int, step: int) -> Box:
        """Pixels of a level that tile `i` covers."""
        return Box(*self._boxes(step)[i].tolist())

    def region(
        self, tiles: Any, which: NDArray[np.int64], step: int, box: Box, fill: float
    ) -> tuple[Image, Image]:
        """Put a part of a level together.

        Parameters
        ----------
        tiles : (T, Y, X) float
        which : (N,) int
            Tiles that may be shown.
        step : int
        box : Box
            The part, pixels of the level.
        fill : float
            Where there is no tile.

        Returns
        -------
        canvas, mass : (h, w) float32
            As `mix` takes them on; where a tile is alone, `mass` stays. The next call from
            the same thread takes `mass` for its own.
        """
        canvas, mass = np.full(box.shape, fill, tiles.dtype), _scratch.plane(box.shape)
        for i in self._touching(which, step, box):
            self.draw(canvas, mass, i, tiles[i], step, box)
        return canvas, mass

    def draw(
        self, canvas: Image, mass: Image, i: int, tile: NDArray[Any], step: int, box: Box
    ) -> None:
        """Draw tile `i` on a part of a level, which is at `box`."""
        whole = self.place(i, step)
        seen = _common(whole, box)
        alone, shared = self._cut(i, step)
        part = _reduced(reduce_tile, tile, self.layout, i, step, seen)
        lit: NDArray[np.bool_] | None = None
        if self.corners.unlit is not None:
            lit = self._lit(i, step)[_within(seen, whole)]
            part = np.where(lit, part, np.float32(np.nan))
        if _any(here := _common(alone, seen)):
            of = _within(here, seen)
            where = True if lit is None else lit[of]
            np.copyto(canvas[_within(here, box)], part[of], where=where)
        pieces = [here for each in shared if _any(here := _common(each, seen))]
        if not pieces:
            return
        weight = self._weights(i, step)[_within(seen, whole)]
        known = _reduced(reduce_mask, self.valid(i), self.layout, i, step, seen)
        for here in pieces:
            at, of = _within(here, box), _within(here, seen)
            mix(canvas[at], mass[at], part[of], weight[of] * known[of])

    def _touching(self, which: NDArray[np.int64], step: int, box: Box) -> Iterator[int]:
        if not _any(box):
            return
        edges = self._boxes(step)[which]
        hit = np.all((edges[:, :2] < box[2:]) & (edges[:, 2:] > box[:2]), axis=1)
        yield from which[hit].tolist()

    def _boxes(self, step: int) -> NDArray[np.int64]:
        """Places of all tiles on a level, (T, 4) as the fields of `Box`."""
        if step not in self._edges:
            first = -(-self.layout.corners // step)
            last = -(-(self.layout.corners + self.layout.tile) // step)
            self._edges[step] = np.concatenate([first, last], axis=1)
        return self._edges[step]

    def _weights(self, i: int, step: int) -> Image:
        """Weights of a tile on a level; they depend on where the level's raster meets it."""
        return self._of_corners(i, step)[0]

    def _lit(self, i: int, step: int) -> NDArray[np.bool_]:
        """Pixels of a tile on a level that are not all behind the aperture."""
        return self._of_corners(i, step)[1]

    def _of_corners(self, i: int, step: int) -> tuple[Image, NDArray[np.bool_]]:
        if self.corners.weight is not self._weight:
            self._weight, self._reduced = self.corners.weight, {}
        corner, reduced = self.layout.corners[i], self._reduced
        key = (step, *(-corner % step).tolist())
        if key not in reduced:
            unlit = self.corners.unlit
            lit = np.ones(self.layout.tile, bool) if unlit is None else ~unlit
            reduced[key] = (
                reduce_tile(self._weight, corner, step),
                ~reduce_mask(~lit, corner, step),
            )
        return reduced[key]

    def _cut(self, i: int, step: int) -> tuple[Box, tuple[Box, ...]]:
        """Part of a tile that no other one touches, and up to four parts around it."""
        key = (step, i)
        if key not in self._cuts:
            boxes = self._boxes(step)
            own = boxes[i]
            near = np.all((boxes[:, :2] < own[2:]) & (boxes[:, 2:] > own[:2]), axis=1)
            near[i] = False
            alone = own_part(Box(*own.tolist()), [Box(*b) for b in boxes[near].tolist()])
            self._cuts[key] = alone, _around(Box(*own.tolist()), alone)
        return self._cuts[key]


class BlendedArray(MosaicArray):
    """Tiles of a mosaic on one canvas, blended where they overlap.

    Pixels that are not to be trusted show only where no other tile has a trusted one; those behind
    an aperture never do.

    Parameters
    ----------
    tiles : (T, Y, X) float array-like
    blend : BlendedTiles
    **more
        As `MosaicArray` takes them.
    """

    def __init__(self, tiles: Any, blend: BlendedTiles, **more: Any) -> None:
        super().__init__(tiles, blend.layout, **more)
        self._blend = blend

    def region(self, start: tuple[int, int], stop: tuple[int, int]) -> NDArray[Any]:
        """Put the block from `start` to `stop`, (y, x) in pixels of this level, together."""
        box = Box(*start, max(stop[0], start[0]), max(stop[1], start[1]))
        every = np.ones(self._tiles.shape[0], bool)
        done = (every if self._done is None else self._done).nonzero()[0]
        return self._blend.region(self._tiles, done, self._step, box, self._fill())[0]


class Growing:
    """Levels that are kept in memory and grow with the tiles that arrive.

    Parameters
    ----------
    tiles : (T, Y, X) float array-like
    blend : BlendedTiles
    levels : dict of int to (h, w) float32
        Canvas for each step; drawn on.
    """

    def __init__(self, tiles: Any, blend: BlendedTiles, levels: dict[int, Image]) -> None:
        self._tiles, self._blend, self._levels = ShownStack(tiles), blend, levels
        self._mass = {k: np.full(canvas.shape, NONE) for k, canvas in levels.items()}
        self._drawn = np.zeros(tiles.shape[0], bool)
        self._lock = threading.Lock()  # an overview may fill while a tile is redone

    def put(self, i: int, tile: NDArray[Any]) -> None:
        """Draw a tile; one that was drawn before is replaced."""
        with self._lock:
            again, self._drawn[i] = bool(self._drawn[i]), True
            for step, canvas in self._levels.items():
                if again:
                    self._redraw(i, step)
                else:
                    whole = Box(0, 0, *canvas.shape)
                    self._blend.draw(canvas, self._mass[step], i, tile, step, whole)

    def _redraw(self, i: int, step: int) -> None:
        """Make the place of a tile anew: to subtract what it was would leave rounding."""
        box, canvas = self._blend.place(i, step), self._levels[step]
        at = _within(box, Box(0, 0, *canvas.shape))
        drawn = self._drawn.nonzero()[0]
        canvas[at], self._mass[step][at] = self._blend.region(
            self._tiles, drawn, step, box, np.nan
        )


def own_part(own: Box, others: list[Box]) -> Box:
    """Part of a tile that none of the others touches: off goes the side that costs least."""
    for other in others:
        if not _any(_common(own, other)):
            continue
        own = max(
            own._replace(top=other.bottom),
            own._replace(bottom=other.top),
            own._replace(left=other.right),
            own._replace(right=other.left),
            key=_area,
        )
    return own if _any(own) else Box(own.top, own.left, own.top, own.left)


def _around(whole: Box, inner: Box) -> tuple[Box, ...]:
    """Parts of a box around another box inside it."""
    if not _any(inner):
        return (whole,)
    parts = (
        whole._replace(bottom=inner.top),
        whole._replace(top=inner.bottom),
        inner._replace(left=whole.left, right=inner.left),
        inner._replace(left=inner.right, right=whole.right),
    )
    return tuple(part for part in parts if _any(part))


def _reduced(reduce: Any, pixels: Any, layout: CanvasLayout, i: int, step: int, seen: Box) -> Any:
    """Part of tile `i` that lies at `seen` on a level, without touching the rest of it."""
    corner = layout.corners[i]
    top, left = np.multiply(seen[:2], step)
    bottom, right = np.multiply(seen[2:], step) - corner
    part = pixels[top - corner[0] : bottom, left - corner[1] : right]
    return reduce(part, np.array((top, left)), step)


def _common(a: Box, b: Box) -> Box:
    return Box(
        max(a.top, b.top), max(a.left, b.left), min(a.bottom, b.bottom), min(a.right, b.right)
    )


def _any(box: Box) -> bool:
    return box.bottom > box.top and box.right > box.left


def _area(box: Box) -> int:
    return max(box.bottom - box.top, 0) * max(box.right - box.left, 0)


def _within(box: Box, whole: Box) -> tuple[slice, slice]:
    """Place of a box in an array that holds `whole`."""
    return (
        slice(box.top - whole.top, box.bottom - whole.top),
        slice(box.left - whole.left, box.right - whole.left),
    )
