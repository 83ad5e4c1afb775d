"""Protocols of background methods: the required one, optional ones, and remarks for the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .progress import SILENT, Progress
from .reference_matching import match_references
from .scan import Scan

__all__ = [
    "UNCERTAINTY_UNIT",
    "BackgroundMethod",
    "FromReferences",
    "PredictsTiles",
    "StatesUncertainty",
    "TilePrediction",
    "method_notes",
    "reference_doubts",
    "reference_notes",
]

UNCERTAINTY_UNIT = "log, standard deviation, level left out"


@runtime_checkable
class BackgroundMethod(Protocol):
    """Interface of every background method, classical or learned.

    Attributes
    ----------
    name : str
        Name in the method table.
    workers : int
        Number of threads that may ask for backgrounds at the same time.
    """

    name: str

    @property
    def workers(self) -> int: ...  # noqa: D102

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Learn what the whole scan tells.

        Raises
        ------
        MethodError
            If that is not enough for this method.
        StoppedError
            If the progress ended it.
        """

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Backgrounds of tiles.

        Parameters
        ----------
        tiles : (N, Y, X) counts
        index : (N,) int or None
            Places of these tiles in the fitted scan; None: tiles it does not hold.

        Returns
        -------
        (N, Y, X) float32, counts
            What a reference would read: dark included, finite, greater than 0.
        """

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""


@runtime_checkable
class StatesUncertainty(Protocol):
    """A background method that, once fitted, says how far its backgrounds may be off."""

    def uncertainty(self, index: int) -> NDArray[np.float32]:
        """Uncertainty of one background.

        Parameters
        ----------
        index : int
            Place of the tile in the fitted scan.

        Returns
        -------
        (Y, X) float32
            Standard deviation of the log background, its level left out: 0.01 is 1 % of the
            background. 0 behind the aperture.
        """


@dataclass(frozen=True, eq=False)
class TilePrediction:
    """Background of some tiles, and what else the method knows about them.

    Attributes
    ----------
    background : (N, Y, X) float32, counts
        As `BackgroundMethod.background` gives it.
    free : (N, Y, X) float32 or None
        Probability of each pixel to be free of sample; None where it cannot tell.
    sd : (N, Y, X) float32 or None
        Standard deviation of the log background, one scale a tile left out; likewise.
    """

    background: NDArray[np.float32]
    free: NDArray[np.float32] | None = None
    sd: NDArray[np.float32] | None = None


@runtime_checkable
class PredictsTiles(Protocol):
    """A background method that sees more in a tile than its background."""

    def predict_tiles(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> TilePrediction:
        """Look at tiles; arguments as of `BackgroundMethod.background`."""


@runtime_checkable
class FromReferences(Protocol):
    """A background method that takes its backgrounds from references where any fit.

    Attributes
    ----------
    knows_drift : bool
        Whether those of the last fit come from references.
    follows_shape : bool
        Whether their shapes were fitted to each tile.
    """

    @property
    def knows_drift(self) -> bool: ...  # noqa: D102

    @property
    def follows_shape(self) -> bool: ...  # noqa: D102

    def with_references(self, scan: Scan) -> Scan:
        """Attach the references that the last fit used, the method's own among them."""


DIVIDE = frozenset({"captured", "eigen-flats"})  # by references, as they were told to
MATCH = frozenset({"auto"})  # take those that match


def method_notes(described: Mapping[str, Any]) -> list[str]:
    """Remarks for the user on the method's last fit, from its description."""
    stage = described.get("joint")
    model = stage.get("notes", ()) if isinstance(stage, Mapping) else ()
    return [str(note) for note in (*described.get("notes", ()), *model)]


def reference_notes(method: str, scan: Scan) -> tuple[str, ...]:
    """Tell how the references of a scan match it, in sentences.

    Parameters
    ----------
    method : str
        Row of the method table; without any sentence for those that use no references.
    scan : Scan
        With references attached.
    """
    match = match_references(scan, levels=method != "eigen-flats")
    if method in DIVIDE:
        return match.divided_notes
    return match.notes if method in MATCH else ()


def reference_doubts(method: str, scan: Scan) -> list[str]:
    """Sentences of `reference_notes` about references of another photon energy."""
    match = match_references(scan, levels=False)
    if not match.missed or method not in DIVIDE | MATCH:
        return []
    notes = match.divided_notes if method in DIVIDE else match.notes
    return [f"{note[0].upper()}{note[1:]}." for note in notes]
