"""Step 1 of the training panel: what to learn from, and small pictures of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QAction, QColor, QIcon, QImage, QKeySequence, QPainter, QPixmap
from qtpy.QtWidgets import (
    QHBoxLayout,
    QListView,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_txm_bgcorr.gui.common.drop_zone import ACTIVE_STYLE, IDLE_STYLE, DropZone, local_paths
from napari_txm_bgcorr.gui.common.widgets import BoundedLabel, existing, named_button
from napari_txm_bgcorr.gui.correct.form import narrow_combo

from .data_scan import THUMB_PX
from .messages import Thumb
from .session import ROLES, DataItem

__all__ = ["DataDropZone", "DataStep"]

LAYER_MIME = "application/x-list-index"  # a drag out of napari's layer list
MOST_THUMBS = 60
MOST_WARNINGS = 2
ROLE_HELP = {
    "references": "Images of the beam without the sample; libraries of them too",
    "samples": "Corrected images (transmission) of samples like yours; optional",
    "raws": "Raw images whose backgrounds are known; add as many “Backgrounds of pairs”",
    "backgrounds": "The backgrounds of the raw images, in the same order or with the same names",
    "darks": "Images without beam, of the same size; optional",
}


class DataDropZone(DropZone):
    """Takes files, folders, libraries, runs, and layers dragged out of napari's list."""

    layers_dropped = Signal()

    def __init__(self) -> None:
        super().__init__("Drop references, folders, layers or a run")
        self.setObjectName("data_drop_zone")
        self.setToolTip(
            "What to learn from: Xradia, TIFF, HDF5, OME-Zarr or .npy files, folders, libraries, "
            "layers. A folder of a run is attached to."
        )
        self.layers_button = named_button(
            "add_layers_button", "Layers", "Take the layers selected in napari"
        )
        self.layers_button.clicked.connect(self.layers_dropped)
        self.file_button.setText("Files…")
        self.folder_button.setText("Folder…")
        self.buttons.addWidget(self.layers_button)

    def dragEnterEvent(self, event: Any) -> None:
        """Welcome layers too."""
        if event.mimeData().hasFormat(LAYER_MIME):
            self.setStyleSheet(ACTIVE_STYLE)
            event.acceptProposedAction()
            return
        super().dragEnterEvent(event)

    def dropEvent(self, event: Any) -> None:
        """Hand on layers or paths."""
        if local_paths(event):
            super().dropEvent(event)
            return
        self.setStyleSheet(IDLE_STYLE)
        if event.mimeData().hasFormat(LAYER_MIME):
            # copied, not moved: the layer stays in napari's list. The dragged are the selected.
            event.setDropAction(Qt.DropAction.CopyAction)
            event.accept()
            self.layers_dropped.emit()


