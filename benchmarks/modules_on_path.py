"""Count the modules of this program that a correction runs through.

    python benchmarks/modules_on_path.py [FOLDER]

FOLDER is that of the package (by default ``src/napari_txm_bgcorr`` of this checkout): name another
checkout's to compare. Two jobs run in processes of their own, through the command line: one TIFF
with ``smooth``, and a simulated 3 x 3 mosaic with ``auto``. A module counts if a function of it is
called, its import alone does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "src" / "napari_txm_bgcorr"
COUNT = """
import json, os, sys, threading
root, out, *words = sys.argv[1:]
seen = set()
def called(frame, event, argument):
    if event == "call":
        code = frame.f_code
        if code.co_filename.startswith(root) and code.co_name not in ("<module>", "__getattr__"):
            if frame.f_code.co_name[0] != "<" and not is_class_body(frame):
                seen.add(code.co_filename)
def is_class_body(frame):
    return "__module__" in frame.f_code.co_names and "__qualname__" in frame.f_code.co_names
from napari_txm_bgcorr.cli import main
threading.setprofile(called)
sys.setprofile(called)
sys.argv = ["txm-bgcorr", *words]
try:
    main()
except SystemExit as end:
    if end.code:
        raise
finally:
    sys.setprofile(None)
    with open(out, "w") as file:
        json.dump(sorted(seen), file)
"""


def count(package: Path, *words: object) -> list[str]:
    """Modules of `package` whose functions run in a command."""
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "2"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seen.json"
        command = [sys.executable, "-c", COUNT, str(package), str(out), *map(str, words)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return [str(Path(name).relative_to(package)) for name in json.loads(out.read_text())]


def main(package: Path) -> None:
    """Print both counts, and the modules."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "napari_txm_bgcorr.cli", "simulate"]
        environment = {**os.environ, "PYTHONPATH": str(package.parent)}
        for kind, *more in (["tile"], ["mosaic", "--grid", "3x3"]):
            made = [*command, kind, *more, "--size", "128", "-o", str(folder / kind)]
            subprocess.run(made, check=True, env=environment, stdout=subprocess.DEVNULL)
        tile = next(path for path in (folder / "tile").glob("*.tif"))
        jobs = {
            "one TIFF, smooth": (tile, "--method", "smooth"),
            "3 x 3 mosaic, auto": (folder / "mosaic", "--method", "auto"),
        }
        for label, words in jobs.items():
            found = count(package, "correct", *words, "-o", folder / label, "--json")
            print(f"{label}: {len(found)} modules")
            for module in found:
                print(f"  {module}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE)
