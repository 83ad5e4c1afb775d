"""Command-line values shared by several commands."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from napari_txm_bgcorr.errors import ConfigError

__all__ = [
    "Device", "Grid", "JsonFlag", "PixelNm", "expanded", "many_values", "on_command_line",
    "parse_grid", "repeated", "split_parts",
]  # fmt: skip

Grid = Annotated[
    str | None,
    typer.Option(
        "--grid",
        metavar="ROWSxCOLUMNS",
        help="Rows and columns of a mosaic, where the files do not say; "
        "tiles run from the bottom left, rightwards, then up.",
    ),
]
PixelNm = Annotated[
    float | None,
    typer.Option("--pixel-nm", help="Pixel size on the sample in nm, instead of the file's own."),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="NAME", help="Where the network runs: auto, cpu, cuda, cuda:N or mps."
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Paths = list[Path]


def parse_grid(text: str | None) -> tuple[int, int] | None:
    """Turn ``"5x4"`` into (rows, columns).

    Raises
    ------
    ConfigError
        If the text is not two positive numbers.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,4})\s*[xX,]\s*(\d{1,4})\s*", text)
    if match is None or 0 in (rows_columns := (int(match[1]), int(match[2]))):
        raise ConfigError(f"--grid {text}: not a grid; give rows x columns, for example 5x4")
    return rows_columns


def split_parts(text: str) -> tuple[str, ...]:
    """Turn ``"background, corrected"`` into names."""
    return tuple(part for part in text.replace(" ", "").split(",") if part)


def on_command_line(context: typer.Context, name: str) -> bool:
    """Tell whether a parameter was given, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


AGAIN = ("--reference", "--dark")  # given once for each of their values
KEPT = ("--pattern", "--set")  # what follows is no path


def expanded(words: Sequence[str]) -> list[str]:
    """Words of a command line with wildcards expanded, for Windows, whose shells do not.

    Left as they are: files that have such characters in their names, patterns that match no
    file, and what follows an option of `KEPT`.
    """
    out: list[str] = []
    before = ""
    for word in words:
        wild = any(c in word for c in "*?[") and not os.path.exists(word)
        found = sorted(glob.glob(word)) if wild and before not in KEPT else []
        for path in found or [word]:
            if path != (found or [word])[0] and before in AGAIN:
                out.append(before)
            out.append(path)
        before = word
    return out


def repeated(arguments: Sequence[str], names: Collection[str]) -> list[str]:
    """Repeat the name of an option before each of its values, as the parser wants it.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line. The values of an option end at the next word that starts with
        ``-``; options without value are not in `names`.
    names : collection of str
        Options that take several values.
    """
    out: list[str] = []
    name, count = "", 0
    for word in arguments:
        if word.startswith("-") and len(word) > 1:
            name, count = (word, 0) if word in names else ("", 0)
        elif name:
            if count:
                out.append(name)
            count += 1
        out.append(word)
    return out


def many_values(*names: str) -> type[TyperCommand]:
    """Class of a command whose options `names` take several values."""

    class ManyValues(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Repeat the options' names, then parse."""
            return super().parse_args(ctx, repeated(args, names))

    return ManyValues
