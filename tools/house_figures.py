"""Measure a checkout: size of the package and its parts, circles, functions, docstrings, tests.

    python tools/house_figures.py [CHECKOUT]

Prints one Markdown row a figure; run it on two checkouts to compare them.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grimp

OPENINGS = ("What", "Whether", "Where", "Those", "Who", "When", "Which", "Why", "How")
PACKAGE = "napari_txm_bgcorr"


def main(checkout: Path) -> None:
    """Print the figures."""
    source = checkout / "src" / PACKAGE
    files = sorted(source.rglob("*.py"))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    tests = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in (checkout / "tests").rglob("*.py")
    )
    folders = Counter(path.parent.relative_to(source) for path in files)
    folder, most = folders.most_common(1)[0]
    bodies, typed, openings, named = [], [], 0, Counter[str]()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                bodies.append(body_lines(node))
                given = [*node.args.args, *node.args.kwonlyargs]
                own = [a for a in given if a.arg not in ("self", "cls")]
                typed.append(node.returns is not None and all(a.annotation for a in own))
            if isinstance(node, ast.ClassDef):
                named[node.name] += 1
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                opening = (ast.get_docstring(node) or " ").split(" ")[0].strip("`*,.")
                openings += opening in OPENINGS
    rows = {
        "modules": len(files),
        "lines": lines,
        "largest folder": f"{most} ({folder})",
        "circles between modules or packages": circles(source.parent),
        "names of the front door": front_door(source.parent),
        "function bodies, lines: median, 90 %, longest": (
            f"{statistics.median(bodies):.0f}, {statistics.quantiles(bodies, n=10)[-1]:.0f}, "
            f"{max(bodies)}"
        ),
        "functions fully typed, %": round(100 * sum(typed) / len(typed), 1),
        "class names used twice": sum(count > 1 for count in named.values()),
        "docstrings that open with What, Whether, Where, Those, ...": openings,
        "lines of tests for each line of source": round(tests / lines, 2),
        "import of the package, s": seconds(source.parent, f"import {PACKAGE}"),
        "txm-bgcorr --help, s": seconds(
            source.parent,
            f"import sys; sys.argv = ['', '--help']; from {PACKAGE}.cli import main;"
            " main()",
        ),
    }  # fmt: skip
    for name, value in rows.items():
        print(f"| {name} | {value} |")


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its signature and docstring."""
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or 0) - first.lineno + 1


def circles(source: Path) -> int:
    """Count groups of siblings, at any level, that import each other."""
    sys.path.insert(0, str(source))
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    found = 0
    packages = {name.rpartition(".")[0] for name in graph.modules} - {""}
    for package in packages:
        children = {}
        for name in graph.modules:
            if name.startswith(f"{package}."):
                child = name[len(package) + 1 :].split(".")[0]
                for other in graph.find_modules_directly_imported_by(name):
                    if other.startswith(f"{package}."):
                        to = other[len(package) + 1 :].split(".")[0]
                        if to != child:
                            children.setdefault(child, set()).add(to)
        found += components(children)
    return found


def components(arrows: dict[str, set[str]]) -> int:
    """Count the groups of more than one in which everyone reaches everyone."""

    def reach(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for other in arrows.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen

    reached = {name: reach(name) for name in arrows}
    return len(
        {
            frozenset(other for other in seen if name in reached.get(other, ()))
            for name, seen in reached.items()
            if name in seen
        }
    )


def front_door(source: Path) -> int:
    """Count the public names of the package itself."""
    code = f"import {PACKAGE} as p; print(len(p.__all__))"
    return int(run(source, code))


def seconds(source: Path, code: str) -> float:
    """Least time of five fresh processes, less that of an empty one."""
    timed = f"import time; t = time.perf_counter()\ntry:\n    exec({code!r})\n"
    timed += "except SystemExit: pass\nprint()\nprint(time.perf_counter() - t)"
    return round(min(float(run(source, timed).split()[-1]) for _ in range(5)), 2)


def run(source: Path, code: str) -> str:
    """Output of Python code with the package of this checkout."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(source), "PATH": ""},
    ).stdout  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
