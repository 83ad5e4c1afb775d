"""Weights of one network in another: more outputs, fewer, or one more coarse level."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from napari_txm_bgcorr.errors import ConfigError

from .checkpoint import load_model, resolve_model

__all__ = ["start_from"]

State = Mapping[str, Tensor]
LEVEL = re.compile(r"^(.*\.)?(down|encode|up|decode|bottom)\.(\d+\.)?(.*)$")


@torch.no_grad()
def start_from(network: nn.Module, model: str | Path) -> None:
    """Give a network the weights of a model, so that it predicts the same backgrounds.

    Outputs that the model lacks keep their own start, those that the network lacks are left out.
    A `ResidualUNet` with one coarse level more starts with that level silent.

    Parameters
    ----------
    network : Module
        From `build_generator`; changed in place.
    model : str or Path
        Name, weights file or run folder.

    Raises
    ------
    ModelError
        If the model cannot be read.
    ConfigError
        If its weights do not fit the network.
    """
    loaded = load_model(resolve_model(model))
    own = network.state_dict()
    given = _deepened(dict(loaded.network.state_dict()), own)
    for key in own:
        if key not in given or not _fits(given[key], own[key]):
            size = tuple(given[key].shape) if key in given else "missing"
            raise ConfigError(
                f"init: {model}: weights of {key} are {size}, the network wants "
                f"{tuple(own[key].shape)}; set network.name and network.features as the model's"
            )
        count = min(len(given[key]), len(own[key])) if own[key].ndim else None
        if count is None:
            own[key].copy_(given[key])
        else:
            own[key][:count].copy_(given[key][:count])


def _fits(given: Tensor, own: Tensor) -> bool:
    """Return True if shapes are equal, or differ by 1 output against 3 in the first dimension."""
    if given.shape == own.shape:
        return True
    sizes = sorted((len(given), len(own))) if given.ndim and own.ndim else (1, 2)
    return given.shape[1:] == own.shape[1:] and sizes[1] == 3 * sizes[0]


def _deepened(given: dict[str, Tensor], own: State) -> dict[str, Tensor]:
    """Weights of a `ResidualUNet` with one more coarse level, which changes nothing at first."""
    depth = _levels(given)
    if not depth or _levels(own) != depth + 1:
        return given
    out = dict(own)
    for key, value in given.items():
        found = LEVEL.match(key)
        if found is None:
            out[key] = value
            continue
        prefix, part, place, rest = found.groups()
        number = 0 if place is None else int(place[:-1])
        if part in ("down", "encode"):
            out[f"{prefix or ''}{part}.{number}.{rest}"] = value
        elif part == "bottom":  # what was coarsest is met on the way up now
            out[f"{prefix or ''}decode.0.{rest}"] = value
        else:
            out[f"{prefix or ''}{part}.{number + 1}.{rest}"] = value
    for key, value in own.items():
        if re.search(r"(^|\.)up\.0\.", key):
            out[key] = torch.zeros_like(value)
    return out


def _levels(state: State) -> int:
    found = {m[2] for m in (re.search(r"(^|\.)down\.(\d+)\.", key) for key in state) if m}
    return len(found) if any(re.search(r"(^|\.)bottom\.", key) for key in state) else 0
