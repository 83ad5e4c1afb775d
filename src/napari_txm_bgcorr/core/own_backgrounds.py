"""Backgrounds of a method tile by tile, for those who look at every tile of a scan once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.scan import LazyTiles, Scan

__all__ = ["CandidateMethod", "CoarseMethod", "OwnBackgrounds"]

Image = NDArray[np.float32]


@runtime_checkable
class CoarseMethod(Protocol):
    """A background method that can tell a coarse background for less than the whole one."""

    def background_cells(self, tile: NDArray[Any], index: int, cell_px: int) -> Image | None:
        """Means of a tile's log background over cells.

        Parameters
        ----------
        tile : (Y, X) counts
        index : int
            Its place in the fitted scan.
        cell_px : int
            Side of a cell.

        Returns
        -------
        (y, x) float32 or None
            Log counts, dark removed, of whole cells; None: ask for the whole background.
        """


@runtime_checkable
class CandidateMethod(Protocol):
    """A background method that has several answers to what the tiles of a mosaic share."""

    def prepare(self, scan: Scan) -> Self:
        """What `candidates` needs of `fit`, which does it, too."""

    def candidates(self, scan: Scan) -> Mapping[str, BackgroundMethod]:
        """Fitted methods by name, for the overlaps to tell how much to take of each.

        The first one also tells the levels and tilts of single tiles. Empty: this method alone.
        """


class OwnBackgrounds(LazyTiles):
    """The backgrounds `(T, Y, X)` that a fitted method gives the tiles of a scan.

    Parameters
    ----------
    scan : Scan
    method : BackgroundMethod
        Fitted.

    Attributes
    ----------
    every : bool
        Whether the differences between its backgrounds are known, not guessed from the tiles:
        the method says so by an attribute `knows_drift`.
    """

    def __init__(self, scan: Scan, method: BackgroundMethod) -> None:
        count, rows, columns = (int(n) for n in scan.tiles.shape)
        super().__init__(
            (count, rows, columns), np.float32, lambda i: self.of(i, np.asarray(scan.tiles[i]))
        )
        self._method = method
        self.every = bool(getattr(method, "knows_drift", False))

    def of(self, i: int, tile: NDArray[Any]) -> Image:
        """Background of tile `i`, read already."""
        one: Image = self._method.background(tile[None], np.array([i], np.int64))[0]
        return one

    def cells(self, i: int, tile: NDArray[Any], cell_px: int) -> Image | None:
        """Means of its logarithm over cells, dark removed, where the method offers them."""
        if not isinstance(self._method, CoarseMethod):
            return None
        return self._method.background_cells(tile, i, cell_px)
