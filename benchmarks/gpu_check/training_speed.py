"""Stage 2: rows of `bench train`, each told as soon as it is measured; or the profile of one."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from benchmarks.gpu_check.rows import facts, rows
from torch.profiler import ProfilerActivity, profile

from napari_txm_bgcorr.evaluation.benchmark.report import text_table
from napari_txm_bgcorr.evaluation.benchmark.training import BenchOptions, bench_train, chosen_rows
from napari_txm_bgcorr.evaluation.benchmark.training_data import Sources, simulate_pairs
from napari_txm_bgcorr.evaluation.benchmark.training_step import Rig, make_networks
from napari_txm_bgcorr.models.devices import choose_device, on_device

STEPS = 3
KERNELS = 25


def measure(options: BenchOptions) -> None:
    """Time the rows."""

    def keep(result: dict[str, Any]) -> None:
        rows([row for row in result["rows"] if row["note"] != "not yet"])
        facts(fft_cost=result["fft_cost"], published=result["published"], recipe=result["recipe"])

    result = bench_train(options, lambda line: print(line, flush=True), keep)
    keep(result)
    print(text_table(result), flush=True)


def top_kernels(options: BenchOptions) -> None:
    """Record some steps of the first row that `options` chooses: where the time goes."""
    device = choose_device(options.device)
    setting = chosen_rows(device, options)[0]
    cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CUDA] if cuda else []
    with TemporaryDirectory() as folder, on_device(device), ExitStack() as stack:
        pairs = simulate_pairs(options.pairs, options.field_px, 7)
        source = Sources(pairs, Path(folder), device)[setting.source]
        rig = Rig(setting, make_networks(device, ngf=options.ngf), source, device)
        for _ in range(3):
            rig.step(True)
        recorder = stack.enter_context(profile(activities=[ProfilerActivity.CPU, *activities]))
        for _ in range(STEPS):
            rig.step(True)
        if cuda:
            torch.cuda.synchronize(device)
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    table = recorder.key_averages().table(
        sort_by=order, row_limit=KERNELS, max_name_column_width=70
    )
    print(table, flush=True)
    facts(row=setting.name, steps=STEPS, table=table)


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", default="")
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--ngf", type=int, default=64)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    options = BenchOptions(
        device=given.device,
        minutes=given.minutes,
        batches=tuple(given.batch),
        pairs=given.pairs,
        ngf=given.ngf,
        rows=given.rows,
    )
    (top_kernels if given.profile else measure)(options)


if __name__ == "__main__":
    main()
