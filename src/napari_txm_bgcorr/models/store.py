"""The user's models as a list: look, rename, import, copy, remove. The shipped ones stay."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.core import remove_file
from napari_txm_bgcorr.core import rename as rename_file
from napari_txm_bgcorr.errors import ModelError, WriteError

from .checkpoint import (
    list_models,
    load_model,
    models_folder,
    read_card,
    resolve_model,
    shipped_folder,
    write_model,
)

__all__ = [
    "ModelRow",
    "copy_model",
    "find_model",
    "import_model",
    "model_rows",
    "remove_model",
    "rename_model",
    "unused_name",
]

_NAME = re.compile(r"[\w][\w .+-]{0,79}")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # Windows refuses these


@dataclass(frozen=True)
class ModelRow:
    """One line of the list.

    Attributes
    ----------
    name : str
    path : Path
        Weights file.
    shipped : bool
        Comes with the package: can be neither renamed nor removed.
    network, date : str
        From the card; empty where it cannot be read.
    megabytes : float
        Of the weights.
    error : float or None
        Mean validation error (scale-free, 0.03 is 3 %), where the card has one.
    references : str
        Those it carries: how many, and the day of the newest; empty: none.
    fault : str
        Why the model cannot be used; empty where nothing is known against it.
    """

    name: str
    path: Path
    shipped: bool
    network: str = ""
    date: str = ""
    megabytes: float = 0.0
    error: float | None = None
    fault: str = ""
    references: str = ""


def model_rows() -> list[ModelRow]:
    """All models known by name, the shipped first; damaged cards are named, not fatal."""
    rows = []
    for name, path in list_models().items():
        shipped = path.parent == shipped_folder()
        megabytes = round(path.stat().st_size / 2**20, 1)
        try:
            card = read_card(path)
        except ModelError as error:
            rows.append(ModelRow(name, path, shipped, megabytes=megabytes, fault=str(error)))
            continue
        network = str(card["network"].get("name", ""))
        date = str(card.get("date", ""))[:10]
        row = ModelRow(name, path, shipped, network, date, megabytes, _error(card))
        rows.append(replace(row, references=_references(card)))
    return sorted(rows, key=lambda row: (not row.shipped, row.name.lower()))


def _error(card: Mapping[str, Any]) -> float | None:
    metrics = card.get("metrics")
    found = metrics.get("validation_error_sf") if isinstance(metrics, Mapping) else None
    mean = found.get("mean") if isinstance(found, Mapping) else None
    return float(mean) if isinstance(mean, (int, float)) else None


def _references(card: Mapping[str, Any]) -> str:
    found = card.get("references")
    if not isinstance(found, Mapping):
        return ""
    day = str(found.get("newest") or "")[:10]
    return f"{found.get('count', '?')}, {day or 'undated'}"


def find_model(model: str | Path) -> tuple[Path, dict[str, Any]]:
    """Weights file and card of a model's name, file or run folder."""
    path = resolve_model(model)
    return path, read_card(path)


def import_model(source: Path, name: str | None = None) -> Path:
    """Check a model and copy it into the user's folder.

    Parameters
    ----------
    source : Path
        Weights file with its card beside it, or a run's folder.
    name : str or None
        Under which it is known then; None: that of the file, or of the run's folder.

    Returns
    -------
    Path
        Its weights file in the user's folder.

    Raises
    ------
    ModelError
        If the model is damaged, or the name is taken or unusable.
    """
    path = source if source.is_file() else resolve_model(source)
    if name is None:
        name = source.resolve().name if source.is_dir() else path.stem
    target = _new_place(name)
    load_model(path)  # a model that cannot be loaded is not taken in
    return copy_model(path, target)


def copy_model(source: Path, target: Path) -> Path:
    """Copy weights and card; every path in the card is cut to its last part.

    Raises
    ------
    ModelError
        If the weights do not match their card.
    WriteError
        If there is something at the target already.
    """
    if target.suffix != ".safetensors":
        raise WriteError(f"{target}: give a name that ends in .safetensors")
    for place in (target, target.with_suffix(".json")):
        if place.exists():
            raise WriteError(f"{place}: exists already; give another name or remove it")
    card, data = read_card(source), source.read_bytes()
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise ModelError(f"{source}: does not match its card; copy both files again")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_model(target, data, card)
    return target


def rename_model(name: str, new: str) -> Path:
    """Give one of the user's models another name.

    Raises
    ------
    ModelError
        If there is no such model, it is a shipped one, or the new name is taken or unusable.
    """
    path, target = _own(name), _new_place(new)
    card = path.with_suffix(".json")
    rename_file(path, target)  # first: without its card it is seen, a card alone is not
    if card.exists():
        rename_file(card, target.with_suffix(".json"))
    return target


def remove_model(name: str) -> Path:
    """Delete one of the user's models; returns where it was.

    Raises
    ------
    ModelError
        If there is no such model, or it is a shipped one.
    """
    path = _own(name)
    remove_file(path)
    remove_file(path.with_suffix(".json"))
    return path


def unused_name(wish: str) -> str:
    """Make a usable file name of the wanted one, with a number if a model has it already."""
    base = re.sub(r"[^\w .+-]", "-", wish).strip(" .-")[:70] or "model"
    if _RESERVED.fullmatch(base):
        base = f"model-{base}"
    taken, name, number = {n.lower() for n in list_models()}, base, 2
    while name.lower() in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def _own(name: str) -> Path:
    named = list_models()
    if name not in named:
        known = ", ".join(named) or "none"
        raise ModelError(f"{name}: no such model; models are {known}")
    if named[name].parent == shipped_folder():
        raise ModelError(f"{name}: comes with the program and stays; import a copy of your own")
    return named[name]


def _new_place(name: str) -> Path:
    if not _NAME.fullmatch(name) or name[-1] in " ." or _RESERVED.fullmatch(name):
        raise ModelError(
            f"{name!r}: is no name for a model; use letters, digits, spaces, dots and dashes"
        )
    taken = {known.lower(): path for known, path in list_models().items()}
    if name.lower() in taken:  # some file systems tell no case
        raise ModelError(f"{name}: a model has that name already; choose another")
    return models_folder() / f"{name}.safetensors"
