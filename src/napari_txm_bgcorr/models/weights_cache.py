"""Weights that stay on a device between tiles, scans and methods."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from .checkpoint import Model, load_model
from .devices import guard

__all__ = ["release", "resident"]


@lru_cache(maxsize=2)
def resident(path: str, modified_ns: int, device: str) -> tuple[Model, nn.Module]:
    """Load a model onto a device once."""
    model = load_model(Path(path))
    with guard(device):
        network = model.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, network.requires_grad_(False)


def release() -> None:
    """Forget the resident weights, so that the device's memory comes back."""
    resident.cache_clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
