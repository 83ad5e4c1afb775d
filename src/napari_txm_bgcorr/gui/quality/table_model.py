"""The quality table as Qt sees it: one row a tile, sortable, flagged rows marked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QBrush, QColor

from napari_txm_bgcorr.quality import COLUMNS, FLAGS, TileQuality, raised

__all__ = ["SORT_ROLE", "QualityModel", "SortedTiles"]

SORT_ROLE = Qt.ItemDataRole.UserRole
FLAGGED = QColor(255, 176, 0, 70)  # over any theme: the text stays readable
Role = Qt.ItemDataRole
FIRST = ("tile", "flags")


class QualityModel(QAbstractTableModel):
    """Table of a `TileQuality`.

    Parameters
    ----------
    quality : TileQuality or None
        None: an empty table.
    """

    def __init__(self, quality: TileQuality | None = None) -> None:
        super().__init__()
        self.quality: TileQuality | None = None
        self.raised: dict[str, NDArray[np.bool_]] = {}
        self._order: list[list[float]] = []
        self.columns: list[str] = []
        self.show(quality)

    def show(self, quality: TileQuality | None) -> None:
        """Take another table; figures that no tile has are left out."""
        self.beginResetModel()
        self.quality = quality
        self.raised = {} if quality is None else raised(quality)
        self.columns = (
            [] if quality is None else [k for k in COLUMNS if np.isfinite(quality.column(k)).any()]
        )
        self._order = [self._keys(column) for column in range(self.columnCount())]
        self.endResetModel()

    def _keys(self, column: int) -> list[float]:
        """Sort keys of a column, one per row; Qt asks for them row by row."""
        if self.quality is None or FIRST[column : column + 1] == ("tile",):
            return [float(i) for i in range(self.rowCount())]
        if column < len(FIRST):  # most flags first
            return [-float(len(self.flagged(i))) for i in range(self.rowCount())]
        key = self.columns[column - len(FIRST)]
        values = np.asarray(self.quality.column(key), np.float64) * COLUMNS[key].scale
        # unknown values last when the worst come first
        return [float(v) for v in np.where(np.isfinite(values), values, -np.inf)]

    def flagged(self, i: int) -> list[str]:
        """Keys of the flags raised for tile `i`."""
        return [key for key, found in self.raised.items() if found[i]]

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's own way
        """Count the tiles."""
        return 0 if parent.isValid() or self.quality is None else len(self.quality)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Count the figures and what stands before them."""
        return 0 if parent.isValid() or self.quality is None else len(FIRST) + len(self.columns)

    def data(self, index: QModelIndex, role: int = Role.DisplayRole) -> Any:
        """Give a cell's text, sorting value, tip or colour."""
        if not index.isValid() or self.quality is None:
            return None
        i, column = index.row(), index.column()
        if role == SORT_ROLE:
            return self._order[column][i]
        if role == Role.BackgroundRole:
            return QBrush(FLAGGED) if self.flagged(i) else None
        if role == Role.TextAlignmentRole and column != FIRST.index("flags"):
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == Role.ToolTipRole:
            return self._tip(i)
        if role != Role.DisplayRole:
            return None
        if column < len(FIRST):
            return self._first(i, column)
        return self._figure(i, self.columns[column - len(FIRST)])

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole
    ) -> Any:
        """Give a column's name and unit, and its meaning as a tip."""
        if orientation != Qt.Orientation.Horizontal or section >= self.columnCount():
            return None
        if section < len(FIRST):
            return FIRST[section].capitalize() if role == Role.DisplayRole else None
        column = COLUMNS[self.columns[section - len(FIRST)]]
        if role == Role.ToolTipRole:
            return column.meaning
        if role == Role.DisplayRole:
            return f"{column.label}\n{column.unit}".rstrip()
        return None

    def _first(self, i: int, column: int) -> Any:
        if FIRST[column] == "tile":
            return i
        return ", ".join(FLAGS[k].label for k in self.flagged(i))

    def _figure(self, i: int, key: str) -> Any:
        if self.quality is None:
            return None
        value = float(self.quality.column(key)[i]) * COLUMNS[key].scale
        return f"{value:.2f}" if np.isfinite(value) else "-"

    def _tip(self, i: int) -> str:
        if self.quality is None:
            return ""
        lines = [self.quality.names[i]]
        if self.quality.cells is not None:
            row, column = (int(n) for n in self.quality.cells[i])
            lines[0] += f" (row {row} from the top, column {column}, both from 0)"
        for key in self.flagged(i):
            flag = FLAGS[key]
            lines.append(f"{flag.label}: {flag.meaning} {flag.remedy}")
        return "\n".join(lines)


class SortedTiles(QSortFilterProxyModel):
    """The table in the user's order, all tiles or the flagged ones."""

    def __init__(self, model: QualityModel) -> None:
        super().__init__()
        self._tiles, self._only_flagged = model, False
        self.setSourceModel(model)
        self.setSortRole(SORT_ROLE)

    def only_flagged(self, on: bool) -> None:
        """Hide the tiles that no flag is raised for."""
        self._only_flagged = on
        self.invalidate()

    def filterAcceptsRow(self, row: int, parent: QModelIndex) -> bool:
        """Say whether a tile is shown."""
        return not self._only_flagged or bool(self._tiles.flagged(row))
