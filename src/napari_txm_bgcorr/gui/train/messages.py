"""Messages that the tasks of the training panel send to it, one class per kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.training.run import RunStatus

from .process import RunProcess
from .session import DataItem

__all__ = ["Complaint", "DataFound", "Launched", "Offers", "Reading", "RunNews", "Thumb"]


@dataclass(frozen=True)
class Reading:
    """Data are being looked at."""

    text: str


@dataclass(frozen=True, eq=False)
class Thumb:
    """A small picture of one image.

    Attributes
    ----------
    name : str
    picture : (Y, X) uint8
    warnings : tuple of str
    """

    name: str
    picture: NDArray[np.uint8]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DataFound:
    """A path or layer holds images."""

    item: DataItem
    thumbs: tuple[Thumb, ...]


@dataclass(frozen=True)
class Complaint:
    """A request failed; shown as one line."""

    error: TxmError


@dataclass(frozen=True)
class Launched:
    """The process of a run was started."""

    run: Path
    process: RunProcess


@dataclass(frozen=True, eq=False)
class RunNews:
    """News in a run's folder.

    Attributes
    ----------
    run : Path
    state : str
        One of `training.run.status.STATES`, or ``died``; ``none`` before the first status.
    status : RunStatus or None
    lines : tuple of dict
        New lines of ``metrics.jsonl``.
    anew : bool
        What was told before no longer counts: the run goes on from an earlier step.
    preview : dict of arrays
        The fixed validation tile, if it is new.
    model : bool
        Whether there are weights to use.
    last_words : str
        Of a process that ended without the run saying why.
    """

    run: Path
    state: str
    status: RunStatus | None = None
    lines: tuple[dict[str, Any], ...] = ()
    anew: bool = False
    preview: dict[str, NDArray[Any]] = field(default_factory=dict)
    model: bool = False
    last_words: str = ""


@dataclass(frozen=True)
class Offers:
    """Entries that the settings offer.

    Attributes
    ----------
    devices, models : tuple of (name, label)
    networks : tuple of str
    presets : dict
        Plain settings by preset.
    live : Path or None
        A run that is going on.
    """

    devices: tuple[tuple[str, str], ...] = ()
    models: tuple[tuple[str, str], ...] = ()
    networks: tuple[str, ...] = ()
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    live: Path | None = None
