"""Overviews of large mosaics, drawn tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.gui.common.errors import errors_in_words
from napari_txm_bgcorr.gui.common.messages import Advanced, Failed
from napari_txm_bgcorr.gui.common.throttle import Pace

__all__ = ["draw_overview"]


def draw_overview(
    subject: str, count: int, fill: Iterator[int], stop: Event
) -> Iterator[Advanced | Failed]:
    """Draw a large mosaic's overview, one tile for each step of `fill`."""
    pace = Pace(count)
    try:
        with errors_in_words(subject):
            for _ in fill:
                if stop.is_set():
                    return
                if message := pace.step("Drawing the overview"):
                    yield message
    except TxmError as error:
        yield Failed(error)
