"""Options that take several values after one name: ``--references a.xrm b.xrm``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from typer.core import TyperCommand

__all__ = ["many_values", "repeated"]


def repeated(arguments: Sequence[str], names: Collection[str]) -> list[str]:
    """Repeat the name of an option before each of its values, as the parser wants it.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line. The values of an option end at the next word that starts with
        ``-``; options without value are not in `names`.
    names : collection of str
        Options that take several values.
    """
    out: list[str] = []
    name, count = "", 0
    for word in arguments:
        if word.startswith("-") and len(word) > 1:
            name, count = (word, 0) if word in names else ("", 0)
        elif name:
            if count:
                out.append(name)
            count += 1
        out.append(word)
    return out


def many_values(*names: str) -> type[TyperCommand]:
    """Class of a command whose options `names` take several values."""

    class ManyValues(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Repeat the options' names, then parse."""
            return super().parse_args(ctx, repeated(args, names))

    return ManyValues
