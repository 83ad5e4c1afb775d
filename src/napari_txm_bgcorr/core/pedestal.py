"""The camera's pedestal of a scan without a dark image, read behind the aperture.

Tiles are compared by logarithms: where a specimen leaves a tenth of the beam, a pedestal of a
third of it hides most of what the beam does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from .pixels import lit_in_tiles
from .progress import SILENT, Progress
from .scan import Scan
from .smooth_fields import spread_indices

__all__ = ["ASKED", "with_pedestal"]

TILES = 9  # to look at
RIM = 1 / 64  # of the field: the edge of the aperture is blurred
LEAST = 1 / 1000  # of the field that is closed, within the blurred edge
ASKED = 1 / 4000  # the same if the user asks for it: the small corners of TLS BL01B are 1 / 1400
DIMMEST = 0.01  # quantile of the lit pixels: no specimen is below the pedestal


def with_pedestal(
    scan: Scan, progress: Progress = SILENT, least: float = LEAST
) -> tuple[Scan, float | None]:
    """Give a scan that has no dark image one of the counts behind its aperture.

    Parameters
    ----------
    scan : Scan
    progress : Progress
        Asked before each tile that is read.
    least : float
        Share of the field that must be closed.

    Returns
    -------
    Scan
        The same where it has a dark image, or where no corner is closed.
    float or None
        The counts.

    Raises
    ------
    StoppedError
        If the progress ended it.
    """
    if scan.dark() is not None:
        return scan, None
    chosen = spread_indices(len(scan), TILES)
    counts = np.empty((len(chosen), *scan.tiles.shape[1:]), np.float32)
    for k, i in enumerate(chosen):
        progress.check()
        counts[k] = scan.tiles[i]
    lit = lit_in_tiles(counts)
    rim = max(1, round(RIM * max(lit.shape)))
    closed = ndimage.binary_erosion(~lit, iterations=rim, border_value=1)
    if closed.sum() < least * closed.size:
        return scan, None
    level = float(np.median(counts[:, closed]))
    if not 0 < level < float(np.quantile(counts[:, lit], DIMMEST)):
        return scan, None
    return replace(scan, darks=np.full((1, *lit.shape), level, np.float32)), level
