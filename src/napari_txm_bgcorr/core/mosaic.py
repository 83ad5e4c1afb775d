"""One background for a whole mosaic or series: the joint stage over any method.

Registration is in `registration`, the estimate of a mosaic in `joint` and `refined`, that of a
series in `series`, the level in `level`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.candidates import compare_shapes
from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.joint import JointOptions, too_few
from napari_txm_bgcorr.core.overview import QUANTILES, Overview, survey
from napari_txm_bgcorr.core.own_backgrounds import CandidateMethod, OwnBackgrounds
from napari_txm_bgcorr.core.own_references import with_own_references
from napari_txm_bgcorr.core.pedestal import with_pedestal
from napari_txm_bgcorr.core.refined import Joined, joint
from napari_txm_bgcorr.core.registration import Edge, Positions, nominal_positions, register
from napari_txm_bgcorr.core.scan import Scan, TileArray
from napari_txm_bgcorr.core.series import steady
from napari_txm_bgcorr.core.threads import cpu_cores
from napari_txm_bgcorr.core.watch import SILENT, Watch, fit_method

__all__ = [
    "Edge",
    "Joined",
    "Joint",
    "JointOptions",
    "Overview",
    "Positions",
    "blend",
    "joint",
    "joint_notes",
    "nominal_positions",
    "register",
    "registered",
    "survey",
]

Image = NDArray[np.float32]
Floats = NDArray[np.float64]
DEFAULT = JointOptions()


class Joint:
    """Any background method, refined over the whole scan: itself a background method.

    Fitting asks the method once for the background of every tile, or of some spread over a
    mosaic of many; afterwards backgrounds come from what was learned, without the method. A
    scan that the stage cannot help (single tiles, too few of them, overlaps that show nothing)
    gets the method's own, with a reason.

    Parameters
    ----------
    method : BackgroundMethod
        Fitted here.
    options : JointOptions
    positions_px : (T, 2) float64 or None
        Registered places; None: registered here.
    name : str or None
        Of this method; None: that of `method` and ``+joint``.
    i0 : float or None
        Counts of the open beam, dark removed, as the median over the lit field.
    watch : Watch
        Of `fit`; `fit_watched` takes another.

    Attributes
    ----------
    positions : Positions or None
        Where the tiles of the last mosaic lie; None where they were not looked for.
    joined : Joined or None
        What the last fit found.

    Raises
    ------
    MethodError
        If `i0` is not above 0.
    """

    def __init__(
        self,
        method: BackgroundMethod,
        options: JointOptions = DEFAULT,
        positions_px: Floats | None = None,
        *,
        name: str | None = None,
        i0: float | None = None,
        watch: Watch = SILENT,
    ) -> None:
        if i0 is not None and not (np.isfinite(i0) and i0 > 0):
            raise MethodError(f"i0 {i0}: give the counts of the open beam, above 0")
        self.method, self.options, self.i0, self.watch = method, options, i0, watch
        self.name = f"{method.name}+joint" if name is None else name
        self.positions: Positions | None = None
        self.joined: Joined | None = None
        self._given = positions_px
        self._used = method  # or that of its candidates that the last fit took first

    @property
    def workers(self) -> int:
        """Threads that may each ask for a background."""
        return int(getattr(self.method, "workers", 1))

    @property
    def prior(self) -> Any:
        """What a learned method started from, or None."""
        return getattr(self._used, "prior", None)

    @property
    def reason(self) -> str:
        """Why the stage stepped aside; empty where it was applied."""
        return self._done().reason

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the last fit, a sentence each."""
        done = self._done()
        if not done.applied:
            single = "single image" in done.reason  # nobody expects anything there
            return () if single else (f"joint stage not applied: {done.reason}",)
        notes = []
        if done.level is not None and done.level.source == "relative":
            notes.append(
                "the level is relative: no empty area, reference or I0 sets it "
                "(transmission is known up to one factor for the whole scan)"
            )
        if "pedestal_counts" in done.facts:
            notes.append(
                f"no dark image: {done.facts['pedestal_counts']:.0f} counts behind the aperture "
                "were taken for it to compare tiles, not to divide; --dark aperture (panel: "
                "Darks, Corner) does both, and absorbing parts lose their seams"
            )
        return tuple(notes)

    def _done(self) -> Joined:
        if self.joined is None:
            raise MethodError(f"{self.name}: not fitted; call fit(scan) first")
        return self.joined

    def fit(self, scan: Scan) -> Self:
        """Fit the method, look at all tiles, register and solve.

        Raises
        ------
        MethodError
            If the method cannot work on this scan.
        StoppedError
            If the watch ended it.
        """
        return self.fit_watched(scan, self.watch)

    def fit_watched(self, scan: Scan, watch: Watch) -> Self:
        """As `fit`, under a watch of its own."""
        self.positions = self.joined = None
        self._used = self.method
        mosaic = scan.kind == "mosaic" and len(scan) > 1
        given = scan
        scan, pedestal = with_pedestal(scan, watch) if mosaic else (scan, None)
        i0 = self._beam(scan, pedestal or 0.0)
        offered = self._offered(scan) if mosaic else {}
        if not offered:
            fit_method(self.method, scan, watch)
        scan = with_own_references(self.method, scan)
        own = OwnBackgrounds(scan, self.method)
        if mosaic:
            found = self._mosaic(scan, own, offered, i0, watch)
            if offered and found.applied:
                self._used = next(iter(offered.values()))
            elif not found.applied and (offered or pedestal is not None):
                fit_method(self.method, given, watch)  # as without the stage
        elif scan.kind == "mosaic":
            found = Joined(own, too_few(len(scan), self.options))
        elif scan.kind == "series":
            found = steady(scan, own, workers=self.workers, i0=self.i0, watch=watch)
        else:
            found = Joined(own, "a single image has nothing to compare it with")
        if pedestal is not None and found.applied:
            found = replace(found, facts={**found.facts, "pedestal_counts": round(pedestal, 1)})
        # What is not used would keep the whole scan, where the method travels to other processes.
        nothing = np.empty((0, 1, 1), np.float32)
        self.joined = found if found.applied else replace(found, backgrounds=nothing)
        return self

    def _beam(self, scan: Scan, pedestal: float) -> float | None:
        """I0 less the pedestal, which the camera adds to it, too.

        Raises
        ------
        MethodError
            If nothing is left.
        """
        if self.i0 is not None and self.i0 <= pedestal:
            raise MethodError(
                f"{scan.source.path}: i0 {self.i0:g} is not above the {pedestal:.0f} counts "
                "behind the aperture; give the open beam as the camera reads it, or dark images"
            )
        return None if self.i0 is None else self.i0 - pedestal

    def _offered(self, scan: Scan) -> Mapping[str, BackgroundMethod]:
        """What the method may start from, for less than its own fit."""
        if not isinstance(self.method, CandidateMethod):
            return {}
        self.method.prepare(scan)
        return self.method.candidates(with_own_references(self.method, scan))

    def _mosaic(
        self,
        scan: Scan,
        own: TileArray,
        offered: Mapping[str, BackgroundMethod],
        i0: float | None,
        watch: Watch,
    ) -> Joined:
        candidates = offered or {self.method.name: self.method}
        first, *others = candidates.values()
        overview = survey(scan, OwnBackgrounds(scan, first), workers=self.workers, watch=watch)
        if others:
            overview = compare_shapes(scan, overview, others, workers=self.workers, watch=watch)
        if self._given is None:
            self.positions = register(scan, overview=overview, workers=cpu_cores(), watch=watch)
        else:
            self.positions = Positions(np.asarray(self._given, np.float64), (), "as given")
        found = joint(
            scan, own, self.positions, overview=overview, options=self.options, i0=i0,
            workers=cpu_cores(), watch=watch,
        )  # fmt: skip
        if found.solution is None or not len(found.solution.shares):
            return found
        shares = found.solution.shares
        tiles = [f"quantile {q:g} of tiles" for q in QUANTILES[: len(shares) - len(others)]]
        kinds = list(candidates)
        kinds[1:1] = tiles
        names = dict(zip(kinds, [1 - shares.sum(), *shares], strict=True))
        facts = {"shares": {name: round(float(share), 3) for name, share in names.items()}}
        return replace(found, facts={**found.facts, **facts})

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Refined backgrounds of tiles `(N, Y, X)` in counts; see `BackgroundMethod`.

        Tiles that the scan does not hold get the method's own.
        """
        done = self._done()
        if index is None or not done.applied:
            return self._used.background(tiles, index)
        out = np.empty(tiles.shape, np.float32)
        for k, i in enumerate(index):
            out[k] = done.backgrounds[int(i)]
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        out: dict[str, Any] = {"method": self.method.name, **self._used.describe()}
        stage: dict[str, Any] = {"options": asdict(self.options)}
        if self.positions is not None:
            stage["registration"] = self.positions.note
            stage["pairs"] = len(self.positions.edges)
            stage["pairs_registered"] = self.positions.used
            if self.positions.used:
                stage["positions_px"] = np.round(self.positions.positions_px, 2).tolist()
        if self.joined is not None:
            stage["applied"] = self.joined.applied
            stage["reason"] = self.joined.reason
            level = self.joined.level
            stage["level"] = {"from": "method"} if level is None else level.describe()
            stage |= self.joined.facts
            stage["notes"] = list(self.notes)
        return out | {"joint": stage}


def registered(scan: Scan, described: Mapping[str, Any]) -> Scan:
    """A scan at the places that a fitted method has found; unchanged where it has found none.

    Parameters
    ----------
    scan : Scan
    described : mapping
        What the fitted method says of itself. Places are to 0.01 px there: what is finer
        differs from machine to machine.
    """
    stage = described.get("joint")
    if not isinstance(stage, Mapping) or len(stage.get("positions_px", ())) != len(scan):
        return scan
    places = np.asarray(stage["positions_px"], np.float64)
    return replace(scan, positions_px=places, notes=(*scan.notes, str(stage["registration"])))


def joint_notes(described: Mapping[str, Any]) -> list[str]:
    """What the user should know of the joint stage, from a fitted method's description."""
    stage = described.get("joint")
    return [str(note) for note in stage["notes"]] if isinstance(stage, Mapping) else []


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
