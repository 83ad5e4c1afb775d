"""Validation error over training time: a faster step counts only if it learns as much."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from napari_txm_bgcorr.models import choose_device, guard, list_devices, on_device, scale_free_rms

from .choice import settle
from .training import BenchOptions, network_name
from .training_data import Sources, normalised, simulate_pairs
from .training_step import Rig, Setting, make_networks, settings_for

__all__ = ["bench_curves", "equal_error_table"]

VALIDATION_PAIRS = 16
SLICES = 12  # slices of training per setting; each ends with a validation


def bench_curves(
    options: BenchOptions, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Train the plain loop and the accelerated settings from the same weights, alternating.

    Each setting has its own networks and the same share of the time, in many short slices, so
    that a machine that is busy for a while slows all alike. All train with the FFT loss. Only
    the training counts as time, not the validation.

    Parameters
    ----------
    options : BenchOptions
        `minutes` is for all settings together; memory for all of them is needed at once.
    say : callable
        Takes one line of progress at a time.

    Returns
    -------
    dict
        ``device``, ``label``, ``network``, ``field_px`` and ``curves``: ``name``, ``batch`` and
        ``points`` of ``seconds``, ``samples`` and ``error`` (scale-free rms of the log
        background on unseen sessions; 0.03 is 3 %).
    """
    device = choose_device(options.device)
    batches = options.batches or ((4,) if device == "cpu" else (8, 32))
    settings = settings_for(device, batches)
    with TemporaryDirectory(prefix="txm-bench-") as folder, guard(device), on_device(device):
        pairs = simulate_pairs(max(options.pairs, 64), options.field_px, 7)
        sources = Sources(pairs, Path(folder), device)
        held_out = simulate_pairs(VALIDATION_PAIRS, options.field_px, 990_007)
        check = normalised(torch.from_numpy(held_out.astype("float32")).clamp_min(1).log())
        trial = make_networks(device, ngf=options.ngf)
        settings = settle(settings, trial, sources, device, say)
        del trial
        chosen = [s for s in settings if _is_shown(s, device)]
        rigs = [
            Rig(s, make_networks(device, ngf=options.ngf), sources[s.source], device)
            for s in chosen
        ]
        curves = [{"name": s.name, "batch": s.batch, "points": []} for s in chosen]
        turn = 60 * options.minutes / len(chosen) / SLICES
        for _ in range(SLICES):
            for rig, curve in zip(rigs, curves, strict=True):
                _turn(rig, curve, check, turn, device)
                last = curve["points"][-1]  # type: ignore[index]
                say(f"{curve['name']}: {last['seconds']:.0f} s, {100 * last['error']:.2f} %")
    label = next((d.label for d in list_devices() if d.name == device), device)
    return {
        "device": device,
        "label": label,
        "network": network_name(options),
        "field_px": options.field_px,
        "training_pairs": len(pairs),
        "curves": curves,
    }


def _is_shown(setting: Setting, device: str) -> bool:
    if setting.needs_cuda and not device.startswith("cuda"):
        return False
    if setting.name in ("naive loop", "plain loop, detached"):
        return True
    return setting.one_forward and setting.source == "device" and not setting.compiled


def _turn(
    rig: Rig, curve: dict[str, Any], check: tuple[torch.Tensor, torch.Tensor], seconds: float,
    device: str,
) -> None:  # fmt: skip
    points: list[dict[str, float]] = curve["points"]
    if not points:
        points.append({"seconds": 0.0, "samples": 0, "error": _error(rig, check, device)})
    began, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - began < seconds:
        rig.step(fft=True)
        steps += 1
        if device.startswith("cuda") and steps % 20 == 0:
            torch.cuda.synchronize(device)  # steps are only queued: keep to the time
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    taken = time.perf_counter() - began
    points.append(
        {
            "seconds": round(points[-1]["seconds"] + taken, 3),
            "samples": points[-1]["samples"] + steps * rig.setting.batch,
            "error": _error(rig, check, device),
        }
    )


@torch.no_grad()
def _error(rig: Rig, check: tuple[torch.Tensor, torch.Tensor], device: str) -> float:
    errors = []
    for x, true in zip(*(torch.split(tensor, 4) for tensor in check), strict=True):
        predicted = rig.predict(x.to(device).contiguous(memory_format=rig.format))
        difference = predicted.cpu() - true
        errors.append(scale_free_rms(difference, torch.ones_like(true)))
    return round(float(torch.cat(errors).mean()), 6)


def equal_error_table(curves: Mapping[str, Any]) -> str:
    """Seconds of each setting to the best error that the naive loop reached."""
    naive = next(c for c in curves["curves"] if c["name"] == "naive loop")
    mark = min(point["error"] for point in naive["points"])
    needed = {curve["name"]: _reached(curve["points"], mark) for curve in curves["curves"]}
    slow = needed["naive loop"]
    lines = [f"time to the naive loop's best validation error, {100 * mark:.2f} %"]
    for name, seconds in needed.items():
        if seconds is None:
            lines.append(f"{name:<40}{'not reached':>12}")
        else:
            ratio = f"{slow / seconds:.1f} x" if slow and seconds else ""
            lines.append(f"{name:<40}{seconds:>10.1f} s  {ratio}")
    return "\n".join(lines)


def _reached(points: list[dict[str, float]], mark: float) -> float | None:
    return next((point["seconds"] for point in points if point["error"] <= mark), None)
