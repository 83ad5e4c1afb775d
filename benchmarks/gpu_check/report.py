"""The record as a page to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["markdown"]

Row = Mapping[str, Any]


def markdown(data: Mapping[str, Any]) -> str:
    """Tables of all stages; the summary first."""
    machine = data["machine"]
    kind = "rehearsal on the CPU: the figures say nothing" if machine["rehearsal"] else "check"
    lines = [f"# GPU {kind}", "", *_table(("what", "value"), machine.items()), ""]
    lines += [*_summary(data), ""]
    lines += _table(
        ("stage", "state", "seconds", "load %", "peak MiB", "W"),
        (_stage_cells(stage) for stage in data["stages"]),
    )
    for stage in data["stages"]:
        lines += ["", f"## {stage['title']}", "", *_stage(stage)]
    return "\n".join(lines) + "\n"


def _summary(data: Mapping[str, Any]) -> list[str]:
    best, aim = data["best"], data["aim"]
    if best is None:
        return ["Training speed: not measured yet."]
    overhead = best["fft_overhead_percent"]
    return [
        f"Fastest with the FFT loss: {best['name']}, {best['samples_per_s']:.4g} samples/s (aim "
        f"{aim['samples_per_s']:.4g}), {best['hours_published_recipe']:.3g} h for the recipe; "
        f"the FFT loss costs {'?' if overhead is None else f'{overhead:.2f}'} % (aim "
        f"{aim['fft_overhead_percent']:g})."
    ]


def _stage_cells(stage: Row) -> tuple[Any, ...]:
    load = stage.get("load") or {}
    measured = (load.get(key) for key in ("load_percent", "peak_memory_mib", "mean_watts"))
    return (stage["name"], stage["state"], stage.get("seconds"), *measured)


def _stage(stage: Row) -> list[str]:
    lines = []
    if stage.get("error"):
        lines += ["```", *stage["error"], "```", ""]
    rows, facts = stage["rows"], stage["facts"]
    if stage["name"] in ("speed", "compile"):
        lines += _speed(rows, facts)
    else:
        lines += _plain(rows)
    if "table" in facts:
        lines += ["", "```", *facts["table"].splitlines(), "```"]
    return lines


def _speed(rows: Sequence[Row], facts: Row) -> list[str]:
    by_key = {(row["name"], row["fft"]): row for row in rows}
    found = []
    for name in dict.fromkeys(row["name"] for row in rows):
        plain, with_fft = by_key[name, False], by_key[name, True]
        rate, fft_rate = plain["samples_per_s"], with_fft["samples_per_s"]
        if rate is None or fft_rate is None:
            found.append((name, plain["batch"], *[None] * 6, plain["note"]))
            continue
        found.append(
            (
                name, plain["batch"], rate, fft_rate, f"{100 * (rate / fft_rate - 1):.2f}",
                plain["hours_published_recipe"], with_fft["hours_published_recipe"],
                (with_fft["energy"] or {}).get("joules_per_1000_samples"), plain["note"],
            )
        )  # fmt: skip
    found += [
        (published["name"], "", "", "", "", published["hours"], published["hours_fft"], "", "")
        for published in facts.get("published", ())
    ]
    head = (
        "row", "batch", "samples/s", "with FFT", "FFT costs %", "hours", "hours with FFT",
        "J per 1,000", "note",
    )  # fmt: skip
    alone = [
        f"FFT loss alone, batch {cost['batch']}: {cost['fft_ms']} ms, "
        f"{cost['percent_of_fastest_step']} % of the fastest step"
        for cost in facts.get("fft_cost", ())
    ]
    return [*_table(head, found), "", *(f"- {line}" for line in alone)]


def _plain(rows: Sequence[Row]) -> list[str]:
    """All keys of all rows as columns."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return _table(keys, ([row.get(key) for key in keys] for row in rows)) if keys else []


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(head)
    lines = [_line(head), _line("---" for _ in head)]
    return [*lines, *(_line(_cell(value) for value in row) for row in rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(one)}" for key, one in value.items())
    return str(value).replace("|", "/").replace("\n", " ")
