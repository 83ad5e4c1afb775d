"""A model as one ONNX graph, checked against the model itself."""

from __future__ import annotations

import importlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_txm_bgcorr.core import replace_file
from napari_txm_bgcorr.errors import ConfigError, ModelError
from napari_txm_bgcorr.models.card import left_out, without_places
from napari_txm_bgcorr.models.checkpoint import Model
from napari_txm_bgcorr.simulation import simulate_tile

from .graph import BlindBackground, CountsToBackground

__all__ = [
    "OPSET",
    "TOLERANCE",
    "check_onnx",
    "needs",
    "onnx_bytes",
    "quiet",
    "sample_tile",
    "whole_file",
]

TOLERANCE = 1e-3  # of the natural logarithm of the background, at any pixel
OPSET = 18
CHECKED_SHARES = (1.0, 2.0, 1.25)  # of the field: itself, a multiple, none (and not square)
Image = NDArray[np.float32]


def onnx_bytes(model: Model, *, blind: bool = False) -> bytes:
    """A model as ONNX, from raw counts of any size to background counts.

    Parameters
    ----------
    model : Model
    blind : bool
        Leave out the prior: one input instead of three.

    Raises
    ------
    ConfigError
        If onnx or onnxscript is missing.
    ModelError
        If the network has parts that ONNX cannot express.
    """
    needs("onnx", "onnxscript")
    edge = model.config.field_px
    counts = torch.from_numpy(sample_tile(edge + 8))[None, None].repeat(2, 1, 1, 1)
    sizes = {0: "n", 2: "y", 3: "x"}
    inputs: tuple[torch.Tensor, ...] = (counts,)
    graph: torch.nn.Module = BlindBackground(model.network, edge)
    names = ["counts"]
    shapes: tuple[dict[int, str], ...] = (sizes,)
    if not blind:
        graph = CountsToBackground(model.network, edge)
        inputs = (counts, 1.1 * counts, torch.tensor([-1.0, 0.02]))
        names, shapes = ["counts", "prior", "prior_error"], (sizes, sizes, {0: "n"})
    with quiet():
        try:
            program = torch.onnx.export(
                graph,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=shapes,
                input_names=names,
                output_names=["background"],
                verbose=False,
            )
        except Exception as error:  # torch.onnx raises many kinds, all its own
            if not isinstance(error, (torch.onnx.OnnxExporterError, RuntimeError, ValueError)):
                raise
            first = next(iter(str(error).split(". ")), "no reason given")
            raise ModelError(
                f"{model.path}: network {model.config.name} cannot become ONNX ({first})"
            ) from error
    if program is None:
        raise ModelError(f"{model.path}: network {model.config.name} cannot become ONNX")
    proto = program.model_proto
    for key, value in _described(model).items():
        proto.metadata_props.add(key=key, value=value)
    data: bytes = proto.SerializeToString()
    return data


def _described(model: Model) -> dict[str, str]:
    card = without_places(model.card)
    if lacking := left_out(card):
        card["limits"] = [*card.get("limits", []), lacking]
    return {
        "card": json.dumps(card),
        "counts": "(n, 1, y, x) float32: raw counts, dark removed where it is known",
        "prior": "(n, 1, y, x) float32: a reference in counts; anything where there is none",
        "prior_error": "(n,) float32: expected rms of the prior's log (0.02: 2 %); -1: no prior",
        "background": "(n, 1, y, x) float32: what a reference would read, in counts",
    }


def check_onnx(data: bytes, model: Model) -> list[dict[str, Any]]:
    """Compare with torch on simulated tiles of three sizes, with and without a prior.

    Returns
    -------
    list of dict
        ``size`` (Y, X) and ``difference``: greatest of the log backgrounds.

    Raises
    ------
    ModelError
        If any pixel differs by more than `TOLERANCE`.
    ConfigError
        If onnxruntime is missing.
    """
    needs("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    known = {item.name for item in session.get_inputs()}
    graph: torch.nn.Module
    if "prior" in known:
        graph = CountsToBackground(model.network, model.config.field_px)
    else:
        graph = BlindBackground(model.network, model.config.field_px)
    done = []
    for share in CHECKED_SHARES:
        side = int(model.config.field_px * share)
        tile = sample_tile(side)[:, : side - (side % 2 == 0 and share == CHECKED_SHARES[-1]) * 6]
        feeds = _feeds(tile, known)
        with torch.inference_mode():
            expected = graph(*(torch.from_numpy(feeds[name]) for name in feeds)).numpy()
        found = session.run(None, feeds)[0]
        difference = float(np.abs(np.log(found) - np.log(expected)).max())
        if not difference <= TOLERANCE:
            raise ModelError(
                f"{model.path}: as ONNX differs by {difference:.2g} from torch at "
                f"{tile.shape[1]} x {tile.shape[0]} px; update torch and onnxruntime"
            )
        done.append({"size": list(tile.shape), "difference": difference})
    return done


def _feeds(tile: Image, known: set[str]) -> dict[str, NDArray[np.float32]]:
    counts = tile[None, None]
    if "prior" not in known:
        return {"counts": counts}
    smooth = np.full_like(counts, np.median(tile)) * np.linspace(0.9, 1.1, tile.shape[1])
    return {
        "counts": np.concatenate([counts, counts]),
        "prior": np.concatenate([counts, smooth.astype(np.float32)]),
        "prior_error": np.array([-1.0, 0.02], np.float32),
    }


def sample_tile(size: int) -> Image:
    """A simulated raw tile `(Y, X)` float32 in counts, dark removed: the same every time."""
    made = simulate_tile(size=size, specimen="cells", family="bl01b", seed=11)
    tile: Image = np.asarray(made.scan.tiles[0], np.float32) - made.session.dark
    return tile


def needs(*packages: str) -> None:
    """Refuse if a package of the extra ``export`` is missing.

    Raises
    ------
    ConfigError
        Naming it.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"package {package}: needed for this export; "
                'pip install "napari-txm-bgcorr[export]"'
            ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters' warnings and log lines, which a user cannot act on, to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """A place beside `out` to write to, which takes its name when all is well."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-") as folder:
        part = Path(folder) / out.name
        yield part
        replace_file(part, out)
