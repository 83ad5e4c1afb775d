"""`txm-bgcorr stitch`: the tiles of a corrected mosaic as one zoomable picture."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.workflows.resources import peak_rss_mb

from .options import JsonFlag

__all__ = ["check_stitched_place", "stitch", "stitch_path", "stitch_results", "stitched_place"]

SUFFIX = ".ome.zarr"
MAX_WORKERS = 8  # the disk is the limit before


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
    chosen = tuple(part for part in parts.replace(" ", "").split(",") if part)
    done = stitch_path(
        path, out, chosen, domain=domain, positions=positions, format=format,
        overwrite=overwrite, quiet=as_json or not sys.stderr.isatty(),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(done))
        return
    height, width = done["shape"]
    typer.echo(f"{done['tiles']} tiles stitched to {width} x {height} px: {done['output']}")
    typer.echo(f"  positions: {done['positions']}: {done['note']}")


def stitch_path(
    path: Path,
    out: Path,
    parts: Sequence[str] = ("corrected",),
    *,
    domain: str = "transmission",
    positions: str = "auto",
    format: str = "omezarr",
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Stitch one result and say what was done, as a JSON-ready summary.

    Raises
    ------
    ReadError
        If the result or the table of positions cannot be read.
    WriteError
        If the place is taken or an option is unknown.
    """
    from napari_txm_bgcorr.io.output.result import open_parts
    from napari_txm_bgcorr.io.output.tile_positions import begun_places, find_places
    from napari_txm_bgcorr.workflows.stitch import StitchOptions, check_options, stitch

    started = time.perf_counter()
    if out.suffix.lower() in (".tif", ".tiff"):
        raise WriteError(f"{out}: the output is a folder; give a name without {out.suffix}")
    workers = min(MAX_WORKERS, os.cpu_count() or 1)
    options = StitchOptions(tuple(parts), domain, format, workers=workers, overwrite=overwrite)
    source = open_parts(path)
    check_options(out, source, options)  # before minutes of registration
    begun = begun_places(out, source) if positions == "auto" and not overwrite else None
    places = begun or find_places(source, positions)
    registered = time.perf_counter()
    with tqdm(unit="block", disable=quiet) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        summary = stitch(source, places, out, options, report=report)
    ended = time.perf_counter()
    return summary | {
        "register_seconds": round(registered - started, 3),
        "seconds": round(ended - started, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def stitched_place(corrected: Path) -> Path:
    """Where `correct --stitch` puts the mosaic: beside its tiles, ``NAME-stitched.ome.zarr``."""
    name = corrected.name
    for suffix in (SUFFIX, ".zarr"):
        name = name.removesuffix(suffix)
    return corrected.with_name(f"{name}-stitched{SUFFIX}")


def check_stitched_place(corrected: Path, *, overwrite: bool) -> None:
    """Refuse a taken place before anything is corrected.

    Raises
    ------
    WriteError
        If something is there already, and is not to be replaced.
    """
    place = stitched_place(corrected)
    if place.exists() and not overwrite:
        raise WriteError(f"{place}: exists; remove it, or pass --overwrite")


def stitch_results(results: Sequence[dict[str, Any]], *, overwrite: bool, quiet: bool) -> None:
    """Stitch the mosaics among the complete results of `correct`; noted as ``stitched`` in each.

    Raises
    ------
    TxmError
        As `stitch_path`.
    """
    for done in results:
        if done["kind"] != "mosaic":
            done["notes"].append(f"not stitched: a {done['kind']} scan is no mosaic")
        elif done.get("complete", True):
            out = Path(done["output"])
            done["stitched"] = stitch_path(
                out, stitched_place(out), overwrite=overwrite, quiet=quiet
            )
            done["notes"].append(f"stitched: {done['stitched']['output']}")
