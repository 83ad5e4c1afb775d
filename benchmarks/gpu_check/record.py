"""What is known so far, as ``gpu.json`` and ``gpu.md``, rewritten whenever something is added."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.plan import AIM_OVERHEAD, AIM_RATE
from benchmarks.gpu_check.report import markdown

__all__ = ["Record"]


class Record:
    """Facts of the machine, and of each stage its state, rows and end.

    Parameters
    ----------
    out : Path
        Folder of the two files.
    machine : mapping
    """

    def __init__(self, out: Path, machine: Mapping[str, Any]) -> None:
        self.out = out
        self.data: dict[str, Any] = {
            "machine": dict(machine),
            "aim": {"samples_per_s": AIM_RATE, "fft_overhead_percent": AIM_OVERHEAD},
            "stages": [],
        }

    def begin(self, name: str, title: str) -> dict[str, Any]:
        """Add a stage; its dict is to be altered, and `write` called."""
        stage = {"name": name, "title": title, "state": "running", "rows": [], "facts": {}}
        self.data["stages"].append(stage)
        self.write()
        return stage

    def speeds(self, *names: str) -> list[dict[str, Any]]:
        """Measured rows of `bench train` in the stages of these names."""
        return [
            row
            for stage in self.data["stages"]
            if stage["name"] in names
            for row in stage["rows"]
            if row["samples_per_s"] is not None
        ]

    def best(self, *names: str) -> dict[str, Any] | None:
        """Fastest row with the FFT loss, and what that loss costs it; None: nothing measured.

        Of the stages of these names, or of all.
        """
        rows = self.speeds(*(names or ("speed", "compile")))
        with_fft = [row for row in rows if row["fft"]]
        if not with_fft:
            return None
        row = max(with_fft, key=lambda row: float(row["samples_per_s"]))
        plain = [r["samples_per_s"] for r in rows if r["name"] == row["name"] and not r["fft"]]
        over = [100 * (rate / row["samples_per_s"] - 1) for rate in plain]
        return row | {"fft_overhead_percent": round(over[0], 2) if over else None}

    def write(self) -> None:
        """Replace both files, each at once: a cut leaves the old or the new one."""
        self.data["best"] = self.best()
        texts = {
            "gpu.json": json.dumps(self.data, indent=1) + "\n",
            "gpu.md": markdown(self.data),
        }
        for name, text in texts.items():
            part = self.out / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            os.replace(part, self.out / name)
