"""A scan corrected in memory: tiles are computed when they are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from napari_txm_bgcorr.core import (
    SILENT,
    BackgroundMethod,
    LazyTiles,
    Progress,
    Scan,
    StatesUncertainty,
    TileArray,
    TileResult,
    correct_tiles,
    method_notes,
)
from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.mosaic import registered

from .config import CorrectionConfig
from .prepare import attach, method_of, model_notes
from .saving import record_of, save_tiles

__all__ = ["CorrectedScan", "correct_scan"]

KEPT = 4  # tiles: raw, background, transmission and mask of one are asked for together
STITCHED = ("raw", "background", "corrected")


def correct_scan(
    scan: Scan,
    config: CorrectionConfig,
    progress: Progress = SILENT,
    *,
    repeatable: bool = True,
) -> CorrectedScan:
    """Fit the method to a scan; its tiles are corrected when they are looked at.

    Parameters
    ----------
    scan : Scan
    config : CorrectionConfig
        Its inputs are for the record, its output is not used.
    progress : Progress
        Of the fit.
    repeatable : bool
        See `record_of`.

    Raises
    ------
    AlreadyCorrectedError
        If the scan is a corrected result and `force` is not set.
    TxmError
        If a reference cannot be read or the method cannot work on the scan.
    """
    ready = attach(scan, config)
    unfit = model_notes([ready], config)
    method = method_of(config).fit(ready, progress)
    described = method.describe()
    placed = registered(ready, described)
    notes = dict.fromkeys([*placed.notes, *method_notes(described), *unfit])
    return CorrectedScan(placed, method, config, tuple(notes), repeatable=repeatable)


class CorrectedScan:
    """Result of a correction, computed tile by tile.

    Parameters
    ----------
    scan : Scan
        Scan with its references, at registered positions.
    method : BackgroundMethod
        Method, fitted to the scan.
    config : CorrectionConfig
    notes : tuple of str
    repeatable : bool
        See `record_of`.

    Attributes
    ----------
    notes : tuple of str
        Remarks for the user, one sentence each.
    """

    def __init__(
        self,
        scan: Scan,
        method: BackgroundMethod,
        config: CorrectionConfig,
        notes: tuple[str, ...] = (),
        *,
        repeatable: bool = True,
    ) -> None:
        self.scan, self.method, self.config, self.notes = scan, method, config, notes
        self._repeatable = repeatable
        self.tile = lru_cache(maxsize=KEPT)(self._tile)

    def _tile(self, i: int) -> TileResult:
        stated = isinstance(self.method, StatesUncertainty)
        (done,) = correct_tiles(self.scan, self.method, indices=[i], uncertainty=stated)
        return done

    def __len__(self) -> int:
        return len(self.scan)

    def _lazy(self, dtype: Any, part: str) -> LazyTiles:
        count, rows, columns = (int(n) for n in self.scan.tiles.shape)
        return LazyTiles((count, rows, columns), dtype, lambda i: getattr(self.tile(i), part))

    @property
    def raw(self) -> TileArray:
        """Raw tiles `(T, Y, X)`, counts."""
        return self.scan.tiles

    @property
    def background(self) -> LazyTiles:
        """Backgrounds `(T, Y, X)` float32, counts: as a reference would show them."""
        return self._lazy(np.float32, "background")

    @property
    def transmission(self) -> LazyTiles:
        """Transmissions `(T, Y, X)` float32: 1 where nothing is in the beam."""
        return self._lazy(np.float32, "transmission")

    @property
    def valid(self) -> LazyTiles:
        """Pixels `(T, Y, X)` bool whose transmission can be trusted."""
        return self._lazy(np.bool_, "valid")

    @property
    def uncertainty(self) -> LazyTiles | None:
        """Standard deviation `(T, Y, X)` float32 of the log background; None: not stated."""
        stated = isinstance(self.method, StatesUncertainty)
        return self._lazy(np.float32, "uncertainty") if stated else None

    def provenance(self, out: Path | None = None) -> dict[str, Any]:
        """Record of how it was made, JSON-ready.

        Parameters
        ----------
        out : Path, optional
            Of the output that keeps it.
        """
        return self._record(self.config.replaced(output=out))

    def _record(self, config: CorrectionConfig) -> dict[str, Any]:
        return record_of(self.scan, self.method, config, repeatable=self._repeatable)

    def save(
        self,
        out: Path,
        *,
        format: str = "omezarr",
        parts: Sequence[str] = ("raw", "background", "corrected"),
        overwrite: bool = False,
        progress: Progress = SILENT,
    ) -> Path:
        """Write it; see `io.open_output`. An interrupted call goes on where it stopped.

        Raises
        ------
        ConfigError
            If there is no such format or part.
        WriteError
            If the place is taken or cannot be written.
        """
        from napari_txm_bgcorr import io

        config = self.config.replaced(output=out, format=format, save=parts, overwrite=overwrite)
        io.check_place(out, self.scan, config.parts, overwrite=True)
        stated = "uncertainty" in config.parts
        record = self._record(config)
        for done in save_tiles(
            out,
            self.scan,
            record,
            lambda todo: correct_tiles(self.scan, self.method, indices=todo, uncertainty=stated),
            format=format,
            parts=config.parts,
            overwrite=overwrite,
        ):
            progress.step("writing", done, len(self))
        return out

    def stitch(
        self,
        out: Path,
        *,
        parts: Sequence[str] = ("corrected",),
        domain: str = "transmission",
        format: str = "omezarr",
        overwrite: bool = False,
        progress: Progress = SILENT,
    ) -> Path:
        """Blend the tiles of a mosaic into one picture that can be zoomed.

        Raises
        ------
        ConfigError
            If the scan is no mosaic.
        WriteError
            If the place is taken or cannot be written.
        """
        from napari_txm_bgcorr.io.output import Places, TileParts, find_places

        from .stitching.blocks import StitchOptions, stitch_tiles

        if self.scan.kind != "mosaic":
            raise ConfigError(f"{self.scan.source.path}: a {self.scan.kind} scan is no mosaic")
        source = TileParts(out, self._scans(), self.provenance())
        described = self.method.describe().get("joint")
        if isinstance(described, dict) and described.get("pairs_registered"):
            where = np.asarray(self.scan.positions_px)
            places = Places(where, "registered", "in the correction")
        else:
            places = find_places(source)

        def report(done: int, total: int) -> None:
            progress.step("stitching", done, total)

        options = StitchOptions(tuple(parts), domain, format, overwrite=overwrite)
        stitch_tiles(source, places, out, options, report=report)
        return out

    def _scans(self) -> dict[str, Scan]:
        """Parts to be stitched."""
        mask = LazyTiles(
            self.background.shape, np.uint8, lambda i: self.tile(i).valid.astype(np.uint8)
        )
        stores: dict[str, TileArray] = {
            "raw": self.raw,
            "background": self.background,
            "corrected": self.transmission,
            "mask": mask,
        }
        return {part: replace(self.scan, tiles=tiles) for part, tiles in stores.items()}
