"""Rows of the training benchmark: what was timed, and the figures made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from napari_txm_bgcorr.training import EnergyConfig, describe

from .training_step import Setting

__all__ = ["RECIPE_SAMPLES", "Seen", "Timing", "fft_costs", "table", "whole_run"]

RECIPE_SAMPLES = 10_000 * 300  # pairs x epochs of the published recipe, at 256 px
Key = tuple[str, bool]


@dataclass
class Timing:
    """Timings of one row, without or with the FFT loss.

    Attributes
    ----------
    seconds : list of float
        Seconds of a step, one value per round.
    joules : float or None
    samples : int
        Samples in all timed steps.
    """

    seconds: list[float] = field(default_factory=list)
    joules: float | None = None
    samples: int = 0

    def add(self, seconds: float, steps: int, batch: int, joules: float | None) -> None:
        """Take up one timing of `steps` steps."""
        self.seconds.append(seconds / steps)
        self.samples += steps * batch
        if joules is not None:
            self.joules = (self.joules or 0.0) + joules


@dataclass
class Seen:
    """Measurements so far.

    Attributes
    ----------
    timings : dict
        `Timing` by row and whether the FFT loss is in it.
    shares : dict
        Seconds of the FFT loss alone, by batch.
    failed : dict
        Reason why a row was not measured, by row.
    rounds : int
        Whole rounds over all rows.
    """

    timings: dict[Key, Timing] = field(default_factory=dict)
    shares: dict[int, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rounds: int = 0


def fft_costs(settings: Sequence[Setting], seen: Seen) -> list[dict[str, Any]]:
    """Milliseconds of the FFT loss by batch, and its share of the fastest step."""
    costs = []
    for batch, alone in seen.shares.items():
        step = min(
            min(seen.timings[s.name, False].seconds)
            for s in settings
            if s.batch == batch and s.one_forward and (s.name, False) in seen.timings
        )
        fft_ms = round(1e3 * min(alone), 3)
        share = round(fft_ms / step / 10, 3)
        costs.append({"batch": batch, "fft_ms": fft_ms, "percent_of_fastest_step": share})
    return costs


def table(
    settings: Sequence[Setting], seen: Seen, factors: EnergyConfig, source: str
) -> list[dict[str, Any]]:
    """Two rows a setting, without and with the FFT loss; see `training.bench_train`."""
    rows = []
    for setting in settings:
        for fft in (False, True):
            timing = seen.timings.get((setting.name, fft))
            row: dict[str, Any] = {"name": setting.name, "fft": fft, "batch": setting.batch}
            if timing is None:
                nothing = dict.fromkeys(
                    ("samples_per_s", "x_naive", "x_equal_batch", "hours_published_recipe")
                )
                note = seen.failed.get(setting.name, "not yet")
                rows.append(row | nothing | {"note": note, "energy": None})
                continue
            rate = setting.batch / min(timing.seconds)
            energy = describe(timing.joules, source, timing.samples, factors)
            rows.append(
                row
                | {
                    "samples_per_s": round(rate, 4),
                    "x_naive": _ratio(rate, seen.timings, "naive loop", 1, fft),
                    "x_equal_batch": _equal(rate, seen.timings, setting.batch, fft),
                    "hours_published_recipe": round(RECIPE_SAMPLES / rate / 3600, 3),
                    "note": setting.note,
                    "energy": whole_run(energy, timing.samples),
                }
            )
    return rows


def _ratio(
    rate: float, timings: dict[Key, Timing], name: str, batch: int, fft: bool
) -> float | None:
    """Rate against that of a row; None where that row was not measured."""
    if (name, fft) not in timings:
        return None
    return round(rate * min(timings[name, fft].seconds) / batch, 3)


def _equal(rate: float, timings: dict[Key, Timing], batch: int, fft: bool) -> float | None:
    name = "naive loop" if batch == 1 else f"naive loop, batch {batch}"
    return _ratio(rate, timings, name, batch, fft)


def whole_run(energy: dict[str, Any], samples: int) -> dict[str, Any]:
    """Scale energy, cost and carbon dioxide from the timed samples to the published recipe."""
    if energy.get("kwh") is None or not samples:
        return energy
    scale = RECIPE_SAMPLES / samples
    return {
        key: value * scale if key in ("joules", "kwh", "cost", "co2_kg") else value
        for key, value in energy.items()
    }
