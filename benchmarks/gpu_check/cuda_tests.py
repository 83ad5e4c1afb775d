"""Stage 1: the CUDA tests, each a row as soon as it is known.

The project's pytest settings turn warnings into errors and want plugins; a machine with other
versions of the libraries has neither to agree nor to have them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu_check.rows import rows

ROOT = Path(__file__).resolve().parents[2]
SHOWN = 30  # last lines of a failure
SETTINGS = """[pytest]
markers =
    cuda: needs an NVIDIA GPU
filterwarnings = default
"""


class Rows:
    """Pytest plugin: tells what became of every test."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take up a test's call, or the phase before it that skipped or broke it."""
        if report.when != "call" and report.outcome == "passed":
            return
        row = {
            "name": report.nodeid.partition("::")[2],
            "outcome": report.outcome,
            "seconds": round(report.duration, 2),
        }
        if report.outcome == "skipped":
            row["note"] = str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.outcome == "failed":
            told = str(report.longrepr).strip().splitlines()
            said = [line for line in told if line.startswith("E ")] or told
            row["note"] = " / ".join(line[1:].strip() for line in said[:1] + said[-1:])[:600]
            print(*told[-SHOWN:], sep="\n")
        self.found.append(row)
        print(f"{row['outcome']:<8} {row['seconds']:6.1f} s  {row['name']}", flush=True)
        rows(self.found)


def main() -> int:
    """Run them; pytest's exit status."""
    with tempfile.TemporaryDirectory(prefix="txm-gpu-") as folder:
        settings = Path(folder) / "pytest.ini"
        settings.write_text(SETTINGS, encoding="utf-8")
        return int(
            pytest.main(
                [
                    "-c", str(settings), "--rootdir", str(ROOT), "--import-mode=importlib", "-q",
                    "-m", "cuda", "-p", "no:cacheprovider", "--basetemp", str(Path(folder) / "t"),
                    "--no-header", "--no-summary", "-W", "default", *sys.argv[1:],
                    str(ROOT / "tests" / "training" / "test_cuda.py"),
                ],
                plugins=[Rows()],
            )
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
