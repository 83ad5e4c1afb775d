"""The joint stage of a mosaic: one shared shape, smooth errors of each tile, one level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core.beam_levels import hours_of
from napari_txm_bgcorr.core.joint import JointOptions, Solution, solve
from napari_txm_bgcorr.core.legendre import axes, terms
from napari_txm_bgcorr.core.level import Level, find_level
from napari_txm_bgcorr.core.overlap_pattern import enlarge, overlap_pattern
from napari_txm_bgcorr.core.overview import Overview, survey
from napari_txm_bgcorr.core.registration import Positions
from napari_txm_bgcorr.core.scan import LazyTiles, Scan, TileArray
from napari_txm_bgcorr.core.shapes import product, to_counts
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["Joined", "MosaicBackgrounds", "SmoothTerms", "joint"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
DEFAULT = JointOptions()
RIM = 1 / 64  # of the field: the edge of the aperture is blurred


@dataclass(frozen=True, eq=False)
class Joined:
    """Result of the joint stage.

    Attributes
    ----------
    backgrounds : (T, Y, X) lazy float32, counts
        Dark included. The given ones where the stage stepped aside.
    reason : str
        Why it stepped aside; empty where it was applied.
    solution : Solution or None
        Of a mosaic.
    levels : (T,) float64
        Log counts of each background at the level of the shared shape; empty if not applied.
    level : Level or None
        Where the level comes from; None where the stage stepped aside.
    facts : mapping
        Figures for the provenance, JSON-ready.
    """

    backgrounds: TileArray
    reason: str = ""
    solution: Solution | None = None
    levels: Floats = field(default_factory=lambda: np.empty(0))
    level: Level | None = None

    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def applied(self) -> bool:
        """Whether backgrounds were refined."""
        return self.level is not None


def joint(
    scan: Scan,
    backgrounds: TileArray,
    positions: Positions | Floats,
    *,
    overview: Overview | None = None,
    options: JointOptions = DEFAULT,
    i0: float | None = None,
    workers: int = 1,
    watch: Watch = SILENT,
) -> Joined:
    """Refine the backgrounds of a mosaic together; see the page "Mosaic" of the documentation.

    Parameters
    ----------
    scan : Scan
    backgrounds : (T, Y, X) array-like, counts
        Of any method, dark included.
    positions : Positions or (T, 2) float64
        Registered places of the tiles.
    overview : Overview or None
        Of an earlier `survey` of the same backgrounds.
    options : JointOptions
    i0 : float or None
        Counts of the open beam, dark removed: median over the lit field.
    workers : int
        Threads; the same result for any number.
    watch : Watch
        Told how far it is.

    Returns
    -------
    Joined
        With a reason and the backgrounds as given where it cannot help.

    Raises
    ------
    StoppedError
        If the watch ended it.
    """
    if overview is None:
        overview = survey(scan, backgrounds, workers=workers, watch=watch)
    places = positions.positions_px if isinstance(positions, Positions) else positions
    places = np.asarray(places, np.float64)
    found = solve(overview, places, hours_of(scan), options, watch, workers)
    if isinstance(found, str):
        return Joined(backgrounds, found)
    overview = overview.mixed(found.shares)
    smooth = SmoothTerms(found.shared, found.tiles, options.shared_degree, options.tile_degree)
    on_bins = axes(overview.raw.shape[1:], smooth.degree)
    pattern = overlap_pattern(
        overview, places, lambda i: smooth(i, on_bins, level=True), watch, workers
    )

    def residual(i: int) -> Image:
        log = overview.raw[i] + np.float32(overview.raw_level[i])
        out: Image = log - smooth(i, on_bins, level=True) - pattern
        return out

    middle = float(np.median(found.tiles[:, 0]))
    level = find_level(
        scan, overview, residual, i0=i0, found_level=middle, workers=workers, watch=watch
    )
    if level.source == "relative":  # that of the method
        level = Level("relative", float(np.nanmedian(found.method_level - found.tiles[:, 0])))
    levels = found.tiles[:, 0] + level.shift
    shape = overview.shape + enlarge(pattern, overview.lit.shape, overview.bin_px)
    closed = _closed(overview.lit)
    shape[closed] = np.float32(overview.unlit_level)
    lazy = MosaicBackgrounds(scan.dark(), shape, ~closed, smooth, levels)
    facts = {
        "overlaps": found.overlaps,
        "seam_before": round(found.seam_before, 5),
        "seam_after": round(found.seam_after, 5),
    }
    return Joined(lazy, "", found, levels, level, facts)


def _closed(lit: Mask) -> Mask:
    """Where the aperture surely lets nothing through: its rim is left as the shape has it."""
    rim = max(1, round(RIM * max(lit.shape)))
    out: Mask = ndimage.binary_erosion(~lit, iterations=rim, border_value=1)
    return out


@dataclass(frozen=True, eq=False)
class SmoothTerms:
    """Legendre terms of what the shared shape is off, everywhere and in each tile.

    Attributes
    ----------
    shared : (K_f,) float64
        Tilts and higher.
    tiles : (T, K_g) float64
        The first is the level.
    shared_degree, tile_degree : int
    """

    shared: Floats
    tiles: Floats
    shared_degree: int
    tile_degree: int

    @property
    def degree(self) -> int:
        """The higher of both, for `axes`."""
        return max(self.shared_degree, self.tile_degree)

    def __call__(self, i: int, axes: tuple[Image, Image], *, level: bool = False) -> Image:
        """Tilts and higher terms of tile `i`, `(y, x)`, and its level if wanted."""
        table = np.zeros((axes[0].shape[1], axes[1].shape[1]), np.float32)
        shared, own = terms(self.shared_degree), terms(self.tile_degree)
        for (a, b), value in zip(shared[1:], self.shared, strict=True):
            table[a, b] += value
        for (a, b), value in zip(own, self.tiles[i], strict=True):
            table[a, b] += value
        if not level:
            table[0, 0] = 0
        return product(axes[0] @ table, axes[1].T)


class MosaicBackgrounds(LazyTiles):
    """Backgrounds `(T, Y, X)` in counts: shared log shape, smooth terms, level.

    Parameters
    ----------
    dark : (Y, X) float32, counts, or None
    shape : (Y, X) float32
        Log, median 0; behind the aperture log counts, the same in every tile.
    lit : (Y, X) bool
        False behind the aperture.
    smooth : SmoothTerms
    levels : (T,) float64
        Log counts, dark removed.
    """

    def __init__(
        self, dark: Image | None, shape: Image, lit: Mask, smooth: SmoothTerms, levels: Floats
    ) -> None:
        rows, columns = shape.shape
        super().__init__((len(levels), rows, columns), np.float32, self._background)
        self._dark, self._log, self._lit = dark, shape, lit
        self._smooth, self._levels = smooth, levels
        self._axes = axes(shape.shape, smooth.degree)

    def _background(self, i: int) -> Image:
        log: Image = self._smooth(i, self._axes)
        log += np.float32(self._levels[i])
        log *= self._lit
        log += self._log
        return to_counts(log, self._dark)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds, by name, for `of`."""
        smooth = self._smooth
        found: dict[str, NDArray[Any]] = {
            "shape": self._log,
            "lit": self._lit,
            "shared": smooth.shared,
            "tiles": smooth.tiles,
            "degrees": np.array([smooth.shared_degree, smooth.tile_degree], np.int64),
            "levels": self._levels,
        }
        return found if self._dark is None else found | {"dark": self._dark}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make them from `arrays`; the same bits.

        Raises
        ------
        KeyError
            If one is missing.
        """
        shared_degree, tile_degree = (int(n) for n in arrays["degrees"])
        smooth = SmoothTerms(arrays["shared"], arrays["tiles"], shared_degree, tile_degree)
        return cls(arrays.get("dark"), arrays["shape"], arrays["lit"], smooth, arrays["levels"])
