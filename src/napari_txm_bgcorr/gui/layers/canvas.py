"""Arrays that show the tiles of a scan in napari, assembled on demand."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import Scan, TileArray, raster_positions
from napari_txm_bgcorr.errors import TxmError

__all__ = [
    "MULTISCALE_ABOVE_PX",
    "CachedTiles",
    "CanvasLayout",
    "MosaicArray",
    "Picture",
    "ShownStack",
    "StackArray",
    "Valid",
    "paste",
    "reduce_mask",
    "reduce_tile",
]

MULTISCALE_ABOVE_PX = 4096
Valid = Callable[[int], NDArray[np.bool_]]
LAZY_STEPS = (1, 2)
COARSEST_PX = 1024
CACHE_BYTES = 96 * 2**20
SAY_AGAIN_S = 10.0


@dataclass(frozen=True, eq=False)
class CanvasLayout:
    """Positions of the tiles of a mosaic on one canvas, in whole pixels.

    Attributes
    ----------
    shape : (H, W)
        Size of the canvas.
    corners : (T, 2) int64
        Top left corner of each tile as (y, x).
    tile : (Y, X)
        Size of a tile.
    """

    shape: tuple[int, int]
    corners: NDArray[np.int64]
    tile: tuple[int, int]

    @classmethod
    def of(cls, scan: Scan) -> CanvasLayout:
        """Lay the tiles out at their positions, or abutted on their grid."""
        tile = (int(scan.tiles.shape[1]), int(scan.tiles.shape[2]))
        positions = scan.positions_px
        if positions is None:
            positions = scan.abutted_positions()
        if positions is None:
            positions = raster_positions((1, len(scan)), tile)
        corners = np.rint(positions - positions.min(axis=0)).astype(np.int64)
        height, width = corners.max(axis=0) + tile
        return cls((int(height), int(width)), corners, tile)

    def steps(self) -> tuple[int, ...]:
        """Downsampling of each level of the pyramid, finest first; ``(1,)`` for one level."""
        side = max(self.shape)
        steps = [1]
        while side > MULTISCALE_ABOVE_PX and side // steps[-1] > COARSEST_PX:
            steps.append(2 * steps[-1])
        return tuple(steps)

    def level_shape(self, step: int) -> tuple[int, int]:
        """Size of the canvas seen at every `step`-th pixel."""
        return -(-self.shape[0] // step), -(-self.shape[1] // step)


class CachedTiles:
    """Tiles kept in memory after they were read, least recently used first to go.

    Parameters
    ----------
    tiles : (T, Y, X) array-like
    limit_bytes : int
        How much may be kept.
    """

    def __init__(self, tiles: TileArray, limit_bytes: int = CACHE_BYTES) -> None:
        self.tiles = tiles
        self.shape = tiles.shape
        self.dtype = tiles.dtype
        per_tile = int(np.prod(tiles.shape[1:], dtype=np.int64)) * tiles.dtype.itemsize
        self._room = max(1, limit_bytes // max(per_tile, 1))
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, i: int) -> NDArray[Any]:
        with self._lock:
            if i in self._kept:
                self._kept.move_to_end(i)
                return self._kept[i]
        tile = np.asarray(self.tiles[i])
        with self._lock:
            self._kept[i] = tile
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
        return tile


class ShownStack:
    """Tiles to show: an unreadable tile is a gap and is reported; drawing must not fail.

    Parameters
    ----------
    tiles : (T, Y, X) array-like
    """

    def __init__(self, tiles: Any) -> None:
        self.tiles = tiles
        self.shape, self.dtype = tuple(tiles.shape), np.dtype(tiles.dtype)
        self._told_s = -SAY_AGAIN_S

    def __getitem__(self, key: Any) -> NDArray[Any]:
        try:
            return np.asarray(self.tiles[key])
        except TxmError as error:
            self._tell(str(error))
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest]
        if isinstance(first, slice):  # the others of the stack can be shown
            chosen = range(self.shape[0])[first]
            return np.stack([self[(i, *rest)] for i in chosen])
        gap = self.dtype.type(np.nan if self.dtype.kind == "f" else 0)
        return np.array(np.broadcast_to(gap, self.shape)[key])

    def _tell(self, words: str) -> None:
        from napari.utils.notifications import show_error

        now = time.monotonic()
        if now - self._told_s > SAY_AGAIN_S:  # napari draws many times a second
            self._told_s = now
            show_error(words)


class Picture:
    """Base of the arrays shown by napari: NumPy's reading half, computed on demand.

    Attributes
    ----------
    owner : object
        The `Scan` or the `Result` the picture shows; how a layer leads back to its data.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the whole picture if it were in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def astype(self, dtype: Any) -> NDArray[Any]:
        """Read the whole picture as another type."""
        return np.asarray(self[...]).astype(dtype)


