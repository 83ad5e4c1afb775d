"""Quality figures as files: a CSV table, and one HTML page to print or keep in a logbook."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.quality import (
    COLUMNS,
    SIDES,
    Flag,
    TileQuality,
    flagged,
    raised,
    shown_flags,
)

from .guard import writing
from .report_page import PAGE
from .report_pictures import data_uri, grey_png, grid_png, legend_png, percentiles

__all__ = ["Report", "csv_text", "html_text", "worst", "write_csv", "write_html"]

Image = NDArray[np.float32]

WORST = 5  # tiles shown with pictures
LISTED = (
    "seam_before",
    "seam_after",
    "seam_shape",
    "level",
    "departure",
    "shared_residue",
    "valid",
)
PROVENANCE = {
    "source_path": "source",
    "source_sha256": "SHA-256 of the source",
    "method": "method",
    "weights_sha256": "SHA-256 of the weights",
    "flats_sha256": "SHA-256 of the references",
    "darks_sha256": "SHA-256 of the darks",
    "device": "device",
    "date": "corrected (UTC)",
}


@dataclass(frozen=True, eq=False)
class Report:
    """Content of the page.

    Attributes
    ----------
    title : str
    quality : TileQuality
    raw, corrected : (H, W) float32
        Pictures of the whole scan: counts, transmission; NaN where there is nothing.
    thumbnails : mapping of int to (raw, corrected)
        Small pictures `(y, x)` of the tiles that `worst` lists.
    provenance : mapping
        JSON-ready, as embedded in the output.
    facts : mapping of str to str
        Lines for the head: size, pixel size, energy.
    notes : sequence of str
    """

    title: str
    quality: TileQuality
    raw: Image
    corrected: Image
    thumbnails: Mapping[int, tuple[Image, Image]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def csv_text(quality: TileQuality) -> str:
    """Table with one row a tile: place, figures in the units of the head, flags raised.

    Parameters
    ----------
    quality : TileQuality

    Returns
    -------
    str
        RFC 4180, decimal points; what cannot be told is an empty field.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    found = raised(quality)
    sides = [f"seam {when} {side} (%)" for when in ("before", "after") for side in SIDES]
    heads = [_head(key) for key in COLUMNS]
    table.writerow(["tile", "name", "row", "column", "y (px)", "x (px)", *heads, *sides, "flags"])
    for i, name in enumerate(quality.names):
        cell = ["", ""] if quality.cells is None else quality.cells[i].tolist()
        places = quality.positions_px
        place = ["", ""] if places is None else [f"{v:.2f}" for v in places[i]]
        values = [_number(quality.column(key)[i] * c.scale) for key, c in COLUMNS.items()]
        edges = [_number(100 * v) for v in (*quality.sides_before[i], *quality.sides_after[i])]
        flags = " ".join(key for key, mask in found.items() if mask[i])
        table.writerow([i, name, *cell, *place, *values, *edges, flags])
    return out.getvalue()


def _head(key: str) -> str:
    column = COLUMNS[key]
    return f"{column.label} ({column.unit})" if column.unit else column.label


def _number(value: float, digits: int = 5) -> str:
    return f"{value:.{digits}g}" if np.isfinite(value) else ""


def worst(quality: TileQuality, count: int = WORST) -> list[int]:
    """Tiles to look at first: most flags raised, then the greatest share of a threshold."""
    number = np.zeros(len(quality))
    share = np.zeros(len(quality))
    for flag in shown_flags().values():
        number += flag.raised(quality)
        if not flag.fact:
            score = np.nan_to_num(flag.score(quality), nan=0.0)
            share = np.maximum(share, score / max(flag.threshold, 1e-9))
    order = np.lexsort((-share, -number))
    return [int(i) for i in order[:count] if quality.measured[i]]


def write_csv(path: Path, quality: TileQuality) -> None:
    """Write `csv_text`.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    with writing(path):
        path.write_text(csv_text(quality), encoding="utf-8", newline="")


def write_html(path: Path, report: Report) -> None:
    """Write `html_text`.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    text = html_text(report)
    with writing(path):
        path.write_text(text, encoding="utf-8")


