"""`txm-bgcorr stitch`: the tiles of a corrected mosaic as one zoomable picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import JsonFlag

__all__ = ["stitch"]


def stitch(
    path: Annotated[
        Path, typer.Argument(metavar="CORRECTED", help="Result of correct: a store or folder.")
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Store (or folder) to make.")
    ],
    parts: Annotated[
        str,
        typer.Option(
            "--parts", metavar="PARTS", help="What to stitch, some of raw,background,corrected."
        ),
    ] = "corrected",
    domain: Annotated[
        str,
        typer.Option(
            "--as", metavar="NAME", help="The corrected part as transmission or od (-ln of it)."
        ),
    ] = "transmission",
    positions: Annotated[
        str,
        typer.Option(
            "--positions",
            metavar="HOW",
            help="auto (as registered during the correction, else registered now, else the "
            "stage's), stored, register, nominal, or a TileConfiguration.txt.",
        ),
    ] = "auto",
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="omezarr or ometiff, both multiscale.")
    ] = "omezarr",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace an earlier result in OUT, once the new is done."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Blend the tiles of a corrected mosaic into one picture that can be zoomed.

    Overlaps are blended with weights that fall linearly to the edges of a tile; bad pixels and
    corners cut off by an aperture are left out. The tiles stay as they are. Give an interrupted
    command again and it goes on.
    """
    from napari_txm_bgcorr.workflows import Bars, stitch_path

    chosen = tuple(part for part in parts.replace(" ", "").split(",") if part)
    with Bars(quiet=as_json or not sys.stderr.isatty()) as bars:
        done = stitch_path(
            path, out, chosen, domain=domain, positions=positions, format=format,
            overwrite=overwrite, progress=bars.progress,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(done))
        return
    height, width = done["shape"]
    typer.echo(f"{done['tiles']} tiles stitched to {width} x {height} px: {done['output']}")
    typer.echo(f"  positions: {done['positions']}: {done['note']}")
