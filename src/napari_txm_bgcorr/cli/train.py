"""`txm-bgcorr train`: train the generator in a run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_txm_bgcorr.errors import ConfigError

from .options import Device

if TYPE_CHECKING:
    from napari_txm_bgcorr.core import TrainingData
    from napari_txm_bgcorr.training import TrainConfig, TrainStep

__all__ = ["MANY", "train"]

MANY = ("--references", "--samples", "--darks", "--pairs")
"""Options that take several values; the settings' own name is first of all."""


def train(
    config: Annotated[
        str | None,
        typer.Argument(
            help="A preset (fine-tune, from-nothing, default, default-coarse) or a YAML file of "
            "settings, given before the options. With --resume: the run's own by default."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="FOLDER",
            help="Folder that takes settings, log, checkpoints and the model.",
        ),
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Option(
            "--references",
            metavar="PATH...",
            help="Images without sample: files, folders and libraries.",
        ),
    ] = None,
    samples: Annotated[
        list[str] | None,
        typer.Option(
            "--samples",
            metavar="PATH...",
            help="Corrected images (transmission) of clean samples: files and folders.",
        ),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--pairs",
            metavar="RAW BACKGROUND...",
            help="Raw images and their backgrounds: two folders of matching names, or two stacks.",
        ),
    ] = None,
    darks: Annotated[
        list[str] | None,
        typer.Option("--darks", metavar="PATH...", help="Images without beam."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is in the folder.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, for example minutes=5 or loss_weights.fft_l1=0.1.",
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Record some steps: FOLDER/profile, trace and table."),
    ] = False,
    device: Device = "auto",
) -> None:
    """Train a network that predicts backgrounds; everything about the run is in its folder.

    A file named `stop` in the folder ends the run after the current step, one named `pause`
    makes it wait until it is removed. Several processes: torchrun --no-python -- txm-bgcorr train.
    """
    from napari_txm_bgcorr.training import load_config
    from napari_txm_bgcorr.workflows import data_overrides

    if run is None:
        raise ConfigError("--run: missing; name the folder of the run")
    source = _source(config, run, resume)
    given = data_overrides(references, samples, pairs, darks)
    settings = load_config(source, [*given, *(overrides or [])])  # slips told before torch loads
    _train(settings, run, resume=resume, device=device, profile=profile)


def _train(settings: TrainConfig, run: Path, *, resume: bool, device: str, profile: bool) -> None:
    """Read the data, train, and tell what happens."""
    from napari_txm_bgcorr.workflows import find_data

    data = find_data(settings.data)
    for sentence in (*data.notes, *_told(settings, data)):
        typer.echo(sentence)
    from napari_txm_bgcorr.training import run_training
    from napari_txm_bgcorr.training.run import read_status

    model = run_training(
        settings, run, resume=resume, device=device, on_step=_show, data=data, profile=profile
    )
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes one tells
    status = read_status(run)
    stopped = status is not None and status.state == "stopped"
    typer.echo(f"{'stopped; go on with --resume. Model so far' if stopped else 'model'}: {model}")


def _show(step: TrainStep) -> None:
    for case, error in step.validation.items():
        typer.echo(f"step {step.step}  error {case} {100 * error:.2f} %")
    for name, value in step.calibration.items():
        typer.echo(f"step {step.step}  {name} {value:.3f}")
    if not step.losses:
        return
    losses = "  ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
    typer.echo(f"step {step.step}  {losses}  {step.samples_per_s:.1f} samples/s")


def _told(settings: TrainConfig, data: TrainingData) -> tuple[str, ...]:
    """Sentences on what is held out for validation, if the user's images are trained on."""
    if not any(data.counts().values()):
        return ()
    from napari_txm_bgcorr.training.data import validation_tells

    return validation_tells(settings, data)


def _source(config: str | None, run: Path, resume: bool) -> str:
    """Source of the settings; a resumed run without CONFIG uses its own."""
    own = run / "config.yaml"
    if config is not None and not (resume and own.is_file() and _is_preset(config)):
        return config
    if config is None and not resume:
        raise ConfigError("CONFIG: missing; give a preset (fine-tune, from-nothing) or a file")
    if not own.is_file() and config is None:
        raise ConfigError(f"{run}: no run to resume; name a preset or file to start one")
    return str(own) if own.is_file() else str(config)


def _is_preset(config: str) -> bool:
    from napari_txm_bgcorr.training import preset_names

    return config in preset_names()
