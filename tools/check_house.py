"""Check the layout and style rules of the package that no linter knows.

    python tools/check_house.py [PACKAGE]

PACKAGE is the folder to check, by default ``src/napari_txm_bgcorr``. One line is printed per
violation, and the exit status is 1 if there are any. `RULES` lists the rules.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DEFAULT = Path(__file__).resolve().parents[1] / "src" / "napari_txm_bgcorr"
OPENINGS = ("What", "Whether", "Where", "Those", "Who", "When", "Which", "Why", "How")
ROOT_MODULES = ("errors", "api")
MOST_FILES = 18
MOST_BODY_LINES = 52
MOST_FILE_LINES = 400
LEAST_DOC_LINES = 2

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file of the package.

    Attributes
    ----------
    package : Path
        Folder of the whole package.
    path : Path
        File below `package`, ``.py`` or ``.pyi``.
    """

    package: Path
    path: Path

    @cached_property
    def text(self) -> str:
        """Content of the file."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Syntax tree of the file."""
        return ast.parse(self.text, str(self.path))

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders of the module below the package."""
        return self.path.relative_to(self.package).parent.parts

    def line(self, number: int, message: str) -> str:
        """Format a violation at a line of this file."""
        return f"{self.path.relative_to(self.package.parent)}:{number}: {message}"

    def nodes(self) -> Iterator[ast.AST]:
        """All nodes of the syntax tree."""
        return ast.walk(self.tree)


Sources = list[Source]


def unique_classes(sources: Sources) -> Iterator[str]:
    """Refuse two classes of one name."""
    places: dict[str, list[tuple[Source, int]]] = defaultdict(list)
    for source in sources:
        for node in source.nodes():
            if isinstance(node, ast.ClassDef):
                places[node.name].append((source, node.lineno))
    for name, found in places.items():
        first = found[0][0].path
        for source, number in found[1:]:
            where = first.relative_to(source.package.parent)
            yield source.line(number, f"class {name}: also in {where}; names are unique")


def docstring_openings(sources: Sources) -> Iterator[str]:
    """Refuse docstrings that open with a word of `OPENINGS`."""
    for source in sources:
        for node in source.nodes():
            if not isinstance(node, Documented):
                continue
            words = (ast.get_docstring(node) or "").split()
            word = words[0].strip("`*,.") if words else ""
            if word in OPENINGS:
                number = getattr(node, "lineno", 1)
                yield source.line(number, f"docstring opens with {word!r}; say what it is or does")


def imports_of_faces(sources: Sources) -> Iterator[str]:
    """Refuse imports of a module inside another top-level package, at any place in the code."""
    for source in sources:
        own = source.parts[0] if source.parts else ""  # modules of the root have no package
        for node in source.nodes():
            for target in _imported(source, node):
                if target[0] != own and not _is_face(source.package, target):
                    name = ".".join((source.package.name, *target))
                    yield source.line(
                        getattr(node, "lineno", 1), f"imports {name}; import from its package"
                    )


def _imported(source: Source, node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Modules below the package that an import statement names, as parts of their names."""
    root = source.package.name
    if isinstance(node, ast.Import):
        for alias in node.names:
            parts = tuple(alias.name.split("."))
            if parts[0] == root and len(parts) > 1:
                yield parts[1:]
    elif isinstance(node, ast.ImportFrom):
        module = tuple(node.module.split(".")) if node.module else ()
        if node.level:
            here = (root, *source.parts)
            module = (*here[: len(here) - node.level + 1], *module)
        if module[:1] != (root,):
            return
        for alias in node.names:
            whole = (*module[1:], alias.name)
            if _is_module(source.package, whole) and not _exports(source.package, whole):
                yield whole
            elif module[1:]:
                yield module[1:]
                return


