"""Buttons that start and cancel a correction, its progress bar, and its result in words."""

from __future__ import annotations

import time

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from napari_txm_bgcorr.gui.common.messages import Advanced
from napari_txm_bgcorr.gui.common.widgets import named_button, time_left, wrapped_label

__all__ = ["WorkBar"]

PROGRESS_S = 0.4  # Qt paints a progress bar at once, and with it the whole window


class WorkBar(QWidget):
    """Correct, Cancel, the bar and the sentence below it."""

    def __init__(self) -> None:
        super().__init__()
        self.correct_button = named_button(
            "correct_button", "Correct", "Correct the selected layers"
        )
        self.cancel_button = named_button(
            "cancel_button", "Cancel", "Stop; tiles already done stay"
        )
        self.progress_bar = QProgressBar()
        self.progress_bar.setObjectName("progress_bar")
        self.progress_bar.setTextVisible(True)
        self.status_label = wrapped_label("status_label")
        self.status_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        buttons = QHBoxLayout()
        buttons.addWidget(self.correct_button, 2)
        buttons.addWidget(self.cancel_button, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(7)
        layout.addLayout(buttons)
        layout.addWidget(self.progress_bar)
        layout.addWidget(self.status_label)
        self._told_s = 0.0
        self.show_idle("")

    def show_busy(self, text: str, *, may_correct: bool = False) -> None:
        """Show that something is under way whose length is not known."""
        self.correct_button.setEnabled(may_correct)
        self.cancel_button.setEnabled(True)
        self.progress_bar.setRange(0, 0)
        self.status_label.setText(text)

    def show_progress(self, message: Advanced) -> None:
        """Show how far it is, not too often."""
        if time.monotonic() - self._told_s < PROGRESS_S and message.done < message.total:
            return
        self._told_s = time.monotonic()
        self.progress_bar.setRange(0, message.total)
        self.progress_bar.setValue(message.done)
        self.progress_bar.setFormat(f"%v of %m tiles, {time_left(message.seconds_left)} left")
        if message.text and self.cancel_button.isEnabled():
            self.status_label.setText(message.text)

    def show_cancelling(self) -> None:
        """Show that the end has been asked for."""
        self.cancel_button.setEnabled(False)
        self.status_label.setText("Cancelling …")

    def show_idle(self, text: str) -> None:
        """Show that nothing is under way, and what came of the last."""
        self.correct_button.setEnabled(True)
        self.cancel_button.setEnabled(False)
        self.progress_bar.setRange(0, 1)
        self.progress_bar.setValue(0)
        self.progress_bar.setFormat("")
        self.status_label.setText(text)
