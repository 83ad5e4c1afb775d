"""`txm-bgcorr harvest`: gather the references of an archive into a library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_txm_bgcorr.errors import ConfigError

from .options import JsonFlag

if TYPE_CHECKING:
    from napari_txm_bgcorr.workflows import Harvest

__all__ = ["harvest"]

EVERY = 500  # files between two lines of progress


def harvest(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Archive: folders of year, month, day, or any.")
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="LIBRARY", help="Zarr library to make.")
    ],
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern", metavar="GLOB", help="Files below ROOT, any case; ** is any folders."
        ),
    ] = "**/ref*.xrm",
    least_level: Annotated[
        float, typer.Option("--min-level", help="Counts that a reference's median must reach.")
    ] = 100.0,
    sample: Annotated[
        float,
        typer.Option(
            "--sample-limit",
            help="Dimming (rms of the logarithm) against references near in time from which an "
            "image is taken to carry a sample.",
        ),
    ] = 0.04,
    workers: Annotated[int, typer.Option("--workers", help="Threads that read files.")] = 4,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a library that is there.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Keep every good reference of an archive in one library for `train --references`.

    Duplicates, dark, saturated and sample-carrying images are left out and named with the
    reason; unreadable files too. The same command goes on after an interruption, and adds
    what is new in the archive.
    """
    from napari_txm_bgcorr.workflows import HarvestOptions
    from napari_txm_bgcorr.workflows import harvest as gather

    if workers < 1:
        raise ConfigError(f"--workers {workers}: give at least 1")
    if not (least_level >= 0 and sample > 0):
        raise ConfigError("--min-level, --sample-limit: give positive numbers")

    def progress(done: int, total: int) -> None:
        if not as_json and (done % EVERY == 0 or done == total):
            typer.echo(f"{done} of {total} files")

    def tell(sentence: str) -> None:
        if not as_json:
            typer.echo(sentence)

    options = HarvestOptions(pattern, least_level, sample, workers)
    result = gather(root, out, options, overwrite=overwrite, tell=tell, progress=progress)
    if as_json:
        typer.echo(json.dumps(_facts(result, out)))
        return
    reasons = ", ".join(f"{count} {why}" for why, count in sorted(result.dropped.items()))
    typer.echo(f"{result.kept} references in {out}; left out: {reasons or 'none'}")
    if result.unchecked:
        typer.echo(
            f"{result.unchecked} could not be looked at for a sample: no other reference of "
            "their size within 60 days"
        )


def _facts(result: Harvest, out: Path) -> dict[str, object]:
    return {
        "library": str(out),
        "kept": result.kept,
        "left_out": dict(result.dropped),
        "unchecked": result.unchecked,
        "images": result.library.images(),
        "reasons": [line for line in result.library.lines if "why" in line],
    }
