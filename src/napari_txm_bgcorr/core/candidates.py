"""Several answers to what the tiles of a mosaic share, for the overlaps to choose from.

What leaks from the specimen into a median over tiles differs from what leaks into predictions
without a prior, and a reference holds neither but is old. Overlaps show what each is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.medians import median_of
from napari_txm_bgcorr.core.overview import Overview, layers_of, shared_tiles
from napari_txm_bgcorr.core.own_backgrounds import OwnBackgrounds
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import log_beam
from napari_txm_bgcorr.core.shared_pattern import shared_pattern
from napari_txm_bgcorr.core.threads import cpu_cores, spread
from napari_txm_bgcorr.core.watch import SILENT, Watch

__all__ = ["compare_shapes"]

Image = NDArray[np.float32]
STAGE = "comparing backgrounds"


def compare_shapes(
    scan: Scan,
    overview: Overview,
    others: Sequence[BackgroundMethod],
    *,
    workers: int = 1,
    watch: Watch = SILENT,
) -> Overview:
    """Take the shared shape, as `survey` does, from the backgrounds of other methods as well.

    Parameters
    ----------
    scan : Scan
        A mosaic.
    overview : Overview
        From `survey`.
    others : sequence of BackgroundMethod
        Fitted.
    workers : int
        Threads that each look at one tile at a time; the same result for any number.
    watch : Watch
        Told after each tile.

    Returns
    -------
    Overview
        With these after its `others`.

    Raises
    ------
    StoppedError
        If the watch ended it.
    """
    chosen, dark, lit = shared_tiles(scan), scan.dark(), overview.lit
    stacks = np.empty((2, len(chosen), *lit.shape), np.float16)
    found = np.empty((len(others), *lit.shape), np.float32)
    for k, method in enumerate(others):
        own = OwnBackgrounds(scan, method)

        def look(i: int, own: OwnBackgrounds = own) -> NDArray[np.float16]:
            watch.check()
            counts = np.asarray(scan.tiles[i])
            return layers_of(log_beam(counts, dark), log_beam(own.of(i, counts), dark))[0]

        for place, layers in enumerate(spread(look, chosen, workers)):
            watch.step(STAGE, k * len(chosen) + place + 1, len(others) * len(chosen))
            stacks[:, place] = layers
        shape = median_of(stacks[0], cpu_cores())
        shape -= np.median(shape[lit])
        found[k] = shape + shared_pattern(stacks[1], lit)[0] - overview.shape
    return replace(overview, others=np.concatenate([overview.others, found]))
