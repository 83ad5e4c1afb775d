"""Hands a trained model to the panel "Background correction"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from napari_txm_bgcorr.backgrounds import LEARNED
from napari_txm_bgcorr.errors import ModelError
from napari_txm_bgcorr.gui.common.dock import find_panel, open_panel
from napari_txm_bgcorr.gui.session import model_label
from napari_txm_bgcorr.models import carries

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtWidgets import QWidget

    from napari_txm_bgcorr.gui.session import Session

__all__ = ["correct_session", "use_model"]

CORRECTION = "Background correction"


def correct_session(viewer: Viewer, window: QWidget) -> Session:
    """State of the correction panel of a window; the panel is opened if it is not there."""
    panel = find_panel(window, CORRECTION)
    if panel is None:
        panel = open_panel(viewer, window, CORRECTION)
    session: Session = panel.session
    return session


def use_model(session: Session, model: str) -> str:
    """Choose a model, and a method that uses one; say what was done.

    Raises
    ------
    ModelError
        If the weights are gone.
    """
    if model.endswith(".safetensors") and not Path(model).is_file():
        raise ModelError(f"{model}: no weights there yet; wait for the first validation")
    session.model = model
    if session.method not in LEARNED:
        session.method = "auto"
    said = f"“Background correction” now uses {model_label(model)}: press Correct there"
    return f"{said}. {found}" if (found := _carries(model)) else said


def _carries(model: str) -> str:
    """Sentence on the references inside a weights file, from its card; empty: none."""
    try:  # the file itself: reading it as a model would import torch here, in the window's thread
        card = json.loads(Path(model).with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # a model's name; or a damaged card, which is said when it is used
    inside = carries(card) if isinstance(card, dict) else ""
    return f"It carries {inside}, and starts from them where you give none" if inside else ""
