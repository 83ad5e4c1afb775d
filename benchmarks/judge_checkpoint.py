"""One row a model: its blind error on real single images and on simulated sessions.

Run ``python benchmarks/judge_checkpoint.py default RUN ...`` with names, files or run folders.
Real images are the cases of ``real_cases.json`` of one tile and no reference, in the folder that
``TXM_BGCORR_DATA`` or ``--data`` names: rms of log(B / B_true) over the lit field, one scale a
tile removed, per cent, as the real suite counts it; a group is the first word of a case's name.
Coverage is the share of pixels within one and two stated standard deviations. Simulated sessions
are those of the preset's validation, and as many of families that are never trained on. No pixel
read here may be trained on for weights that ship.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from napari_txm_bgcorr import io
from napari_txm_bgcorr.backgrounds.generator import Generator
from napari_txm_bgcorr.models.tensors import Batch
from napari_txm_bgcorr.simulation.illumination import FAMILIES
from napari_txm_bgcorr.training.config import TrainConfig, load_config
from napari_txm_bgcorr.training.data.simulated import SimulatedPairs
from napari_txm_bgcorr.training.validation import validate, validation_cases

LIT, ERODE_PX, CLIP = 0.25, 6, 1.0  # as the real suite has them
Image = NDArray[np.float64]
Row = dict[str, float]


def main(given: Sequence[str] | None = None) -> list[Row]:
    """Print the table; give its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, default=os.environ.get("TXM_BGCORR_DATA"))
    parser.add_argument("--sessions", type=int, default=6, help="simulated, four tiles each")
    parser.add_argument("--preset", default="wide", help="whose simulated sessions are judged on")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the preset")
    parser.add_argument("--json", type=Path, help="take the rows as JSON too")
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    simulated = {"seen": _simulated(options, []), "unseen": _simulated(options, _held_out())}
    real = [] if options.data is None else single_cases(Path(options.data))
    rows = [judge(model, real, simulated) for model in options.models]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print("| model | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for model, row in zip(options.models, rows, strict=True):
        cells = [f"{row[name]:.2f}" if name in row else "-" for name in columns]
        print(f"| {model} | " + " | ".join(cells) + " |")
    if options.json is not None:
        options.json.write_text(json.dumps(dict(zip(options.models, rows, strict=True)), indent=1))
    return rows


def judge(
    model: str,
    real: Sequence[tuple[str, Image, Image]],
    simulated: dict[str, tuple[TrainConfig, dict[str, Batch]]],
) -> Row:
    """Figures of one model, per cent; the area under the receiver's curve as it is."""
    generator = Generator(model, "cpu")
    errors: dict[str, list[float]] = {}
    shares = []
    for group, raw, truth in real:
        error, within = _real(generator, raw, truth)
        errors.setdefault(group, []).append(100 * error)
        shares.append(within)
    row = {f"{group} error": float(np.mean(found)) for group, found in errors.items()}
    if errors:
        row["worst"] = max(max(found) for found in errors.values())
        row |= _coverage("real", *np.mean(shares, axis=0))
    for name, (config, cases) in simulated.items():
        if config.network.field_px != generator.field_px:
            continue
        found = validate(generator.model.network, cases, torch.device("cpu"))
        row |= {f"{name} {case}": 100 * found[case] for case in cases}
        if "none_within_1_sd" in found:
            row |= _coverage(name, found["none_within_1_sd"], found["none_within_2_sd"])
            row[f"{name} free AUC"] = found.get("none_free_auc", float("nan"))
    return row


def _coverage(name: str, one: float, two: float) -> Row:
    return {f"{name} within 1 sd": 100 * one, f"{name} within 2 sd": 100 * two}


def _real(generator: Generator, raw: Image, truth: Image) -> tuple[float, tuple[float, float]]:
    """Error of one image, and shares of its lit pixels within one and two standard deviations."""
    found = generator.predict(raw[None])
    lit = binary_erosion(truth > LIT * np.median(truth), iterations=ERODE_PX)
    off = (found.log_background[0] - np.log(np.maximum(truth, 1e-3)))[lit]
    error = float(np.sqrt(np.mean(np.clip(off - np.median(off), -CLIP, CLIP) ** 2)))
    sigmas = np.abs(off - off.mean()) / np.exp(found.log_sd[0][lit])
    return error, (float((sigmas <= 1).mean()), float((sigmas <= 2).mean()))


def single_cases(data: Path) -> list[tuple[str, Image, Image]]:
    """Group, raw image and true background (of median 1) of each case with nothing given."""
    found = []
    for case in json.loads((data / "real_cases.json").read_text(encoding="utf-8")):
        if len(case["tiles"]) == 1 and not case.get("references"):
            truth = [_image(data / name) for name in case["truth"]]
            mean = np.mean([image / np.median(image) for image in truth], axis=0)
            found.append((case["name"].split()[0], _image(data / case["tiles"][0]), mean))
    return found


def _image(path: Path) -> Image:
    return np.asarray(io.read(path).tiles[0], np.float64)


def _simulated(
    options: argparse.Namespace, families: list[str]
) -> tuple[TrainConfig, dict[str, Batch]]:
    sessions: Any = [f"data.validation_sessions={options.sessions}"]
    config = load_config(options.preset, [*sessions, f"data.families={families}", *options.set])
    return config, validation_cases(SimulatedPairs(config))


def _held_out() -> list[str]:
    return [name for name, family in FAMILIES.items() if family.held_out]


if __name__ == "__main__":
    main()
