"""Backgrounds that were computed before, as a background method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    SILENT,
    BackgroundMethod,
    FromReferences,
    PredictsTiles,
    Progress,
    Scan,
    TileArray,
    TilePrediction,
)
from napari_txm_bgcorr.errors import MethodError

__all__ = ["StoredBackgrounds"]


class StoredBackgrounds:
    """The backgrounds of a complete result as a background method that computes nothing.

    Parameters
    ----------
    backgrounds : (T, Y, X) counts
        Read one by one.
    name : str
        Of the method that made them.
    method : BackgroundMethod or None
        That method, fitted, for its description; None: it is not at hand.
    """

    def __init__(
        self, backgrounds: TileArray, name: str, method: BackgroundMethod | None = None
    ) -> None:
        self.backgrounds, self.name, self.method = backgrounds, name, method

    @property
    def workers(self) -> int:
        """Threads that may each ask for a background."""
        return 1 if self.method is None else self.method.workers

    @property
    def knows_drift(self) -> bool:
        """True if the backgrounds come from references."""
        return isinstance(self.method, FromReferences) and self.method.knows_drift

    @property
    def follows_shape(self) -> bool:
        """True if the shapes of the backgrounds were fitted to each tile."""
        return isinstance(self.method, FromReferences) and self.method.follows_shape

    def with_references(self, scan: Scan) -> Scan:
        """The scan with the references that the method used, which may be its own."""
        if not isinstance(self.method, FromReferences):
            return scan
        return self.method.with_references(scan)

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Return itself: the backgrounds are already computed."""
        return self

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Backgrounds `(N, Y, X)` in counts of tiles of the result.

        Raises
        ------
        MethodError
            If the tiles are not of this result.
        """
        if index is None:
            raise MethodError(f"{self.name}: only the tiles of its own scan have a background")
        return np.stack([self.backgrounds[int(i)] for i in index])

    def predict_tiles(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> TilePrediction:
        """Stored backgrounds, with the method's other predictions for the tiles."""
        background = self.background(tiles, index)
        if not isinstance(self.method, PredictsTiles):
            return TilePrediction(background)
        return replace(self.method.predict_tiles(tiles, index), background=background)

    def describe(self) -> dict[str, Any]:
        """Parameters of the method that made them."""
        return {} if self.method is None else self.method.describe()
