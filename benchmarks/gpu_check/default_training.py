"""Stage 4: train by the default recipe on pairs that all cores have simulated ahead.

A GPU takes thousands of tiles a second and a core simulates four: drawn while it trains, the
tiles would be what is timed. So they are drawn first, live on the GPU, and are used again and
again; the model shows that the recipe trains and what it can do in a minute, no more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
from benchmarks.gpu_check.rows import facts, rows

from napari_txm_bgcorr.core import cpu_cores
from napari_txm_bgcorr.evaluation.benchmark.training_data import simulate_pairs
from napari_txm_bgcorr.training.run.status import read_status

PX = 256
EACH = 8  # pairs of one task
TAIL_S = 20.0  # for start, validation and the last checkpoint


def draw_ahead(folder: Path, seconds: float, most: int) -> int:
    """Write `raw.tif` and `background.tif`, as many tiles as the time allows."""
    end = time.monotonic() + seconds
    spawn = multiprocessing.get_context("spawn")
    found = []
    with ProcessPoolExecutor(cpu_cores(), mp_context=spawn) as pool:
        draw = partial(simulate_pairs, EACH, PX)
        for future in as_completed([pool.submit(draw, seed) for seed in range(most // EACH)]):
            found.append(future.result())
            if time.monotonic() > end:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    pairs = np.concatenate(found)
    for i, name in enumerate(("raw", "background")):
        tifffile.imwrite(folder / f"{name}.tif", pairs[:, i])
    return len(pairs)


def train(folder: Path, run: Path, device: str, overrides: list[str]) -> None:
    """`txm-bgcorr train default` on them."""
    options = [word for text in overrides for word in ("--set", text)]
    subprocess.run(
        [
            sys.executable, "-W", "ignore", "-c", "from napari_txm_bgcorr.cli import main; main()",
            "train", "default", "--run", str(run), "--device", device, "--profile",
            "--pairs", str(folder / "raw.tif"), str(folder / "background.tif"),
            "--set", 'data.mix={"pairs": 1.0}', *options,
        ],
        check=True,
    )  # fmt: skip


def main() -> None:
    """Draw, train, and leave the model in OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory(prefix="txm-gpu-") as name:
        folder = Path(name)
        began = time.monotonic()
        count = draw_ahead(folder, given.seconds / 4, given.pairs)
        taken = time.monotonic() - began
        row = {"name": "pairs drawn ahead", "count": count, "per_s": round(count / taken, 1)}
        print(f"{count} pairs drawn in {taken:.0f} s by {cpu_cores()} cores", flush=True)
        rows([row])
        minutes = max(0.1, (end - time.monotonic() - TAIL_S) / 60)
        run = folder / "run"
        train(folder, run, given.device, [f"minutes={minutes:.3f}", *given.set])
        status = read_status(run)
        if status is None:
            raise SystemExit("the run has left no status")
        trained = {
            "name": "default recipe",
            "steps": status.step,
            "samples_per_s": status.samples_per_s,
            "validation_start": status.validation_start,
            "validation_best": status.validation_best,
        }
        rows([row, trained])
        for made in ("model.safetensors", "model.json"):
            shutil.copyfile(run / made, given.out / made)
        table = run / "profile" / "table.txt"
        if table.is_file():
            facts(table="\n".join(table.read_text(encoding="utf-8").splitlines()[:40]))
    print(f"model: {given.out / 'model.safetensors'} ({os.cpu_count()} cores)", flush=True)


if __name__ == "__main__":
    main()
