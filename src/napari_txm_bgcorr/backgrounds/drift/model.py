"""The background model of a scan: pattern, drift walking in time, levels; for 1 tile to 961.

A single image, a series and a mosaic are the same problem with less or more data: `fit` solves
it, this method collects the observations and priors. See docs/decisions/0014-drift-model.md.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    SILENT,
    BackgroundMethod,
    FromReferences,
    Progress,
    Scan,
    cpu_cores,
    one_algebra_thread,
)
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.mosaic import MethodBackgrounds, Overview, Positions, register, survey

from .lazy_backgrounds import DriftBackgrounds
from .prior_error import prior_error
from .scan_fit import ScanFit, ScanLevel, best_fit
from .types import DriftFit

__all__ = ["DriftModel"]

Image = NDArray[np.float32]
Floats = NDArray[np.float64]


class DriftModel:
    """One background model for the whole scan, on top of a method that gives a prior pattern.

    Fitting asks the method for the backgrounds of some tiles, or of all where it takes them
    from references; afterwards backgrounds come from what was solved, without the method.

    Parameters
    ----------
    method : BackgroundMethod
        Fitted here. References where it has some, else a guess such as the generator's.
    positions_px : (T, 2) float64 or None
        Places of the tiles of a mosaic, (y, x); None: registered here.
    name : str or None
        Of this method; None: that of `method` and ``+joint``.
    i0 : float or None
        Counts of the open beam, dark removed, as the median over the lit field.

    Attributes
    ----------
    positions : Positions or None
        Where the tiles of the last mosaic lie; None for other scans.
    backgrounds : DriftBackgrounds or None
        Of the last fit.
    solution : DriftFit or None
        Of the last fit; does not travel to other processes.

    Raises
    ------
    MethodError
        If `i0` is not above 0.
    """

    def __init__(
        self,
        method: BackgroundMethod,
        positions_px: Floats | None = None,
        *,
        name: str | None = None,
        i0: float | None = None,
    ) -> None:
        if i0 is not None and not (np.isfinite(i0) and i0 > 0):
            raise MethodError(f"i0 {i0}: give the counts of the open beam, above 0")
        self.method, self.i0 = method, i0
        self.name = f"{method.name}+joint" if name is None else name
        self.positions: Positions | None = None
        self.backgrounds: DriftBackgrounds | None = None
        self.solution: DriftFit | None = None
        self._given = positions_px
        self._told: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """All but the solution: backgrounds are all that another process needs."""
        return vars(self) | {"solution": None}

    @property
    def workers(self) -> int:
        """Threads that may each ask for a background."""
        return self.method.workers

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the user on the last fit, one sentence each."""
        return tuple(self._stage()["notes"])

    def _stage(self) -> dict[str, Any]:
        if self.backgrounds is None:
            raise MethodError(f"{self.name}: not fitted; call fit(scan) first")
        return self._told

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Fit the method, look at all tiles, register and solve.

        Raises
        ------
        MethodError
            If the method cannot work on this scan.
        StoppedError
            If the progress ended it.
        """
        self.positions = self.backgrounds = self.solution = None
        self.method.fit(scan, progress)
        source = self.method if isinstance(self.method, FromReferences) else None
        known = source is not None and source.knows_drift
        own = MethodBackgrounds(scan, self.method, known)
        overview = survey(scan, own, workers=self.workers, progress=progress)
        mosaic = scan.kind == "mosaic" and len(scan) > 1
        positions = self._places(scan, overview, progress) if mosaic else None
        followed = source is not None and source.follows_shape
        referenced = scan if source is None else source.with_references(scan)
        error = prior_error(referenced, known, followed)
        with one_algebra_thread():
            work, self.solution = best_fit(scan, overview, positions, error, progress)
        self.positions = positions
        level, shift = work.level(self.solution, self.i0)
        self.backgrounds = work.backgrounds(self.solution, shift)
        self._told = self._described(work, self.solution, level)
        return self

    def _places(self, scan: Scan, overview: Overview, progress: Progress) -> Positions:
        if self._given is not None:
            return Positions(np.asarray(self._given, np.float64), (), "as given")
        return register(scan, overview=overview, workers=cpu_cores(), progress=progress)

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Backgrounds of tiles `(N, Y, X)` in counts; see `BackgroundMethod`.

        Tiles that the scan does not hold get the method's own.
        """
        self._stage()
        if index is None or self.backgrounds is None:
            return self.method.background(tiles, index)
        out = np.empty(tiles.shape, np.float32)
        for k, i in enumerate(index):
            out[k] = self.backgrounds[int(i)]
        return out

    def uncertainty(self, index: int) -> Image:
        """Standard deviation `(Y, X)` of the log background of a tile, its level left out.

        Raises
        ------
        MethodError
            Before `fit`.
        """
        self._stage()
        if self.backgrounds is None:
            raise MethodError(f"{self.name}: not fitted; call fit(scan) first")
        return self.backgrounds.uncertainty(index)

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        return {"method": self.method.name, **self.method.describe(), "joint": dict(self._told)}

    def _described(self, work: ScanFit, found: DriftFit, level: ScanLevel) -> dict[str, Any]:
        stage: dict[str, Any] = {
            "options": asdict(work.options) | {"width": list(work.options.width)},
            "prior": asdict(work.error),
        }
        if self.positions is not None:
            stage["registration"] = self.positions.note
            stage["pairs"] = len(self.positions.edges)
            stage["pairs_registered"] = self.positions.used
            if self.positions.used:
                stage["positions_px"] = np.round(self.positions.positions_px, 2).tolist()
        stage["level"] = level.describe()
        stage["overlaps"] = work.overlaps
        if np.isfinite(found.seam):
            stage["seam_after"] = round(found.seam, 5)
        stage["free_share"] = np.round(found.free_share, 3).tolist()
        stage["level_errors"] = np.round(found.level_sd, 4).tolist()
        stage["notes"] = list(_notes(level, found))
        return stage


def _notes(level: ScanLevel, found: DriftFit) -> tuple[str, ...]:
    if level.source != "relative":
        return ()
    return (
        "the level is relative: no empty area, reference or I0 sets it "
        "(transmission is known up to one factor for the whole scan)",
    )
