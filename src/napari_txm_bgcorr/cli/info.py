"""`txm-bgcorr info`: what a file or folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Grid, JsonFlag, PixelNm, parse_grid

__all__ = ["info"]


def info(
    path: Annotated[Path, typer.Argument(help="File or folder to look at.")],
    as_json: JsonFlag = False,
    grid: Grid = None,
    pixel_nm: PixelNm = None,
) -> None:
    """Say what PATH holds: kind, size, grid, pixel size, energy, exposure, references."""
    from napari_txm_bgcorr import io

    facts = io.read(path, grid=parse_grid(grid), pixel_nm=pixel_nm).facts()
    if as_json:
        typer.echo(json.dumps(facts, allow_nan=False))
        return
    for name, text in _lines(facts):
        typer.echo(f"{name:<12}{text}")


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    count, height, width = facts["shape"]
    grid = facts["grid"]
    times = facts["times"]
    unit = {"pixel_nm": "nm", "energy_ev": "eV", "exposure_s": "s"}
    lines = [
        ("file", facts["source"]["path"]),
        ("format", facts["source"]["format"]),
        ("kind", facts["kind"] + (f", {grid[0]} rows x {grid[1]} columns" if grid else "")),
        ("images", f"{count} of {width} x {height} px (width x height), {facts['dtype']}"),
    ]
    lines += [
        (key.split("_")[0], f"{facts[key]:g} {unit[key]}" if facts[key] is not None else "unknown")
        for key in unit
    ]
    lines.append(("binning", str(facts["binning"] or "unknown")))
    lines.append(("references", f"{facts['flats']} flat, {facts['darks']} dark"))
    lines.append(("taken", f"{times[0]} to {times[-1]}" if times else "unknown"))
    lines += [("note", note) for note in facts["notes"]]
    return lines
