"""Messages that any task sends to its panel, one class per kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.errors import TxmError

__all__ = ["Advanced", "Failed", "Preparing", "Saved", "Shown", "Tell"]

Tell = Callable[[Any], None]
"""Takes the messages of steps that cannot yield them."""


@dataclass(frozen=True)
class Preparing:
    """A task of unknown length is under way."""

    text: str


@dataclass(frozen=True)
class Advanced:
    """Tiles done of all, and the time the others will take."""

    done: int
    total: int
    seconds_left: float | None
    text: str = ""


@dataclass(frozen=True)
class Failed:
    """One path or scan could not be treated; the others go on."""

    error: TxmError


@dataclass(frozen=True)
class Saved:
    """A result was written."""

    path: Path


@dataclass(frozen=True, eq=False)
class Shown:
    """Pictures to look at, as layer data tuples."""

    layers: tuple[tuple[Any, dict[str, Any], str], ...]
