"""Question to the user about a live run when napari closes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qtpy.QtWidgets import QMessageBox, QWidget

__all__ = ["ask_before_closing"]

Answer = Literal["stop", "leave", "stay"]


def ask_before_closing(parent: QWidget, run: Path | None) -> Answer:
    """Ask whether a live run stops, goes on without napari, or napari stays open."""
    box = QMessageBox(parent)
    box.setObjectName("closing_dialog")
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle("A training is going on")
    box.setText(f"The training in\n{run}\nis going on.")
    box.setInformativeText(
        "It runs on its own: left running, it can be watched again by “Attach…”, here or on "
        "another machine. Stopped, it keeps its weights and can be resumed."
    )
    stop = box.addButton("Stop it", QMessageBox.ButtonRole.DestructiveRole)
    leave = box.addButton("Leave it running", QMessageBox.ButtonRole.AcceptRole)
    box.addButton("Keep napari open", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(leave)
    box.exec_() if hasattr(box, "exec_") else box.exec()
    pressed = box.clickedButton()
    answer: Answer = "stop" if pressed is stop else "leave" if pressed is leave else "stay"
    box.deleteLater()
    return answer
