"""What the user should know of a fitted background method and of the references of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .reference_matching import match_references
from .scan import Scan

__all__ = [
    "method_notes",
    "reference_doubts",
    "reference_notes",
]

DIVIDE = frozenset({"captured", "eigen-flats"})  # by references, as they were told to
MATCH = frozenset({"auto"})  # take those that match


def method_notes(described: Mapping[str, Any]) -> list[str]:
    """What the user should know of the method's last fit, from its description."""
    stage = described.get("joint")
    model = stage.get("notes", ()) if isinstance(stage, Mapping) else ()
    return [str(note) for note in (*described.get("notes", ()), *model)]


def reference_notes(method: str, scan: Scan) -> tuple[str, ...]:
    """Tell how the references of a scan match it, in sentences.

    Parameters
    ----------
    method : str
        Row of the method table; without any sentence for those that use no references.
    scan : Scan
        With references attached.
    """
    match = match_references(scan, levels=method != "eigen-flats")
    if method in DIVIDE:
        return match.divided_notes
    return match.notes if method in MATCH else ()


def reference_doubts(method: str, scan: Scan) -> list[str]:
    """Sentences of `reference_notes` about references of another photon energy."""
    match = match_references(scan, levels=False)
    if not match.missed or method not in DIVIDE | MATCH:
        return []
    notes = match.divided_notes if method in DIVIDE else match.notes
    return [f"{note[0].upper()}{note[1:]}." for note in notes]
