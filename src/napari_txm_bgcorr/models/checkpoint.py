"""A model on disk: safetensors weights and a JSON card beside them. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from napari_txm_bgcorr import __version__
from napari_txm_bgcorr.core import write_atomic
from napari_txm_bgcorr.errors import ConfigError, ModelError

from .card import INTENDED_USE, LICENCE, joined_fits, training_facts, without_places
from .embedded_references import PREFIX, Carried
from .network_config import NetworkConfig
from .networks import build_generator

__all__ = [
    "FORMAT_VERSION",
    "Model",
    "list_models",
    "load_model",
    "models_folder",
    "read_card",
    "resolve_model",
    "save_model",
    "shipped_folder",
    "write_model",
]

FORMAT_VERSION = 1
WITH_REFERENCES = 2  # format of a model that carries references, which older programs refuse
FORMAT = "napari-txm-bgcorr model"


@dataclass(frozen=True)
class Model:
    """A generator with what is known about it.

    Attributes
    ----------
    network : Module
        On the CPU, float32, in evaluation mode.
    config : NetworkConfig
    card : mapping
        The JSON card.
    path : Path
        Of the weights.
    sha256 : str
        Hash of the weights file.
    references : Carried or None
        Those that it starts from where a scan brings none.
    """

    network: nn.Module
    config: NetworkConfig
    card: Mapping[str, Any]
    path: Path
    sha256: str
    references: Carried | None = None


def save_model(
    path: Path,
    network: nn.Module,
    config: NetworkConfig,
    *,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    notes: str = "",
    facts: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    references: Carried | None = None,
) -> str:
    """Write ``PATH.safetensors`` and its card ``PATH.json``.

    Parameters
    ----------
    path : Path
        Of the weights; the card has the same name with ``.json``.
    network : Module
    config : NetworkConfig
    training, metrics : mapping or None
        JSON-ready: the training configuration, and figures by set.
    notes : str
        Anything else to know.
    facts : mapping or None
        Card entries that the training's settings do not tell (``instrument``, ``fits``,
        ``data``, ``limits``, ``licence``, ``intended_use``), see `card.facts_of_images` and
        docs/reference/model-card.md. ``fits`` and ``data`` are merged entry by entry.
    dtype : {"float32", "float16"}
        How the weights are stored; they are computed with in float32.
    references : Carried or None
        To be carried in the weights file.

    Returns
    -------
    str
        SHA-256 of the weights file.
    """
    kind = torch.float16 if dtype == "float16" else torch.float32
    tensors = {
        # a copy each: some networks (DynUNet) name one weight twice, which safetensors refuses
        key: value.detach().cpu().to(kind).contiguous().clone()
        for key, value in network.state_dict().items()
    }
    # one entry only: safetensors writes several in any order, and equal weights must hash equal
    carried = {} if references is None else references.tensors()
    version = WITH_REFERENCES if carried else FORMAT_VERSION
    data = save_tensors(tensors | carried, metadata={"format": f"{FORMAT}, version {version}"})
    digest = hashlib.sha256(data).hexdigest()
    card = {
        "format": FORMAT,
        "format_version": version,
        "sha256": digest,
        "network": config.model_dump(mode="json"),
        "dtype": dtype,
        "parameters": sum(t.numel() for t in tensors.values()),
        "program_version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **_stated(training or {}, facts or {}),
        **({} if references is None else {"references": references.describe()}),
        "training": dict(training or {}),
        "metrics": dict(metrics or {}),
        "notes": notes,
    }
    write_model(path, data, card)
    return digest


def write_model(path: Path, weights: bytes, card: Mapping[str, Any]) -> None:
    """Write weights and card, each whole or not at all; the card without any path."""
    write_atomic(path, weights)
    text = json.dumps(without_places(card), indent=1, ensure_ascii=False)
    write_atomic(path.with_suffix(".json"), text.encode())


def _stated(training: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Card entries from the training's settings, overridden by what is given."""
    stated = {"intended_use": INTENDED_USE, "licence": LICENCE, **training_facts(training)}
    for key, value in facts.items():
        if key == "fits":
            stated[key] = joined_fits(stated[key], value)
        else:
            merged = isinstance(value, Mapping) and isinstance(stated.get(key), Mapping)
            stated[key] = {**stated[key], **value} if merged else value
    return stated


