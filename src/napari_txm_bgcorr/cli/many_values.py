"""Options that take several values after one name: ``--references a.xrm b.xrm``."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Sequence
from typing import Any

from typer.core import TyperCommand

__all__ = ["expanded", "many_values", "repeated"]

AGAIN = ("--reference", "--dark")  # given once for each of their values
KEPT = ("--pattern", "--set")  # what follows is no path


def expanded(words: Sequence[str]) -> list[str]:
    """Words of a command line with wildcards expanded, for Windows, whose shells do not.

    Left as they are: files that have such characters in their names, patterns that match no
    file, and what follows an option of `KEPT`.
    """
    out: list[str] = []
    before = ""
    for word in words:
        wild = any(c in word for c in "*?[") and not os.path.exists(word)
        found = sorted(glob.glob(word)) if wild and before not in KEPT else []
        for path in found or [word]:
            if path != (found or [word])[0] and before in AGAIN:
                out.append(before)
            out.append(path)
        before = word
    return out


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
