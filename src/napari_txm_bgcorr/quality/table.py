"""Table of the quality figures of a scan, one row per tile.

All differences are of logarithms, so 0.01 is one per cent. NaN: cannot be told from this tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "SIDES", "Column", "TileQuality"]

Floats = NDArray[np.float64]

SIDES = ("top", "left", "right", "bottom")


@dataclass(frozen=True)
class Column:
    """Label, unit and meaning of a figure in the table.

    Attributes
    ----------
    label : str
        Short name.
    unit : str
        ``%`` or empty (a plain number).
    meaning : str
        One sentence.
    """

    label: str
    unit: str
    meaning: str

    @property
    def scale(self) -> float:
        """Factor from the table's value to the unit shown."""
        return 100.0 if self.unit == "%" else 1.0


COLUMNS: dict[str, Column] = {
    "seam_before": Column(
        "seam before", "%", "Difference of the raw tile to its neighbours in the overlaps."
    ),
    "seam_after": Column(
        "seam after", "%", "Difference of the corrected tile to its neighbours in the overlaps."
    ),
    "seam_shape": Column("seam shape", "%", "The same less one level for each overlap."),
    "level": Column("level", "%", "Level of the corrected tile against its neighbours."),
    "level_error": Column(
        "level error",
        "%",
        "How far its level may be off, one standard deviation, as the joint stage sees it.",
    ),
    "shared_residue": Column(
        "shared residue", "", "Fine pattern that the corrected tile has in common with others."
    ),
    "shared_shading": Column(
        "shared shading", "", "Coarse shading that the corrected tile has in common with others."
    ),
    "departure": Column(
        "departure", "%", "Shape of this background against that of the scan's others."
    ),
    "jump": Column("jump", "%", "Shape of this background against those taken before and after."),
    "leakage": Column(
        "leakage", "", "Share of the tile's own coarse structure found in its background."
    ),
    "structure": Column("structure", "%", "Coarse structure of the corrected tile, rms."),
    "novelty": Column(
        "novelty", "", "How unlike what the network was trained on; 1 is the edge of that."
    ),
    "valid": Column("valid", "%", "Pixels that can be trusted."),
}
"""Figures of a tile, in the order in which tables show them."""


@dataclass(frozen=True, eq=False)
class TileQuality:
    """Quality figures of the tiles of one scan; never altered.

    Attributes
    ----------
    names : tuple of str
    size : (Y, X)
        Of a tile, pixels.
    measured : (T,) bool
        Whether the tile has been looked at.
    cells : (T, 2) int64 or None
        (row from the top, column) of a mosaic.
    positions_px : (T, 2) float64 or None
        Top left corners (y, x) that overlaps were taken from.
    registered : bool
        Whether these were measured; else they are the stage's own.
    sides_before, sides_after : (T, 4) float64
        Rms log difference to the neighbour on each of `SIDES`, over blocks of 1/16 of the tile
        in the overlap: of the raw tiles, and of the corrected ones.
    seam_before, seam_after : (T,) float64
        Median of these over the sides.
    seam_shape : (T,) float64
        As `seam_after`, less one level for each overlap: what no gain can mend.
    level : (T,) float64
        Mean log of the corrected tile less that of its neighbours, in the overlaps.
    level_error : (T,) float64
        Standard deviation of the background's level against the mean of all tiles that the joint
        stage's equations leave; NaN where it was not applied.
    shared_residue : (T,) float64
        Mean correlation, at zero shift, of the high-passed corrected tile with the others.
    shared_shading : (T,) float64
        The same for structure of 1/16 to 1/4 of the field.
    departure : (T,) float64
        Rms of the log background less the median over the scan's, one level removed.
    jump : (T,) float64
        Rms of the log background less the mean of those before and after in time.
    leakage : (T,) float64
        Slope of the background's departure on the tile's own, low-passed.
    structure : (T,) float64
        Rms of the low-passed log of the corrected tile.
    novelty : (T,) float64
        Novelty to the learned method, see `models.novelty`; NaN for others.
    valid : (T,) float64
        Share of pixels in 0..1.
    """

    names: tuple[str, ...]
    size: tuple[int, int]
    measured: NDArray[np.bool_]
    cells: NDArray[np.int64] | None
    positions_px: Floats | None
    registered: bool
    sides_before: Floats
    sides_after: Floats
    seam_before: Floats
    seam_after: Floats
    seam_shape: Floats
    level: Floats
    level_error: Floats
    shared_residue: Floats
    shared_shading: Floats
    departure: Floats
    jump: Floats
    leakage: Floats
    structure: Floats
    novelty: Floats
    valid: Floats

    def __len__(self) -> int:
        return len(self.names)

    def column(self, key: str) -> Floats:
        """Values `(T,)` of a row of `COLUMNS`.

        Raises
        ------
        KeyError
            If there is no such column.
        """
        if key not in COLUMNS:
            raise KeyError(key)
        values: Floats = getattr(self, key)
        return values

    def row(self, i: int) -> Mapping[str, Any]:
        """Figures of tile `i` as plain values, None where they cannot be told."""
        out: dict[str, Any] = {"tile": i, "name": self.names[i]}
        if self.cells is not None:
            out |= {"row": int(self.cells[i, 0]), "column": int(self.cells[i, 1])}
        for key in COLUMNS:
            out[key] = _plain(self.column(key)[i])
        for label, sides in (("before", self.sides_before), ("after", self.sides_after)):
            out |= {
                f"seam_{label}_{side}": _plain(x) for side, x in zip(SIDES, sides[i], strict=True)
            }
        return out


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
