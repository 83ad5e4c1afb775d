"""`txm-bgcorr quality`: figures and flags of each tile of a finished correction."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_txm_bgcorr.errors import WriteError

from .options import JsonFlag

__all__ = ["DarkPaths", "quality"]

DarkPaths = Annotated[
    list[Path] | None,
    typer.Option(
        "--dark",
        metavar="PATH",
        help="Image without beam, or a folder of them, as given to correct; may be repeated.",
    ),
]


def quality(
    path: Annotated[
        Path, typer.Argument(metavar="CORRECTED", help="Output of txm-bgcorr correct.")
    ],
    html: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="REPORT.html", help="Write a one-page report."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a table, one row a tile.")
    ] = None,
    dark: DarkPaths = None,
    nominal: Annotated[
        bool, typer.Option("--nominal", help="Take the stage's positions; do not register tiles.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace REPORT.html and FILE.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say which tiles of a corrected mosaic or series to look at, and why.

    Each flag's measured ability to find bad tiles is in the documentation, page "Flags".
    """
    from napari_txm_bgcorr.workflows import Bars, make_report, measure_output, summarise

    for file, suffix in ((html, ".html"), (csv, ".csv")):
        if file is not None:
            _check_file(file, suffix, overwrite)
    with Bars(quiet=as_json or not sys.stderr.isatty()) as bars:
        output, gauge = measure_output(
            path, dark or (), register=not nominal, progress=bars.progress
        )
    table = gauge.table()
    if csv is not None:
        from napari_txm_bgcorr.io import write_csv

        write_csv(csv, table)
    if html is not None:
        from napari_txm_bgcorr.io import write_html

        write_html(html, make_report(output, gauge, table))
    summary = summarise(str(output.path), table)
    if as_json:
        typer.echo(json.dumps(summary, allow_nan=False))
        return
    for line in _lines(summary):
        typer.echo(line)
    for file in (html, csv):
        if file is not None:
            typer.echo(f"written: {file}")


def _check_file(file: Path, suffix: str, overwrite: bool) -> None:
    if file.suffix.lower() not in (suffix, suffix[:4]):
        raise WriteError(f"{file}: not a name for a report; give one that ends in {suffix}")
    if file.exists() and not (overwrite and file.is_file()):
        raise WriteError(f"{file}: exists; choose another name or pass --overwrite")
    if not file.absolute().parent.is_dir():
        raise WriteError(f"{file}: no such folder; make {file.parent} first")


def _lines(summary: dict[str, Any]) -> list[str]:
    tiles, flags = summary["tiles"], summary["flags"]
    lines = [f"{len(summary['flagged'])} of {len(tiles)} tiles flagged"]
    lines += [f"  {key:<10}{found['tiles']:>5}  {found['rule']}" for key, found in flags.items()]
    for i in summary["worst"]:
        row = tiles[i]
        seam = "" if row["seam_after"] is None else f"  seam {100 * row['seam_after']:.1f} %"
        lines.append(f"tile {i} {row['name']}:{seam}  {', '.join(row['flags'])}")
    return lines
