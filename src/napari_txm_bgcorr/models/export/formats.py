"""Models for other programs: ONNX, bioimage.io packages, safetensors with their card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.errors import ConfigError, WriteError
from napari_txm_bgcorr.models.checkpoint import load_model, resolve_model
from napari_txm_bgcorr.models.store import copy_model

from .onnx import OPSET, check_onnx, onnx_bytes, whole_file

__all__ = ["EXPORTS", "export_model"]


def export_model(model: str | Path, out: Path) -> dict[str, Any]:
    """Write a model for another program; the suffix says which.

    Parameters
    ----------
    model : str or Path
        Name, weights file or run folder.
    out : Path
        ``.onnx``, ``.zip`` (bioimage.io) or ``.safetensors`` (with its card beside it).

    Returns
    -------
    dict
        ``file`` and what was checked.

    Raises
    ------
    ConfigError
        If the suffix is none of these, or a package of the extra ``export`` is missing.
    ModelError
        If the model is damaged, or what was written computes something else.
    WriteError
        If `out` exists, or cannot be written.
    """
    suffix = out.suffix.lower()
    if suffix not in EXPORTS:
        raise ConfigError(f"{out}: give a name that ends in {', '.join(EXPORTS)}")
    if out.exists():
        raise WriteError(f"{out}: exists already; give another name or remove it")
    path = resolve_model(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    return {"file": str(out), **EXPORTS[suffix](path, out)}


def _safetensors(path: Path, out: Path) -> dict[str, Any]:
    load_model(path)
    copy_model(path, out)
    return {"card": str(out.with_suffix(".json"))}


def _onnx(path: Path, out: Path) -> dict[str, Any]:
    model = load_model(path)
    data = onnx_bytes(model)
    checked = check_onnx(data, model)
    with whole_file(out) as part:
        part.write_bytes(data)
    return {"opset": OPSET, "inputs": ["counts", "prior", "prior_error"], "checked": checked}


def _bioimageio(path: Path, out: Path) -> dict[str, Any]:
    from .bioimage import write_package

    return write_package(load_model(path), path.stem, out)


EXPORTS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    ".onnx": _onnx,
    ".zip": _bioimageio,
    ".safetensors": _safetensors,
}
