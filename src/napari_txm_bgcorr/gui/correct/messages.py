"""Messages that a task sends to the correction panel, one class per kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.gui.common.messages import Advanced, Failed, Preparing, Saved, Shown
from napari_txm_bgcorr.gui.layers.result import Result

__all__ = [
    "Choices",
    "Doubted",
    "Finished",
    "Message",
    "Opened",
    "Reopened",
    "Started",
]


@dataclass(frozen=True, eq=False)
class Opened:
    """A path was read: its layer, and the pyramid that is being filled."""

    scan: Scan
    layer: tuple[Any, dict[str, Any], str]


@dataclass(frozen=True, eq=False)
class Reopened:
    """A finished output was opened: a result, and its layers."""

    result: Result
    layers: tuple[tuple[Any, dict[str, Any], str], ...]


@dataclass(frozen=True, eq=False)
class Started:
    """The method is fitted; the result may be shown, empty still."""

    key: int
    result: Result


@dataclass(frozen=True)
class Doubted:
    """The data differ from the model's training data: warnings, and files to fine-tune on."""

    sentences: tuple[str, ...]
    references: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Finished:
    """One scan is done, or as much of it as there was time for."""

    key: int
    result: Result
    cancelled: bool


@dataclass(frozen=True)
class Choices:
    """Entries of the combo boxes: `(name, label)` pairs."""

    models: tuple[tuple[str, str], ...]
    devices: tuple[tuple[str, str], ...]


Message = (
    Opened | Reopened | Preparing | Started | Advanced | Finished | Failed | Saved | Shown
    | Choices | Doubted
)  # fmt: skip
