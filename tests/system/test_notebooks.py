"""The notebooks of `examples/` run, and are kept as they ran."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))
NEEDED = ("nbclient", "ipykernel", "matplotlib")
LARGEST_BYTES = 400_000


@pytest.fixture
def jupyter() -> None:
    """Packages that run a notebook."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; pip install 'napari-txm-bgcorr[test]'")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_without_errors_and_warnings(
    name: str, tmp_path: Path, jupyter: None
) -> None:
    """In a process of its own, which may keep what Jupyter leaves running."""
    tool = [sys.executable, str(ROOT / "tools" / "run_notebooks.py"), name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*tool, "--into", str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]  # its files are cleaned up


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_as_it_ran(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert len(text) < LARGEST_BYTES
    for place in ("/tmp/", "/home/", "/root", "/work/", "/Users/", "\\\\Users"):
        assert place not in text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds == {"stream", "display_data"}  # errors would be a kind of their own
    streams = {output.get("name") for cell in cells for output in cell["outputs"]}
    assert "stderr" not in streams


def test_every_notebook_is_named_in_the_documents() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    pages = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"({name})" in readme and f"examples/{name}" in pages
