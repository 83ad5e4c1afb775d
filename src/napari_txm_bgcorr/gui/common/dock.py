"""Docking of the plugin's panels: they share one dock as tabs and shut down with it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QWidget

from .widgets import existing

# The mixin is part of a widget: said to the type checker alone
if TYPE_CHECKING:
    Base = QWidget
else:
    Base = object

__all__ = ["Docked", "find_panel", "open_panel"]

PLUGIN = "napari-txm-bgcorr"


class Docked(Base):
    """Mixin, before the Qt class: calls `shut_down` when the panel is closed for good.

    The plugin's panels become tabs of one dock: under each other none has its height on a
    laptop's screen.

    Attributes
    ----------
    title : str
        As the manifest names the panel.
    """

    title: ClassVar[str]

    # Held until `leave_window`: a window that Qt deletes when it closes takes the panel along,
    # before the panel has shut down.
    _main_window: QMainWindow | None = None
    _titled: QDockWidget | None = None

    def event(self, event: QEvent | None) -> bool:
        """React when the panel is taken out of its dock, or put into one."""
        kind = existing(event).type()
        if kind == QEvent.Type.ParentChange:
            if self.parent() is None:
                self.shut_down()
            else:  # its dock is put into the window after this
                QTimer.singleShot(0, self._settle)
        elif kind == QEvent.Type.Show:
            self._watch_window()
        return super().event(event)

    def _settle(self) -> None:
        with suppress(RuntimeError):  # closed, and deleted by Qt, before the event loop came to it
            self._watch_window()
            self._join_the_others()
            self._shorten_title()

    def _shorten_title(self) -> None:
        """Leave the plugin's name out of the title: with it, title and tabs are cut off."""
        dock = _dock_of(self)
        if dock is None:
            return
        short = dock.windowTitle().split(" (")[0]
        dock.setWindowTitle(short)
        words = getattr(dock.titleBarWidget(), "title", None)
        if isinstance(words, QLabel):
            words.setText(short)
        if dock is not self._titled:  # napari makes a new title bar when the dock moves
            self._titled = dock
            dock.dockLocationChanged.connect(self._title_later)
            dock.topLevelChanged.connect(self._title_later)

    def _title_later(self, *moved: object) -> None:
        QTimer.singleShot(0, self._settle_title)

    def _settle_title(self) -> None:
        with suppress(RuntimeError):  # closed, and deleted by Qt
            self._shorten_title()

    def _watch_window(self) -> None:
        """Hear of the main window's closing; a floating dock's own is another."""
        window = self.parentWidget()
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        if window is not None and window is not self._main_window:
            self._main_window = window
            window.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Watch the main window closing; the panel may have a reason to keep it open."""
        told = existing(event)
        if told.type() == QEvent.Type.Close and watched is self._main_window:
            if not self.may_close():
                told.ignore()
                return True
            QTimer.singleShot(0, self._after_close)
        return super().eventFilter(watched, event)

    def may_close(self) -> bool:
        """Return True if the main window may close; a panel with unsaved work may ask the user."""
        return True

    def shut_down(self) -> None:
        """Stop what is under way and let go of the viewer; each panel says how."""
        raise NotImplementedError

    def _after_close(self) -> None:
        window = self._main_window
        try:
            open_still = window is not None and window.isVisible()
        except RuntimeError:  # Qt has deleted it
            open_still = False
        if not open_still:
            self.shut_down()

    def come_forward(self) -> None:
        """Show the panel, whatever tab lies over it."""
        dock = _dock_of(self)
        if dock is not None:
            dock.show()
            dock.raise_()

    def window_around(self) -> QWidget:
        """Find the main window; where there is none, what the panel floats in."""
        return self._main_window or existing(self.window())

    def leave_window(self) -> None:
        """Hear no more of the main window."""
        window, self._main_window = self._main_window, None
        if window is not None:
            with suppress(RuntimeError):  # Qt has deleted it already
                window.removeEventFilter(self)

    def _join_the_others(self) -> None:
        window, mine = self._main_window, _dock_of(self)
        if mine is None or window is None or mine.isFloating():
            return
        for dock in window.findChildren(QDockWidget):
            if dock is mine or dock.isFloating() or not _holds_a_panel(dock):
                continue
            if window.dockWidgetArea(dock) == window.dockWidgetArea(mine):
                window.tabifyDockWidget(dock, mine)
                QTimer.singleShot(0, mine.raise_)  # after tabs are laid out
                return


def find_panel(window: QWidget, title: str) -> Any:
    """Panel of that title in a window; None: it is not open."""
    panels = (w for w in window.findChildren(QWidget) if isinstance(w, Docked))
    return next((panel for panel in panels if panel.title == title), None)


def open_panel(viewer: Any, window: QWidget, title: str) -> Any:
    """Panel of that title, brought forward; opened where it is not there.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    window : QWidget
        The main window.
    title : str
        As in the manifest.
    """
    panel = find_panel(window, title)
    if panel is None:
        _, panel = viewer.window.add_plugin_dock_widget(PLUGIN, title, tabify=True)
    else:
        panel.come_forward()
    return panel


def _holds_a_panel(dock: QDockWidget) -> bool:
    return any(isinstance(each, Docked) for each in dock.findChildren(QWidget))


def _dock_of(widget: QWidget) -> QDockWidget | None:
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
