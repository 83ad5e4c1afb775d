"""A library of references: one Zarr store with an array a size, and what is known of each.

Layout: group attributes ``{"txm_bgcorr_library": 1}``; for each size a group ``Y x X`` with
the array ``images`` `(N, Y, X)`, one chunk an image, and attributes ``records``: a list of
mappings with ``name``, ``date``, ``exposure_s``, ``energy_ev``, ``binning``, ``sha256``.
"""

from __future__ import annotations

from pathlib import Path

from napari_txm_bgcorr.core.training_data import ImageStack

__all__ = ["KEY", "can_read", "open_library"]

KEY = "txm_bgcorr_library"


def can_read(path: Path) -> bool:
    """Whether a folder is a library of references."""
    return False


def open_library(path: Path) -> list[ImageStack]:
    """Read it."""
    raise NotImplementedError(path)
