"""The house keeps its promises: light import, no Qt for the command, one manifest."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BLOCK_QT = """
import sys
class NoQt:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"qtpy", "PyQt6", "PySide6", "PyQt5", "superqt", "napari"}:
            raise ModuleNotFoundError(f"blocked: {name}")
sys.meta_path.insert(0, NoQt())
from napari_txm_bgcorr.cli import main
sys.argv = ["txm-bgcorr", *sys.argv[1:]]
main()
"""


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


def test_importing_the_package_loads_neither_torch_nor_qt() -> None:
    code = (
        "import sys, napari_txm_bgcorr;"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " {'torch', 'monai', 'qtpy', 'PyQt6', 'PySide6', 'napari'}])"
    )
    assert run_python(code).stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["--version", "--help", "correct --help"])
def test_light_commands_load_nothing_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from napari_txm_bgcorr.cli import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('heavy:', sorted({m.split('.')[0] for m in sys.modules}"
        " & {'torch', 'monai', 'qtpy', 'PyQt6', 'PySide6', 'napari', 'scipy', 'zarr', 'h5py'}))"
    )
    assert run_python(code, *command.split()).stdout.strip().endswith("heavy: []")


def test_the_help_of_simulate_lists_what_there_is() -> None:
    from napari_txm_bgcorr.cli.simulate import FAMILY_HELP, SPECIMEN_HELP
    from napari_txm_bgcorr.simulation import FAMILIES, SPECIMENS

    assert f" {', '.join(SPECIMENS)}." in SPECIMEN_HELP
    assert f" {', '.join(FAMILIES)}." in FAMILY_HELP


def test_the_command_runs_where_no_qt_is_installed(tmp_path: Path) -> None:
    made = run_python(BLOCK_QT, *f"simulate tile --size 128 -o {tmp_path / 'tile'}".split())
    assert made.returncode == 0, made.stderr
    tile = next((tmp_path / "tile").glob("*.tif"))
    done = run_python(
        BLOCK_QT, "correct", str(tile), "-o", str(tmp_path / "out"), "--method", "smooth"
    )
    assert done.returncode == 0, done.stderr


def test_the_base_package_pulls_no_qt_binding_and_pins_no_napari() -> None:
    base = [r for r in requires("napari-txm-bgcorr") or [] if "extra ==" not in r]
    names = {re.split(r"[\[<>=!~; ]", r)[0].lower() for r in base}
    assert not names & {"pyqt5", "pyqt6", "pyside2", "pyside6"}
    napari = next(r for r in base if r.lower().startswith("napari"))
    assert "<" not in napari and "==" not in napari
    assert "[" not in napari


def test_napari_finds_the_manifest() -> None:
    names = [e.value for e in entry_points(group="napari.manifest") if "txm" in e.name]
    assert names == ["napari_txm_bgcorr:napari.yaml"]
    packaged = ROOT / "src" / "napari_txm_bgcorr" / "napari.yaml"
    assert (ROOT / "napari.yaml").resolve() == packaged.resolve()


@pytest.mark.skipif(shutil.which("bash") is None, reason="setup.sh is for Debian and Ubuntu")
@pytest.mark.parametrize("installed", [True, False])
def test_setup_installs_only_what_is_missing(tmp_path: Path, installed: bool) -> None:
    # dpkg-query fails where one of two names is unknown, even if the other is installed
    state = "install ok installed" if installed else "deinstall ok config-files"
    stubs = {"dpkg-query": f"echo '{state}'; exit 1", "id": "echo 1000", "sudo": "exit 1"}
    for name, body in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = (ROOT / "tools" / "setup.sh").read_text()
    function = script[script.index("install_system_packages() {") :].split("\n}\n")[0] + "\n}\n"
    command = f"set -euo pipefail; {function} install_system_packages {sys.executable}"
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], env={"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == (0 if installed else 1)
    assert ("sudo apt-get install" in done.stderr) is not installed


def test_what_benchmarks_and_tools_import_is_there() -> None:
    """They run rarely, and would fail hours later."""
    missing = []
    for folder in ("benchmarks", "tools", "docs/images"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.ImportFrom) or node.level:
                    continue
                if (node.module or "").partition(".")[0] != "napari_txm_bgcorr":
                    continue
                module = import_module(str(node.module))
                for name in node.names:
                    if not hasattr(module, name.name):
                        try:
                            import_module(f"{node.module}.{name.name}")
                        except ImportError:
                            missing.append(f"{path.name}: {node.module}.{name.name}")
    assert missing == []
