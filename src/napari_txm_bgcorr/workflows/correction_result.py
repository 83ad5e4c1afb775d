"""Result of `napari_txm_bgcorr.correct`: arrays to look at, to save, to stitch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import LazyTiles, optical_density

from .arguments import path_of
from .corrected_scan import CorrectedScan
from .progress_bars import Bars

__all__ = ["CorrectionResult"]

Place = str | PathLike[str]
IN_MEMORY = 5e8  # bytes of one part of a result that are kept; larger ones stay lazy


class CorrectionResult:
    """A corrected scan: transmissions, backgrounds, what is known of their errors.

    Arrays are `(T, Y, X)`, or `(Y, X)` where one image was given as an array. They are NumPy
    arrays up to about 0.5 GB each; of larger scans they are computed tile by tile when indexed
    (``result.transmission[3]``).

    Attributes
    ----------
    scan : Scan
        Raw tiles, references, and the tiles' places as far as they were registered.
    notes : tuple of str
        What the user should know, a sentence each.
    """

    def __init__(self, corrected: CorrectedScan, flat: bool = False) -> None:
        self._corrected, self._flat = corrected, flat
        self.scan, self.notes = corrected.scan, corrected.notes

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in self.scan.tiles.shape)
        return f"<CorrectionResult of {self.scan.kind} {shape} px by {self.method}>"

    def __len__(self) -> int:
        return len(self.scan)

    @property
    def method(self) -> str:
        """Name of the method."""
        return self._corrected.method.name

    @cached_property
    def _tiles(self) -> dict[str, NDArray[Any]] | None:
        """Every part in memory; None where that is too much."""
        done = self._corrected
        if done.transmission.nbytes > IN_MEMORY:
            return None
        stated = done.uncertainty is not None
        parts = ("background", "transmission", "valid", *(("uncertainty",) if stated else ()))
        tiles = [done.tile(i) for i in range(len(done))]
        return {part: np.stack([getattr(tile, part) for tile in tiles]) for part in parts}

    def _part(self, name: str, lazy: LazyTiles) -> Any:
        held = self._tiles
        stack = lazy if held is None else held[name]
        return stack[0] if self._flat else stack

    @property
    def transmission(self) -> Any:
        """``(raw - dark) / (background - dark)``, float32; 1 where nothing is in the beam."""
        return self._part("transmission", self._corrected.transmission)

    @property
    def optical_density(self) -> Any:
        """``-ln(transmission)``, float32; see `core.optical_density`."""
        found = self.transmission
        if isinstance(found, LazyTiles):
            return LazyTiles(found.shape, np.float32, lambda i: optical_density(found[i]))
        return optical_density(found)

    @property
    def background(self) -> Any:
        """Background as a reference image would show it, float32, counts, dark included."""
        return self._part("background", self._corrected.background)

    @property
    def mask(self) -> Any:
        """Bool, True where the transmission can be trusted."""
        return self._part("valid", self._corrected.valid)

    @property
    def uncertainty(self) -> Any | None:
        """Standard deviation of the log background (0.01: 1 %), its level left out.

        None where the method states none; ``auto`` and ``joint=True`` do.
        """
        lazy = self._corrected.uncertainty
        return None if lazy is None else self._part("uncertainty", lazy)

    @property
    def provenance(self) -> dict[str, Any]:
        """Record of how it was made: source, method, parameters, hashes, versions."""
        return self._corrected.provenance()

    def save(
        self,
        path: Place,
        *,
        format: str = "omezarr",
        parts: Sequence[str] = ("raw", "background", "corrected"),
        overwrite: bool = False,
        progress: bool = False,
    ) -> Path:
        """Write the result.

        Parameters
        ----------
        path : str or Path
            Folder or store to make.
        format : {"omezarr", "ometiff", "tiff"}
            One store, one file a part, or one file a tile.
        parts : sequence of {"raw", "background", "corrected", "mask", "uncertainty"}
        overwrite : bool
            Replace an earlier result, once the new one is complete.
        progress : bool
            Show a bar.

        Returns
        -------
        Path

        Raises
        ------
        ConfigError, WriteError
            If a format or part is not known, or the place is taken or cannot be written.
        """
        with Bars(quiet=not progress) as bars:
            return self._corrected.save(
                path_of(path, "path"), format=format, parts=parts, overwrite=overwrite,
                progress=bars.progress,
            )  # fmt: skip

    def stitch(
        self,
        path: Place,
        *,
        parts: Sequence[str] = ("corrected",),
        domain: str = "transmission",
        format: str = "omezarr",
        overwrite: bool = False,
        progress: bool = False,
    ) -> Path:
        """Blend the tiles of a mosaic into one picture that can be zoomed.

        Parameters
        ----------
        path : str or Path
            Store (or folder) to make.
        parts : sequence of {"raw", "background", "corrected"}
        domain : {"transmission", "od"}
            Of the corrected part; optical density is ``-ln`` of the transmission.
        format : {"omezarr", "ometiff"}
        overwrite : bool
        progress : bool
            Show a bar.

        Returns
        -------
        Path

        Raises
        ------
        ConfigError
            If the scan is no mosaic.
        WriteError
            If the place is taken or cannot be written.
        """
        with Bars(quiet=not progress) as bars:
            return self._corrected.stitch(
                path_of(path, "path"), parts=parts, domain=domain, format=format,
                overwrite=overwrite, progress=bars.progress,
            )  # fmt: skip
