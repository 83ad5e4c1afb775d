"""Uncertainty of a result's backgrounds, tile by tile, as far as it is stated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import BackgroundMethod, LazyTiles, StatesUncertainty, TileArray

__all__ = ["StatedUncertainty"]

Image = NDArray[np.float32]


class StatedUncertainty(LazyTiles):
    """Standard deviations `(T, Y, X)` of the backgrounds in per cent, level left out.

    They are asked of what made the tiles when they are looked at; NaN where nothing states them.

    Parameters
    ----------
    shape : (T, Y, X)
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(shape, np.float32, self._percent)
        self._stated: list[Callable[[int], Image] | None] = [None] * shape[0]

    @property
    def known(self) -> bool:
        """True if the uncertainty of any tile is known."""
        return any(each is not None for each in self._stated)

    def take(self, method: BackgroundMethod | None, indices: Sequence[int] | None = None) -> None:
        """Note what made tiles.

        Parameters
        ----------
        method : BackgroundMethod or None
            Fitted to this very scan; None: it cannot be asked.
        indices : sequence of int or None
            None: all tiles.
        """
        states = method.uncertainty if isinstance(method, StatesUncertainty) else None
        for i in range(len(self._stated)) if indices is None else indices:
            self._stated[i] = states

    def take_stored(self, tiles: TileArray) -> None:
        """Take those of a saved result, log."""
        self._stated = [lambda i: np.asarray(tiles[i], np.float32)] * len(self._stated)

    def _percent(self, i: int) -> Image:
        stated = self._stated[i]
        if stated is None:
            return np.full(self.shape[1:], np.nan, np.float32)
        return stated(i) * np.float32(100)  # 0.01 of a log is 1 % of what it is the log of
