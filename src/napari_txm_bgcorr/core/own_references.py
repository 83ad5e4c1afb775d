"""What a fitted background method has to say to the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["method_notes"]


def method_notes(described: Mapping[str, Any]) -> list[str]:
    """What the user should know of the method's last fit, from its description."""
    stage = described.get("joint")
    model = stage.get("notes", ()) if isinstance(stage, Mapping) else ()
    return [str(note) for note in (*described.get("notes", ()), *model)]
