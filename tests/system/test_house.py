"""The house keeps its promises: light import, no Qt for the command, one manifest."""

from __future__ import annotations

import re
import subprocess
import sys
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
def test_light_commands_load_neither_torch_nor_qt(command: str) -> None:
    code = (
        "import sys\n"
        "from napari_txm_bgcorr.cli import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('heavy:', sorted({m.split('.')[0] for m in sys.modules}"
        " & {'torch', 'monai', 'qtpy', 'PyQt6', 'PySide6', 'napari'}))"
    )
    assert run_python(code, *command.split()).stdout.strip().endswith("heavy: []")


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
