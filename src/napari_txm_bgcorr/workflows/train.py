"""Data of a training: the user's paths as settings, and the images read from them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_txm_bgcorr.core import TrainingData
from napari_txm_bgcorr.errors import ConfigError

if TYPE_CHECKING:
    from napari_txm_bgcorr.training import DataConfig

__all__ = ["data_overrides", "find_data"]


def data_overrides(
    references: Sequence[str] | None,
    samples: Sequence[str] | None,
    pairs: Sequence[str] | None,
    darks: Sequence[str] | None,
) -> list[str]:
    """Settings ``data.references=[...]`` and so on, with absolute paths.

    Raises
    ------
    ConfigError
        If a path does not exist, or a raw path has no background.
    """
    found = []
    for name, paths in (
        ("references", references), ("samples", samples), ("pairs", pairs), ("darks", darks)
    ):  # fmt: skip
        if not paths:
            continue
        absolute = [os.path.abspath(path) for path in paths]
        for path, given in zip(absolute, paths, strict=True):
            if not os.path.exists(path):
                raise ConfigError(f"--{name} {given}: no such file or folder; check the path")
        value: list[str] | list[list[str]] = absolute
        if name == "pairs":
            if len(absolute) % 2:
                raise ConfigError(f"--pairs {paths[-1]}: has no background; give RAW BACKGROUND")
            value = [absolute[k : k + 2] for k in range(0, len(absolute), 2)]
        found.append(f"data.{name}={json.dumps(value)}")
    return found


def find_data(data: DataConfig) -> TrainingData:
    """Read what the settings name.

    Raises
    ------
    ReadError
        If a path cannot be read.
    """
    from napari_txm_bgcorr.io import read_training_data

    return read_training_data(data.references, data.samples, data.pairs, data.darks)
