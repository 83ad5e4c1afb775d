"""What the joint stage found, as plain arrays: for other processes that correct the same scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.mosaic import Joint
from napari_txm_bgcorr.core.refined import MosaicBackgrounds
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.series import SeriesBackgrounds

__all__ = ["Restored", "arrays_of", "restored"]

Arrays = Mapping[str, NDArray[Any]]


class Restored:
    """A background method that answers with what a joint stage found elsewhere.

    Parameters
    ----------
    joint : Joint
        As it was asked for; not fitted.
    backgrounds : MosaicBackgrounds or SeriesBackgrounds
    described : mapping
        What the fitted stage said of itself.
    """

    def __init__(
        self,
        joint: Joint,
        backgrounds: MosaicBackgrounds | SeriesBackgrounds,
        described: Mapping[str, Any],
    ) -> None:
        self.name, self.workers = joint.name, joint.workers
        self._backgrounds, self._described = backgrounds, dict(described)

    def fit(self, scan: Scan) -> Self:
        """Nothing is left to do.

        Raises
        ------
        MethodError
            If the scan is of another size.
        """
        if tuple(scan.tiles.shape) != self._backgrounds.shape:
            raise MethodError(
                f"{scan.source.path}: tiles {tuple(scan.tiles.shape)}, fitted to "
                f"{self._backgrounds.shape}; fit the method to this scan"
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
            out[k] = self._backgrounds[int(i)]
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        return self._described


def arrays_of(joint: Joint) -> dict[str, NDArray[Any]]:
    """Everything that a fitted joint stage knows of the backgrounds.

    Returns
    -------
    dict of arrays
        Empty where the stage stepped aside: the method under it says all.
    """
    done = joint.joined
    if done is None or not done.applied:
        return {}
    if not isinstance(done.backgrounds, (MosaicBackgrounds, SeriesBackgrounds)):
        raise MethodError(f"{joint.name}: backgrounds that cannot be told as arrays")
    return done.backgrounds.arrays()


def restored(joint: Joint, arrays: Arrays, described: Mapping[str, Any], scan: Scan) -> Restored:
    """Make a method from `arrays_of`; its backgrounds are the same bits.

    Parameters
    ----------
    joint : Joint
        As it was asked for; not fitted.
    arrays : mapping of arrays
        Not empty.
    described : mapping
        What the fitted stage said of itself.
    scan : Scan
        That it was fitted to.

    Raises
    ------
    MethodError
        If the arrays are not those of this scan.
    """
    kind = SeriesBackgrounds if "cells" in arrays else MosaicBackgrounds
    try:
        method = Restored(joint, kind.of(arrays), described)
        ends = np.array([0, len(scan) - 1])
        tried = method.fit(scan).background(np.empty((2, *scan.tiles.shape[1:])), ends)
    except (LookupError, ValueError, TypeError) as error:
        raise MethodError(f"{scan.source.path}: arrays that do not fit it ({error})") from error
    if not np.isfinite(tried).all():
        raise MethodError(f"{scan.source.path}: a background that is not finite")
    return method
