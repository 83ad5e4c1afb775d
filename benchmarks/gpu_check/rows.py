"""How a stage's process tells its results: lines on standard output, taken up as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["FACTS", "ROWS", "facts", "rows"]

ROWS, FACTS = "@rows ", "@facts "


def rows(found: Sequence[Mapping[str, Any]]) -> None:
    """Tell all rows of the stage so far."""
    print(ROWS + json.dumps(list(found)), flush=True)


def facts(**found: Any) -> None:
    """Tell what belongs to no row."""
    print(FACTS + json.dumps(found), flush=True)
