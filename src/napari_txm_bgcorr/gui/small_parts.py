"""Small parts of the panel."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSizePolicy, QWidget

__all__ = ["bounded_label", "button_row", "named_button", "time_left", "wrapped_label"]


def wrapped_label(name: str) -> QLabel:
    """Make a label that breaks lines instead of widening the panel."""
    label = QLabel()
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def bounded_label(name: str, least: int, most: int) -> QLabel:
    """Make a label of `least` to `most` lines, whatever is written in it.

    Qt takes the height of a wrapped text in its narrowest form for the least one.
    """
    label = wrapped_label(name)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    line = label.fontMetrics().lineSpacing()
    label.setMinimumHeight(least * line + 2)
    label.setMaximumHeight(most * line + 2)
    label.setAlignment(Qt.AlignmentFlag.AlignTop)
    return label


def named_button(name: str, text: str, tip: str) -> QPushButton:
    """Make a button with an object name and a tool tip."""
    button = QPushButton(text)
    button.setObjectName(name)
    button.setToolTip(tip)
    return button


def button_row(*widgets: QWidget) -> QHBoxLayout:
    """Lay widgets side by side, equally wide."""
    row = QHBoxLayout()
    row.setSpacing(3)
    for widget in widgets:
        row.addWidget(widget, 1)
    return row


def time_left(seconds: float | None) -> str:
    """Write a time as m:ss or h:mm:ss."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
