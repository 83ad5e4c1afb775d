"""Widgets of the panel "Mosaic quality" and their layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_txm_bgcorr.gui.common.drop_zone import local_paths
from napari_txm_bgcorr.gui.common.widgets import existing, named_button, wrapped_label
from napari_txm_bgcorr.gui.correct.form import PathsField, narrow_combo

from .table_model import QualityModel, SortedTiles

__all__ = ["JOINT_TIP", "REDO_TIP", "RESULT_TIP", "QualityForm"]

WIDEST_OF = 60  # rows that decide on a column's width; all of them take seconds
PANEL_SIZE = QSize(420, 560)
RESULT_TIP = "The corrected scan to judge"
REDO_TIP = "Correct the selected tiles again by this method"
JOINT_TIP = "Run the joint stage again over all tiles, new and old"


class QualityForm(QWidget):
    """The widgets alone; what they do is up to the panel.

    Parameters
    ----------
    methods : list of str
        Names for redoing tiles.

    Signals
    -------
    dropped : list of Path
        Outputs the user wants judged.
    """

    dropped = Signal(list)

    def __init__(self, methods: list[str]) -> None:
        super().__init__()
        self.chosen_references: tuple[Path, ...] = ()
        self.model = QualityModel()
        self.sorted = SortedTiles(self.model)
        self.setAcceptDrops(True)
        self._make_widgets(methods)
        self._lay_out()

    def _make_widgets(self, methods: list[str]) -> None:
        self.result_combo = narrow_combo("result_combo", RESULT_TIP)
        self.open_button = named_button(
            "open_output_button",
            "Open…",
            "Judge an output on disk: the OME-Zarr or folder that “Save…” or txm-bgcorr correct "
            "wrote. Dropping it here does the same.",
        )
        self.measure_button = named_button(
            "measure_button", "Measure", "Measure every tile of this result"
        )
        self.cancel_button = named_button("quality_cancel_button", "Cancel", "Stop measuring")
        self.progress_bar = QProgressBar()
        self.status_label = wrapped_label("quality_status_label")
        self.colour_combo = narrow_combo(
            "colour_combo", "Figure that colours the tiles on the canvas"
        )
        self.outline_box = QCheckBox("Outlines")
        self.outline_box.setObjectName("outline_checkbox")
        self.outline_box.setToolTip("Draw a line round every tile")
        self.flagged_box = QCheckBox("Flagged only")
        self.flagged_box.setObjectName("flagged_checkbox")
        self.flagged_box.setToolTip("List only tiles that a flag is raised for")
        self.table = self._make_table()
        self.method_combo = narrow_combo("redo_method_combo", "How to redo the selected tiles")
        for name in methods:
            self.method_combo.addItem(name, name)
        self.references = PathsField(
            "redo_references_field", "reference images for these tiles only", self._take_references
        )
        self.near_combo = narrow_combo("redo_near_combo", "What the method may look at")
        for label, reach in (("fit to all tiles", None), ("to 3 x 3 nearby", 1),
                             ("to 5 x 5 nearby", 2)):  # fmt: skip
            self.near_combo.addItem(label, reach)
        self.joint_box = QCheckBox("then refine the whole scan")
        self.joint_box.setObjectName("redo_joint_checkbox")
        self.joint_box.setToolTip(JOINT_TIP)
        self.redo_button = named_button("redo_button", "Redo selected", REDO_TIP)
        self.csv_button = named_button("csv_button", "CSV…", "Save the table")
        self.report_button = named_button(
            "report_button", "Report…", "Save one page for the logbook: pictures, figures, origin"
        )

    def _make_table(self) -> QTableView:
        table = QTableView()
        table.setObjectName("quality_table")
        table.setModel(self.sorted)
        table.setSortingEnabled(True)
        table.sortByColumn(1, Qt.SortOrder.AscendingOrder)  # most flags first
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setAlternatingRowColors(False)
        table.setWordWrap(False)
        rows = existing(table.verticalHeader())
        rows.hide()
        rows.setDefaultSectionSize(table.fontMetrics().height() + 6)
        header = existing(table.horizontalHeader())
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setResizeContentsPrecision(WIDEST_OF)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignCenter)
        table.setMinimumHeight(80)
        return table

    def _lay_out(self) -> None:
        rows = [
            _row((self.result_combo, 1), (self.open_button, 0), (self.measure_button, 0),
                 (self.cancel_button, 0)),
            _row((QLabel("Colour by"), 0), (self.colour_combo, 1), (self.outline_box, 0),
                 (self.flagged_box, 0)),
        ]  # fmt: skip
        below = [
            _row((QLabel("Redo by"), 0), (self.method_combo, 1), (self.near_combo, 1)),
            _row((QLabel("Reference"), 0), (self.references, 1)),
            _row((self.joint_box, 1), (self.redo_button, 0)),
            _row((self.csv_button, 1), (self.report_button, 1)),
        ]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        for row in rows:
            layout.addLayout(row)
        layout.addWidget(self.progress_bar)
        layout.addWidget(self.status_label)
        layout.addWidget(self.table, 1)
        for row in below:
            layout.addLayout(row)

    def sizeHint(self) -> QSize:
        """Wide enough for the first columns."""
        return PANEL_SIZE

    def dragEnterEvent(self, event: Any) -> None:
        """Welcome files and folders."""
        if local_paths(event):
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open what is dropped."""
        event.acceptProposedAction()
        self.dropped.emit(local_paths(event))

    def _take_references(self, paths: tuple[Path, ...]) -> None:
        self.chosen_references = paths


def _row(*parts: tuple[QWidget, int]) -> QHBoxLayout:
    """Put widgets side by side, each with its share of the spare space."""
    row = QHBoxLayout()
    row.setSpacing(5)
    for widget, stretch in parts:
        row.addWidget(widget, stretch)
    return row
