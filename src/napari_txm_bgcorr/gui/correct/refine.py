"""The drift model after the tiles are on show: refined from what was already computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.core.background_method import FromReferences, PredictsTiles, TilePrediction
from napari_txm_bgcorr.core.correction import BackgroundMethod, correct_tiles
from napari_txm_bgcorr.core.progress import SILENT, Progress
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.gui.common.throttle import Pace, Turn
from napari_txm_bgcorr.gui.layers.result import Result
from napari_txm_bgcorr.mosaic.assembly import registered

from .messages import Message, Preparing, Tell

__all__ = ["Stored", "refine", "telling"]


def telling(stop: Event, tell: Tell, subject: str = "") -> Progress:
    """Progress over a fit: tells its stages now and then, and ends it when asked to stop."""
    turn = Turn()

    def progress(stage: str, done: int, total: int) -> None:
        if turn.due():
            count = f"{done} of {total}" if total else f"{done} tiles read"
            tell(Preparing(f"{subject}{stage}, {count} …"))

    return Progress(progress, stop.is_set)


class Stored:
    """The backgrounds of a complete result: itself a method, which computes nothing.

    Parameters
    ----------
    result : Result
    method : BackgroundMethod or None
        Fitted method that made them, for its name and description; None: as the result says.
    """

    def __init__(self, result: Result, method: BackgroundMethod | None = None) -> None:
        noted = str((result.provenance or {}).get("method", "stored"))
        self.name = noted if method is None else method.name
        self.result, self.method = result, method

    @property
    def workers(self) -> int:
        """Threads that may each ask for a background."""
        return 1 if self.method is None else self.method.workers

    @property
    def knows_drift(self) -> bool:
        """Whether the backgrounds come from references."""
        return isinstance(self.method, FromReferences) and self.method.knows_drift

    @property
    def follows_shape(self) -> bool:
        """Whether their shapes were fitted to each tile."""
        return isinstance(self.method, FromReferences) and self.method.follows_shape

    def with_references(self, scan: Scan) -> Scan:
        """The scan with the references that the method used, which may be its own."""
        if not isinstance(self.method, FromReferences):
            return scan
        return self.method.with_references(scan)

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Stored:
        """Nothing to do."""
        return self

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Backgrounds `(N, Y, X)` in counts of tiles of the result.

        Raises
        ------
        MethodError
            If the tiles are not of this result.
        """
        if index is None:
            raise MethodError(f"{self.name}: only the tiles of its own scan have a background")
        return np.stack([self.result.background[int(i)] for i in index])

    def predict_tiles(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> TilePrediction:
        """Those backgrounds, and what else the method sees in the tiles."""
        background = self.background(tiles, index)
        if not isinstance(self.method, PredictsTiles):
            return TilePrediction(background)
        return replace(self.method.predict_tiles(tiles, index), background=background)

    def describe(self) -> dict[str, Any]:
        """Parameters of the method that made them."""
        return {} if self.method is None else self.method.describe()


def refine(
    result: Result,
    method: BackgroundMethod,
    name: str | None,
    stop: Event,
    progress: Progress,
) -> Iterator[Message]:
    """Refine the backgrounds of a complete result over its whole scan.

    The bits are those of the drift model round the method itself; nothing is predicted twice.

    Parameters
    ----------
    result : Result
        Its tiles are replaced one by one.
    method : BackgroundMethod
        Fitted; made the result.
    name : str or None
        Of the method in the provenance; None: that of `method` and ``+joint``.
    stop : Event
    progress : Progress

    Yields
    ------
    Message

    Raises
    ------
    StoppedError
        If stopped while it looks at the scan: the result is as it was.
    """
    scan = result.scan
    model = DriftModel(Stored(result, method), name=name).fit(scan, progress)
    described = model.describe()
    placed = registered(scan, described)
    if placed is not scan:
        result.relocate(placed)
    pace, text = Pace(len(result)), f"{result.name}: refining"
    changed: list[int] = []
    for tile in correct_tiles(scan, model, should_stop=stop.is_set):
        result.put(tile)
        changed.append(tile.index)
        if message := pace.step(text):
            yield message
    if len(changed) == len(result):
        result.made_by(model)
        result.notes += [str(note) for note in described["joint"]["notes"]]
    elif changed:
        result.refined_only(changed, model.name, described)
