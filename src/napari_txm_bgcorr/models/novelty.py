"""Novelty of a tile to a network: distance of its inner features from those of the training.

The network sees a tile without a prior; the features of its coarsest layer, averaged over the
field, are compared with those of simulated training tiles by the Mahalanobis distance along
their main axes (after K. Lee et al., NeurIPS 31 (2018) 7167). This detects scans of another
kind; it does not tell which tiles are wrong: see the page "Flags" of the documentation.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_txm_bgcorr.core import Scan, TileResult, spread_indices, write_atomic
from napari_txm_bgcorr.errors import ModelError
from napari_txm_bgcorr.simulation import simulate_tile

from .checkpoint import Model, load_model, resolve_model
from .devices import one_thread
from .tensors import log_field, network_input

__all__ = [
    "CARD_KEY",
    "Features",
    "Novelty",
    "add_features",
    "describe_features",
    "novelty_of",
    "unlike_training",
]

CARD_KEY = "features"
AXES = 32  # of the features' distribution that are kept
EDGE = 0.95  # of the training tiles lie within novelty 1
GLANCES = 3  # tiles that tell what kind of scan it is
LOOKED_AT = 100  # tiles of a result: the network's look takes longer than all other figures
SEED = 0x4E4F56  # of the simulated tiles; no other seed begins with it
Floats = NDArray[np.float64]


class Features:
    """Features `(C,)` of a tile in the coarsest layer of a network.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model) -> None:
        self._network, self._field = model.network, model.config.field_px
        self._layer = _coarsest(self._network, self._field)
        self._one_at_a_time = Lock()  # a hook would see the tiles of other threads

    @torch.inference_mode()
    def __call__(self, raw: NDArray[Any], dark: NDArray[np.float32] | None) -> Floats:
        """Features of a raw tile `(Y, X)` counts, less its dark where known."""
        counts = np.asarray(raw, np.float32)
        counts = counts if dark is None else counts - dark
        seen: list[Tensor] = []
        layer = dict(self._network.named_modules())[self._layer]
        log_raw = log_field(torch.from_numpy(counts)[None, None], self._field)
        with self._one_at_a_time, one_thread("cpu"):
            hook = layer.register_forward_hook(lambda _, __, out: seen.append(out))
            try:
                self._network(network_input(log_raw, None, None))
            finally:
                hook.remove()
        out: Floats = seen[-1].float().mean(dim=(0, 2, 3)).numpy().astype(np.float64)
        return out


@torch.inference_mode()
def _coarsest(network: nn.Module, field_px: int) -> str:
    """Name of the last layer whose output is smallest in size."""
    sizes: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, __: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.ndim == 4:
                sizes[name] = out.shape[-1] * out.shape[-2]

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in network.named_modules()]
    try:
        with one_thread("cpu"):
            network(network_input(torch.zeros(1, 1, field_px, field_px), None, None))
    finally:
        for hook in hooks:
            hook.remove()
    least = min(sizes.values())
    return [name for name, size in sizes.items() if size == least][-1]


def describe_features(model: Model, *, tiles: int = 400, size: int = 256) -> dict[str, Any]:
    """Distribution of the features over simulated tiles, for the model's card.

    Parameters
    ----------
    model : Model
        On the CPU.
    tiles : int
        Of sessions and specimens as in training.
    size : int
        Pixels along a tile.

    Returns
    -------
    dict
        JSON-ready: mean, axes and spreads as base64 of little-endian float16 and float32, and
        the distance that `EDGE` of the tiles do not exceed.

    Raises
    ------
    ModelError
        If `tiles` is too small for the number of axes.
    """
    if tiles < 2 * AXES:
        raise ModelError(f"tiles {tiles}: too few for {AXES} axes; give {2 * AXES} or more")
    look = Features(model)
    rows = []
    for k in range(tiles):
        scan = simulate_tile(size=size, seed=SEED * 1000 + k, darks=k % 2).scan
        rows.append(look(np.asarray(scan.tiles[0]), scan.dark()))
    found = np.stack(rows)
    mean = found.mean(axis=0)
    _, spread, axes = np.linalg.svd(found - mean, full_matrices=False)
    count = min(AXES, len(axes))
    space = _Space(mean, axes[:count], spread[:count] / np.sqrt(tiles), 1.0)
    edge = float(np.quantile([space.distance(row) for row in found], EDGE))
    return {
        "tiles": tiles, "axes_kept": count, "edge": round(edge, 4),
        "mean": _packed(mean, "<f4"), "axes": _packed(space.axes, "<f2"),
        "spread": _packed(space.spread, "<f4"),
    }  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Space:
    """Mean `(C,)`, axes `(K, C)` and spread along them `(K,)`."""

    mean: Floats
    axes: Floats
    spread: Floats
    edge: float

    def distance(self, features: Floats) -> float:
        along = self.axes @ (features - self.mean) / np.maximum(self.spread, 1e-12)
        return float(np.sqrt(np.mean(along * along))) / self.edge


