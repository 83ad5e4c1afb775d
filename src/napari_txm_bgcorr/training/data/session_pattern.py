"""The fine pattern of a session, averaged over its references.

One reference's photon noise would be in raw tile and background alike, and be learned as if it
were pattern. The pattern sits still within a session while the noise is each image's own: the
mean of the high-passed logarithms of N references holds it with ``1 / sqrt(N)`` of the noise.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from napari_txm_bgcorr.models import floored_log

from .augment import blurred
from .storage import Images

__all__ = ["SharedPattern"]

SIGMA = 12.0  # pixels of a field of 256: coarser structure drifts, and is left to each image
MOST = 16  # references averaged
REACH = 2  # pixels by which a pattern may be shifted
ALIKE = 0.3  # least correlation between images that share a pattern
BAND = (3, 13)  # boxes in pixels: likeness is that of the band between, with little noise or shape
KEPT = 64  # patterns kept at hand, 256 KiB each at 256 px


class SharedPattern:
    """Exchange the fine pattern of references for its mean over the session.

    Parameters
    ----------
    references : Images
    usable : (M,) int64
        Numbers of the references that may be averaged.
    """

    def __init__(self, references: Images, usable: NDArray[np.int64]) -> None:
        self.references, self.usable = references, usable
        self._gain = lru_cache(maxsize=KEPT)(self._make)

    def gain(self, chosen: NDArray[np.int64]) -> Tensor:
        """Correction to add to the logarithm of each reference: `(N, 1, F, F)` float32."""
        return torch.cat([self._gain(int(k)) for k in chosen])

    def _make(self, number: int) -> Tensor:
        """Mean over the session's high-passed logarithms less the image's own."""
        sessions = self.references.sessions
        same = self.usable[(sessions[self.usable] == sessions[number]) & (self.usable != number)]
        nearest = same[np.argsort(np.abs(same - number), kind="stable")][: MOST - 1]
        fine, band = self._fine(np.concatenate([[number], nearest]))
        pairs = zip(fine[1:, None], band[1:, None], strict=True)
        moved = (_aligned(image, one, band[:1]) for image, one in pairs)
        shared = [fine[:1], *(image for image in moved if image is not None)]
        return torch.cat(shared).mean(dim=0, keepdim=True) - fine[:1]

    def _fine(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """High-passed logarithms of references, and the band that tells whether they are alike."""
        taken = self.references.take(chosen.astype(np.int64), -1)
        log = floored_log(taken.counts)
        sigma = torch.full_like(log[:, :, :1, :1], SIGMA * log.shape[-1] / 256)
        fine = log - blurred(log, sigma)
        narrow, wide = (avg_pool2d(log, n, 1, n // 2, count_include_pad=False) for n in BAND)
        away = max_pool2d(1 - taken.lit, BAND[1], 1, BAND[1] // 2)  # from the unlit field
        return fine * taken.lit, (narrow - wide) * (1 - away)


def _aligned(image: Tensor, band: Tensor, onto: Tensor) -> Tensor | None:
    """`image` `(1, 1, F, F)` shifted by whole pixels so that its band lies `onto` another's.

    None where the two are not alike at any shift.
    """
    edge = BAND[1] // 2 + REACH
    inner = (..., slice(edge, -edge), slice(edge, -edge))
    fixed, best = onto[inner], -1.0
    place: tuple[int, ...] = (0, 0)
    for shift in product(range(-REACH, REACH + 1), repeat=2):
        moved = torch.roll(band, shift, (2, 3))[inner]
        norm = (moved.square().sum() * fixed.square().sum()).sqrt().clamp_min(1e-12)
        alike = float((moved * fixed).sum() / norm)
        if alike > best:
            best, place = alike, shift
    return torch.roll(image, place, (2, 3)) if best >= ALIKE else None
