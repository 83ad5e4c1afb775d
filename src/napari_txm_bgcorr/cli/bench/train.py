"""`txm-bgcorr bench train`: speed of each acceleration of the training on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from napari_txm_bgcorr.cli.options import Device, JsonFlag

__all__ = ["train"]


def train(
    minutes_total: Annotated[
        float,
        typer.Option("--minutes-total", help="Time for the table; at least one round."),
    ] = 10.0,
    device: Device = "auto",
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", help="Batch sizes above 1, else 4 (CPU) or 8 and 32."),
    ] = None,
    pairs: Annotated[int, typer.Option("--pairs", help="Simulated pairs to train on.")] = 32,
    rows: Annotated[
        str,
        typer.Option("--rows", metavar="REGEX", help="Only rows whose name this finds."),
    ] = "",
    chart: Annotated[
        Path | None, typer.Option("--chart", metavar="FILE", help="Bar chart, .png or .svg.")
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            "--curve",
            metavar="FILE",
            help="Instead of the table: validation error over training time of each setting, "
            "as .json, .png or .svg; --minutes-total is shared by all.",
        ),
    ] = None,
    price_per_kwh: Annotated[
        float, typer.Option("--price-per-kwh", help="For the cost of measured energy.")
    ] = 0.15,
    co2_per_kwh: Annotated[
        float, typer.Option("--co2-per-kwh", help="kg of CO2 a kWh, for measured energy.")
    ] = 0.5,
    as_json: JsonFlag = False,
) -> None:
    """Time pix2pix training from the plain loop to every acceleration, with and without FFT loss.

    Ratios are of one run; a machine busy with other work slows all rows.
    """
    from napari_txm_bgcorr.evaluation.benchmark import (
        BenchOptions,
        bench_curves,
        bench_train,
        curve_chart,
        equal_error_table,
        require_matplotlib,
        text_table,
    )
    from napari_txm_bgcorr.evaluation.benchmark import chart as draw_chart
    from napari_txm_bgcorr.training import EnergyConfig

    options = BenchOptions(
        device=device,
        minutes=minutes_total,
        batches=tuple(batch or ()),
        pairs=pairs,
        rows=rows,
        energy=EnergyConfig(price_per_kwh=price_per_kwh, co2_kg_per_kwh=co2_per_kwh),
    )
    drawn = chart is not None or (curve is not None and curve.suffix != ".json")
    if drawn:
        require_matplotlib()  # told before the minutes are spent

    def say(line: str) -> None:
        typer.echo(line, err=True)

    if curve is not None:
        curves = bench_curves(options, say)
        if curve.suffix == ".json":
            curve.parent.mkdir(parents=True, exist_ok=True)
            curve.write_text(json.dumps(curves, indent=1), encoding="utf-8")
        else:
            curve_chart(curves, curve)
        typer.echo(json.dumps(curves) if as_json else equal_error_table(curves))
        return
    result = bench_train(options, say)
    if chart is not None:
        draw_chart(result, chart)
    typer.echo(json.dumps(result) if as_json else text_table(result))
