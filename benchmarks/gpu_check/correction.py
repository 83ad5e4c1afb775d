"""Stage 3: many large tiles corrected from memory, or from files by the command."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from benchmarks.gpu_check.rows import rows
from benchmarks.gpu_check.sampler import GpuSampler
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic

DRAWN_PX = 256
DIFFERENT = 3  # rows and columns of the mosaic that the tiles are copied from
RECORDED = 128  # tiles whose share of GPU time is taken by the profiler
EVERY_S = 3.0


def make_tiles(side: int, size: int) -> NDArray[np.uint16]:
    """Tiles `(side * side, size, size)`, counts: a few simulated ones, enlarged and repeated.

    To simulate every tile at full size takes longer than the whole check; the speed does not
    depend on what is in them.
    """
    drawn = min(DRAWN_PX, size)
    scan = simulate_mosaic(DIFFERENT, DIFFERENT, size=drawn, seed=1).scan
    few = np.stack([np.asarray(scan.tiles[i]) for i in range(len(scan))])
    few = few.repeat(size // drawn, axis=1).repeat(size // drawn, axis=2)
    return few[np.arange(side * side) % len(few)].astype(np.uint16)


def from_memory(side: int, size: int, device: str) -> None:
    """Predict and divide; the joint stage, which a CPU does, is left out."""
    tiles = make_tiles(side, size)
    names = tuple(f"t{i:04d}" for i in range(len(tiles)))
    scan = Scan(tiles, "mosaic", Source(Path("made.tif"), "made"), names, grid=(side, side))
    cuda = device.startswith("cuda")
    began = time.perf_counter()
    method = make_method("generator", device=device).fit(scan)
    row: dict[str, Any] = {
        "name": "from memory",
        "size": size,
        "fit_seconds": round(time.perf_counter() - began, 2),
    }
    list(correct_tiles(scan, method, indices=range(min(8, len(scan)))))  # warms up
    began = told = time.perf_counter()
    with GpuSampler() as sampler:
        for done, result in enumerate(correct_tiles(scan, method), 1):
            now = time.perf_counter()
            if done == len(scan) or now - told > EVERY_S:
                told = now
                seconds = now - began
                row |= {"tiles": done, "seconds": round(seconds, 2), "valid": _valid(result.valid)}
                row |= {"tiles_per_s": round(done / seconds, 2), "peak_rss_mb": _rss_mb()}
                if cuda:
                    row["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
                print(f"{done} tiles, {row['tiles_per_s']} a second", flush=True)
                rows([row])
    row["load"] = sampler.summary()
    rows([row])
    if cuda:
        rows([row | _gpu_share(scan, method)])


def _gpu_share(scan: Scan, method: Any) -> dict[str, Any]:
    """Time of all kernels and copies over the time of the correction."""
    some = range(min(RECORDED, len(scan)))
    with profile(activities=[ProfilerActivity.CUDA]) as recorder:
        began = time.perf_counter()
        list(correct_tiles(scan, method, indices=some))
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    busy = sum(event.self_device_time_total for event in recorder.key_averages()) / 1e6
    return {"gpu_percent": round(100 * busy / seconds, 1)}


def from_files(side: int, size: int, device: str) -> None:
    """`correct` on a folder of TIFF tiles, written as OME-Zarr."""
    with tempfile.TemporaryDirectory(prefix="txm-gpu-") as name:
        folder = Path(name)
        source = folder / f"gpu-m{side}x{side}"
        source.mkdir()
        for i, tile in enumerate(make_tiles(side, size)):
            tifffile.imwrite(source / f"tile_{i:04d}.tif", tile)
        print("tiles are written", flush=True)
        command = [
            sys.executable, "-W", "ignore", "-c", "from napari_txm_bgcorr.cli import main; main()",
            "correct", str(source), "-o", str(folder / "out"), "--grid", f"{side}x{side}",
            "--method", "generator", "--device", device, "--json",
        ]  # fmt: skip
        began = time.perf_counter()
        with GpuSampler() as sampler, (folder / "summary").open("w+") as printed:
            process = subprocess.Popen(command, stdout=printed)
            while process.poll() is None:
                _tell_written(folder, time.perf_counter() - began)
                time.sleep(1 if side > 9 else 0.1)
            seconds = time.perf_counter() - began
            if process.returncode:
                raise SystemExit(f"correct ended with {process.returncode}")
            printed.seek(0)
            summary = json.load(printed)
    result = summary["results"][0]
    row = {
        "name": "from files, by the command",
        "size": size,
        "tiles": result["tiles"],
        "seconds": round(seconds, 2),
        "tiles_per_s": round(result["tiles"] / seconds, 2),
        "fit_seconds": result["fit_seconds"],
        "peak_rss_mb": round(summary["peak_rss_mb"]),
        "load": sampler.summary(),
    }
    print(f"{row['tiles']} tiles, {row['tiles_per_s']} a second, start included", flush=True)
    rows([row])


def _tell_written(folder: Path, seconds: float) -> None:
    """Tell how many tiles are in the unfinished output."""
    written = sum(1 for _ in folder.glob("*.part/corrected/0/c/*"))
    if written:
        rows([{"name": "from files, unfinished", "tiles": written, "seconds": round(seconds, 1)}])


def _valid(mask: NDArray[np.bool_]) -> float:
    return round(float(mask.mean()), 4)


def _rss_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def main() -> None:
    """Read the options and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", choices=("memory", "files"))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--side", type=int, default=31)
    parser.add_argument("--size", type=int, default=1024)
    given = parser.parse_args()
    work = from_memory if given.source == "memory" else from_files
    work(given.side, given.size, given.device)


if __name__ == "__main__":
    main()
