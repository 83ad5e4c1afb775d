"""The median over the tiles of a scan: the sample moves, the illumination stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    SILENT,
    Coarse,
    Progress,
    Scan,
    cpu_cores,
    log_beam,
    masked_median,
    median_of,
    spread,
    spread_indices,
    to_counts,
    upper,
)
from napari_txm_bgcorr.errors import MethodError

__all__ = ["TileMedian", "robust_median", "scaled_backgrounds"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
STACK_BYTES = 256 << 20  # of log tiles held while fitting


class TileMedian:
    """Median over tiles of the log counts, each tile first brought to one level.

    In each round the tiles are brought to the level that they show where they hold no
    specimen (upper quantile of tile over shape), and what absorbs more than the scatter
    allows is left out of the next median. Where fewer than three tiles remain at a pixel,
    the plain median over all stands there.

    Parameters
    ----------
    tiles : int
        Tiles to use, spread evenly over the scan (fewer where they are large, so that fitting
        holds 256 MB).
    rounds : int
        1: the plain median.

    Raises
    ------
    MethodError
        If `tiles` is below 3 or `rounds` below 1.
    """

    name, workers = "tile-median", 1

    def __init__(self, tiles: int = 64, rounds: int = 3) -> None:
        if tiles < 3 or rounds < 1:
            raise MethodError(f"tiles {tiles}, rounds {rounds}: give 3 tiles and 1 round or more")
        self.tiles, self.rounds = int(tiles), int(rounds)
        self._dark: Image | None = None
        self._shape: Image | None = None
        self._used = 0

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Take the median.

        Raises
        ------
        MethodError
            If the scan has fewer than 3 tiles.
        """
        count, rows, columns = (int(n) for n in scan.tiles.shape)
        if count < 3:
            raise MethodError(
                f"{scan.source.path}: {count} tiles, {self.name} needs 3 or more; "
                "choose smooth, envelope or generator"
            )
        self._dark = scan.dark()
        room = max(3, STACK_BYTES // (4 * rows * columns))
        chosen = spread_indices(count, min(self.tiles, room))
        self._used = len(chosen)
        logs = np.empty((len(chosen), rows, columns), np.float32)

        def read(k: int) -> None:
            progress.check()  # also in the threads, which run ahead of the reports
            logs[k] = log_beam(scan.tiles[chosen[k]], self._dark)

        for done, _ in enumerate(spread(read, range(len(chosen)), cpu_cores()), 1):
            progress.step(f"preparing {self.name}", done, len(chosen))
        self._shape = robust_median(logs, self.rounds)
        return self

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """The shape at each tile's own level; see `BackgroundMethod`."""
        return scaled_backgrounds(tiles, self.shape, self._dark)

    @property
    def shape(self) -> Image:
        """The shared log shape `(Y, X)` of the last fit, dark removed, at no fixed level.

        Raises
        ------
        MethodError
            Before `fit`.
        """
        if self._shape is None:
            raise MethodError("tile-median: not fitted; call fit(scan) first")
        return self._shape

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"tiles": self.tiles, "rounds": self.rounds, "used": self._used}


def scaled_backgrounds(
    tiles: NDArray[Any],
    shape: Image,
    dark: Image | None,
) -> Image:
    """A log shape `(Y, X)` at the level of each tile `(N, Y, X)`, as counts with dark."""
    coarse = Coarse(shape.shape)
    # No corner is left out of a level by its darkness: the shape has it, too.
    cells = coarse.mean(shape)
    everywhere = np.ones(cells.shape, bool)
    out = np.empty(tiles.shape, np.float32)
    for k, raw in enumerate(tiles):
        level = upper(coarse.log_cells(raw, dark) - cells, everywhere)
        out[k] = to_counts(shape + np.float32(level), dark)
    return out


def robust_median(logs: Image, rounds: int = 3) -> Image:
    """Shape `(Y, X)` of log tiles `(N, Y, X)`; `logs` is used as scratch."""
    coarse, workers = Coarse(logs.shape), cpu_cores()
    everywhere = np.ones(coarse.size, bool)
    logs -= np.median(logs[:, ::4, ::4], axis=(1, 2), keepdims=True)
    shape = median_of(logs, workers)
    for _ in range(rounds - 1):
        cells = coarse.mean(shape)
        rest = np.stack(list(spread(coarse.mean, logs, workers))) - cells
        for k in range(len(logs)):
            level = np.float32(upper(rest[k], everywhere))
            logs[k] -= level
            rest[k] -= level
        absorbing = rest < -3 * _scatter(rest)
        shape = masked_median(logs, _kept(~absorbing, coarse), workers=workers)
    return shape


def _scatter(rest: Image) -> float:
    """Spread of cells without specimen: from those above the level, where there is none."""
    above = rest[rest > 0]
    return max(1.4826 * float(np.median(above)) if above.size else 0.0, 0.003)


def _kept(cells: Mask, coarse: Coarse) -> Callable[[slice], Mask]:
    """Cells `(N, y, x)` as pixels `(N, Y, X)`, some rows at a time."""
    (height, width), (rows, columns) = coarse.cell, coarse.shape
    y = np.minimum(np.arange(rows) // height, cells.shape[1] - 1)
    wide = cells[:, :, np.minimum(np.arange(columns) // width, cells.shape[2] - 1)]
    return lambda part: wide[:, y[part]]
