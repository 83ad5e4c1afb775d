"""`txm-bgcorr bench`: timings side by side with the plain way of doing the same."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_txm_bgcorr.cli.options import Device, JsonFlag
from napari_txm_bgcorr.errors import ConfigError, TxmError

from . import mosaic as bench_mosaic
from . import train as bench_train

__all__ = ["app"]

app = typer.Typer(help="Timings beside the plain way of doing the same.", no_args_is_help=True)
app.command("train")(bench_train.train)
app.command("mosaic")(bench_mosaic.mosaic)

# The same bytes read, divided by one background, and written, with nothing in between.
PLAIN = {
    "tiff": """
import sys, numpy as np, tifffile
from pathlib import Path
source, out = Path(sys.argv[1]), Path(sys.argv[2])
for part in ("background", "corrected"):
    (out / part).mkdir(parents=True)
background = None
for path in sorted(source.glob("*.tif")):
    raw = tifffile.imread(path)
    if background is None:
        background = np.maximum(raw.astype(np.float32), 1)
    tifffile.imwrite(out / "background" / path.name, background)
    tifffile.imwrite(out / "corrected" / path.name, raw / background)
""",
    "omezarr": """
import sys, numpy as np, tifffile, zarr
from pathlib import Path
source, out = Path(sys.argv[1]), Path(sys.argv[2])
paths = sorted(source.glob("*.tif"))
background = np.maximum(tifffile.imread(paths[0]).astype(np.float32), 1)
shape = (len(paths), *background.shape)
group = zarr.create_group(out)
arrays = {
    part: group.create_array(part, shape=shape, chunks=(1, *shape[1:]), dtype="float32")
    for part in ("background", "corrected")
}
for i, path in enumerate(paths):
    raw = tifffile.imread(path)
    arrays["background"][i] = background
    arrays["corrected"][i] = raw / background
""",
}


@app.callback()
def _bench() -> None:
    """Keep `correct` a sub-command while it is the only one."""


@app.command("correct")
def correct(
    tiles: Annotated[int, typer.Option("--tiles", help="Tiles of the mosaic.")] = 961,
    size: Annotated[int, typer.Option("--size", help="Tile size (px).")] = 512,
    method: Annotated[str, typer.Option("--method", help="Background method.")] = "auto",
    model: Annotated[str, typer.Option("--model", help="Model of learned methods.")] = "default",
    format: Annotated[str, typer.Option("--format", help="omezarr or tiff.")] = "omezarr",
    device: Device = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Time `correct` beside reading, dividing and writing the same bytes with plain NumPy."""
    if format not in PLAIN:
        raise ConfigError(f"--format {format}: choose from {', '.join(PLAIN)}")
    with tempfile.TemporaryDirectory(prefix="txm-bench-") as folder:
        options = ["--method", method, "--model", model, "--device", device]
        row = _bench_correct(Path(folder), tiles, size, format, options)
    if as_json:
        typer.echo(json.dumps(row))
        return
    for name, value in row.items():
        typer.echo(f"{name:<14}{value}")


def _bench_correct(
    folder: Path, tiles: int, size: int, format: str, options: list[str]
) -> dict[str, Any]:
    from napari_txm_bgcorr.simulation import simulate_mosaic
    from napari_txm_bgcorr.workflows import write_simulation

    side = max(1, round(math.sqrt(tiles)))
    if side * side != tiles:
        raise ConfigError(f"--tiles {tiles}: give a square number, for example {side * side}")
    source = folder / f"bench-m{side}x{side}"
    write_simulation(simulate_mosaic(side, side, size=size, seed=1), source, {"tiles": tiles})
    io_seconds, _ = _timed([sys.executable, "-c", PLAIN[format], str(source), str(folder / "io")])
    command = [
        sys.executable, "-c", "from napari_txm_bgcorr.cli import main; main()", "correct",
        str(source), "-o", str(folder / "out"), "--format", format,
        "--save", "background,corrected", "--json", *options,
    ]  # fmt: skip
    seconds, printed = _timed(command)
    summary = json.loads(printed)
    return {
        "tiles": tiles,
        "size": size,
        "method": summary["results"][0]["method"],
        "format": format,
        "device": summary["results"][0]["device"],
        "seconds": round(seconds, 2),
        "io_seconds": round(io_seconds, 2),
        "ratio": round(seconds / io_seconds, 2),
        "peak_rss_mb": round(summary["peak_rss_mb"]),
    }


def _timed(command: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise TxmError(f"bench: {command[3]} failed: {last}")
    return time.perf_counter() - started, done.stdout
