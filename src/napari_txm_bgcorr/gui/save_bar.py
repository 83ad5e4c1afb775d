"""The last row of the panel: in which format, and where to save."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_txm_bgcorr.gui.choices import narrow_combo
from napari_txm_bgcorr.gui.session import FORMATS, Session

__all__ = ["SaveBar"]


class SaveBar(QWidget):
    """Format and Save button.

    Signals
    -------
    chosen : Path
        The folder to save into.
    """

    chosen = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.format_combo = narrow_combo("format_combo", "File format of saved results")
        for name, label in FORMATS.items():
            self.format_combo.addItem(label, name)
        self.format_combo.setCurrentIndex(max(self.format_combo.findData(session.save_format), 0))
        self.format_combo.currentIndexChanged.connect(
            lambda: setattr(session, "save_format", self.format_combo.currentData())
        )
        self.button = QPushButton("Save…")
        self.button.setObjectName("save_button")
        self.button.setToolTip("Save raw, background and corrected tiles with their provenance")
        self.button.clicked.connect(self._ask)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.format_combo, 1)
        layout.addWidget(self.button)

    def _ask(self) -> None:
        if name := QFileDialog.getExistingDirectory(self, "Save into folder"):
            self.chosen.emit(Path(name))
