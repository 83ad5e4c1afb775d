"""The training benchmark as text and as a bar chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.errors import ConfigError, WriteError

__all__ = ["chart", "curve_chart", "require_matplotlib", "text_table"]

Result = Mapping[str, Any]


def text_table(result: Result) -> str:
    """Rows beside each other, without and with the FFT loss; then what is to be known."""
    width = max(len(row["name"]) for row in result["rows"])
    lines = [
        f"{result['label']} ({result['device']}, {result['threads']} threads), torch "
        f"{result['torch']}, {result['network']}, {result['field_px']} px, "
        f"{result['rounds']} rounds, {result['minutes']:.1f} min",
        "",
        f"{'':<{width}}  {'without FFT loss':^26}   {'with FFT loss':^26}",
        f"{'':<{width}}  {_HEAD}   {_HEAD}",
    ]
    rows = {(row["name"], row["fft"]): row for row in result["rows"]}
    for name in dict.fromkeys(row["name"] for row in result["rows"]):
        both = [_cells(rows[name, fft]) for fft in (False, True)]
        note = rows[name, False]["note"]
        lines.append(f"{name:<{width}}  {both[0]}   {both[1]}   {note}".rstrip())
    for published in result["published"]:
        hours = [f"{'':>16}{published[key]:>10.2f}" for key in ("hours", "hours_fft")]
        lines.append(f"{published['name']:<{width}}  {hours[0]}   {hours[1]}")
    lines += ["", f"hours: {result['recipe']} at {result['field_px']} px"]
    lines += [
        f"FFT loss alone, batch {cost['batch']}: {cost['fft_ms']:.2f} ms, "
        f"{cost['percent_of_fastest_step']:.2f} % of the fastest step"
        for cost in result["fft_cost"]
    ]
    return "\n".join([*lines, *_energy(rows)])


_HEAD = f"{'samples/s':>9}{'x naive':>8}{'hours':>9}"


def _cells(row: Mapping[str, Any]) -> str:
    if row["samples_per_s"] is None:
        return f"{'-':>9}{'-':>8}{'-':>9}"
    hours = row["hours_published_recipe"]
    ratio = "-" if row["x_naive"] is None else f"{row['x_naive']:.2f}"
    return f"{row['samples_per_s']:>9.4g}{ratio:>8}{hours:>9.4g}"


def _energy(rows: Mapping[tuple[str, bool], Mapping[str, Any]]) -> list[str]:
    lines = []
    for (name, fft), row in rows.items():
        energy = row["energy"] or {}
        if energy.get("joules_per_1000_samples") is None:
            continue
        lines.append(
            f"energy ({energy['source']}), {name}{', FFT' if fft else ''}: "
            f"{energy['joules_per_1000_samples']:.4g} J per 1,000 samples; the recipe "
            f"{energy['kwh']:.3g} kWh, {energy['cost']:.3g} {energy['currency']} "
            f"(at {energy['price_per_kwh']} a kWh), {energy['co2_kg']:.3g} kg CO2 "
            f"(at {energy['co2_kg_per_kwh']} kg a kWh)"
        )
    return lines or ["energy: not measured (no counter that may be read)"]


def require_matplotlib() -> Any:
    """Matplotlib's `Figure`, drawn without any window.

    Raises
    ------
    ConfigError
        If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            'package matplotlib: needed for charts; pip install "napari-txm-bgcorr[docs]"'
        ) from error
    return Figure


def chart(result: Result, out: Path) -> None:
    """Bars of samples per second, one pair a row (logarithmic).

    Raises
    ------
    ConfigError, WriteError
    """
    figure = require_matplotlib()(figsize=(8.5, 5.2), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in result["rows"] if row["samples_per_s"] is not None]
    names = list(dict.fromkeys(row["name"] for row in rows))
    for fft, colour, shift in ((False, "#4477aa", -0.2), (True, "#ee8866", 0.2)):
        mine = [row for row in rows if row["fft"] is fft]
        places = [names.index(row["name"]) + shift for row in mine]
        rates = [row["samples_per_s"] for row in mine]
        label = "with FFT loss" if fft else "without FFT loss"
        bars = axes.barh(places, rates, height=0.38, color=colour, label=label)
        said = [
            f"{row['samples_per_s']:.3g}"
            + ("" if row["x_naive"] is None else f"  ({row['x_naive']:.2f} x)")
            for row in mine
        ]
        axes.bar_label(bars, said, padding=3, fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(row["samples_per_s"] for row in rows))
    if max(row["samples_per_s"] for row in rows) > 20 * min(row["samples_per_s"] for row in rows):
        axes.set_xscale("log")
        axes.set_xlim(0.5 * min(r["samples_per_s"] for r in rows), None)
    axes.set_xlabel("samples per second (x naive loop)")
    axes.set_title(f"Training {result['network']}, {result['field_px']} px: {result['label']}")
    axes.legend(loc="lower right")
    _save(figure, out)


def curve_chart(curves: Mapping[str, Any], out: Path) -> None:
    """Validation error over training time, one line a setting.

    Raises
    ------
    ConfigError, WriteError
    """
    figure = require_matplotlib()(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for curve in curves["curves"]:
        points = curve["points"]
        errors = [100 * point["error"] for point in points]
        axes.plot([p["seconds"] for p in points], errors, label=curve["name"], marker=".")
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("validation error (%)")
    axes.set_yscale("log")
    axes.set_title(f"{curves['network']}, {curves['field_px']} px: {curves['label']}")
    axes.legend()
    _save(figure, out)


def _save(figure: Any, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=130)
    except ValueError as error:
        raise ConfigError(f"{out}: {error}; give .png or .svg") from error
    except OSError as error:
        raise WriteError(f"{out}: cannot be written ({error.strerror}); check path") from error
