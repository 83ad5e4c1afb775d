"""BaSiCPy 2 as a background method, run by an environment of its own.

BaSiCPy pins a SciPy that napari refuses, so it cannot be beside the rest. ``python
benchmarks/external_basic.py FOLDER`` makes an environment for it in FOLDER; then
``python benchmarks/joint_stage.py --basicpy FOLDER`` runs it like any other method.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.backgrounds.tile_median import scaled_backgrounds
from napari_txm_bgcorr.core.progress import SILENT, Progress
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.smooth_fields import Coarse, log_beam, spread_indices, to_counts, upper
from napari_txm_bgcorr.errors import MethodError

# torch is named so that pip takes the same build as the project's own set-up does.
PACKAGES = ("basicpy==2.0.0", "torch==2.13.0")
FIELDS = Path(__file__).with_name("basicpy_fields.py")

# Ways to run it. Its own smoothness is 0.7 to 1 on mosaics; "rough" takes less.
WAYS: dict[str, dict[str, Any]] = {
    "BaSiCPy": {},
    "BaSiCPy, level per tile": {"level": "tile"},
    "BaSiCPy, tuned": {"tune": True},
    "BaSiCPy, dark field": {"get_darkfield": True},
    "BaSiCPy, ladmap": {"fitting_mode": "ladmap"},
    "BaSiCPy, sorted": {"sort_intensity": True},
    "BaSiCPy, sorted, tuned": {"sort_intensity": True, "tune": True},
    "BaSiCPy, sorted, dark field": {"sort_intensity": True, "get_darkfield": True},
    "BaSiCPy, sorted, rough": {"sort_intensity": True, "smoothness_flatfield": 0.1},
    "BaSiCPy, sorted, dark field, rough": {
        "sort_intensity": True, "get_darkfield": True, "smoothness_flatfield": 0.1,
    },
}  # fmt: skip


def make_environment(folder: Path) -> Path:
    """Make a virtual environment with BaSiCPy in `folder`; return its Python."""
    venv.create(folder, with_pip=True, clear=True)
    python = python_of(folder)
    subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def python_of(folder: Path) -> Path:
    """The Python of the environment in `folder`."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@dataclass
class Fitter:
    """The process that runs BaSiCPy; started at the first question, ended by `close`.

    Parameters
    ----------
    python : Path
        Of BaSiCPy's environment.
    program : Path
        What it runs; see `basicpy_fields`.
    """

    python: Path
    program: Path = FIELDS
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def fit(self, stack: NDArray[np.float32], options: dict[str, Any], tune: bool) -> dict:
        """Flat field, dark field and baseline of a stack `(T, Y, X)`, and what was said.

        Raises
        ------
        MethodError
            If there is no such environment, or BaSiCPy fails on the stack.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = {"stack": f"{folder}/stack.npy", "out": f"{folder}/fields.npz"}
            np.save(paths["stack"], stack)
            answer = self._ask({**paths, "options": options, "tune": tune})
            if "error" in answer:
                raise MethodError(f"BaSiCPy: {answer['error']}; choose another method")
            with np.load(paths["out"]) as fields:
                return answer | {name: fields[name] for name in fields.files}

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            raise MethodError(f"{self.python}: ended without an answer; look at what it printed")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        if not self.python.exists():
            raise MethodError(
                f"{self.python}: no such program; make it by "
                f"python benchmarks/external_basic.py {self.python.parent.parent}"
            )
        pipe = subprocess.PIPE
        return subprocess.Popen([self.python, self.program], stdin=pipe, stdout=pipe, text=True)

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate()


class ExternalBasic:
    """Background method: BaSiCPy's flat field, and dark field where it is asked for one.

    Parameters
    ----------
    fitter : Fitter
    level : {"one", "tile"}
        One level for the whole scan, as BaSiCPy divides by its flat field, or one for each
        tile, as other programs do.
    tune : bool
        Let BaSiCPy choose its smoothness first.
    tiles : int
        Tiles to use, spread evenly over the scan.
    **options
        Of ``basicpy.BaSiC``.
    """

    name, workers = "BaSiCPy", 1

    def __init__(
        self,
        fitter: Fitter,
        *,
        level: str = "one",
        tune: bool = False,
        tiles: int = 1024,
        **options: Any,
    ) -> None:
        self.fitter, self.level, self.tune = fitter, level, tune
        self.tiles, self.options = tiles, options
        self.said: dict[str, Any] = {}
        self._dark: NDArray[np.float32] | None = None
        self._shape: NDArray[np.float32] | None = None
        self._level = np.float32(0)

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Let BaSiCPy decompose the tiles; it sees linear counts, dark removed."""
        dark = scan.dark()
        chosen = spread_indices(len(scan), self.tiles)
        stack = np.stack([np.exp(log_beam(scan.tiles[i], dark)) for i in chosen])
        found = self.fitter.fit(stack, self.options, self.tune)
        self._shape = log_beam(found.pop("flatfield"), None)
        extra = found.pop("darkfield")
        self._dark = dark
        if self.options.get("get_darkfield"):
            self._dark = extra if dark is None else dark + extra
        self.said = found | {"baseline": found["baseline"].tolist()}
        coarse = Coarse(self._shape.shape)
        cells = coarse.mean(self._shape)
        rest = np.stack([coarse.log_cells(scan.tiles[i], self._dark) - cells for i in chosen])
        self._level = np.float32(upper(rest, np.ones(rest.shape, bool)))
        return self

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """The flat field at its level; see `BackgroundMethod`."""
        if self._shape is None:
            raise MethodError("BaSiCPy: not fitted; call fit(scan) first")
        if self.level == "tile":
            return scaled_backgrounds(tiles, self._shape, self._dark)
        one = to_counts(self._shape + self._level, self._dark)
        return np.broadcast_to(one, tiles.shape).copy()

    def describe(self) -> dict[str, Any]:
        """What was asked and what BaSiCPy answered."""
        return {"level": self.level, "tune": self.tune, "options": self.options, **self.said}


def main() -> None:
    """Make the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the environment; emptied first")
    folder = parser.parse_args().folder
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        sys.exit(f"{folder}: holds something else; name an empty or a new folder")
    print(make_environment(folder))


if __name__ == "__main__":
    main()
