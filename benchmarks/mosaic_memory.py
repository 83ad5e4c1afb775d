"""Plot memory over time from files to a stitched mosaic: `python benchmarks/mosaic_memory.py`.

Runs `txm-bgcorr bench mosaic` with the options given here, or reads the table of an earlier run
(``--table curve.csv``, from its option ``--curve``), and draws resident memory over time, ours
beside the same work without estimation.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COMMAND = [sys.executable, "-c", "from napari_txm_bgcorr.cli import main; main()"]
LIMIT_MB = 2000


def measure(table: Path, options: list[str]) -> None:
    """Run the benchmark; its rows are printed."""
    arguments = [*COMMAND, "bench", "mosaic", *options, "--curve", str(table), "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip())
    print(json.dumps(json.loads(done.stdout), indent=1))


def draw(table: Path, out: Path) -> None:
    """Draw MB over seconds, a line for each command of each run."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with table.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            key = (row["run"], row["command"])
            lines[key].append((float(row["seconds"]), float(row["rss_mb"])))
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    colours = {"ours": "tab:blue", "plain": "tab:grey"}
    names = {"ours": "with estimation", "plain": "without estimation"}
    for (run, command), points in lines.items():
        style = "-" if command == "correct" else "--"
        label = f"{names.get(run, run)}: {command}"
        axes.plot(*zip(*points, strict=True), style, color=colours.get(run), label=label)
    axes.axhline(LIMIT_MB, color="tab:red", linewidth=0.8, label="2 GB")
    axes.set(xlabel="time (s)", ylabel="resident memory (MB)", ylim=(0, None), xlim=(0, None))
    axes.legend()
    figure.savefig(out, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure, unless a table is given, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, help="of an earlier run; default: measure now")
    parser.add_argument("--output", type=Path, default=Path("mosaic-memory.png"))
    known, options = parser.parse_known_args()
    if known.table is not None:
        draw(known.table, known.output)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "curve.csv"
        measure(table, options)
        draw(table, known.output)


if __name__ == "__main__":
    main()
