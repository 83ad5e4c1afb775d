"""Panels of the plugin share one place of the window, and end with it."""

from qtpy.QtWidgets import QDockWidget, QWidget

from napari_txm_bgcorr.gui.common.dock import Docked


class Panel(Docked, QWidget):
    ended = 0

    def shut_down(self):
        self.ended += 1
        self.leave_window()


def docks(viewer, *panels):
    return [viewer.window.add_dock_widget(panel, name=str(k)) for k, panel in enumerate(panels)]


def test_panels_become_tabs_of_one_dock_the_newest_in_front(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    panels = Panel(), Panel()
    first, second = docks(viewer, *panels)
    window = viewer.window._qt_window
    qtbot.waitUntil(lambda: second in window.tabifiedDockWidgets(first), timeout=5000)
    window.show()
    qtbot.waitUntil(lambda: not second.visibleRegion().isEmpty(), timeout=5000)
    assert first.visibleRegion().isEmpty()
    window.hide()
    for panel in panels:
        panel.leave_window()


def test_titles_leave_out_the_plugins_name(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    panel = Panel()
    dock = viewer.window.add_dock_widget(panel, name="Quality of tiles (the-plugin)")
    qtbot.waitUntil(lambda: dock.windowTitle() == "Quality of tiles", timeout=5000)
    assert dock.titleBarWidget().title.text() == "Quality of tiles"
    dock.setFloating(True)  # napari makes a new title bar
    qtbot.waitUntil(lambda: dock.titleBarWidget().title.text() == "Quality of tiles", timeout=5000)
    panel.leave_window()
    viewer.window.remove_dock_widget(dock)  # known under its whole name still


def test_docks_of_others_are_left_where_they_are(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    panel = Panel()
    (mine,) = docks(viewer, panel)
    other = viewer.window.add_dock_widget(QWidget(), name="other")
    qtbot.wait(200)
    window = viewer.window._qt_window
    assert other not in window.tabifiedDockWidgets(mine)
    assert mine in window.findChildren(QDockWidget)
    panel.leave_window()


def test_a_panel_taken_out_of_its_dock_is_shut_down(make_napari_viewer):
    viewer = make_napari_viewer()
    panel = Panel()
    (dock,) = docks(viewer, panel)
    viewer.window.remove_dock_widget(dock)
    assert panel.ended >= 1


def test_closing_the_window_ends_the_panel_unless_it_objects(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    panel = Panel()
    panel.may_close = lambda: False
    docks(viewer, panel)
    window = viewer.window._qt_window
    qtbot.waitUntil(lambda: panel._main_window is window, timeout=5000)
    window.close()
    qtbot.wait(100)
    assert window.isVisible() and not panel.ended
    panel.may_close = lambda: True
    viewer.close()
    qtbot.waitUntil(lambda: panel.ended > 0, timeout=5000)
    assert panel._main_window is None
