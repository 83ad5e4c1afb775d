"""The rules of `tools/check_house.py`: the package keeps them, and each finds its violation."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
FACE = '"""A package.\n\nIts second line.\n"""\n'
LONG = "def long():\n" + "    a = 1\n" * 53
LAST_ALLOWED = 'def short():\n    """Do it.\n\n    In words.\n    """\n' + "    a = 1\n" * 52


@pytest.fixture(scope="module")
def house() -> ModuleType:
    path = ROOT / "tools" / "check_house.py"
    spec = importlib.util.spec_from_file_location("check_house", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_house"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def package(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a package ``pkg`` whose faces are in order, with these files."""
    root = folder / "pkg"
    for name, text in {"__init__.py": FACE, "errors.py": "", "api.py": "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if not (path.parent / "__init__.py").exists():
            (path.parent / "__init__.py").write_text(FACE, encoding="utf-8")
    return root


def test_the_package_keeps_the_rules(house: ModuleType) -> None:
    assert house.violations(house.DEFAULT) == []


def test_a_tidy_package_has_no_violation(
    house: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = package(tmp_path, {"core/scan.py": 'class Scan:\n    """A scan."""\n'})
    assert house.main(root) == 0
    assert capsys.readouterr().out == ""


IMPORTS = {
    "at the top": "from pkg.core.scan import Scan\n",
    "as a module": "import pkg.core.scan\n",
    "of a module by its package": "from pkg.core import scan\n",
    "relative": "from ..core.scan import Scan\n",
    "in a function": "def f():\n    from pkg.core.scan import Scan\n",
    "for types only": "if TYPE_CHECKING:\n    from pkg.core.scan import Scan\n",
}


@pytest.mark.parametrize("text", IMPORTS.values(), ids=IMPORTS)
def test_imports_from_inside_another_package_are_found(
    house: ModuleType, tmp_path: Path, text: str
) -> None:
    files = {"core/scan.py": "", "io/read.py": text}
    found = house.violations(package(tmp_path, files))
    line = text[: text.index("import")].count("\n") + 1
    expected = f"pkg/io/read.py:{line}: imports pkg.core.scan; import from its package"
    assert found == [f"{expected} [import-face]"]


def test_modules_of_the_root_import_faces_too(house: ModuleType, tmp_path: Path) -> None:
    files = {"core/scan.py": "", "api.py": "from pkg.core.scan import Scan\n"}
    (found,) = house.violations(package(tmp_path, files))
    assert found.startswith("pkg/api.py:1: imports pkg.core.scan;")


ALLOWED = {
    "face": "from pkg.core import Scan\n",
    "inner face": "from pkg.core.inner import Scan\n",
    "face of the root": "from pkg import core\n",
    "errors": "from pkg.errors import TxmError\n",
    "errors by the root": "from pkg import errors\n",
    "api": "import pkg.api\n",
    "own module": "from pkg.io.other import thing\n",
    "own, relative": "from .other import thing\n",
    "module that the face lists": "from pkg.core import pixels\n",
    "another distribution": "from numpy.linalg import norm\n",
}


@pytest.mark.parametrize("text", ALLOWED.values(), ids=ALLOWED)
def test_imports_of_faces_are_allowed(house: ModuleType, tmp_path: Path, text: str) -> None:
    files = {
        "core/__init__.pyi": 'from . import pixels\n\n__all__ = ["pixels"]\n',
        "core/pixels.py": "",
        "core/inner/__init__.py": FACE,
        "io/other.py": "",
        "io/read.py": text,
    }
    assert house.violations(package(tmp_path, files)) == []


VIOLATIONS: dict[str, tuple[dict[str, str], str]] = {
    "class twice": (
        {"a.py": "class Scan: ...\n", "b.py": "class Outer:\n    class Scan: ...\n"},
        "pkg/b.py:2: class Scan: also in pkg/a.py; names are unique [unique-class]",
    ),
    "opening of a module": (
        {"a.py": '"""What it does."""\n'},
        "pkg/a.py:1: docstring opens with 'What'; say what it is or does [docstring-opening]",
    ),
    "opening of a method": (
        {"a.py": 'class Scan:\n    def f(self):\n        """Whether it is."""\n'},
        "pkg/a.py:2: docstring opens with 'Whether'; say what it is or does [docstring-opening]",
    ),
    "folder": (
        {f"core/m{k}.py": "" for k in range(18)},
        "pkg/core: 19 Python files; at most 18 [folder-size]",
    ),
    "function": (
        {"a.py": LONG},
        "pkg/a.py:1: long: body of 53 lines; at most 52 [length]",
    ),
    "file": (
        {"a.py": "a = 1\n" * 401},
        "pkg/a.py:401: 401 lines; at most 400 [length]",
    ),
    "docstring of a package": (
        {"core/__init__.py": '"""Scans."""\n'},
        "pkg/core/__init__.py:1: docstring of 1 lines; at least 2 [package-face]",
    ),
    "name that the stub does not list": (
        {"core/__init__.pyi": "from .scan import Kind, Scan\n\n__all__ = ['Scan']\n"},
        "pkg/core/__init__.pyi:1: imports Kind, which __all__ lacks [package-face]",
    ),
    "name that the stub does not import": (
        {"core/__init__.pyi": "from .scan import Scan\n\n__all__ = ['Kind', 'Scan']\n"},
        "pkg/core/__init__.pyi:1: __all__ lists Kind, which is not imported [package-face]",
    ),
    "stub without a list": (
        {"core/__init__.pyi": "from .scan import Scan\n"},
        "pkg/core/__init__.pyi:1: no __all__ in the stub [package-face]",
    ),
}


@pytest.mark.parametrize(("files", "expected"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_each_violation_is_one_line(
    house: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    expected: str,
) -> None:
    assert house.main(package(tmp_path, files)) == 1
    assert capsys.readouterr().out.splitlines() == [expected]


def test_a_body_is_counted_without_its_docstring(house: ModuleType, tmp_path: Path) -> None:
    assert house.violations(package(tmp_path, {"a.py": LAST_ALLOWED})) == []
