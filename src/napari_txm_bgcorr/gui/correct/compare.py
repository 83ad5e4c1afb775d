"""Before and after: a slider that fades the corrected layers over the raw ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QHBoxLayout, QLabel, QShortcut, QSlider, QToolButton, QWidget

from .uncertainty_button import UncertaintyButton

__all__ = ["TOGGLE_KEY", "CompareBar"]

TOGGLE_KEY = "Shift+B"


class CompareBar(QWidget):
    """Slider from raw to corrected, and a button (and key) to jump between the two.

    Parameters
    ----------
    pairs : callable
        Returns ``(raw, corrected)`` layers that are shown; raw may be None.
    uncertainty : UncertaintyButton
        Stands at the end of the row.
    """

    def __init__(
        self,
        pairs: Callable[[], Iterable[tuple[Any, Any]]],
        uncertainty: UncertaintyButton,
    ) -> None:
        super().__init__()
        self._pairs, self._uncertainty = pairs, uncertainty
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setObjectName("compare_slider")
        self.slider.setRange(0, 100)
        self.slider.setValue(100)
        self.slider.setToolTip("Fade from the raw to the corrected image")
        self.button = QToolButton()
        self.button.setObjectName("compare_button")
        self.button.setText("Swap")
        self.button.setToolTip(f"Swap raw and corrected ({TOGGLE_KEY})")
        self.shortcut = QShortcut(QKeySequence(TOGGLE_KEY), self)
        self.shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
        self.shortcut.activated.connect(self.swap)
        self.button.clicked.connect(self.swap)
        self.slider.valueChanged.connect(self.apply)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("Raw"))
        layout.addWidget(self.slider, 1)
        layout.addWidget(QLabel("Corrected"))
        layout.addWidget(self.button)
        layout.addWidget(uncertainty)
        self.setEnabled(False)

    def refresh(self) -> None:
        """Enable the bar where there is something to compare."""
        self.setEnabled(any(True for _ in self._pairs()))
        self._uncertainty.refresh()

    def swap(self) -> None:
        """Jump to the other side."""
        if self.isEnabled():
            self.slider.setValue(0 if self.slider.value() > 50 else 100)

    def apply(self) -> None:
        """Set the layers' opacity."""
        share = self.slider.value() / 100
        for raw, corrected in self._pairs():
            corrected.visible = share > 0
            corrected.opacity = max(share, 0.01)
            if raw is not None and share < 1:
                raw.visible = True
