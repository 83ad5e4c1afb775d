"""Test the lower bounds of the dependencies: the oldest allowed versions, installed and used.

    python tools/oldest.py [PYTEST ARGUMENT ...]

Makes ``.venv-oldest`` with every direct dependency of the base package at its lower bound and
runs tests of what needs no window (by default those of ``TESTED``). torch is the oldest build for
CPUs at hand, named in ``TORCH``: an older one would be gigabytes of CUDA.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv-oldest"
TORCH = "2.13.0"
TESTED = (
    "tests/core", "tests/io", "tests/quality", "tests/mosaic", "tests/models", "tests/test_api.py",
)  # fmt: skip
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "txrm2tiff", "dask")


def lower_bounds() -> dict[str, str]:
    """Oldest allowed version of each direct dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {}
    for requirement in project["dependencies"]:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?>=([0-9.]+)", requirement)
        if match is None:
            raise SystemExit(f"{requirement}: no lower bound; write name>=version")
        found[match[1]] = match[2]
    return found | {"torch": TORCH}


def main(arguments: list[str]) -> int:
    """Install, then test."""
    bounds = lower_bounds()
    venv.create(PLACE, with_pip=True, clear=True)
    python = PLACE / ("Scripts" if os.name == "nt" else "bin") / "python"
    pinned = [f"{name}=={version}" for name, version in bounds.items()]
    print("oldest:", *pinned, flush=True)
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*install, *pinned, *TOOLS, "-e", str(ROOT)], check=True)
    tests = [str(python), "-m", "pytest", "-q", "-p", "no:napari", *(arguments or TESTED)]
    # the project's filters name what newer versions warn of, and old ones warn of more
    return subprocess.run([*tests, "-o", "filterwarnings=default"], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
