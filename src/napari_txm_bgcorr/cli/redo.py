"""`txm-bgcorr redo`: correct some tiles of a finished output again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from napari_txm_bgcorr.errors import ConfigError

from .options import Device, JsonFlag
from .quality import DarkPaths

__all__ = ["parse_tiles", "redo"]


def redo(
    path: Annotated[
        Path, typer.Argument(metavar="CORRECTED", help="OME-Zarr output of txm-bgcorr correct.")
    ],
    tiles: Annotated[
        str,
        typer.Option(
            "--tiles",
            metavar="LIST",
            help="Tiles to do again, counted from 0: for example 3,7,10-12; or flagged: those "
            "that txm-bgcorr quality flags.",
        ),
    ],
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="As in txm-bgcorr correct.")
    ] = "auto",
    model: Annotated[str, typer.Option("--model", help="As in txm-bgcorr correct.")] = "default",
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference",
            metavar="PATH",
            help="Image without the sample, or a folder of them, for these tiles; repeatable.",
        ),
    ] = None,
    dark: DarkPaths = None,
    local: Annotated[
        int | None,
        typer.Option(
            "--local",
            metavar="N",
            help="Look only at the tiles within N rows and columns (or N exposures) of each.",
        ),
    ] = None,
    device: Device = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Correct some tiles of a finished output again, by another method or reference.

    The other tiles keep every bit, and the raw tiles are never changed. The output's record
    says which tiles were made by what.
    """
    from napari_txm_bgcorr.workflows import flagged_tiles, redo_output

    darks = dark or ()
    chosen = (
        flagged_tiles(path, darks) if tiles.strip().lower() == "flagged" else parse_tiles(tiles)
    )
    done = redo_output(
        path, chosen, method=method, model=model, device=device, references=reference or (),
        darks=darks, local=local,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"output": str(done), "tiles": chosen, "method": method}))
    else:
        count = "1 tile" if len(chosen) == 1 else f"{len(chosen)} tiles"
        typer.echo(f"{count} corrected again by {method}: {done}")


def parse_tiles(text: str) -> list[int]:
    """Turn ``"3,7,10-12"`` into numbers, ascending, each once.

    Raises
    ------
    ConfigError
        If it is no such list.
    """
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d{1,7})(?:-(\d{1,7}))?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"--tiles {text}: not a list; give for example 3,7,10-12 or flagged")
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(found)
