"""Command-line values shared by several commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from napari_txm_bgcorr.errors import ConfigError

__all__ = ["Device", "Grid", "JsonFlag", "PixelNm", "parse_grid"]

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
