"""Area to drop files and folders on, with buttons that open them instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

__all__ = ["FILE_FILTER", "DropZone", "local_paths"]

FILE_FILTER = (
    "TXM images (*.xrm *.txrm *.txm *.tif *.tiff *.h5 *.hdf5 *.hdf *.nxs *.nx);;All files (*)"
)
ACTIVE_STYLE = "DropZone { border: 2px dashed palette(highlight); border-radius: 4px; }"
IDLE_STYLE = "DropZone { border: 1px dashed palette(mid); border-radius: 4px; }"


def local_paths(event: Any) -> list[Path]:
    """List the files and folders a drag carries."""
    mime = event.mimeData()
    if not mime.hasUrls():
        return []
    return [Path(url.toLocalFile()) for url in mime.urls() if url.isLocalFile()]


class DropZone(QFrame):
    """Takes dropped files and folders, and offers a dialog for either.

    Parameters
    ----------
    text : str
        What it asks for.

    Signals
    -------
    dropped : list of Path
        What the user wants opened.
    """

    dropped = Signal(list)

    def __init__(self, text: str = "Drop TXM files or folders here") -> None:
        super().__init__()
        self.setObjectName("drop_zone")
        self.setAcceptDrops(True)
        self.setToolTip(
            "Xradia .xrm .txrm .txm, TIFF, HDF5 and OME-Zarr files, or folders of tiles"
        )
        words = QLabel(text)
        words.setAlignment(Qt.AlignmentFlag.AlignCenter)
        words.setWordWrap(True)
        self.file_button = QPushButton("Open files…")
        self.file_button.setObjectName("open_files_button")
        self.folder_button = QPushButton("Open folder…")
        self.folder_button.setObjectName("open_folder_button")
        self.file_button.clicked.connect(self._ask_files)
        self.folder_button.clicked.connect(self._ask_folder)
        self.buttons = QHBoxLayout()
        self.buttons.addWidget(self.file_button)
        self.buttons.addWidget(self.folder_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(4)
        layout.addWidget(words)
        layout.addLayout(self.buttons)
        self.setStyleSheet(IDLE_STYLE)

    def dragEnterEvent(self, event: Any) -> None:
        """Show that the drag is welcome."""
        if local_paths(event):
            self.setStyleSheet(ACTIVE_STYLE)
            event.acceptProposedAction()
        else:
            event.ignore()

    def dragMoveEvent(self, event: Any) -> None:
        """Keep napari's window from taking the drag over."""
        event.acceptProposedAction()

    def dragLeaveEvent(self, event: Any) -> None:
        """Look idle again."""
        self.setStyleSheet(IDLE_STYLE)

    def dropEvent(self, event: Any) -> None:
        """Hand the dropped paths on."""
        self.setStyleSheet(IDLE_STYLE)
        if paths := local_paths(event):
            event.acceptProposedAction()
            self.dropped.emit(paths)

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Open TXM files", "", FILE_FILTER)
        if names:
            self.dropped.emit([Path(name) for name in names])

    def _ask_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Open a folder of tiles")
        if name:
            self.dropped.emit([Path(name)])
