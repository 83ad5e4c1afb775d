"""`txm-bgcorr bench mosaic`: files to a stitched pyramid, beside the same without estimation."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from napari_txm_bgcorr.cli.options import Device, JsonFlag, parse_grid
from napari_txm_bgcorr.errors import ConfigError, TxmError

__all__ = ["mosaic"]

MB = 1e6
SAMPLE_S = 0.2  # between two looks at the memory
COMMAND = [sys.executable, "-c", "from napari_txm_bgcorr.cli import main; main()"]


@dataclass
class _Timed:
    """One command that was run: what it printed, how long it took, and its curve over time.

    A point of the curve is seconds, resident memory (MB) and processor time so far (s).
    """

    summary: dict[str, Any]
    seconds: float
    curve: list[tuple[float, float, float]] = field(default_factory=list)

    def peak(self, start: float = 0.0, end: float = math.inf) -> int:
        """Largest resident memory, MB, between two times in seconds."""
        return round(max((mb for t, mb, _ in self.curve if start <= t <= end), default=0.0))

    def cpu(self, start: float = 0.0, end: float = math.inf) -> float:
        """Processor time, s, of all threads between two times."""
        spent = [cpu for t, _, cpu in self.curve if t <= end]
        before = [cpu for t, _, cpu in self.curve if t <= start]
        return max(spent, default=0.0) - max(before, default=0.0)


def mosaic(
    grid: Annotated[
        str, typer.Option("--grid", metavar="ROWSxCOLUMNS", help="Rows and columns of the mosaic.")
    ] = "31x31",
    tiles: Annotated[
        int | None, typer.Option("--tiles", help="Instead of --grid: tiles of a square mosaic.")
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Tile size (px).")] = 1024,
    method: Annotated[str, typer.Option("--method", help="Background method.")] = "auto",
    model: Annotated[str, typer.Option("--model", help="Model of learned methods.")] = "default",
    device: Device = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Of the simulated mosaic.")] = 1,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to work; default: a temporary folder.")
    ] = None,
    curve: Annotated[
        Path | None, typer.Option("--curve", metavar="CSV", help="Write memory over time there.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Time a simulated mosaic from files to a stitched pyramid, a row a stage.

    Beside it, in the same run: the same reading, division and writing of tiles and pyramid by a
    given reference at nominal positions, without any estimation.
    """
    shape = _shape(grid, tiles)
    with tempfile.TemporaryDirectory(prefix="txm-bench-", dir=folder) as place:
        work = Path(place)
        raw_mb = _write_mosaic(work, shape, size, seed)
        options = ["--method", method, "--model", model, "--device", device]
        ours = _run_both(work, "ours", [str(work / "tiles"), *options], [])
        plain = _run_both(
            work, "plain",
            [str(work / "tiles"), "--method", "captured", "--reference", str(work / "flats"),
             "--no-joint"],
            ["--positions", "nominal"],
        )  # fmt: skip
    rows = [
        row
        for name, runs in (("ours", ours), ("plain", plain))
        for row in _rows(name, runs, raw_mb)
    ]
    names = ("ours", "plain")
    wall, cpu = (
        {name: sum(row[key] for row in rows if row["run"] == name) for name in names}
        for key in ("seconds", "cpu_seconds")
    )
    summary = {
        "grid": list(shape),
        "size": size,
        "raw_mb": round(raw_mb),
        "method": method,
        "positions": ours[1].summary["positions"],
        "mosaic_px": ours[1].summary["shape"],
        "rows": rows,
        "seconds": round(wall["ours"], 2),
        "plain_seconds": round(wall["plain"], 2),
        "ratio": round(wall["ours"] / wall["plain"], 2),
        "cpu_ratio": round(cpu["ours"] / max(cpu["plain"], 1e-3), 2),
        "peak_rss_mb": max(run.peak() for run in ours),
    }
    if curve is not None:
        _write_curve(curve, {"ours": ours, "plain": plain})
    if as_json:
        typer.echo(json.dumps(summary))
        return
    line = (
        "{run:<7}{stage:<23}{seconds:>9.1f} s{cpu_seconds:>9.1f} s CPU"
        "{mb_s:>8.1f} MB/s{peak_rss_mb:>7} MB"
    )
    for row in rows:
        typer.echo(line.format_map(row))
    typer.echo(
        f"ratio {summary['ratio']} ({summary['seconds']} s to {summary['plain_seconds']} s), "
        f"in processor time {summary['cpu_ratio']}"
    )


