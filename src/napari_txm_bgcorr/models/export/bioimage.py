"""A model as a bioimage.io package: ONNX from raw counts to background counts, no prior."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch

from napari_txm_bgcorr.errors import ConfigError, ModelError
from napari_txm_bgcorr.models.card import INTENDED_USE, LICENCE, fits, left_out
from napari_txm_bgcorr.models.checkpoint import Model

from .graph import BlindBackground
from .onnx import OPSET, check_onnx, needs, onnx_bytes, quiet, sample_tile, whole_file

__all__ = ["readme", "write_package"]

LEAST_PX = 64
PYDANTIC = "pydantic<2.13"  # bioimageio.spec 0.5.12 fails while serialising under 2.14
CITED = (
    ("Isola et al. 2017, Image-to-image translation", "10.1109/CVPR.2017.632"),
    ("Ronneberger et al. 2015, U-Net", "10.1007/978-3-319-24574-4_28"),
)


def write_package(model: Model, name: str, out: Path) -> dict[str, Any]:
    """Write a package that bioimageio.spec accepts, with test tensors.

    Parameters
    ----------
    model : Model
    name : str
        Of the model.
    out : Path
        Zip file to make.

    Returns
    -------
    dict
        ``validator`` (its verdict), ``checked`` (see `export.check_onnx`).

    Raises
    ------
    ConfigError
        If bioimageio.spec or an ONNX package is missing, or pydantic is too new for it.
    ModelError
        If the validator refuses the package.
    """
    needs("bioimageio.spec")
    data = onnx_bytes(model, blind=True)
    checked = check_onnx(data, model)
    with tempfile.TemporaryDirectory(prefix="txm-export-") as folder, quiet():
        place = Path(folder)
        (place / "weights.onnx").write_bytes(data)
        (place / "README.md").write_text(readme(model.card, name), encoding="utf-8")
        tile = sample_tile(model.config.field_px)[None, None]
        with torch.inference_mode():
            graph = BlindBackground(model.network, model.config.field_px)
            background = graph(torch.from_numpy(tile)).numpy()
        np.save(place / "test_counts.npy", tile)
        np.save(place / "test_background.npy", background)
        with whole_file(out) as part:
            verdict = _package(place, _described(model, name), part)
    return {"validator": verdict, "opset": OPSET, "checked": checked}


def _package(place: Path, described: dict[str, Any], part: Path) -> str:
    """Build, pack and check again what was packed; nothing is looked up in the network."""
    from bioimageio.spec import (
        InvalidDescr,
        ValidationContext,
        build_description,
        load_description,
        save_bioimageio_package,
    )

    with ValidationContext(root=place, perform_io_checks=True):
        built = build_description(described)
        if isinstance(built, InvalidDescr):
            _refuse(built)
        save_bioimageio_package(built, output_path=part)
    again = load_description(part, perform_io_checks=True)
    if isinstance(again, InvalidDescr):
        _refuse(again)
    return str(again.validation_summary.status)


def _refuse(invalid: Any) -> None:
    found = [error.msg for detail in invalid.validation_summary.details for error in detail.errors]
    if any("package_file_descr_serializer" in message for message in found):
        raise ConfigError(
            f"pydantic {pydantic.VERSION}: bioimageio.spec cannot write packages with it; "
            f'pip install "{PYDANTIC}"'
        )
    raise ModelError(f"bioimage.io package: refused by its validator ({'; '.join(found)[:300]})")


def _described(model: Model, name: str) -> dict[str, Any]:
    card = model.card
    spatial = {"type": "space", "unit": None}
    size_in = {"min": min(LEAST_PX, model.config.field_px), "step": 1}

    def like(axis: str) -> dict[str, str]:
        return {"tensor_id": "counts", "axis_id": axis}

    return {
        "type": "model",
        "format_version": "0.5.4",
        "name": f"TXM background {_plain(name)}",
        "description": "Background of raw transmission X-ray microscope images, in counts.",
        "authors": [{"name": "The napari-txm-bgcorr developers"}],
        "license": str(card.get("licence", LICENCE)),
        "cite": [{"text": text, "doi": doi} for text, doi in CITED],
        "documentation": {"source": "README.md"},
        "tags": ["x-ray-microscopy", "background-correction", "flat-field", "unet", "2d"],
        "version": str(card.get("program_version", "0.1.0")),
        "inputs": [
            {
                "id": "counts",
                "description": "Raw counts of a whole tile, dark removed where it is known.",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["counts"]},
                    {**spatial, "id": "y", "size": size_in},
                    {**spatial, "id": "x", "size": size_in},
                ],
                "data": {"type": "float32"},
                "test_tensor": {"source": "test_counts.npy"},
            }
        ],
        "outputs": [
            {
                "id": "background",
                "description": "What an image without sample would read, in counts.",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["background"]},
                    {**spatial, "id": "y", "size": like("y")},
                    {**spatial, "id": "x", "size": like("x")},
                ],
                "data": {"type": "float32"},
                "test_tensor": {"source": "test_background.npy"},
            }
        ],
        "weights": {"onnx": {"source": "weights.onnx", "opset_version": OPSET}},
        "config": {"txm_bgcorr": {"weights_sha256": model.sha256, "fits": fits(card)}},
    }


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in " -_" else "-" for c in name)[:80]


def readme(card: Mapping[str, Any], name: str) -> str:
    """Documentation of a package, from the model's card (Markdown)."""
    network = card.get("network")
    field = network.get("field_px", "?") if isinstance(network, Mapping) else "?"
    lines = [
        f"# TXM background {name}",
        "",
        str(card.get("intended_use", INTENDED_USE)),
        "",
        "Feed one whole tile (the graph resamples it to "
        f"{field} x {field} px itself; do not cut it into blocks). Input and output are counts: "
        "logarithm, scale and their undoing are inside. Divide: (raw - dark) / background.",
        "",
        "## Data it is for",
        "",
        *[f"- {key}: {value}" for key, value in fits(card).items()],
        f"- instrument: {card.get('instrument', 'not stated')}",
        "",
        "## Validation",
        "",
        "Rms of the log background error on sessions not trained on, one scale per tile "
        "removed (0.03 is 3 %):",
        "",
        *_figures(card.get("metrics")),
        "",
        "To judge it on your data, predict the background of raw tiles whose reference was taken "
        "within minutes, and compare.",
        "",
        "## Limits",
        "",
        *[f"- {limit}" for limit in [*card.get("limits", []), left_out(card)] if limit],
        str(card.get("notes", "")),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _figures(metrics: Any) -> list[str]:
    found = metrics.get("validation_error_sf") if isinstance(metrics, Mapping) else None
    if not isinstance(found, Mapping) or not found:
        return ["not stated on the model's card"]
    return [f"- {case}: {error:.4f}" for case, error in found.items()]
