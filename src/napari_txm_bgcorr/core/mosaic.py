"""The mosaic as one object: the joint stage over any method, and a plain blend.

Registration is in `registration`, the estimate in `joint`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.joint import JointOptions, Solution, solve
from napari_txm_bgcorr.core.legendre import terms
from napari_txm_bgcorr.core.overlap_pattern import enlarge, overlap_pattern
from napari_txm_bgcorr.core.overview import Overview, survey
from napari_txm_bgcorr.core.registration import Edge, Positions, nominal_positions, register
from napari_txm_bgcorr.core.scan import LazyTiles, Scan, TileArray
from napari_txm_bgcorr.core.shapes import to_counts

__all__ = [
    "Edge",
    "Joined",
    "Joint",
    "JointOptions",
    "Overview",
    "Positions",
    "blend",
    "joint",
    "nominal_positions",
    "register",
    "survey",
]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
DEFAULT = JointOptions()


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
    levels : (T,) float64
        Log counts of each background at the level of the shared shape; empty if not applied.
    """

    backgrounds: TileArray
    reason: str = ""
    solution: Solution | None = None
    levels: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def applied(self) -> bool:
        """Whether backgrounds were refined."""
        return self.solution is not None


def joint(
    scan: Scan,
    backgrounds: TileArray,
    positions: Positions | Floats,
    *,
    overview: Overview | None = None,
    options: JointOptions = DEFAULT,
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

    Returns
    -------
    Joined
        With a reason and the backgrounds as given where it cannot help.
    """
    if overview is None:
        overview = survey(scan, backgrounds)
    places = positions.positions_px if isinstance(positions, Positions) else positions
    found = solve(overview, np.asarray(places, np.float64), _hours(scan), options)
    if isinstance(found, str):
        return Joined(backgrounds, found)
    levels = _anchored(found)
    shape = tuple(int(n) for n in scan.tiles.shape)
    refined = _Refined(overview, found, levels, scan.dark(), options)
    refined.add_pattern(overview, np.asarray(places, np.float64))
    lazy = LazyTiles((shape[0], shape[1], shape[2]), np.float32, refined)
    return Joined(lazy, "", found, levels)


def _hours(scan: Scan) -> Floats | None:
    if scan.times is None or np.isnat(scan.times).any():
        return None
    seconds = (scan.times - scan.times.min()) / np.timedelta64(1, "s")
    out: Floats = np.asarray(seconds, np.float64) / 3600
    return out


def _anchored(found: Solution) -> Floats:
    """Log levels of all tiles, so that the median level is the method's."""
    level = found.tiles[:, 0]
    anchored: Floats = level + np.median(found.method_level - level)
    return anchored


class _Refined:
    """Background of one tile in counts: shared shape, smooth terms, level."""

    def __init__(
        self,
        overview: Overview,
        found: Solution,
        levels: Floats,
        dark: Image | None,
        options: JointOptions,
    ) -> None:
        self.found, self.levels, self.dark, self.options = found, levels, dark, options
        self.lit = overview.lit
        self.shape: Image = overview.shape
        self.axes = self._axes(self.shape.shape)

    def __call__(self, i: int) -> Image:
        smooth: Image = self.smooth(i, self.axes)
        smooth *= self.lit  # corners behind the aperture keep the shared level
        smooth += self.shape
        smooth += np.float32(self.levels[i])
        return to_counts(smooth, self.dark)

    def smooth(self, i: int, axes: tuple[Image, Image]) -> Image:
        """Tilts and higher terms of tile `i`, without its level."""
        table = np.zeros((axes[0].shape[1], axes[1].shape[1]), np.float32)
        shared, own = terms(self.options.shared_degree), terms(self.options.tile_degree)
        for (a, b), value in zip(shared[1:], self.found.shared, strict=True):
            table[a, b] += value
        for (a, b), value in zip(own[1:], self.found.tiles[i, 1:], strict=True):
            table[a, b] += value
        out: Image = np.asarray((axes[0] @ table) @ axes[1].T, np.float32)
        return out

    def _axes(self, shape: tuple[int, ...]) -> tuple[Image, Image]:
        """Legendre polynomials `(n, degree + 1)` along y and x."""
        most = max(self.options.shared_degree, self.options.tile_degree)
        y, x = (
            np.polynomial.legendre.legvander((np.arange(n) + 0.5) / n * 2 - 1, most) for n in shape
        )
        return y.astype(np.float32), x.astype(np.float32)

    def add_pattern(self, overview: Overview, positions_px: Floats) -> None:
        """Correct the shared shape by what the overlaps tell of its fine part."""
        axes = self._axes(overview.raw.shape[1:])

        def smooth(i: int) -> Image:
            return self.smooth(i, axes) + np.float32(self.found.tiles[i, 0])

        bins = overlap_pattern(overview, positions_px, smooth)
        self.shape = self.shape + enlarge(bins, self.lit.shape, overview.bin_px)


class Joint:
    """Any background method, refined over the whole mosaic: itself a background method.

    Fitting asks the method for the background of every tile once; afterwards backgrounds
    come from what was learned, without the method.

    Parameters
    ----------
    method : BackgroundMethod
        Fitted here.
    options : JointOptions
    positions_px : (T, 2) float64 or None
        Registered places; None: registered here.
    """

    def __init__(
        self,
        method: BackgroundMethod,
        options: JointOptions = DEFAULT,
        positions_px: Floats | None = None,
    ) -> None:
        self.method, self.options = method, options
        self.name = f"{method.name}+joint"
        self.workers = int(getattr(method, "workers", 1))
        self.positions: Positions | None = None
        self.joined: Joined | None = None
        self._given = positions_px

    @property
    def reason(self) -> str:
        """Why the stage stepped aside; empty where it was applied."""
        if self.joined is None:
            raise MethodError(f"{self.name}: not fitted; call fit(scan) first")
        return self.joined.reason

    def fit(self, scan: Scan) -> Self:
        """Fit the method, look at all tiles, register and solve.

        Raises
        ------
        MethodError
            If the method cannot work on this scan.
        """
        self.method.fit(scan)
        self.positions = None
        shape = tuple(int(n) for n in scan.tiles.shape)
        own = LazyTiles((shape[0], shape[1], shape[2]), np.float32, self._own(scan))
        if scan.kind != "mosaic":
            self.joined = Joined(own, f"a {scan.kind} scan has no overlaps")
            return self
        overview = survey(scan, own, workers=self.workers)
        if self._given is None:
            self.positions = register(scan, overview=overview)
        else:
            self.positions = Positions(np.asarray(self._given, np.float64), (), "as given")
        self.joined = joint(scan, own, self.positions, overview=overview, options=self.options)
        return self

    def _own(self, scan: Scan) -> Any:
        def background(i: int) -> Image:
            tile = np.asarray(scan.tiles[i])[None]
            one: Image = self.method.background(tile, np.array([i], np.int64))[0]
            return one

        return background

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Refined backgrounds of tiles `(N, Y, X)` in counts; see `BackgroundMethod`.

        Tiles that the scan does not hold get the method's own.
        """
        if self.joined is None:
            raise MethodError(f"{self.name}: not fitted; call fit(scan) first")
        if index is None or not self.joined.applied:
            return self.method.background(tiles, index)
        out = np.empty(tiles.shape, np.float32)
        for k, i in enumerate(index):
            out[k] = self.joined.backgrounds[int(i)]
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        out: dict[str, Any] = {"method": self.method.name, **self.method.describe()}
        stage: dict[str, Any] = {"options": asdict(self.options)}
        if self.positions is not None:
            stage["registration"] = self.positions.note
        if self.joined is not None:
            stage["applied"] = self.joined.applied
            stage["reason"] = self.joined.reason
        if self.joined is not None and self.joined.solution is not None:
            found = self.joined.solution
            stage |= {
                "overlaps": found.overlaps,
                "seam_before": round(found.seam_before, 5),
                "seam_after": round(found.seam_after, 5),
                "scale": "one for the mosaic, relative",
            }
        return out | {"joint": stage}


def blend(
    tiles: TileArray,
    positions_px: Floats,
    valid: TileArray | None = None,
) -> Image:
    """Put tiles into one picture, feathered linearly towards their edges.

    Parameters
    ----------
    tiles : (T, Y, X) float32
        Transmissions.
    positions_px : (T, 2) float64
        Top left corners, rounded to whole pixels.
    valid : (T, Y, X) bool or None
        Pixels to leave out.

    Returns
    -------
    (H, W) float32
        Weights sum to 1 wherever a tile is; NaN where none is.
    """
    corners = np.rint(positions_px - positions_px.min(axis=0)).astype(int)
    rows, columns = (int(n) for n in tiles.shape[1:])
    total = np.zeros((corners[:, 0].max() + rows, corners[:, 1].max() + columns), np.float32)
    mass = np.zeros_like(total)
    ramps = [np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) for n in (rows, columns)]
    feather = (ramps[0][:, None] * ramps[1] / (rows * columns)).astype(np.float32)
    for i, (y, x) in enumerate(corners.tolist()):
        weight = feather if valid is None else feather * valid[i]
        part = np.s_[y : y + rows, x : x + columns]
        total[part] += weight * np.where(weight > 0, tiles[i], 0)
        mass[part] += weight
    out: Image = np.where(mass > 0, total / np.maximum(mass, 1e-12), np.nan).astype(np.float32)
    return out
