"""The last row of the panel: in which format, and where to save; one stitched picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_txm_bgcorr.gui.layers.result import Result
from napari_txm_bgcorr.gui.session import FORMATS, Session

from .form import narrow_combo

__all__ = ["SaveBar"]


class SaveBar(QWidget):
    """Format, Save button and Stitch button.

    Signals
    -------
    chosen, stitch_chosen : Path
        The folder to save tiles, or the stitched mosaic, into.
    """

    chosen = Signal(object)
    stitch_chosen = Signal(object)

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
        self.button.clicked.connect(lambda: self._ask(self.chosen))
        self.stitch_button = QPushButton("Stitch…")
        self.stitch_button.setObjectName("stitch_button")
        self.stitch_button.setToolTip(
            "Blend the tiles of a mosaic into one picture, save it as a multiscale OME-Zarr, "
            "and show it"
        )
        self.stitch_button.clicked.connect(lambda: self._ask(self.stitch_chosen))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.format_combo, 1)
        layout.addWidget(self.button)
        layout.addWidget(self.stitch_button)

    def enable(self, results: Sequence[Result]) -> None:
        """Offer what can be done with these results."""
        self.button.setEnabled(bool(results))
        self.stitch_button.setEnabled(any(each.scan.kind == "mosaic" for each in results))

    def _ask(self, signal: Any) -> None:
        if name := QFileDialog.getExistingDirectory(self, "Save into folder"):
            signal.emit(Path(name))
