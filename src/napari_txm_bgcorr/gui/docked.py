"""What every panel does when its dock or the main window closes."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QTimer

__all__ = ["Docked"]


class Docked:
    """Mixin, before the Qt class: calls `shut_down` when the panel is closed for good."""

    def event(self: Any, event: QEvent) -> bool:
        """Notice that the panel is taken out of its dock, or put into one."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is None:
                self.shut_down()
            else:
                self.window().installEventFilter(self)
        return bool(super().event(event))  # type: ignore[misc]

    def eventFilter(self: Any, watched: Any, event: Any) -> bool:
        """Watch the main window closing."""
        if event.type() == QEvent.Type.Close:
            QTimer.singleShot(0, self._after_close)
        return bool(super().eventFilter(watched, event))  # type: ignore[misc]

    def _after_close(self: Any) -> None:
        if not self.window().isVisible():
            self.shut_down()