def html_text(report: Report) -> str:
    """One page that needs no other file: pictures, grids, worst tiles, figures, provenance."""
    quality = report.quality
    return PAGE.substitute(
        title=escape(report.title),
        facts=_facts(report),
        summary=_summary(quality),
        raw=data_uri(grey_png(report.raw)),
        corrected=data_uri(grey_png(report.corrected)),
        raw_range="{:.0f} to {:.0f} counts".format(*percentiles(report.raw)),
        corrected_range="{:.2f} to {:.2f}".format(*percentiles(report.corrected)),
        grids=_grids(quality),
        legend=data_uri(legend_png()),
        figures=_figures(quality),
        worst=_worst(report),
        provenance=_provenance(report.provenance),
        notes="".join(f"<p>{escape(note)}</p>" for note in report.notes),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _facts(report: Report) -> str:
    return " &middot; ".join(
        f"{escape(key)} <b>{escape(value)}</b>" for key, value in report.facts.items()
    )


def _summary(quality: TileQuality) -> str:
    marked, seen = int(flagged(quality).sum()), int(quality.measured.sum())
    places = "registered" if quality.registered else "the stage's own"
    if quality.positions_px is None:
        places = "none: no overlaps"
    counts = ", ".join(
        f"{escape(shown_flags()[key].label)} {int(mask.sum())}"
        for key, mask in raised(quality).items()
    )
    before, after = (np.nanmedian(v) if np.isfinite(v).any() else np.nan
                     for v in (quality.seam_before, quality.seam_after))  # fmt: skip
    seams = (
        f" Seam, median over tiles: {100 * before:.1f} % raw, {100 * after:.1f} % corrected."
        if np.isfinite(after)
        else ""
    )
    return f"<b>{marked} of {seen} tiles flagged</b> ({counts}).{seams} Positions: {places}."


def _cells(quality: TileQuality) -> NDArray[np.int64]:
    if quality.cells is not None:
        return quality.cells
    columns = int(np.ceil(np.sqrt(len(quality))))
    index = np.arange(len(quality))
    return np.stack([index // columns, index % columns], axis=1)


def _grids(quality: TileQuality) -> str:
    cells, found = _cells(quality), raised(quality)
    return "".join(
        _grid(quality, key, flag, found[key], cells) for key, flag in shown_flags().items()
    )


def _grid(
    quality: TileQuality,
    key: str,
    flag: Flag,
    mask: NDArray[np.bool_],
    cells: NDArray[np.int64],
) -> str:
    """Colours from 0 to twice the threshold (a plain fact: from all to nothing)."""
    values = 1 - quality.column(flag.column) if not flag.above else flag.score(quality)
    high = 1.0 if flag.fact else 2 * flag.threshold
    picture = data_uri(grid_png(values, mask, cells, high))
    return (
        f'<figure class="grid"><img src="{picture}" alt="{escape(flag.label)}">'
        f"<figcaption><b>{escape(flag.label)}</b> {int(mask.sum())}<br>"
        f"{escape(flag.text())}</figcaption></figure>"
    )


def _figures(quality: TileQuality) -> str:
    rows = []
    for key, column in COLUMNS.items():
        values = quality.column(key) * column.scale
        known = values[np.isfinite(values)]
        if not known.size:
            continue
        low, middle, high = np.percentile(known, [5, 50, 95])
        cells = "".join(f"<td>{v:.3g}</td>" for v in (low, middle, high))
        unit = f" ({column.unit})" if column.unit else ""
        rows.append(f"<tr><th>{escape(column.label)}{unit}</th>{cells}</tr>")
    return "".join(rows)


def _worst(report: Report) -> str:
    quality, found = report.quality, raised(report.quality)
    limits = percentiles(report.corrected)
    rows = []
    for i in worst(quality):
        labels = ", ".join(shown_flags()[k].label for k, mask in found.items() if mask[i])
        pictures = ""
        if i in report.thumbnails:
            raw, corrected = (np.asarray(p[::2, ::2]) for p in report.thumbnails[i])
            pictures = (
                f'<img src="{data_uri(grey_png(raw))}" alt="raw">'
                f'<img src="{data_uri(grey_png(corrected, limits))}" alt="corrected">'
            )
        place = ""
        if quality.cells is not None:
            place = f"row {quality.cells[i, 0] + 1}, column {quality.cells[i, 1] + 1}"
        figures = "".join(
            f"<td>{_number(quality.column(k)[i] * COLUMNS[k].scale, 3)}</td>" for k in LISTED
        )
        rows.append(
            f'<tr><td class="thumbs">{pictures}</td><th>{i}</th>'
            f"<td>{escape(quality.names[i])}<br>{place}</td>{figures}<td>{escape(labels)}</td></tr>"
        )
    heads = "".join(f"<th>{escape(_head(key))}</th>" for key in LISTED)
    return (
        f"<tr><th>raw, corrected</th><th>tile</th><th>name</th>{heads}<th>flags</th></tr>"
        + "".join(rows)
    )


def _provenance(provenance: Mapping[str, Any]) -> str:
    rows = [
        (label, str(provenance[key]))
        for key, label in PROVENANCE.items()
        if provenance.get(key) not in (None, "")
    ]
    parameters = provenance.get("parameters") or {}
    plain = {
        k: v
        for k, v in parameters.items()
        if isinstance(v, (str, int, float, bool)) and k not in PROVENANCE
    }
    if plain:
        rows.append(("parameters", ", ".join(f"{k} {v}" for k, v in plain.items())))
    redone = provenance.get("redone") or []
    for entry in redone:
        tiles = ", ".join(str(i) for i in entry.get("tiles", []))
        note = "" if entry.get("complete") else "; interrupted, run it again"
        rows.append(
            ("redone", f"tiles {tiles} by {entry.get('method')}, {entry.get('date')}{note}")
        )
    versions = provenance.get("versions") or {}
    if versions:
        rows.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    return "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