def _shape(grid: str, tiles: int | None) -> tuple[int, int]:
    if tiles is None:
        return parse_grid(grid) or (31, 31)
    side = max(1, round(math.sqrt(tiles)))
    if side * side != tiles:
        raise ConfigError(f"--tiles {tiles}: give a square number, for example {side * side}")
    return side, side


def _write_mosaic(work: Path, shape: tuple[int, int], size: int, seed: int) -> float:
    """Write raw tiles, their nominal positions and two references; MB of the raw pixels."""
    import numpy as np
    import tifffile

    from napari_txm_bgcorr.io.readers import tile_configuration_text
    from napari_txm_bgcorr.simulation import simulate_mosaic

    scan = simulate_mosaic(*shape, size=size, references=2, seed=seed).scan
    for kind, names, stack in (
        ("tiles", scan.names, scan.tiles),
        ("flats", ("ref_1", "ref_2"), scan.flats),
    ):
        (work / kind).mkdir()
        for i, name in enumerate(names):
            if stack is not None:
                tifffile.imwrite(work / kind / f"{name}.tif", np.ascontiguousarray(stack[i]))
    if scan.positions_px is not None:
        files = [f"{name}.tif" for name in scan.names]
        table = tile_configuration_text(files, scan.positions_px)
        (work / "tiles" / "TileConfiguration.txt").write_text(table, encoding="utf-8")
    return math.prod(scan.tiles.shape) * scan.tiles.dtype.itemsize / MB


def _run_both(
    work: Path, name: str, correct: list[str], stitch: list[str]
) -> tuple[_Timed, _Timed]:
    """Correct, then stitch: two commands as a user gives them."""
    tiles, pyramid = str(work / f"{name}.ome.zarr"), str(work / f"{name}-stitched.ome.zarr")
    parts = "raw,background,corrected,mask"
    return (
        _timed(["correct", *correct, "-o", tiles, "--save", parts, "--json"]),
        _timed(["stitch", tiles, "-o", pyramid, *stitch, "--json"]),
    )


def _timed(arguments: list[str]) -> _Timed:
    started = time.perf_counter()
    curve: list[tuple[float, float, float]] = []
    with (
        tempfile.TemporaryFile("w+") as printed,
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen([*COMMAND, *arguments], stdout=printed, stderr=errors) as process,
    ):
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                with watched.oneshot():
                    spent = watched.cpu_times()
                    memory = watched.memory_info().rss / MB
                curve.append((time.perf_counter() - started, memory, spent.user + spent.system))
            except psutil.Error:  # it has just ended
                break
            time.sleep(SAMPLE_S)
        code, seconds = process.wait(), time.perf_counter() - started
        printed.seek(0)
        errors.seek(0)
        if code:
            last = (errors.read().strip() or "no message").splitlines()[-1]
            raise TxmError(f"bench: {arguments[0]} failed: {last}")
        return _Timed(json.loads(printed.read()), seconds, curve)


def _rows(name: str, runs: tuple[_Timed, _Timed], raw_mb: float) -> list[dict[str, Any]]:
    """One row a stage. Starting a command counts to its first stage."""
    corrected, stitched = runs
    done = corrected.summary["results"][0]
    tiles_s = done["seconds"] - done["fit_seconds"]
    fit_s = corrected.seconds - tiles_s
    first = "read, estimate, join" if name == "ours" else "read reference"
    stages = [
        (first, fit_s, corrected.cpu(end=fit_s), corrected.peak(end=fit_s)),
        ("divide, write tiles", tiles_s, corrected.cpu(fit_s), corrected.peak(fit_s)),
        ("stitch, write pyramid", stitched.seconds, stitched.cpu(), stitched.peak()),
    ]
    return [
        {
            "run": name,
            "stage": stage,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu, 2),
            "mb_s": round(raw_mb / max(seconds, 1e-3), 1),
            "peak_rss_mb": peak,
        }
        for stage, seconds, cpu, peak in stages
    ]


def _write_curve(path: Path, runs: dict[str, tuple[_Timed, _Timed]]) -> None:
    """Memory over time as a table: run, command, seconds, MB."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["run", "command", "seconds", "rss_mb", "cpu_s"])
        for name, both in runs.items():
            start = 0.0
            for command, one in zip(("correct", "stitch"), both, strict=True):
                for t, mb, cpu in one.curve:
                    table.writerow([name, command, f"{start + t:.2f}", f"{mb:.1f}", f"{cpu:.2f}"])
                start += one.seconds
