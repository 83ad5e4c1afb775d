"""Backgrounds of a whole scan, put together tile by tile from what was solved for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core import Coarse, LazyTiles, to_counts

__all__ = ["DriftBackgrounds", "closed_field"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
RIM = 1 / 64  # of the field: the edge of the aperture is blurred


class DriftBackgrounds(LazyTiles):
    """Backgrounds `(T, Y, X)` in counts: shared log pattern, what each tile is off it, level.

    Parameters
    ----------
    dark : (Y, X) float32, counts, or None
    pattern : (Y, X) float32
        Log, median about 0; behind the aperture log counts, the same in every tile.
    lit : (Y, X) bool
        False behind the aperture.
    change : (T, y, x) float32
        What each background is off the pattern, log, on cells.
    levels : (T,) float64
        Log counts, dark removed.
    sd : (T, y, x) float32
        Standard deviation of the log background, its level left out.
    cell_px : (height, width)
        Of a cell, pixels.
    """

    def __init__(
        self,
        dark: Image | None,
        pattern: Image,
        lit: Mask,
        change: Image,
        levels: Floats,
        sd: Image,
        cell_px: tuple[int, int],
    ) -> None:
        rows, columns = pattern.shape
        super().__init__((len(levels), rows, columns), np.float32, self._background)
        self._dark, self._log, self._lit = dark, pattern, lit
        self._change, self._levels, self._sd = change, levels, sd
        self._cells = Coarse(pattern.shape, cell=cell_px)

    def _background(self, i: int) -> Image:
        log = self._cells.expand(self._change[i])
        log += np.float32(self._levels[i])
        log *= self._lit
        log += self._log
        return to_counts(log, self._dark)

    def uncertainty(self, i: int) -> Image:
        """Standard deviation `(Y, X)` float32 of the log background, its level left out."""
        out: Image = np.maximum(self._cells.expand(self._sd[i]), 0)
        out *= self._lit
        return out

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds, by name, for `of`."""
        found: dict[str, NDArray[Any]] = {
            "pattern": self._log,
            "lit": self._lit,
            "change": self._change,
            "levels": self._levels,
            "sd": self._sd,
            "cell_px": np.array(self._cells.cell, np.int64),
        }
        return found if self._dark is None else found | {"dark": self._dark}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make them from `arrays`; the same bits.

        Raises
        ------
        KeyError
            If one is missing.
        """
        height, width = (int(n) for n in arrays["cell_px"])
        return cls(
            arrays.get("dark"), arrays["pattern"], arrays["lit"], arrays["change"],
            arrays["levels"], arrays["sd"], (height, width),
        )  # fmt: skip


def closed_field(lit: Mask) -> Mask:
    """Mask of the field that the aperture blocks completely, without its blurred rim."""
    rim = max(1, round(RIM * max(lit.shape)))
    out: Mask = ndimage.binary_erosion(~lit, iterations=rim, border_value=1)
    return out