class StackArray(Picture):
    """A series `(T, Y, X)`, or the one image `(Y, X)` of a scan, read when shown."""

    def __init__(self, tiles: Any, *, flat: bool, owner: Any = None) -> None:
        self._tiles = ShownStack(tiles)
        self._flat = flat
        self.shape = tuple(int(n) for n in (tiles.shape[1:] if flat else tiles.shape))
        self.dtype = np.dtype(tiles.dtype)
        self.owner = owner

    def __getitem__(self, key: Any) -> Any:
        if self._flat:
            return np.asarray(self._tiles[0])[key]
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, (int, np.integer)):
            return np.asarray(self._tiles[int(first)])[tuple(rest)]
        return np.asarray(self._tiles[key])


class MosaicArray(Picture):
    """Tiles of a mosaic on one canvas `(H, W)`, later tiles over earlier ones.

    Parameters
    ----------
    tiles : (T, Y, X) array-like
    layout : CanvasLayout
    step : int
        Show one pixel for each `step` x `step` block (their mean).
    done : (T,) bool or None
        Tiles to leave out where False; looked at anew on each access.
    fill : callable
        Returns the value where there is no tile.
    owner : object
        See `Picture`.
    """

    def __init__(
        self,
        tiles: Any,
        layout: CanvasLayout,
        *,
        step: int = 1,
        done: NDArray[np.bool_] | None = None,
        fill: Callable[[], float] = lambda: 0.0,
        owner: Any = None,
    ) -> None:
        self._tiles, self._layout, self._step = ShownStack(tiles), layout, step
        self._done, self._fill = done, fill
        self.shape = layout.level_shape(step)
        self.dtype = np.dtype(tiles.dtype)
        self.owner = owner

    def __getitem__(self, key: Any) -> Any:
        keys = list(key) if isinstance(key, tuple) else [key]
        if any(k is Ellipsis for k in keys):
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            keys[at : at + 1] = [slice(None)] * (3 - len(keys))
        keys += [slice(None)] * (2 - len(keys))
        if not all(isinstance(k, (slice, int, np.integer)) for k in keys):
            return self.region((0, 0), self.shape)[key]  # type: ignore[arg-type]
        spans = [_span(k, n) for k, n in zip(keys, self.shape, strict=True)]
        block = self.region((spans[0][0], spans[1][0]), (spans[0][1], spans[1][1]))
        return block[spans[0][2], spans[1][2]]

    def region(self, start: tuple[int, int], stop: tuple[int, int]) -> NDArray[Any]:
        """Put the block from `start` to `stop`, (y, x) in pixels of this level, together."""
        shape = (max(stop[0] - start[0], 0), max(stop[1] - start[1], 0))
        out = np.full(shape, self._fill(), self.dtype)
        step, tile = self._step, self._layout.tile
        first = -(-self._layout.corners // step)
        last = -(-(self._layout.corners + tile) // step)
        hit = np.all((first < stop) & (last > start), axis=1)
        if self._done is not None:
            hit &= self._done
        for i in np.flatnonzero(hit):
            part = reduce_tile(self._tiles[int(i)], self._layout.corners[i], step)
            paste(out, part, first[i] - start)
        return out


def reduce_tile(tile: Any, corner: NDArray[np.int64], step: int) -> NDArray[Any]:
    """Mean of the `step` x `step` blocks of a tile, on the canvas's raster.

    A block belongs to the tile that holds its first pixel, so that neighbouring tiles leave no
    gap; blocks are cut off at the tile's edge.

    Parameters
    ----------
    tile : (Y, X) array
    corner : (2,) int
        Top left corner (y, x) of the tile on the canvas, pixels.
    step : int

    Returns
    -------
    (ceil, ceil) array of the same type; its corner is at ``ceil(corner / step)``.
    """
    pixels: NDArray[Any] = np.asarray(tile)
    if step == 1:
        return pixels
    whole = _whole_blocks(pixels, corner, step)
    # 15 times as fast as the mean over two axes of the blocks: the window waits for it
    blocks = whole.reshape(-1, step, whole.shape[1])
    rows: NDArray[np.float32] = np.add.reduce(blocks, axis=1, dtype=np.float32)
    mean = rows[:, ::step].copy()
    for k in range(1, step):
        mean += rows[:, k::step]
    mean /= np.float32(step * step)
    return mean.astype(pixels.dtype) if pixels.dtype != np.float32 else mean


def reduce_mask(
    valid: NDArray[np.bool_], corner: NDArray[np.int64], step: int
) -> NDArray[np.bool_]:
    """Blocks of a tile whose pixels can all be trusted, as `reduce_tile` makes them."""
    if step == 1:
        return valid
    whole = _whole_blocks(valid.view(np.uint8), corner, step)
    blocks = whole.reshape(-1, step, whole.shape[1])
    rows: NDArray[np.uint8] = np.minimum.reduce(blocks, axis=1)
    least = rows[:, ::step].copy()
    for k in range(1, step):
        np.minimum(least, rows[:, k::step], out=least)
    return least.view(np.bool_)


def _whole_blocks(tile: NDArray[Any], corner: NDArray[np.int64], step: int) -> NDArray[Any]:
    """Rows and columns of a tile from its first block on, the last block filled up."""
    skip = [int(-c % step) for c in corner]
    part = tile[skip[0] :, skip[1] :]
    height, width = part.shape
    if height % step == width % step == 0:
        return part
    # several times as fast as np.pad on parts as small as these
    whole = np.empty((-(-height // step) * step, -(-width // step) * step), part.dtype)
    whole[:height, :width] = part
    whole[height:, :width] = part[-1:]
    whole[:, width:] = whole[:, width - 1 : width]
    return whole


def paste(canvas: NDArray[Any], tile: NDArray[Any], corner: NDArray[np.int64]) -> None:
    """Write a tile into a canvas; what lies outside is cut off."""
    inside, place = _cut(canvas.shape, tile.shape, corner)
    canvas[place] = tile[inside]


def _cut(
    canvas: tuple[int, ...], tile: tuple[int, ...], corner: NDArray[np.int64]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Part of a tile that lies on the canvas, and its place there."""
    spans = []
    for room, side, at in zip(canvas, tile, corner.tolist(), strict=True):
        first, last = max(-at, 0), max(min(side, room - at), max(-at, 0))
        spans.append((slice(first, last), slice(first + at, last + at)))
    (rows, y), (columns, x) = spans
    return (rows, columns), (y, x)


def _span(key: Any, length: int) -> tuple[int, int, Any]:
    """First and last pixel a key needs, and the key within that block."""
    if isinstance(key, slice):
        start, stop, stride = key.indices(length)
        if stride > 0:
            return start, max(stop, start), slice(None, None, stride)
        return 0, length, key
    index = int(key) + (length if key < 0 else 0)
    if not 0 <= index < length:
        raise IndexError(f"pixel {key} outside {length}")
    return index, index + 1, 0
