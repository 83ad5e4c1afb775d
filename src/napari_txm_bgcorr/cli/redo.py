"""`txm-bgcorr redo`: correct some tiles of a finished output again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_txm_bgcorr.errors import ConfigError

from .options import Device, JsonFlag
from .quality import DarkPaths, look

if TYPE_CHECKING:
    from napari_txm_bgcorr.core.correction import BackgroundMethod
    from napari_txm_bgcorr.core.scan import Scan
    from napari_txm_bgcorr.io.output.patch import FinishedOutput

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
    from napari_txm_bgcorr.backgrounds.registry import LEARNED, make_method
    from napari_txm_bgcorr.io.output.patch import Patch, open_finished
    from napari_txm_bgcorr.workflows.redo_tiles import redo_tiles, subset

    output = open_finished(path)
    scan = _with_references(output.scan, reference, dark)
    if tiles.strip().lower() == "flagged":
        chosen = _flagged(path, dark)
    else:
        chosen = parse_tiles(tiles)
        subset(scan, chosen)
    given: dict[str, Any] = {"model": model, "device": device} if method in LEARNED else {}
    maker = make_method(method, **given)
    entry = _provenance(output, scan, maker, chosen, local) if chosen else {}
    if chosen:
        patch = Patch(output, chosen, entry)
        for result in redo_tiles(
            scan, maker, chosen, local=local, uncertainty="uncertainty" in patch.roles
        ):
            patch.write(result)
        patch.close_complete()
    if as_json:
        typer.echo(json.dumps({"output": str(output.path), "tiles": chosen, "method": method}))
    else:
        count = "1 tile" if len(chosen) == 1 else f"{len(chosen)} tiles"
        typer.echo(f"{count} corrected again by {method}: {output.path}")


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


def _with_references(scan: Scan, reference: list[Path] | None, dark: list[Path] | None) -> Scan:
    from napari_txm_bgcorr import io

    if reference:
        scan = io.read_references(reference, like=scan).attach(scan)
    if dark:
        scan = replace(scan, darks=io.read_references(dark, like=scan, role="darks").images)
    return scan


def _flagged(path: Path, dark: list[Path] | None) -> list[int]:
    import numpy as np

    from napari_txm_bgcorr.quality.flags import flagged

    _, gauge = look(path, dark, register=True, quiet=True)
    return [int(i) for i in np.flatnonzero(flagged(gauge.table()))]


def _provenance(
    output: FinishedOutput,
    scan: Scan,
    method: BackgroundMethod,
    tiles: list[int],
    local: int | None,
) -> dict[str, Any]:
    """By what these tiles are made; refuses another dark than that of the other tiles."""
    from napari_txm_bgcorr.core.provenance import make_provenance
    from napari_txm_bgcorr.workflows.redo_tiles import nearby, subset

    part = scan if local is None else subset(scan, nearby(scan, tiles[0], max(1, local)))
    made = make_provenance(scan, method.fit(part)).to_dict()
    made["device"] = made["parameters"].get("device", "cpu")
    before = output.provenance.get("darks_sha256")
    if made["darks_sha256"] != before:
        raise ConfigError(
            f"{output.path}: the other tiles were corrected "
            f"{'without a' if before is None else 'with another'} dark image; "
            f"{'leave out --dark' if before is None else 'give the same with --dark'}"
        )
    keep = ("method", "parameters", "weights_sha256", "flats_sha256", "versions", "device", "date")
    return {"local": local, **{key: made[key] for key in keep}}
