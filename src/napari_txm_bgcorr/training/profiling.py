"""Named phases of a step for profilers, and a recording by torch's own.

Phases are NVTX ranges on NVIDIA devices (seen by Nsight Systems) and records of the torch
profiler everywhere; without either listening they cost microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from napari_txm_bgcorr.core import write_atomic

__all__ = ["PHASES", "RECORDED", "SKIPPED", "phase", "profiled"]

PHASES = ("data", "generator", "discriminator", "fft", "update", "log")
SKIPPED, RECORDED = 5, 10  # steps: caches and kernels settle first


@cache
def _has_nvtx() -> bool:
    """Return True if there is a GPU and torch was built with NVTX, which some builds lack."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.nvtx.mark("txm-bgcorr")
    except (RuntimeError, OSError):
        return False
    return True


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Mark what runs inside as one of `PHASES`."""
    with ExitStack() as stack:
        stack.enter_context(record_function(name))
        if _has_nvtx():
            stack.enter_context(torch.cuda.nvtx.range(name))
        yield


@contextmanager
def profiled(folder: Path | None) -> Iterator[Callable[[], None]]:
    """Record some steps; yields what must be called after each.

    Parameters
    ----------
    folder : Path or None
        Takes ``trace.json`` (Chrome trace: open it in Perfetto) and ``table.txt``; None: record
        nothing.
    """
    if folder is None:
        yield lambda: None
        return
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    plan = schedule(wait=SKIPPED - 1, warmup=1, active=RECORDED, repeat=1)

    def write(recorder: profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        recorder.export_chrome_trace(str(folder / "trace.json"))
        order = "cuda_time_total" if len(activities) > 1 else "cpu_time_total"
        table = recorder.key_averages().table(sort_by=order, row_limit=60)
        write_atomic(folder / "table.txt", table.encode())

    with profile(activities=activities, schedule=plan, on_trace_ready=write) as recorder:
        yield recorder.step
