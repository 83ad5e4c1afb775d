"""What every panel does in its dock: it shares the place with its like, and ends with it."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

__all__ = ["Docked"]


class Docked:
    """Mixin, before the Qt class: calls `shut_down` when the panel is closed for good.

    The plugin's panels become tabs of one dock: under each other none has its height on a
    laptop's screen.
    """

    def event(self: Any, event: QEvent) -> bool:
        """Notice that the panel is taken out of its dock, or put into one."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is None:
                self.shut_down()
            else:
                self.window().installEventFilter(self)
                QTimer.singleShot(0, self._join_the_others)
        return bool(super().event(event))  # type: ignore[misc]

    def eventFilter(self: Any, watched: Any, event: Any) -> bool:
        """Watch the main window closing."""
        if event.type() == QEvent.Type.Close:
            QTimer.singleShot(0, self._after_close)
        return bool(super().eventFilter(watched, event))  # type: ignore[misc]

    def _join_the_others(self: Any) -> None:
        window, mine = self.window(), _dock_of(self)
        if mine is None or not isinstance(window, QMainWindow) or mine.isFloating():
            return
        for dock in window.findChildren(QDockWidget):
            if dock is mine or dock.isFloating() or not _holds_a_panel(dock):
                continue
            if window.dockWidgetArea(dock) == window.dockWidgetArea(mine):
                window.tabifyDockWidget(dock, mine)
                QTimer.singleShot(0, mine.raise_)  # tabs are laid out in the next turn
                return

    def _after_close(self: Any) -> None:
        if not self.window().isVisible():
            self.shut_down()


def _holds_a_panel(dock: QDockWidget) -> bool:
    return any(isinstance(each, Docked) for each in dock.findChildren(QWidget))


def _dock_of(widget: Any) -> QDockWidget | None:
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