def _is_module(package: Path, parts: tuple[str, ...]) -> bool:
    place = package.joinpath(*parts)
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def _is_face(package: Path, parts: tuple[str, ...]) -> bool:
    """Return True for packages, and for the modules of the root that all may import."""
    if len(parts) == 1 and parts[0] in ROOT_MODULES:
        return True
    return (package.joinpath(*parts) / "__init__.py").is_file()


def _exports(package: Path, parts: tuple[str, ...]) -> bool:
    """Return True if a package lists one of its own modules in ``__all__``."""
    folder = package.joinpath(*parts[:-1])
    for name in ("__init__.pyi", "__init__.py"):
        if (folder / name).is_file():
            tree = ast.parse((folder / name).read_text(encoding="utf-8"))
            if parts[-1] in (_listed(tree) or ()):
                return True
    return False


def folder_sizes(sources: Sources) -> Iterator[str]:
    """Refuse folders with more than `MOST_FILES` Python files."""
    counts: dict[Path, int] = defaultdict(int)
    for source in sources:
        if source.path.suffix == ".py":
            counts[source.path.parent] += 1
    for folder, count in counts.items():
        if count > MOST_FILES:
            where = folder.relative_to(sources[0].package.parent)
            yield f"{where}: {count} Python files; at most {MOST_FILES}"


def lengths(sources: Sources) -> Iterator[str]:
    """Refuse long files, and functions whose body is long without its docstring."""
    for source in sources:
        count = len(source.text.splitlines())
        if count > MOST_FILE_LINES:
            yield source.line(count, f"{count} lines; at most {MOST_FILE_LINES}")
        for node in source.nodes():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = _body_lines(node)
                if body > MOST_BODY_LINES:
                    message = f"{node.name}: body of {body} lines; at most {MOST_BODY_LINES}"
                    yield source.line(node.lineno, message)


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def package_faces(sources: Sources) -> Iterator[str]:
    """Refuse packages without a docstring of two lines, and stubs that miss in ``__all__``."""
    for source in sources:
        if source.path.name == "__init__.py":
            text = ast.get_docstring(source.tree) or ""
            count = sum(bool(line.strip()) for line in text.splitlines())
            if count < LEAST_DOC_LINES:
                message = f"docstring of {count} lines; at least {LEAST_DOC_LINES}"
                yield source.line(1, message)
        elif source.path.name == "__init__.pyi":
            listed, imported = _listed(source.tree), _names(source.tree)
            if listed is None:
                yield source.line(1, "no __all__ in the stub")
                continue
            for name in sorted(imported - set(listed)):
                yield source.line(1, f"imports {name}, which __all__ lacks")
            for name in sorted(set(listed) - imported):
                yield source.line(1, f"__all__ lists {name}, which is not imported")


def _listed(tree: ast.Module) -> list[str] | None:
    """Names in ``__all__``; None if there is no such list of strings."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
            if name == "__all__" and isinstance(value, ast.List | ast.Tuple):
                return [str(one.value) for one in value.elts if isinstance(one, ast.Constant)]
    return None


def _names(tree: ast.Module) -> set[str]:
    """Names that a stub imports, or declares with a type such as ``__version__: str``."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


RULES: dict[str, Callable[[Sources], Iterator[str]]] = {
    "unique-class": unique_classes,
    "docstring-opening": docstring_openings,
    "import-face": imports_of_faces,
    "folder-size": folder_sizes,
    "length": lengths,
    "package-face": package_faces,
}


def violations(package: Path) -> list[str]:
    """List the violations in a package, one line each.

    Parameters
    ----------
    package : Path
        Folder that holds the package's ``__init__.py``.
    """
    files = sorted([*package.rglob("*.py"), *package.rglob("*.pyi")])
    sources = [Source(package, path) for path in files]
    return [f"{line} [{name}]" for name, rule in RULES.items() for line in rule(sources)]


def main(package: Path = DEFAULT) -> int:
    """Print the violations; return the exit status."""
    found = violations(package)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*(Path(word).resolve() for word in sys.argv[1:2])))
