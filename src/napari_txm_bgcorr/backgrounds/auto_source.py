"""Starting point of the automatic method: references where any fit, else the network."""

from __future__ import annotations

import contextlib
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    SILENT,
    BackgroundMethod,
    Progress,
    Scan,
    TilePrediction,
    match_references,
    with_matching_references,
)
from napari_txm_bgcorr.errors import MethodError

from .captured import Captured
from .eigen_flats import LevelledEigenFlats
from .embedded_matching import Recall, recall
from .generator import Generator

__all__ = ["AutoSource"]

SEVERAL = 3  # references, whose differences tell how the beam varies


class AutoSource:
    """References of the scan, or of the model, where any fits; else the generator's prediction.

    Parameters
    ----------
    model, device : str
        As `Generator` takes them.
    """

    name = "auto"

    def __init__(self, model: str = "default", device: str = "auto") -> None:
        self.generator = Generator(model=model, device=device)
        self.source: BackgroundMethod = self.generator
        self._recall: Recall | None = None
        self._notes: list[str] = []

    @property
    def workers(self) -> int:
        """Threads that may each ask for a background."""
        return self.generator.workers if self.source is self.generator else 1

    @property
    def knows_drift(self) -> bool:
        """True if the backgrounds come from references."""
        return self.source is not self.generator

    @property
    def follows_shape(self) -> bool:
        """True if the shapes of the backgrounds were fitted to each tile."""
        return isinstance(self.source, LevelledEigenFlats)

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Look for references that fit, and prepare them or the network."""
        self.generator.fit(scan, progress)
        self._recall = recall(
            with_matching_references(scan), self.generator.model.references, scan.dark()
        )
        notes = [*match_references(scan).notes, *match_references(self._attached(scan)).notes]
        self._notes = list(dict.fromkeys(notes))
        usable = self.with_references(scan)
        self.source = self.generator
        if usable.flats is not None and usable.flats.shape[0]:
            self.source = self._from_references(usable, progress)
        return self

    @staticmethod
    def _from_references(scan: Scan, progress: Progress) -> BackgroundMethod:
        """Several references: the ways in which they vary, where no overlap tells more."""
        if scan.kind == "single" and scan.flats is not None and scan.flats.shape[0] >= SEVERAL:
            with contextlib.suppress(MethodError):  # too few of an image's photon energy
                return LevelledEigenFlats().fit(scan, progress)
        return Captured().fit(scan, progress)

    def with_references(self, scan: Scan) -> Scan:
        """The scan with the references that the last fit used, the model's own among them."""
        return with_matching_references(self._attached(scan))

    def _attached(self, scan: Scan) -> Scan:
        return scan if self._recall is None else self._recall.attach(scan)

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Backgrounds of tiles `(N, Y, X)` in counts; see `BackgroundMethod`."""
        return self.source.background(tiles, index)

    def predict_tiles(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> TilePrediction:
        """Backgrounds, and what the network sees where it is the source.

        Beside references its word on free places brings nothing on real scans.
        """
        if self.source is self.generator:
            return self.generator.predict_tiles(tiles, index)
        return TilePrediction(self.source.background(tiles, index))

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        out = self.generator.describe()
        if self._recall is not None:
            out |= self._recall.describe()
        out["prior"] = "references" if self.knows_drift else "generator"
        if self.knows_drift:
            out["references"] = self.source.describe()
        notes = [*out.get("notes", ()), *self._notes]
        return out | {"notes": notes} if notes else out
