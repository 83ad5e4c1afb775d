"""`txm-bgcorr quality`: figures and flags of each tile of a finished correction."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from napari_txm_bgcorr.errors import WriteError

from .options import JsonFlag

if TYPE_CHECKING:
    from napari_txm_bgcorr.io.output.patch import FinishedOutput
    from napari_txm_bgcorr.quality.measure import Gauge
    from napari_txm_bgcorr.quality.table import TileQuality

__all__ = ["DarkPaths", "look", "quality"]

LISTED = 10  # tiles in the text
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
    for file, suffix in ((html, ".html"), (csv, ".csv")):
        if file is not None:
            _check_file(file, suffix, overwrite)
    output, gauge = look(path, dark, register=not nominal, quiet=as_json)
    table = gauge.table()
    if csv is not None:
        from napari_txm_bgcorr.io.report import write_csv

        write_csv(csv, table)
    if html is not None:
        from napari_txm_bgcorr.io.report import write_html

        write_html(html, make_report(output, gauge, table))
    summary = summarise(output, table)
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


def look(
    path: Path, dark: list[Path] | None, *, register: bool, quiet: bool
) -> tuple[FinishedOutput, Gauge]:
    """Open a finished output and measure every tile of it."""
    from napari_txm_bgcorr import io
    from napari_txm_bgcorr.io.output.patch import open_finished
    from napari_txm_bgcorr.quality.measure import measure

    output = open_finished(path)
    if dark:
        darks = io.read_references(dark, like=output.scan, role="darks").images
        output = replace(output, scan=replace(output.scan, darks=darks))
    novelty = None
    if output.provenance.get("weights_sha256"):  # PyTorch takes a second to load
        from napari_txm_bgcorr.models.novelty import novelty_of

        novelty = novelty_of(output.scan, output.provenance)
    with tqdm(
        total=len(output.scan), unit="tile", disable=quiet or not sys.stderr.isatty()
    ) as bar:

        def shown(done: int, total: int) -> None:
            bar.update(done - bar.n)

        gauge = measure(
            output.scan,
            output.background,
            output.corrected,
            output.mask,
            registration=register,
            progress=shown,
            novelty=novelty,
            described=output.provenance.get("parameters"),
        )
    return output, gauge


def make_report(output: FinishedOutput, gauge: Gauge, table: TileQuality) -> Any:
    """Everything that goes on the page."""
    from napari_txm_bgcorr.io.report import Report, worst

    scan = output.scan
    kind = str(scan.kind)
    if scan.grid is not None:
        kind += f" of {scan.grid[0]} x {scan.grid[1]}"
    facts = {
        "scan": f"{kind}, {len(scan)} tiles of {table.size[1]} x {table.size[0]} px",
        "pixel": "unknown" if scan.pixel_nm is None else f"{scan.pixel_nm:.4g} nm",
        "energy": "unknown" if scan.energy_ev is None else f"{scan.energy_ev:.6g} eV",
        "exposure": "unknown" if scan.exposure_s is None else f"{scan.exposure_s:.4g} s",
    }
    if scan.times is not None and not np.isnat(scan.times).any():
        facts["taken"] = f"{scan.times.min()} to {scan.times.max()}".replace("T", " ")
    notes = []
    if scan.dark() is None and output.provenance.get("darks_sha256"):
        notes.append("The dark image of the correction was not found: figures of raw tiles and "
                     "backgrounds include the pedestal.")  # fmt: skip
    raw, corrected = gauge.pictures()
    return Report(
        title=f"Quality of {output.path.name}",
        quality=table,
        raw=raw,
        corrected=corrected,
        thumbnails={i: gauge.thumbnail(i) for i in worst(table)},
        provenance=output.provenance,
        facts=facts,
        notes=notes,
    )


def summarise(output: FinishedOutput, table: TileQuality) -> dict[str, Any]:
    """Figures and flags, JSON-ready."""
    from napari_txm_bgcorr.io.report import worst
    from napari_txm_bgcorr.quality.flags import FLAGS, raised

    found = raised(table)
    tiles = []
    for i in range(len(table)):
        flags = [key for key, mask in found.items() if mask[i]]
        tiles.append({**table.row(i), "flags": flags})
    marked = [row["tile"] for row in tiles if row["flags"]]
    return {
        "output": str(output.path),
        "tiles": tiles,
        "flagged": marked,
        "worst": [i for i in worst(table, LISTED) if i in marked],
        "flags": {key: {"tiles": int(mask.sum()), "rule": FLAGS[key].text()}
                  for key, mask in found.items()},
        "registered": table.registered,
    }  # fmt: skip


def _lines(summary: dict[str, Any]) -> list[str]:
    tiles, flags = summary["tiles"], summary["flags"]
    lines = [f"{len(summary['flagged'])} of {len(tiles)} tiles flagged"]
    lines += [f"  {key:<10}{found['tiles']:>5}  {found['rule']}" for key, found in flags.items()]
    for i in summary["worst"]:
        row = tiles[i]
        seam = "" if row["seam_after"] is None else f"  seam {100 * row['seam_after']:.1f} %"
        lines.append(f"tile {i} {row['name']}:{seam}  {', '.join(row['flags'])}")
    return lines
