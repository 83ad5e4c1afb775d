"""Small parts of the panel."""

from __future__ import annotations

from typing import TypeVar

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

__all__ = [
    "BoundedLabel",
    "PanelColumn",
    "TallArea",
    "button_row",
    "existing",
    "named_button",
    "time_left",
    "wrapped_label",
]

Part = TypeVar("Part")
PADDING = 8  # that of a label in napari's style, both sides


def existing(part: Part | None) -> Part:
    """Narrow what Qt declares as perhaps missing, and the caller knows to be there.

    Raises
    ------
    RuntimeError
        If it is missing.
    """
    if part is None:
        raise RuntimeError("Qt has no such part")
    return part


def wrapped_label(name: str) -> QLabel:
    """Make a label that breaks lines instead of widening the panel."""
    label = QLabel()
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


class BoundedLabel(QLabel):
    """A label of `least` to `most` lines, whatever is written in it.

    Qt takes the height of a wrapped text in its narrowest form for the least one.
    """

    def __init__(self, name: str, least: int, most: int) -> None:
        super().__init__()
        self._lines = least, most
        self.setObjectName(name)
        self.setWordWrap(True)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.setAlignment(Qt.AlignmentFlag.AlignTop)

    def event(self, event: QEvent | None) -> bool:
        """Follow the font, which napari's style sets after the label is made."""
        done = super().event(event)
        if existing(event).type() in (QEvent.Type.Polish, QEvent.Type.FontChange):
            line = self.fontMetrics().lineSpacing()
            least, most = (lines * line + PADDING for lines in self._lines)
            if (least, most) != (self.minimumHeight(), self.maximumHeight()):
                self.setMinimumHeight(least)
                self.setMaximumHeight(most)
        return done


class PanelColumn(QVBoxLayout):
    """Widgets below each other that may be squeezed to their least heights before it scrolls."""

    def hasHeightForWidth(self) -> bool:
        """Return False: a scroll area would take the wanted height for the minimum height."""
        return False


class TallArea(QScrollArea):
    """Holds a widget as wide as it needs; scrolls where the screen has not its height."""

    def hold(self, inside: QWidget) -> None:
        """Take the widget."""
        self.setWidget(inside)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        inside.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Follow the least width of what is inside."""
        moved = existing(event).type() == QEvent.Type.LayoutRequest
        if moved and isinstance(watched, QWidget) and watched is self.widget():
            bar = existing(self.verticalScrollBar()).sizeHint().width()
            self.setMinimumWidth(watched.minimumSizeHint().width() + bar)
        return super().eventFilter(watched, event)


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
