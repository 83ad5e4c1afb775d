"""Run the stages one after the other, each in a process of its own with a time limit."""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu_check.plan import (
    AIM_OVERHEAD,
    AIM_RATE,
    FAR,
    REHEARSAL_S,
    TOTAL_S,
    Stage,
    plan,
)
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.rows import FACTS, ROWS
from benchmarks.gpu_check.sampler import GpuSampler

START_UP_S = 15.0  # of a stage that is told how long it may measure
GRACE_S = 5.0  # between asking a process to end and ending it
LAST_LINES = 15
ROOT = Path(__file__).resolve().parents[2]


class Check:
    """One run of the script.

    Parameters
    ----------
    out : Path
    device : str
    rehearse : bool
    end : float
        Monotonic time at which all must be over.
    """

    def __init__(self, out: Path, device: str, rehearse: bool, end: float) -> None:
        self.out, self.device, self.rehearse, self.end = out, device, rehearse, end
        self.record = Record(out, describe_machine(device, rehearse))

    def run(self) -> bool:
        """All stages; whether every one did what it should."""
        for stage in plan(self.rehearse):
            if stage.name != "profile" or self.rehearse or self.far():
                self._stage(stage)
        return all(stage["state"] == "passed" for stage in self.record.data["stages"])

    def far(self) -> bool:
        """Whether training is so far from its aim that the profile is wanted."""
        best = self.record.best()
        if best is None:
            return True
        overhead = best["fft_overhead_percent"]
        slow = best["samples_per_s"] < FAR * AIM_RATE
        return bool(slow or overhead is None or overhead > AIM_OVERHEAD / FAR)

    def _stage(self, stage: Stage) -> None:
        held = self.record.begin(stage.name, stage.title)
        began, left = time.monotonic(), self.end - time.monotonic()
        limit = left if stage.limit_s == 0 or self.rehearse else min(stage.limit_s, left)
        print(f"\n== {stage.title}: {limit:.0f} s at most", flush=True)
        if limit < START_UP_S:
            held |= {"state": "no time left", "seconds": 0}
            self.record.write()
            return
        with GpuSampler() as sampler:
            code, last = self._process(stage, limit, held)
        held["seconds"] = round(time.monotonic() - began, 1)
        held["load"] = sampler.summary()
        held["state"] = {0: "passed", None: "out of time"}.get(code, f"failed ({code})")
        if code != 0:
            held["error"] = list(last)
        print(f"== {stage.name}: {held['state']}, {held['seconds']} s", flush=True)
        self.record.write()

    def _process(
        self, stage: Stage, limit: float, held: dict[str, Any]
    ) -> tuple[int | None, deque[str]]:
        """Run a stage; its exit status (None: it was ended) and the last lines it printed."""
        last: deque[str] = deque(maxlen=LAST_LINES)
        end = time.monotonic() + limit
        process = subprocess.Popen(
            self._command(stage, limit),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=ROOT,
            env=self._environment(),
            start_new_session=True,
        )
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        pump = threading.Thread(target=_pump, args=(process, lines), daemon=True)
        pump.start()
        while True:
            try:
                line = lines.get(timeout=max(0.0, end - time.monotonic()))
                if line is None:  # it may still hang in its last act
                    return process.wait(max(0.1, end - time.monotonic())), last
            except (queue.Empty, subprocess.TimeoutExpired):
                _end(process)
                pump.join(GRACE_S)
                return None, last
            self._take(line, held, last)

    def _take(self, line: str, held: dict[str, Any], last: deque[str]) -> None:
        if line.startswith(ROWS):
            held["rows"] = json.loads(line.removeprefix(ROWS))
        elif line.startswith(FACTS):
            held["facts"] |= json.loads(line.removeprefix(FACTS))
        else:
            print(line, end="", flush=True)
            last.append(line.rstrip()[:500])
            return
        self.record.write()

    def _command(self, stage: Stage, limit: float) -> list[str]:
        best = self.record.best("speed")  # nothing is compiled again for the profile
        row = "^batch" if best is None else f"^{re.escape(best['name'])}$"
        # a rehearsal makes one round of everything
        minutes = 0.001 if self.rehearse else max(0.1, (limit - START_UP_S) / 60)
        told = {
            "device": self.device,
            "out": str(self.out),
            "seconds": f"{20 if self.rehearse else limit - GRACE_S:.0f}",
            "minutes": f"{minutes:.3f}",
            "row": row,
        }
        module = f"benchmarks.gpu_check.{stage.module}"
        filled = [_filled(word, told) for word in stage.arguments]
        return [sys.executable, "-u", "-m", module, *filled]

    def _environment(self) -> dict[str, str]:
        more = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "NO_COLOR": "1", "COLUMNS": "100"}
        if self.rehearse:
            more |= {"TXM_BGCORR_STAND_IN": self.device}
        return os.environ | more


def _filled(word: str, told: dict[str, str]) -> str:
    return told[word[1:-1]] if word.startswith("{") else word


def _pump(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    if process.stdout is not None:
        with process.stdout as stream:
            for line in stream:
                lines.put(line)
    lines.put(None)  # after the pipe is closed


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and what it started, asking first."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def describe_machine(device: str, rehearse: bool) -> dict[str, Any]:
    """What the figures were measured on."""
    found: dict[str, Any] = {
        "rehearsal": rehearse,
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cores": len(os.sched_getaffinity(0)),
        "began": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    if device.startswith("cuda"):
        facts = torch.cuda.get_device_properties(0)
        found["gpu"] = facts.name
        found["capability"] = f"{facts.major}.{facts.minor}"
        found["memory_gib"] = round(facts.total_memory / 2**30, 1)
        found["cudnn"] = torch.backends.cudnn.version()
    return found


def main() -> int:
    """Read the options; 0 if every stage passed."""
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rehearse", action="store_true", help="toy size, the CPU as device")
    parser.add_argument("--spent", type=float, default=0.0, help="seconds that are gone already")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + (REHEARSAL_S if given.rehearse else TOTAL_S - given.spent)
    device = "cpu" if given.rehearse else "cuda:0"
    passed = Check(given.out.resolve(), device, given.rehearse, end).run()
    print((given.out / "gpu.md").read_text(encoding="utf-8").split("\n## ")[0], flush=True)
    print(f"written: {given.out / 'gpu.json'}, {given.out / 'gpu.md'}", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
