"""The joint stage of a mosaic: one shared shape, smooth errors of each tile, one level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core.beam_levels import hours_of
from napari_txm_bgcorr.core.changing_shape import CELLS, change_of
from napari_txm_bgcorr.core.joint import JointOptions, Solution, solve
from napari_txm_bgcorr.core.legendre import axes, terms
from napari_txm_bgcorr.core.level import Level, find_level
from napari_txm_bgcorr.core.overlap_pattern import enlarge, overlap_pattern
from napari_txm_bgcorr.core.overlap_system import scatter
from napari_txm_bgcorr.core.overview import Overview, survey
from napari_txm_bgcorr.core.registration import Positions
from napari_txm_bgcorr.core.scan import LazyTiles, Scan, TileArray
from napari_txm_bgcorr.core.shapes import Coarse, product, to_counts
from napari_txm_bgcorr.core.threads import spread
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
    flat = _Flattened(overview, smooth)
    change = change_of(
        np.stack(list(spread(flat.cells, range(len(overview)), workers))),
        flat.known, hours_of(scan), found.compared, found.left, watch,
    )  # fmt: skip
    pattern = overlap_pattern(
        overview, places, lambda i: flat.smooth(i) + flat.expand(change.cells[i]), watch, workers
    )

    def residual(i: int) -> Image:
        return flat(i) - flat.expand(change.cells[i]) - pattern

    middle = float(np.median(found.tiles[:, 0]))
    level = find_level(
        scan, overview, residual, i0=i0, found_level=middle, workers=workers, watch=watch
    )
    if level.source == "relative":  # that of the method
        level = Level("relative", float(np.nanmedian(found.method_level - found.tiles[:, 0])))
    levels = found.tiles[:, 0] + level.shift
    cells = change.cells + smooth.on_cells(flat.coarse)
    lazy = _assembled(scan, overview, smooth.of_all(overview.lit.shape), pattern, cells, levels)
    facts = {
        "overlaps": found.overlaps,
        "seam_before": round(found.seam_before, 5),
        "seam_after": round(scatter(change.left), 5),
        "change_rms": round(float(change.cells.std()), 5),
        "level_errors": [round(float(e), 4) for e in found.level_errors],
    }
    kept = replace(found, compared=(), left=np.empty(0))  # what is fitted travels to workers
    return Joined(lazy, "", kept, levels, level, facts)


def _assembled(
    scan: Scan, overview: Overview, smooth: Image, pattern: Image, cells: Image, levels: Floats
) -> MosaicBackgrounds:
    """Backgrounds from the shape, what it is off (smooth terms, fine pattern), and cells."""
    shape = overview.shape + enlarge(pattern, overview.lit.shape, overview.bin_px)
    closed = _closed(overview.lit)
    shape[closed] = np.float32(overview.unlit_level)
    shape[~closed] += smooth[~closed]
    return MosaicBackgrounds(scan.dark(), shape, ~closed, cells, levels, _cell_px(overview))


def _cell_px(overview: Overview) -> tuple[int, int]:
    height, width = Coarse(overview.lit_bins.shape, CELLS).cell
    return height * overview.bin_px, width * overview.bin_px


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

    def of_all(self, shape: tuple[int, ...]) -> Image:
        """What the shape is off everywhere, `(Y, X)`."""
        return self._sum(axes(shape, self.shared_degree), self.shared_degree, [0, *self.shared])

    def of_tile(self, i: int, axes_of_tile: tuple[Image, Image], *, level: bool = True) -> Image:
        """What tile `i` drifted, `(y, x)`, with its level or without."""
        values = self.tiles[i] if level else [0, *self.tiles[i][1:]]
        return self._sum(axes_of_tile, self.tile_degree, values)

    def on_cells(self, coarse: Coarse) -> Image:
        """What all tiles drifted but their levels, `(T, y, x)` at the centres of cells."""
        y, x = (
            (np.arange(n) + 0.5) * c / whole * 2 - 1
            for n, c, whole in zip(coarse.size, coarse.cell, coarse.shape, strict=True)
        )
        rows, columns = (legvander(p, self.tile_degree).astype(np.float32) for p in (y, x))
        found = [self.of_tile(i, (rows, columns), level=False) for i in range(len(self.tiles))]
        return np.stack(found)

    @staticmethod
    def _sum(sides: tuple[Image, Image], degree: int, values: Sequence[float] | Floats) -> Image:
        table = np.zeros((degree + 1, degree + 1), np.float32)
        for (a, b), value in zip(terms(degree), values, strict=True):
            table[a, b] = value
        return product(sides[0] @ table, sides[1].T)


class _Flattened:
    """Tiles of an overview less their smooth backgrounds, on bins and on cells.

    Attributes
    ----------
    coarse : Coarse
        Cells of bins.
    known : (y, x) bool
        Cells that are wholly lit.
    """

    def __init__(self, overview: Overview, smooth: SmoothTerms) -> None:
        lit = overview.lit_bins
        self._overview, self._terms = overview, smooth
        self._axes = axes(lit.shape, smooth.tile_degree)
        self._of_all = smooth.of_all(lit.shape)
        self.coarse = Coarse(lit.shape, CELLS)
        self.known: Mask = self.coarse.mean(lit.astype(np.float32)) > 0.999
        self.expand = self.coarse.expand

    def smooth(self, i: int) -> Image:
        """Smooth terms and level of tile `i`, on bins."""
        return self._of_all + self._terms.of_tile(i, self._axes)

    def __call__(self, i: int) -> Image:
        """Log transmission of tile `i`, on bins, up to the scan's level."""
        out: Image = self._overview.raw[i] + np.float32(self._overview.raw_level[i])
        out -= self.smooth(i)
        return out

    def cells(self, i: int) -> Image:
        """The same on cells."""
        return self.coarse.mean(self(i))


class MosaicBackgrounds(LazyTiles):
    """Backgrounds `(T, Y, X)` in counts: shared log shape, what each tile differs by, level.

    Parameters
    ----------
    dark : (Y, X) float32, counts, or None
    shape : (Y, X) float32
        Log, median about 0; behind the aperture log counts, the same in every tile.
    lit : (Y, X) bool
        False behind the aperture.
    change : (T, y, x) float32
        What each tile differs from the shape by, log, on cells.
    levels : (T,) float64
        Log counts, dark removed.
    cell_px : (height, width)
        Of a cell, pixels.
    """

    def __init__(
        self,
        dark: Image | None,
        shape: Image,
        lit: Mask,
        change: Image,
        levels: Floats,
        cell_px: tuple[int, int],
    ) -> None:
        rows, columns = shape.shape
        super().__init__((len(levels), rows, columns), np.float32, self._background)
        self._dark, self._log, self._lit = dark, shape, lit
        self._change, self._levels = change, levels
        self._cells = Coarse(shape.shape, cell=cell_px)

    def _background(self, i: int) -> Image:
        log = self._cells.expand(self._change[i])
        log += np.float32(self._levels[i])
        log *= self._lit
        log += self._log
        return to_counts(log, self._dark)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds, by name, for `of`."""
        found: dict[str, NDArray[Any]] = {
            "shape": self._log,
            "lit": self._lit,
            "change": self._change,
            "levels": self._levels,
            "cell_px": np.array(self._cells.cell, np.int64),
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
        height, width = (int(n) for n in arrays["cell_px"])
        return cls(
            arrays.get("dark"), arrays["shape"], arrays["lit"], arrays["change"],
            arrays["levels"], (height, width),
        )  # fmt: skip
