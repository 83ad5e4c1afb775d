"""A fitted drift model as plain arrays: for other processes that correct the same scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import SILENT, Progress, Scan
from napari_txm_bgcorr.errors import MethodError

from .lazy_backgrounds import DriftBackgrounds
from .model import DriftModel

__all__ = ["Restored", "restored"]

Arrays = Mapping[str, NDArray[Any]]


class Restored:
    """A background method that answers with what a drift model found elsewhere.

    Parameters
    ----------
    model : DriftModel
        As it was asked for; not fitted.
    backgrounds : DriftBackgrounds
    described : mapping
        What the fitted model said of itself.
    """

    def __init__(
        self, model: DriftModel, backgrounds: DriftBackgrounds, described: Mapping[str, Any]
    ) -> None:
        self.name, self.workers = model.name, model.workers
        self.backgrounds, self._described = backgrounds, dict(described)

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Check that the scan is the fitted one; the fit itself is complete.

        Raises
        ------
        MethodError
            If the scan is of another size.
        """
        if tuple(scan.tiles.shape) != self.backgrounds.shape:
            raise MethodError(
                f"{scan.source.path}: tiles {tuple(scan.tiles.shape)}, fitted to "
                f"{self.backgrounds.shape}; fit the method to this scan"
            )
        return self

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Backgrounds of tiles `(N, Y, X)` of the scan, in counts; see `BackgroundMethod`.

        Raises
        ------
        MethodError
            If the tiles are not of the scan.
        """
        if index is None:
            raise MethodError(f"{self.name}: these tiles are not of the scan it was fitted to")
        out = np.empty(tiles.shape, np.float32)
        for k, i in enumerate(index):
            out[k] = self.backgrounds[int(i)]
        return out

    def uncertainty(self, index: int) -> NDArray[np.float32]:
        """Standard deviation `(Y, X)` of the log background of a tile, its level left out."""
        return self.backgrounds.uncertainty(index)

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        return self._described


def restored(
    model: DriftModel, arrays: Arrays, described: Mapping[str, Any], scan: Scan
) -> Restored:
    """Make a method from the arrays of a fitted model's backgrounds; the same bits.

    Parameters
    ----------
    model : DriftModel
        As it was asked for; not fitted.
    arrays : mapping of arrays
        Of `DriftBackgrounds.arrays`.
    described : mapping
        What the fitted model said of itself.
    scan : Scan
        That it was fitted to.

    Raises
    ------
    MethodError
        If the arrays are not those of this scan.
    """
    try:
        method = Restored(model, DriftBackgrounds.of(arrays), described)
        ends = np.array([0, len(scan) - 1])
        tried = method.fit(scan).background(np.empty((2, *scan.tiles.shape[1:])), ends)
        for i in ends:
            method.uncertainty(int(i))
    except (LookupError, ValueError, TypeError) as error:
        raise MethodError(f"{scan.source.path}: arrays that do not fit it ({error})") from error
    if not np.isfinite(tried).all():
        raise MethodError(f"{scan.source.path}: a background that is not finite")
    return method
