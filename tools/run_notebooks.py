"""Run the notebooks of `examples/` and keep what they print and draw.

Nothing of this machine or this hour goes into the files: no times of execution, no versions. The
test of the notebooks runs them by the same `run`, into a folder of its own.

    python tools/run_notebooks.py              # all, in place
    python tools/run_notebooks.py 02 03        # those whose names begin so
    python tools/run_notebooks.py 02 --into FOLDER
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DATA = ROOT.parent / "shared" / "data"
LONGEST_CELL_S = 300
LARGEST_KB = 400
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def run(path: Path, folder: Path) -> NotebookNode:
    """Execute a notebook from its first cell.

    Parameters
    ----------
    path : Path
    folder : Path
        Where it runs.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    own = KernelSpecManager(kernel_dirs=[])  # the kernel of this Python, whatever is installed
    kernel = KernelManager(kernel_name="python3", kernel_spec_manager=own)
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=LONGEST_CELL_S,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute()
    finally:
        kernel.shutdown_kernel(now=True)
    return _tidied(notebook)


def warnings_of(notebook: NotebookNode) -> list[str]:
    """List what its cells wrote to the error stream, or raised."""
    return [
        str(output.get("text") or output.get("evalue"))
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def _tidied(notebook: NotebookNode) -> NotebookNode:
    """Without times and versions, the pictures made small."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _smaller(output.data["image/png"])
    return notebook


def _smaller(png: str) -> str:
    """The same picture in 256 colours, a third of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    stream = io.BytesIO()
    small = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _places(text: str) -> list[str]:
    """Paths of this machine in the text of a notebook."""
    known = {str(Path.home()), str(ROOT), os.environ.get("TMPDIR", "/tmp"), "/tmp/"}
    return [place for place in sorted(known) if len(place) > 4 and place in text]


def main() -> None:
    """Run notebooks and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="Beginnings of names; default: all.")
    parser.add_argument("--into", type=Path, help="Folder to run in and write to.")
    options = parser.parse_args()
    os.environ.setdefault("TXM_BGCORR_DATA", str(DATA))
    chosen = [
        path
        for path in sorted(EXAMPLES.glob("*.ipynb"))
        if path.name.startswith(tuple(options.names) or "")
    ]
    if not chosen:
        sys.exit(f"{' '.join(options.names)}: no such notebook in {EXAMPLES}")
    if options.into is not None:
        options.into.mkdir(parents=True, exist_ok=True)
    problems = [problem for path in chosen for problem in _run_one(path, options.into)]
    if problems:
        sys.exit("\n".join(problems))


def _run_one(path: Path, into: Path | None) -> list[str]:
    """Run and write one notebook; what is wrong with it."""
    began = time.monotonic()
    notebook = run(path, into or path.parent)
    text = nbformat.writes(notebook)
    (path if into is None else into / path.name).write_text(text + "\n", encoding="utf-8")
    kilobytes = len(text) / 1000
    print(f"{path.name}: {time.monotonic() - began:.0f} s, {kilobytes:.0f} kB", flush=True)
    problems = [f"{path.name}: {text.strip()}" for text in warnings_of(notebook)]
    problems += [f"{path.name}: holds the path {place}" for place in _places(text)]
    if kilobytes > LARGEST_KB:
        problems.append(f"{path.name}: {kilobytes:.0f} kB, more than {LARGEST_KB} kB")
    return problems


if __name__ == "__main__":
    main()
