"""Samples per second of pix2pix training, one row per acceleration, with and without FFT loss.

On CPUs the rows are visited in turn, round after round, and each row's fastest round counts: a
machine that is busy for a while slows all rows alike. Ratios are of rows of one run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models import choose_device, guard, list_devices, on_device
from napari_txm_bgcorr.training import EnergyConfig, EnergyMeter

from .choice import settle
from .table import RECIPE_SAMPLES, Seen, Timing, fft_costs, table
from .training_data import Sources, TimedPairs, simulate_pairs
from .training_step import Rig, Setting, make_networks, settings_for

__all__ = [
    "PUBLISHED",
    "RECIPE_SAMPLES",
    "BenchOptions",
    "Timing",
    "bench_train",
    "chosen_rows",
    "network_name",
]

PUBLISHED = (
    {"name": "published recipe, plain", "hours": 44.17, "hours_fft": 156.67},
    {"name": "published recipe, accelerated (A100)", "hours": 4.9, "hours_fft": 7.2},
)
GPU_SECONDS = 0.5  # one timing on a GPU lasts at least so long
GPU_REPEATS = 3
WARM_STEPS = {"cpu": 1, "mps": 2, "cuda": 5}
Networks = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class BenchOptions:
    """Options of the benchmark.

    Attributes
    ----------
    device : str
        As `devices.choose_device` takes it.
    minutes : float
        On a CPU no new round begins that would end later; the first is always finished. On a
        GPU, which makes one round, no row begins later.
    batches : tuple of int
        Batch sizes above 1 to measure; empty: 4 on CPUs, else 8 and 32.
    pairs : int
        Pairs of 256 px to train on; their number does not change the speed.
    field_px : int
        Edge of the field; other than 256 only for trying out.
    ngf : int
        Channels of the first level; other than 64 only for trying out.
    rows : str
        Regular expression: only rows whose name it finds are measured; empty: all.
    energy : EnergyConfig
        Factors for cost and carbon dioxide.
    """

    device: str = "auto"
    minutes: float = 10.0
    batches: tuple[int, ...] = ()
    pairs: int = 32
    field_px: int = 256
    ngf: int = 64
    rows: str = ""
    energy: EnergyConfig = field(default_factory=EnergyConfig)

    def __post_init__(self) -> None:
        """Refuse values that measure nothing.

        Raises
        ------
        ConfigError
            Naming the option and its value.
        """
        if self.minutes <= 0:
            raise ConfigError(f"--minutes-total {self.minutes}: must be above 0")
        if self.pairs < 1:
            raise ConfigError(f"--pairs {self.pairs}: must be at least 1")
        for batch in self.batches:
            if batch < 2:
                raise ConfigError(f"--batch {batch}: give sizes above 1; 1 is always measured")
        if self.field_px < 256 or self.field_px % 256:
            raise ConfigError(f"--field-px {self.field_px}: unet256 takes multiples of 256")
        try:
            re.compile(self.rows)
        except re.error as error:
            raise ConfigError(f"--rows {self.rows}: no regular expression ({error})") from error


def bench_train(
    options: BenchOptions,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure all rows.

    Parameters
    ----------
    options : BenchOptions
    say : callable
        Takes one line of progress at a time.
    keep : callable
        Takes the result so far after every row, so that a cut loses one row only.

    Returns
    -------
    dict
        ``device``, ``label``, ``threads``, ``torch``, ``field_px``, ``rounds``, ``minutes``,
        ``published``, ``fft_cost`` and ``rows``: a list of dicts with ``name``, ``fft``,
        ``batch``, ``samples_per_s`` (None where this machine cannot), ``x_naive`` (against the
        naive loop, both with or both without the FFT loss; None where that was not measured),
        ``x_equal_batch`` (against the naive loop at the same batch), ``hours_published_recipe``,
        ``note`` and the fields of `energy.describe`.

    Raises
    ------
    DeviceError
        If the device is missing or fails.
    """
    device = choose_device(options.device)
    settings = chosen_rows(device, options)
    began = time.monotonic()
    label = next((d.label for d in list_devices() if d.name == device), device)
    source = EnergyMeter(device).source

    def result(seen: Seen) -> dict[str, Any]:
        return {
            "device": device,
            "label": label,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "network": network_name(options),
            "field_px": options.field_px,
            "rounds": seen.rounds,
            "minutes": round((time.monotonic() - began) / 60, 2),
            "recipe": "10,000 pairs x 300 epochs",
            "published": list(PUBLISHED),
            "fft_cost": fft_costs(settings, seen),
            "rows": table(settings, seen, options.energy, source),
        }

    with TemporaryDirectory(prefix="txm-bench-") as folder, guard(device), on_device(device):
        sources = Sources(simulate_pairs(options.pairs, options.field_px, 7), Path(folder), device)
        networks = make_networks(device, ngf=options.ngf)
        settings = settle(settings, networks, sources, device, say)
        end = began + 60 * options.minutes
        seen = _rounds(
            settings, networks, sources, device, end, say, lambda seen: keep(result(seen))
        )
    return result(seen)


