"""Rows of the real suite as text, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from napari_txm_bgcorr.errors import ConfigError

from .metrics import Figures
from .ranking import MARGIN, Comparison, Row, best_figures, by_case, no_harm

__all__ = [
    "csv_text",
    "harm_text",
    "json_rows",
    "markdown_text",
    "place_between_marks",
    "summary_text",
    "table_head",
    "table_text",
]

FIGURES = tuple(field.name for field in fields(Figures))
SHOWN = ("error", "spread", "seam")
FAILED = "failed"
VERDICTS = {True: "yes", False: "**no**", None: ""}
BEGIN, END = "<!-- real suite: begin -->", "<!-- real suite: end -->"


def table_head() -> str:
    """Line above `table_text`."""
    figures = "".join(f"{name:>9}" for name in FIGURES)
    return f"{'case':34} {'method':22}{figures}   (%; * best)"


def table_text(rows: Sequence[Row]) -> str:
    """Lines for a terminal, one a method.

    Parameters
    ----------
    rows : sequence of Row
        Of one case.
    """
    lines = []
    for row, best in zip(rows, best_figures(rows), strict=True):
        cells = "".join(
            f"{_percent(getattr(row.figures, name)) or '-':>8}{'*' if name in best else ' '}"
            for name in FIGURES
        )
        end = f" failed: {row.failed}" if row.failed else cells + ("  check" if row.check else "")
        lines.append(f"{row.case:34} {row.method:22}{end}".rstrip())
    return "\n".join(lines)


def summary_text(rows: Sequence[Row]) -> str:
    """Say in how many cases ``auto`` is best, and in how many it harms."""
    cases = by_case(rows)
    ranked = [case for case in cases if not case[0].check]
    best = sum(_auto_best(case, "error") for case in ranked)
    mosaics = [case for case in cases if any(row.figures.seam is not None for row in case)]
    seams = sum(_auto_best(case, "seam") for case in mosaics)
    compared = [one for one in no_harm(rows) if one.harmless is not None]
    harmed = {one.case for one in compared if not one.harmless}
    return (
        f"auto is best by error in {best} of {len(ranked)} ranked cases and by seam in {seams} of "
        f"{len(mosaics)} mosaics; it harms in {len(harmed)} of "
        f"{len({one.case for one in compared})} compared cases."
    )


def _auto_best(rows: Sequence[Row], figure: str) -> bool:
    marks = zip(rows, best_figures(rows), strict=True)
    return any(row.method == "auto" and figure in best for row, best in marks)


def harm_text(rows: Sequence[Row]) -> str:
    """Lines for a terminal: where ``auto`` is worse than what it was given, or failed."""
    bad = [one for one in no_harm(rows) if one.harmless is False]
    lines = [f"  {one.case:34} {one.figure:7} {_beside(one)}" for one in bad]
    return "\n".join([f"harm (more than {100 * MARGIN:g} % above the best):", *lines])


def _beside(one: Comparison) -> str:
    if one.auto is None or one.other is None:
        return "auto failed"
    return f"auto {_percent(one.auto)}, {one.method} {_percent(one.other)}"


def json_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """JSON-ready: ``rows`` with what each is best in, ``no_harm``, and a ``summary``."""
    found = []
    for case in by_case(rows):
        for row, best in zip(case, best_figures(case), strict=True):
            facts = asdict(row)
            found.append({**facts.pop("figures"), **facts, "best": sorted(best)})
    harm = [asdict(one) for one in no_harm(rows)]
    return {"rows": found, "no_harm": harm, "summary": summary_text(rows)}


def csv_text(rows: Sequence[Row]) -> str:
    """Table with one row a case and method, figures in per cent; RFC 4180.

    Parameters
    ----------
    rows : sequence of Row
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(
        ["case", "method", "check", *(f"{n} (%)" for n in FIGURES), "best", "failed", "notes"]
    )
    for row in json_rows(rows)["rows"]:
        cells = ["" if row[name] is None else f"{100 * row[name]:.4f}" for name in FIGURES]
        texts = [" ".join(row["best"]), row["failed"] or "", "; ".join(row["notes"])]
        table.writerow([row["case"], row["method"], int(row["check"]), *cells, *texts])
    return out.getvalue()


def markdown_text(rows: Sequence[Row]) -> str:
    """Table with a line a case and figure and a column a method, the best in bold.

    Parameters
    ----------
    rows : sequence of Row
    """
    methods = list(dict.fromkeys(row.method for row in rows))
    verdicts = {(one.case, one.figure): one.harmless for one in no_harm(rows)}
    lines = [_line(("case", "%", *methods, "no harm"))]
    lines += [_line((*["---"] * 2, *["---:"] * len(methods), "---"))]
    for case in by_case(rows):
        cells = _cells(case)
        for figure in SHOWN:
            here = {
                method: cells[method, figure] for method in methods if (method, figure) in cells
            }
            if any(text not in ("", FAILED) for text in here.values()) or figure == "error":
                name = f"{figure} (check)" if case[0].check and figure == "error" else figure
                numbers = (here.get(method, "") for method in methods)
                verdict = VERDICTS[verdicts.get((case[0].case, figure))]
                lines.append(_line((case[0].case, name, *numbers, verdict)))
    return "\n".join([summary_text(rows), "", *lines])


def _cells(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """Texts of one case by method and figure."""
    found = {}
    for row, best in zip(rows, best_figures(rows), strict=True):
        for figure in SHOWN:
            text = _percent(getattr(row.figures, figure))
            text = f"**{text}**" if figure in best else text
            found[row.method, figure] = FAILED if row.failed else text
    return found


def place_between_marks(page: str, text: str) -> str:
    """A page with a text between the marks ``real suite: begin`` and ``end``.

    Parameters
    ----------
    page : str
        With both marks, or empty: then the text with its marks is all of it.
    text : str

    Raises
    ------
    ConfigError
        If a page has no such marks.
    """
    block = f"{BEGIN}\n\n{text}\n\n{END}"
    if not page.strip():
        return block + "\n"
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"no lines {BEGIN} and {END} in it; add them, or name a new file")
    return before + block + after


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
