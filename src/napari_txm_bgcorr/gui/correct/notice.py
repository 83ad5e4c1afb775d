"""Frame with warnings about a model and the data, and a button that opens the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_txm_bgcorr.gui.common.dock import open_panel
from napari_txm_bgcorr.gui.common.plots import theme_colours
from napari_txm_bgcorr.gui.common.widgets import existing, named_button, wrapped_label

__all__ = ["Notice", "open_training"]

TRAINING = "Train background model"
STYLE = "Notice {{ border: 1px solid {colour}; border-radius: 4px; }}"
WITH = "Opens “Train background model” with {what}: a few minutes on images of the empty beam"
NOTHING = "no references yet: drop today's images of the empty beam there"


class Notice(QFrame):
    """Sentences in a frame, with a button that opens the training panel; hidden without any.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    panel : QWidget
        That it is part of.
    """

    def __init__(self, viewer: Any, panel: QWidget) -> None:
        super().__init__(panel)
        self.setObjectName("notice")
        self._viewer, self._panel = viewer, panel
        self.references: tuple[Path, ...] = ()
        self.words = wrapped_label("notice_label")
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.button = named_button("fine_tune_button", "Fine-tune…", "")
        self.button.clicked.connect(
            lambda: open_training(self._viewer, existing(self._panel.window()), self.references)
        )
        sign = QLabel("⚠")
        sign.setAlignment(Qt.AlignmentFlag.AlignTop)
        row = QHBoxLayout()
        row.addWidget(sign)
        row.addWidget(self.words, 1)
        below = QHBoxLayout()
        below.addStretch(1)
        below.addWidget(self.button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(3)
        layout.addLayout(row)
        layout.addLayout(below)
        self.take_theme()
        self.hide()

    def take_theme(self, event: Any = None) -> None:
        """Draw the frame in the warning colour of napari's theme."""
        self.setStyleSheet(STYLE.format(colour=theme_colours(self._viewer.theme)["warning"]))

    def tell(self, sentences: Sequence[str], references: Sequence[Path] = ()) -> None:
        """Show sentences, or hide where there are none.

        Parameters
        ----------
        sentences : sequence of str
        references : sequence of Path
            What a fine-tuning would learn from.
        """
        self.references = tuple(references)
        self.words.setText("\n".join(sentences))
        names = ", ".join(path.name for path in self.references[:3])
        more = f" and {len(self.references) - 3} more" if len(self.references) > 3 else ""
        self.button.setToolTip(WITH.format(what=names + more or NOTHING))
        self.setVisible(bool(sentences))


def open_training(viewer: Any, window: QWidget, references: Sequence[Path]) -> Any:
    """Show the training panel, opened where it is not, with references to fine-tune on.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    window : QWidget
        The main window.
    references : sequence of Path

    Returns
    -------
    TrainWidget
    """
    panel = open_panel(viewer, window, TRAINING)
    panel.take_references(list(references))
    return panel
