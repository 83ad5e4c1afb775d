"""`txm-bgcorr train`: train the generator in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_txm_bgcorr.cli.options import Device

__all__ = ["train"]


def train(
    config: Annotated[
        str, typer.Argument(help="A YAML file of settings, or a preset's name: default.")
    ],
    run: Annotated[
        Path,
        typer.Option(
            "--run",
            metavar="FOLDER",
            help="Folder that takes settings, log, checkpoints and the model.",
        ),
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is in the folder.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, for example steps=500 or loss_weights.fft_l1=0.1.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a network that predicts backgrounds; everything about the run is in its folder.

    A file named `stop` in the folder ends the run after the current step.
    """
    from napari_txm_bgcorr.engine.config import load_config

    settings = load_config(config, overrides or [])  # a slip is told before torch is loaded
    from napari_txm_bgcorr.engine.train import TrainStep, run_training

    def show(step: TrainStep) -> None:
        for case, error in step.validation.items():
            typer.echo(f"step {step.step}  error {case} {100 * error:.2f} %")
        if not step.losses:
            return
        losses = "  ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
        typer.echo(f"step {step.step}  {losses}  {step.samples_per_s:.1f} samples/s")

    model = run_training(settings, run, resume=resume, device=device, on_step=show)
    stopped = (run / "stop").exists()
    typer.echo(f"{'stopped; go on with --resume. Model so far' if stopped else 'model'}: {model}")
