"""Corrections as the tests run them, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.workflows.config import CorrectionConfig
from napari_txm_bgcorr.workflows.correction import correct

__all__ = ["correct_paths"]


def correct_paths(paths: Sequence[Path], out: Path, config: CorrectionConfig) -> dict[str, Any]:
    """Summary of correcting `paths` into `out`."""
    return correct(config.replaced(inputs=tuple(paths), output=out))
