"""Fixtures of the panel's tests: a method that takes its time, and the panel in a viewer."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

# pytest-qt must take the binding that qtpy, and so napari, takes.
if os.environ.get("QT_API"):
    os.environ.setdefault("PYTEST_QT_API", os.environ["QT_API"])

HERE = Path(__file__).parent
NO_DISPLAY = sys.platform.startswith("linux") and not (
    os.environ.get("DISPLAY")
    or os.environ.get("WAYLAND_DISPLAY")
    or os.environ.get("QT_QPA_PLATFORM")
)
# Warnings of napari's own imports and of Qt bindings, none of them about this package.
NOT_OURS = (
    "ignore::pydantic.warnings.PydanticDeprecatedSince20",
    "ignore::pydantic.warnings.PydanticDeprecatedSince211",
    "ignore:.*:DeprecationWarning:vispy",
    "ignore:.*:DeprecationWarning:napari",
    "ignore:.*Failed to disconnect.*:RuntimeWarning",
)


def pytest_configure(config):
    for line in NOT_OURS:
        config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gui)
            if NO_DISPLAY:
                item.add_marker(pytest.mark.skip(reason="no display; run under xvfb-run"))


@pytest.fixture
def steady(monkeypatch):
    """The method ``steady`` in the table; returns its class, to be held or made to fail."""
    from napari_txm_bgcorr.backgrounds.registry import METHODS
    from tests.gui import helpers

    class Own(helpers.Steady):
        hold = threading.Event()

    Own.hold.set()
    monkeypatch.setitem(METHODS, "steady", Own)
    yield Own
    Own.hold.set()


@pytest.fixture
def panel(make_napari_viewer, qtbot, steady, monkeypatch):
    """The panel in a viewer as a user opens it, with the method ``steady`` chosen."""
    from napari_txm_bgcorr.gui.correct import widget as correct_widget
    from napari_txm_bgcorr.gui.correct.messages import Choices

    found = Choices((("default", "default"),), (("cpu", "CPU, 2 cores, 24 GB"),))
    monkeypatch.setattr(correct_widget, "find_choices", lambda stop: iter([found]))
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-txm-bgcorr", "Background correction")
    widget.method_combo.setCurrentIndex(widget.method_combo.findData("steady"))
    qtbot.waitUntil(lambda: not (widget.finder.busy or widget.busy), timeout=20_000)
    yield widget
    steady.hold.set()
    widget.shut_down()


@pytest.fixture
def add_scan(panel):
    """Show a scan the way a drop does."""
    from napari.layers import Layer

    from napari_txm_bgcorr.gui.layers.convert import scan_layer

    def add(scan):
        panel.book.begin_opening()
        layer, _ = scan_layer(scan)
        panel.book.opened(Layer.create(*layer))
        return panel.viewer.layers[-1]

    return add
