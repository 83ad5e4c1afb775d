"""Weights of a tile's pixels, those of the stitched picture; better known as tiles come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import lit_in_tiles
from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.io.output import TileParts
from napari_txm_bgcorr.mosaic import Image, Mask, common_unlit, either_unlit, feather

__all__ = ["LOOKS", "Corners"]

SAMPLES = 9  # tiles looked at, as when a result is stitched
LOOKS = (1, SAMPLES)
"""So many tiles make another look worth while."""


class Corners:
    """Corners that an aperture cuts off, and the weights, which fall to 0 there as well.

    Parameters
    ----------
    source : TileParts
        Corrected tiles, and what tells which of their pixels can be trusted.

    Attributes
    ----------
    unlit : (Y, X) bool or None
        Pixels without beam in most tiles; None: none, as far as the tiles tell.
    weight : (Y, X) float32
        From `mosaic.blending.feather`; a new array whenever the corners change.
    """

    def __init__(self, source: TileParts) -> None:
        self._source = source
        self._dark: Mask | None = None
        self._asked = False
        self.unlit: Mask | None = None
        self.weight: Image = feather(source.size)

    def look(self, done: NDArray[np.bool_]) -> bool:
        """Look at some of the tiles that are `done`, (T,) bool; True if they tell anything new."""
        seen = common_unlit(self._statuses(_some(done.nonzero()[0])))
        unlit = either_unlit(seen, self._in_raw())
        if _same(unlit, self.unlit):
            return False
        # the worker does it: around corners it takes a tenth of a second for a tile of 1024 px
        self.unlit, self.weight = unlit, feather(self._source.size, unlit)
        return True

    def _statuses(self, which: list[int]) -> Iterator[NDArray[np.uint8]]:
        for i in which:
            with suppress(TxmError):  # a damaged tile is said where it is drawn
                yield self._source.load(i, ())[0]

    def _in_raw(self) -> Mask | None:
        """Corners that are dark in the raw tiles, looked for once."""
        if "raw" in self._source.scans and not self._asked:
            self._asked = True
            tiles = self._source.scans["raw"].tiles
            seen: list[NDArray[Any]] = []
            for i in _some(np.arange(tiles.shape[0])):
                with suppress(TxmError):
                    seen.append(np.asarray(tiles[i]))
            self._dark = ~lit_in_tiles(np.stack(seen)) if seen else None
        return self._dark


def _same(a: Mask | None, b: Mask | None) -> bool:
    return a is b if a is None or b is None else bool(np.array_equal(a, b))


def _some(which: NDArray[np.int64]) -> list[int]:
    """Few of many tiles, spread evenly."""
    at = np.linspace(0, len(which) - 1, min(SAMPLES, len(which))).astype(int)
    return sorted({int(i) for i in which[at]}) if len(which) else []
