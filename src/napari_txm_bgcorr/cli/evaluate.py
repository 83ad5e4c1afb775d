"""`txm-bgcorr evaluate`: the quality table of all methods."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from napari_txm_bgcorr.cli.options import Device, JsonFlag
from napari_txm_bgcorr.core.errors import ConfigError

__all__ = ["evaluate"]


def evaluate(
    suite: Annotated[str, typer.Option("--suite", help="simulated, or a folder of tiles.")] = (
        "simulated"
    ),
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Only these methods; default all.")
    ] = None,
    sessions: Annotated[int, typer.Option("--sessions", help="Simulated sessions.")] = 20,
    size: Annotated[int, typer.Option("--size", help="Tile size (px).")] = 256,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sessions.")] = 0,
    model: Annotated[str, typer.Option("--model", help="Model of the learned methods.")] = (
        "default"
    ),
    device: Device = "auto",
    joint: Annotated[
        bool | None,
        typer.Option(
            "--joint/--no-joint",
            help="Every method without and with the joint stage; or none with it.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge background methods on unseen simulated sessions, or on real tiles without truth."""
    from napari_txm_bgcorr.engine import evaluate as suite_module

    if suite == "simulated":
        if sessions < 1:
            raise ConfigError(f"--sessions {sessions}: give at least 1")
        with tqdm(
            unit="session", total=sessions, disable=as_json or not sys.stderr.isatty()
        ) as bar:
            rows = suite_module.evaluate(
                method or None,
                sessions=sessions,
                size=size,
                seed=seed,
                model=model,
                device=device,
                joint=joint,
                progress=bar.update,
            )
    else:
        from napari_txm_bgcorr import io

        scan = io.read(Path(suite))
        rows = suite_module.evaluate_real(scan, method or None, model=model, device=device)
    typer.echo(json.dumps(rows) if as_json else suite_module.format_table(rows))