def _packed(values: Floats, kind: str) -> str:
    # without slashes: a card's texts with slashes are taken for paths and cut
    return base64.urlsafe_b64encode(np.ascontiguousarray(values, kind).tobytes()).decode("ascii")


def _unpacked(card: Mapping[str, Any]) -> _Space:
    def floats(key: str, kind: str) -> Floats:
        return np.frombuffer(base64.urlsafe_b64decode(card[key]), kind).astype(np.float64)

    mean, spread = floats("mean", "<f4"), floats("spread", "<f4")
    axes = floats("axes", "<f2").reshape(len(spread), len(mean))
    return _Space(mean, axes, spread, float(card["edge"]))


class Novelty:
    """Tell how unlike its training a tile is to a model: 1 is the edge of the training.

    Parameters
    ----------
    scan : Scan
        That the tiles are of; its dark is removed.
    model : str
        Model's name, weights file, or run folder.

    Raises
    ------
    ModelError
        If the model cannot be read, or its card does not describe its features.
    """

    def __init__(self, scan: Scan, model: str = "default") -> None:
        loaded = load_model(resolve_model(model))
        card = loaded.card.get(CARD_KEY)
        if not isinstance(card, Mapping):
            raise ModelError(f"{loaded.path}: its card does not describe features; no novelty")
        try:
            self._space = _unpacked(card)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{loaded.path}: card's features cannot be read ({error}); copy it again"
            ) from error
        self.sha256 = loaded.sha256
        self._look, self._dark = Features(loaded), scan.dark()
        if len(self._look(np.ones((8, 8)), None)) != len(self._space.mean):
            raise ModelError(f"{loaded.path}: card's features are of another network")

    def __call__(self, tile: TileResult) -> float:
        """Novelty of one tile."""
        return self.of(tile.raw)

    def of(self, raw: NDArray[Any]) -> float:
        """Novelty of a raw tile `(Y, X)`, counts."""
        return self._space.distance(self._look(raw, self._dark))


def novelty_of(
    scan: Scan, provenance: Mapping[str, Any] | None
) -> Callable[[TileResult], float] | None:
    """Function that gives the novelty of a result's tiles to the model that made it.

    Parameters
    ----------
    scan : Scan
    provenance : mapping or None
        Of the result.

    Returns
    -------
    callable or None
        NaN for tiles beyond `LOOKED_AT`, which are spread over the scan. None where no network
        made the result, or its very weights are not at hand.
    """
    noted = provenance or {}
    weights = noted.get("weights_sha256")
    if not weights:
        return None
    try:
        told = Novelty(scan, str(noted.get("parameters", {}).get("model", "default")))
    except ModelError:
        return None
    if told.sha256 != weights:
        return None
    chosen = set(spread_indices(len(scan), LOOKED_AT))
    return lambda tile: told(tile) if tile.index in chosen else float("nan")


def unlike_training(scan: Scan, model: str, name: str) -> list[str]:
    """Say before a model is used that a scan is unlike what it was trained on.

    Parameters
    ----------
    scan : Scan
        With the darks that will be used. The model looks at `GLANCES` tiles.
    model : str
        Model's name, weights file, or run folder.
    name : str
        What the user calls it.

    Returns
    -------
    list of str
        One sentence, or none: the scan is like the training, or the model's card cannot tell.
    """
    try:
        look = Novelty(scan, model)
    except ModelError:
        return []
    found = []
    for i in spread_indices(len(scan), GLANCES):
        raw = np.asarray(scan.tiles[int(i)])
        found.append(look.of(raw))
    median = float(np.median(found))
    if not median > 1:
        return []
    return [
        f"{name}: trained on images unlike these (novelty {median:.1f}, of 19 in 20 training "
        "images below 1); check the result, or fine-tune"
    ]


def add_features(model: str | Path = "default", *, tiles: int = 400) -> Path:
    """Write the distribution of a model's features into its card.

    Returns
    -------
    Path
        Of the weights, which are not changed.

    Raises
    ------
    ModelError
        If the model cannot be read.
    """
    loaded = load_model(resolve_model(str(model)))
    card = {**loaded.card, CARD_KEY: describe_features(loaded, tiles=tiles)}
    text = json.dumps(card, indent=1, ensure_ascii=False)
    write_atomic(loaded.path.with_suffix(".json"), text.encode())
    return loaded.path
