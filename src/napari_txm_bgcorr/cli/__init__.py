"""The command `txm-bgcorr`: the same work as the panels, without a window.

One module per subcommand. `main` prints errors of the program as one line.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from napari_txm_bgcorr import __version__
from napari_txm_bgcorr.errors import TxmError

from . import (
    correct,
    doctor,
    evaluate,
    harvest,
    info,
    models,
    quality,
    redo,
    simulate,
    stitch,
    train,
    watch,
)
from .bench import command as bench
from .options import expanded, many_values

__all__ = ["app", "main"]

USER_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="txm-bgcorr",
    help="Predict and divide out the uneven background of transmission X-ray microscope images.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("info")(info.info)
app.command("correct")(correct.correct)
app.command("stitch")(stitch.stitch)
app.command("train", cls=many_values(*train.MANY))(train.train)
app.command("harvest")(harvest.harvest)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(bench.app, name="bench")
app.add_typer(models.app, name="models")
app.command("simulate")(simulate.simulate)
app.command("doctor")(doctor.doctor)
app.command("quality")(quality.quality)
app.command("redo")(redo.redo)
app.command("watch")(watch.watch)


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a pipe on Windows knows one code page only
            stream.reconfigure(errors="backslashreplace")
    try:
        # not standalone: typer would say its own errors in four lines, and an interrupt in none
        words = expanded(sys.argv[1:]) if os.name == "nt" else sys.argv[1:]
        code = app(words, standalone_mode=False, windows_expand_args=False)
    except TxmError as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(f"{error.filename or 'system'}: {error.strerror or error}; check path and disk")
    except MemoryError:
        _give_up("out of memory; close other programs or give smaller images")
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own: a wrong option or value
            raise
        _give_up(_usage(error))
    if code == INTERRUPTED:
        typer.echo(
            "txm-bgcorr: interrupted; finished work is kept, give the same command to go on "
            "(train: with --resume)",
            err=True,
        )
    sys.exit(code if isinstance(code, int) else 0)


def _give_up(message: str) -> NoReturn:
    typer.echo(f"txm-bgcorr: {' '.join(message.split())}", err=True)
    sys.exit(USER_ERROR)


def _usage(error: Any) -> str:
    """Format typer's error about a command line with the help to read; print a bare help text."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "txm-bgcorr"
    text = error.format_message()
    if not text or "Usage:" in text:  # a command without arguments shows its help
        typer.echo(text or (context.get_help() if context is not None else ""), err=True)
        sys.exit(USER_ERROR)
    return f"{text.rstrip('.')}; see {command} --help"
