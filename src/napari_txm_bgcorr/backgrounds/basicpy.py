"""BaSiC through the optional package BaSiCPy (extra ``basic``).

T. Peng et al., "A BaSiC tool for background and shading correction of optical microscopy
images", Nature Communications 8 (2017) 14836.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.smooth_fields import log_beam, spread_indices
from napari_txm_bgcorr.errors import MethodError

from .tile_median import scaled_backgrounds

__all__ = ["Basic"]

Image = NDArray[np.float32]


class Basic:
    """Low-rank and sparse decomposition of the scan's tiles, by BaSiCPy.

    Its flat field gives the shape; the level of each tile is set as in `TileMedian`.

    Parameters
    ----------
    tiles : int
        Tiles to use, spread evenly over the scan.

    Raises
    ------
    MethodError
        If BaSiCPy is not installed or `tiles` is below 3.
    """

    name = "basic"

    def __init__(self, tiles: int = 64) -> None:
        if tiles < 3:
            raise MethodError(f"tiles {tiles}: give 3 or more")
        self.tiles = int(tiles)
        self._package = _basicpy()
        self._dark: Image | None = None
        self._shape: Image | None = None

    def fit(self, scan: Scan) -> Self:
        """Decompose the tiles.

        Raises
        ------
        MethodError
            If the scan has fewer than 3 tiles, or BaSiCPy fails on it.
        """
        if len(scan) < 3:
            raise MethodError(
                f"{scan.source.path}: {len(scan)} tiles, basic needs 3 or more; "
                "choose smooth, envelope or generator"
            )
        self._dark = scan.dark()
        chosen = spread_indices(len(scan), self.tiles)
        stack = np.stack([np.exp(log_beam(scan.tiles[i], self._dark)) for i in chosen])
        model = self._package.BaSiC(get_darkfield=False)
        try:
            model.fit(stack)
        except (ValueError, RuntimeError, ArithmeticError) as error:
            raise MethodError(
                f"{scan.source.path}: BaSiCPy: {error}; choose another method"
            ) from error
        self._shape = log_beam(np.asarray(model.flatfield, np.float32), None)
        return self

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """The flat field at each tile's own level; see `BackgroundMethod`."""
        if self._shape is None:
            raise MethodError("basic: not fitted; call fit(scan) first")
        return scaled_backgrounds(tiles, self._shape, self._dark)

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"tiles": self.tiles, "basicpy": _version()}


def _version() -> str:
    """BaSiCPy's version; the package itself does not say it."""
    try:
        return importlib.metadata.version("basicpy")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _basicpy() -> Any:
    try:
        return importlib.import_module("basicpy")
    except ImportError as error:
        raise MethodError(
            "method basic: BaSiCPy is not installed; "
            "pip install 'napari-txm-bgcorr[basic]', then pip install --no-deps basicpy; "
            "or choose tile-median"
        ) from error