class DataStep(QWidget):
    """Drop zone, role, thumbnails and warnings.

    Signals
    -------
    paths : list of Path
        Dropped or chosen.
    layers : None
        The selected layers are wanted.
    cleared : None
    removed : str
        Key of an item the user no longer wants.
    """

    paths = Signal(object)
    layers = Signal()
    cleared = Signal()
    removed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._compact = False
        self.drop_zone = DataDropZone()
        self.drop_zone.dropped.connect(lambda paths: self.paths.emit([Path(p) for p in paths]))
        self.drop_zone.layers_dropped.connect(self.layers)
        self.role_combo = narrow_combo("role_combo", "What the next dropped images are")
        for role, label in ROLES.items():
            self.role_combo.addItem(f"as {label.lower()}", role)
            self.role_combo.setItemData(
                self.role_combo.count() - 1, ROLE_HELP[role], Qt.ItemDataRole.ToolTipRole
            )
        self.clear_button = named_button("clear_data_button", "Clear", "Forget all data")
        self.clear_button.clicked.connect(self.cleared)
        self.sheet = _sheet()
        remove = QAction("Remove", self.sheet)
        remove.setShortcut(QKeySequence(QKeySequence.StandardKey.Delete))
        remove.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        remove.triggered.connect(self._remove)
        self.sheet.addAction(remove)
        self.summary = BoundedLabel("data_summary", 1, 2)
        self.warnings = BoundedLabel("data_warnings", 2, 3)
        self.warnings.hide()
        row = QHBoxLayout()
        row.setSpacing(3)
        row.addWidget(self.role_combo, 1)
        row.addWidget(self.clear_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.drop_zone)
        layout.addLayout(row)
        for part in (self.sheet, self.summary, self.warnings):
            layout.addWidget(part)
        self._warning_colour = "#e3b617"
        self._show_sheet()
        self.show_items(())

    @property
    def role(self) -> str:
        """Role that the next dropped images take."""
        return str(self.role_combo.currentData())

    def set_theme(self, warning: str) -> None:
        """Take the colour that marks warnings."""
        self._warning_colour = warning

    def add_thumbs(self, key: str, role: str, thumbs: Sequence[Thumb]) -> None:
        """Show small pictures of an item, as many as fit."""
        for thumb in thumbs[: max(0, MOST_THUMBS - self.sheet.count())]:
            entry = QListWidgetItem(self._icon(thumb), "")
            entry.setData(Qt.ItemDataRole.UserRole, key)
            entry.setToolTip("\n".join([f"{thumb.name} ({ROLES[role].lower()})", *thumb.warnings]))
            self.sheet.addItem(entry)
        self._show_sheet()

    def set_compact(self, on: bool) -> None:
        """Hide the pictures, so that other parts have the space."""
        self._compact = on
        self._show_sheet()

    def _show_sheet(self) -> None:
        self.sheet.setVisible(self.sheet.count() > 0 and not self._compact)

    def drop_thumbs(self, key: str | None = None) -> None:
        """Remove the pictures of an item, or all."""
        for row in reversed(range(self.sheet.count())):
            if key in (None, existing(self.sheet.item(row)).data(Qt.ItemDataRole.UserRole)):
                self.sheet.takeItem(row)
        self._show_sheet()

    def show_items(self, items: Sequence[DataItem], busy: str = "") -> None:
        """Say how many images of which kind there are, and what seems wrong."""
        words = []
        for role, label in ROLES.items():
            count = sum(item.count for item in items if item.role == role)
            sizes = {item.size for item in items if item.role == role and item.count}
            if count:
                one = sizes.pop() if len(sizes) == 1 else (0, 0)
                size = f"{one[0]} x {one[1]} px" if any(one) else "of several sizes"
                word = label.lower().removesuffix("s") if count == 1 else label.lower()
                words.append(f"{count} {word}" + (f", {size}" if size else ""))
        self.summary.setText(busy or "; ".join(words) or "No data yet")
        warnings = list(dict.fromkeys(warning for item in items for warning in item.warnings))
        self.warnings.setVisible(bool(warnings))
        shown = warnings[:MOST_WARNINGS]
        if more := len(warnings) - len(shown):
            shown[-1] += f" (and {more} more)"
        self.warnings.setText("\n".join(f"⚠ {line}" for line in shown))
        self.warnings.setToolTip("\n".join(warnings))
        self.clear_button.setEnabled(bool(items))

    def _icon(self, thumb: Thumb) -> QIcon:
        height, width = thumb.picture.shape
        picture = QImage(
            thumb.picture.tobytes(), width, height, width, QImage.Format.Format_Grayscale8
        )
        pixmap = QPixmap.fromImage(picture).scaled(
            QSize(THUMB_PX, THUMB_PX), Qt.AspectRatioMode.KeepAspectRatio
        )
        if thumb.warnings:
            painter = QPainter(pixmap)
            pen = painter.pen()
            pen.setColor(QColor(self._warning_colour))
            pen.setWidth(4)
            painter.setPen(pen)
            painter.drawRect(pixmap.rect().adjusted(1, 1, -2, -2))
            painter.end()
        return QIcon(pixmap)

    def _remove(self) -> None:
        keys = {e.data(Qt.ItemDataRole.UserRole) for e in self.sheet.selectedItems()}
        for key in sorted(keys):
            self.removed.emit(key)


def _sheet() -> QListWidget:
    """Make a row of pictures that scrolls sideways."""
    sheet = QListWidget()
    sheet.setObjectName("thumbnail_sheet")
    sheet.setToolTip("Some of the images found; a coloured frame marks a warning. Delete removes.")
    sheet.setViewMode(QListView.ViewMode.IconMode)
    sheet.setFlow(QListView.Flow.LeftToRight)
    sheet.setWrapping(False)
    sheet.setMovement(QListView.Movement.Static)
    sheet.setIconSize(QSize(THUMB_PX, THUMB_PX))
    sheet.setUniformItemSizes(True)
    sheet.setSpacing(1)
    sheet.setFixedHeight(THUMB_PX + 22)
    sheet.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    sheet.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
    sheet.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
    return sheet
