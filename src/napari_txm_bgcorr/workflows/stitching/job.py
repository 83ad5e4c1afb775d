"""The tiles of a corrected mosaic as one zoomable picture, and where it is put."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.core import SILENT, Progress, peak_rss_mb
from napari_txm_bgcorr.errors import WriteError

__all__ = ["check_stitched_place", "stitch_path", "stitch_results", "stitched_place"]

SUFFIX = ".ome.zarr"
MAX_WORKERS = 8  # the disk is the limit before


def stitch_path(
    path: Path,
    out: Path,
    parts: Sequence[str] = ("corrected",),
    *,
    domain: str = "transmission",
    positions: str = "auto",
    format: str = "omezarr",
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Stitch one result and say what was done, as a JSON-ready summary.

    Raises
    ------
    ReadError
        If the result or the table of positions cannot be read.
    WriteError
        If the place is taken or an option is unknown.
    """
    from napari_txm_bgcorr.io.output import begun_places, find_places, open_parts

    from .blocks import StitchOptions, check_options, stitch_tiles

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

    def report(done: int, total: int) -> None:
        progress.report("stitching", done, total)

    summary = stitch_tiles(source, places, out, options, report=report)
    ended = time.perf_counter()
    return summary | {
        "register_seconds": round(registered - started, 3),
        "seconds": round(ended - started, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def stitched_place(corrected: Path) -> Path:
    """Path of the mosaic of `correct --stitch`: beside its tiles, ``NAME-stitched.ome.zarr``."""
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


def stitch_results(
    results: Sequence[dict[str, Any]], *, overwrite: bool, progress: Progress = SILENT
) -> None:
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
                out, stitched_place(out), overwrite=overwrite, progress=progress
            )
            done["notes"].append(f"stitched: {done['stitched']['output']}")
