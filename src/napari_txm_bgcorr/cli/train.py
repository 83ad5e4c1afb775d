"""`txm-bgcorr train`: train the generator in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_txm_bgcorr.cli.options import Device

__all__ = ["train"]


def train(
    config: Annotated[str, typer.Argument(help="A YAML file or the name of a preset.")],
    run: Annotated[Path, typer.Option("--run", help="Folder of the run; made if missing.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from its checkpoint.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a background generator; everything about the run lives in its folder."""
    from napari_txm_bgcorr.engine.config import load_config
    from napari_txm_bgcorr.engine.train import TrainStep, run_training

    def show(step: TrainStep) -> None:
        for case, error in step.validation.items():
            typer.echo(f"step {step.step}  error {case} {100 * error:.2f} %")
        if not step.losses:
            return
        losses = "  ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
        typer.echo(f"step {step.step}  {losses}  {step.samples_per_s:.1f} samples/s")

    settings = load_config(config, overrides or [])
    run_training(settings, run, resume=resume, device=device, on_step=show)
