"""Regular lattices of tiles: what a stage was told, not what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lattice"]

Floats = NDArray[np.float64]

ROUNDED_PX = 1.0  # a table of a regular lattice may be in whole pixels
LEAST_STEP = 0.05  # of the tile: places closer are of one row or column


@dataclass(frozen=True)
class Lattice:
    """Steps (y, x) between rows and columns, pixels; 0 where there is only one."""

    rows_px: float
    columns_px: float

    @classmethod
    def of(cls, positions_px: Floats, size: tuple[int, int]) -> Self | None:
        """Find the lattice that places form.

        Parameters
        ----------
        positions_px : (T, 2) float64
        size : (Y, X)
            Of a tile.

        Returns
        -------
        Lattice or None
            None where they are irregular: they were measured.
        """
        steps = [_step(positions_px[:, a], LEAST_STEP * size[a]) for a in (0, 1)]
        return None if steps[0] is None or steps[1] is None else cls(steps[0], steps[1])

    def stretched(
        self, positions_px: Floats, steps: Mapping[tuple[int, int], Floats], bin_px: int
    ) -> Floats:
        """Places on the same lattice at the steps that were found.

        Parameters
        ----------
        positions_px : (T, 2) float64
        steps : mapping
            Nominal step (y, x) in bins to the true one, bins.
        bin_px : int
        """
        turn = np.eye(2)  # columns: where a pixel downwards and one rightwards go
        for nominal, found in steps.items():
            axis = int(np.argmax(np.abs(nominal)))
            length = (self.rows_px, self.columns_px)[axis]
            if length and not nominal[1 - axis]:
                times = max(1, round(abs(nominal[axis]) * bin_px / length))
                turn[:, axis] = np.sign(nominal[axis]) * found * bin_px / (times * length)
        out: Floats = positions_px @ turn.T
        return out


def _step(values: Floats, least: float) -> float | None:
    """Step of values that lie at its whole multiples; 0 where all are one, None where none is."""
    offsets = values - values.min()
    gaps = np.diff(np.sort(offsets))
    gaps = gaps[gaps > least]
    step = float(gaps.min()) if gaps.size else 0.0
    whole = np.rint(offsets / step) if step else np.zeros_like(offsets)
    if step:
        step = float(whole @ offsets / (whole @ whole))
    return step if np.abs(offsets - whole * step).max() <= ROUNDED_PX else None