def load_model(path: Path) -> Model:
    """Read a model that `save_model` wrote.

    Raises
    ------
    ModelError
        If weights or card are missing, cut short, altered, of another program or of another
        network than the card says.
    """
    card = read_card(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != card["sha256"]:
        raise ModelError(
            f"{path}: does not match its card (hash {digest[:12]}, card {card['sha256'][:12]}); "
            "damaged or exchanged, copy both files again"
        )
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: is no safetensors file ({error}); copy it again") from error
    try:
        config = NetworkConfig.model_validate(card["network"])
        network = build_generator(config)
    except (ValidationError, ConfigError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"{path}: card's network cannot be built ({first})") from error
    carried = {key: tensors.pop(key) for key in list(tensors) if key.startswith(PREFIX)}
    _fill(network, tensors, path)
    try:
        references = Carried.of(carried, card)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return Model(network.eval(), config, card, path, digest, references)


def _fill(network: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    own = network.state_dict()
    for key in sorted(own.keys() ^ tensors.keys()):
        fault = "missing" if key in own else "unexpected"
        raise ModelError(f"{path}: {key} is {fault}; the weights are of another network")
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            raise ModelError(
                f"{path}: {key} has shape {tuple(value.shape)}, expected "
                f"{tuple(own[key].shape)}; the weights are of another network"
            )
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"{path}: {key} holds NaN or infinity; take an earlier model")
    network.load_state_dict({key: value.float() for key, value in tensors.items()})


def read_card(path: Path) -> dict[str, Any]:
    """Card of the model whose weights are in `path`; the weights are not read.

    Raises
    ------
    ModelError
        If the card is missing, damaged or of another program.
    """
    path = path.with_suffix(".json")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path}: the model's card is missing; copy it with the weights"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the model's card cannot be read; copy it again") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelError(f"{path}: is no card of a model of this program")
    if card.get("format_version") not in (FORMAT_VERSION, WITH_REFERENCES):
        raise ModelError(
            f"{path}: format_version {card.get('format_version')!r}, this program reads "
            f"{FORMAT_VERSION} and {WITH_REFERENCES}; update the program or the model"
        )
    for key, kind in (("sha256", str), ("network", dict)):
        if not isinstance(card.get(key), kind):
            raise ModelError(f"{path}: {key} is missing or malformed; copy the card again")
    return card


def models_folder() -> Path:
    """Folder of the user's own models: ``TXM_BGCORR_MODELS``, or beside the user's data."""
    given = os.environ.get("TXM_BGCORR_MODELS")
    if given:
        return Path(given)
    base = os.environ.get("XDG_DATA_HOME") or os.environ.get("LOCALAPPDATA")
    home = Path(base) if base else Path.home() / ".local" / "share"
    return home / "napari-txm-bgcorr" / "models"


def shipped_folder() -> Path:
    """Folder of the models that come with the package."""
    return Path(str(resources.files("napari_txm_bgcorr.models") / "shipped"))


def list_models() -> dict[str, Path]:
    """Models by name: those of the user's folder, and those shipped (which keep their names)."""
    found: dict[str, Path] = {}
    for folder in (models_folder(), shipped_folder()):
        found |= {file.stem: file for file in sorted(folder.glob("*.safetensors"))}
    return found


def resolve_model(model: str | Path) -> Path:
    """Weights file of a model's name, of a file, or of a run's folder.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    named = list_models()
    if str(model) in named:
        return named[str(model)]
    path = Path(model)
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            raise ModelError(f"{model}: run has no exported model yet; let it validate once")
    if not path.is_file():
        known = ", ".join(named) or "none"
        raise ModelError(f"{model}: no such model or file; models are {known}")
    return path
