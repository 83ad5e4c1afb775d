"""Rows of the evaluation as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["format_table"]

HEAD = (
    "method", "sf mean %", "95 % interval", "median", "p95", "abs mean %", "one scale %",
    "leakage", "shared residue", "SSIM",
)  # fmt: skip
REAL_HEAD = ("method", "shared residue", "empty mean", "empty spread %", "smoothed %")


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Tables in Markdown, one for each group and case.

    Errors in per cent (rms of the logarithm): ``sf`` after removing one scale per tile,
    ``one scale`` after removing one per scan, ``abs`` without. The interval is of the mean.

    Parameters
    ----------
    rows : sequence of dict
        From `evaluate` or `evaluate_real`.
    """
    blocks = []
    for group, case in dict.fromkeys((r["group"], r["case"]) for r in rows):
        here = [r for r in rows if (r["group"], r["case"]) == (group, case)]
        real = "sf" not in here[0]
        head = REAL_HEAD if real else HEAD
        cells = [_real_cells(r) if real else _cells(r) for r in here]
        count = f"{here[0]['tiles']} tiles"
        if not real:
            count += f" of {here[0]['sessions']} sessions, {', '.join(here[0]['families'])}"
        blocks.append("\n".join([
            f"### {group}: {case} ({count})", "",
            _line(head), _line(["---"] + ["---:"] * (len(head) - 1)), *map(_line, cells),
        ]))  # fmt: skip
    return "\n\n".join(blocks)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: dict[str, Any]) -> list[str]:
    sf, low_high = row["sf"], row["sf"]["ci95"]
    return [
        row["method"], _percent(sf["mean"]), " to ".join(_percent(v) for v in low_high),
        _percent(sf["median"]), _percent(sf["p95"]), _percent(row["abs"]["mean"]),
        _percent(row["mosaic"]["mean"]), _number(row["leakage"]),
        _number(row["shared_residue"]), _number(row["ssim"]),
    ]  # fmt: skip


def _real_cells(row: dict[str, Any]) -> list[str]:
    empty = row.get("empty", {})
    return [
        row["method"], _number(row["shared_residue"]), _number(empty.get("mean")),
        _percent(empty.get("spread")), _percent(empty.get("smooth_spread")),
    ]  # fmt: skip


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
