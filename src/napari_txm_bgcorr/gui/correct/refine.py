"""Refinement by the drift model after the tiles are shown, from backgrounds already computed."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

from napari_txm_bgcorr.backgrounds import StoredBackgrounds
from napari_txm_bgcorr.backgrounds.drift import DriftModel
from napari_txm_bgcorr.core import BackgroundMethod, Progress, correct_tiles
from napari_txm_bgcorr.gui.common.throttle import Pace
from napari_txm_bgcorr.gui.layers.result import Result
from napari_txm_bgcorr.mosaic import registered

from .messages import Message

__all__ = ["refine"]


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
    model = DriftModel(StoredBackgrounds(result.background, method.name, method), name=name).fit(
        scan, progress
    )
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
