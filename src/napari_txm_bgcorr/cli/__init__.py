"""The command `txm-bgcorr`: the same work as the panels, without a window."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from napari_txm_bgcorr import __version__
from napari_txm_bgcorr.cli import bench, correct, doctor, evaluate, info, simulate, train
from napari_txm_bgcorr.core.errors import TxmError

__all__ = ["app", "main"]

USER_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="txm-bgcorr",
    help="Predict and divide out the uneven background of transmission X-ray microscope images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("info")(info.info)
app.command("correct")(correct.correct)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(bench.app, name="bench")
app.command("simulate")(simulate.simulate)
app.command("doctor")(doctor.doctor)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"txm-bgcorr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Hold the options that come before the command."""


def main() -> None:
    """Run the command; a user's error is one line on standard error and exit code 2."""
    try:
        app()
    except TxmError as error:
        message = " ".join(str(error).split())
        typer.echo(f"txm-bgcorr: {message}", err=True)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        typer.echo(
            "txm-bgcorr: interrupted; finished tiles are kept, run again to go on", err=True
        )
        sys.exit(INTERRUPTED)