def chosen_rows(device: str, options: BenchOptions) -> list[Setting]:
    """Rows that are asked for.

    Raises
    ------
    ConfigError
        If no row has such a name.
    """
    batches = options.batches or ((4,) if device == "cpu" else (8, 32))
    settings = settings_for(device, batches)
    chosen = [setting for setting in settings if re.search(options.rows, setting.name)]
    if not chosen:
        known = ", ".join(setting.name for setting in settings)
        raise ConfigError(f"--rows {options.rows}: no such row; there are {known}")
    return chosen


def network_name(options: BenchOptions) -> str:
    """Name of the network in tables and charts."""
    return "unet256" if options.ngf == 64 else f"unet256 (ngf {options.ngf})"


def _rounds(
    settings: Sequence[Setting],
    networks: Networks,
    sources: Sources,
    device: str,
    end: float,
    say: Callable[[str], None],
    keep: Callable[[Seen], None],
) -> Seen:
    """Visit all rows again and again until `end` (monotonic time)."""
    kind = torch.device(device).type
    seen, longest = Seen(), 0.0
    for setting in settings:
        if setting.needs_cuda and kind != "cuda":
            seen.failed[setting.name] = "needs an NVIDIA GPU"
    while seen.rounds == 0 or (kind == "cpu" and time.monotonic() + longest < end):
        start = time.monotonic()
        for setting in sorted(settings, key=_turn):
            if setting.name in seen.failed:
                continue
            if kind != "cpu" and seen.timings and time.monotonic() > end:
                seen.failed[setting.name] = "no time left"
                continue
            with _tf32_off():
                why = _attempt(setting, networks, sources[setting.source], device, seen)
            if why:
                seen.failed[setting.name] = why
                said = why
            else:
                said = f"{setting.batch / seen.timings[setting.name, False].seconds[-1]:.3g}"
                said += " samples/s"
            say(f"round {seen.rounds + 1}  {setting.name}: {said}")
            keep(seen)
        longest = max(longest, time.monotonic() - start)
        seen.rounds += 1
    return seen


def _turn(setting: Setting) -> int:
    """Place in a round: compiling takes longest and gains most at large batches; so it is last."""
    return 1 - setting.batch if setting.compiled else -10_000


def _attempt(
    setting: Setting,
    networks: Networks,
    source: TimedPairs,
    device: str,
    seen: Seen,
) -> str:
    """Visit a row; why this machine cannot do it (no memory, no compiler), else nothing.

    torch.compile needs Triton and a C++ compiler, which few Windows machines have.
    """
    try:
        _visit(setting, networks, source, device, seen)
        return ""
    except (RuntimeError, ImportError, OSError) as error:
        if setting.name == "naive loop":  # all others are measured against it
            raise
        first = next((line for line in str(error).splitlines() if line), type(error).__name__)
    # out of the except block: its traceback holds the row's tensors
    for fft in (False, True):
        seen.timings.pop((setting.name, fft), None)
    for network in networks:
        network.requires_grad_(True).zero_grad(set_to_none=True)
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return f"not on this machine ({first[:100]})"


def _visit(
    setting: Setting,
    networks: Networks,
    source: TimedPairs,
    device: str,
    seen: Seen,
) -> None:
    """Warm up, then time a row without and with the FFT loss in turn."""
    kind = torch.device(device).type
    rig = Rig(setting, networks, source, device)
    for _ in range(WARM_STEPS.get(kind, 1)):
        rig.step(False)
    if kind != "cpu":
        for _ in range(WARM_STEPS[kind]):
            rig.step(True)  # its own CUDA graph, its own FFT plan
    for _ in range(1 if kind == "cpu" else GPU_REPEATS):
        for fft in (False, True):
            meter = EnergyMeter(device).start()
            taken, steps = _timed(lambda flag=fft: rig.step(flag), device)  # type: ignore[misc]
            timing = seen.timings.setdefault((setting.name, fft), Timing())
            timing.add(taken, steps, setting.batch, meter.joules())
    if setting.one_forward:
        alone = rig.fft_alone()
        alone()
        seconds = [_timed(alone, device) for _ in range(5)]
        seen.shares.setdefault(setting.batch, []).append(min(t / n for t, n in seconds))
    rig.release()


def _timed(step: Callable[[], None], device: str) -> tuple[float, int]:
    """Seconds and number of steps; a GPU repeats the step to fill `GPU_SECONDS`."""
    least = 0.0 if device == "cpu" else GPU_SECONDS
    _wait(device)
    began, steps, chunk = time.perf_counter(), 0, 1
    while True:
        for _ in range(chunk):
            step()
        _wait(device)
        steps += chunk
        taken = time.perf_counter() - began
        if taken >= least:
            return taken, steps
        chunk = max(1, min(1000, int(steps * (least / taken - 1)) + 1))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


@contextmanager
def _tf32_off() -> Iterator[None]:
    """Rows called fp32 compute in fp32; bf16 rows are not concerned."""
    before = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions
