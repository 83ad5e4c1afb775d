"""The protocols of background methods: what each offers, and what some offer besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .scan import Scan

__all__ = [
    "UNCERTAINTY_UNIT",
    "BackgroundMethod",
    "PredictsTiles",
    "StatesUncertainty",
    "TilePrediction",
]

UNCERTAINTY_UNIT = "log, standard deviation, level left out"


@runtime_checkable
class BackgroundMethod(Protocol):
    """What every background method offers, classical or learned."""

    name: str

    def fit(self, scan: Scan) -> Self:
        """Learn what the whole scan tells; raise `MethodError` where that is not enough."""

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
    """What a look at some tiles tells.

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
