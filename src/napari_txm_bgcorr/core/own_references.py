"""References that a background method brings along, and what the user should know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.reference_matching import match_references
from napari_txm_bgcorr.core.scan import Scan

__all__ = [
    "ReferenceMethod",
    "method_notes",
    "reference_doubts",
    "reference_notes",
    "with_own_references",
]

DIVIDE = frozenset({"captured", "eigen-flats"})  # by references, as they were told to
MATCH = frozenset({"auto", "generator"})  # take those that match


@runtime_checkable
class ReferenceMethod(Protocol):
    """A background method that may bring references."""

    def with_references(self, scan: Scan) -> Scan:
        """The scan of the last fit with the references that match it, its own or those."""


def with_own_references(method: BackgroundMethod, scan: Scan) -> Scan:
    """A scan with the references that a fitted method brings, as if they were given with it."""
    return method.with_references(scan) if isinstance(method, ReferenceMethod) else scan


def method_notes(described: Mapping[str, Any]) -> list[str]:
    """What the user should know of the method's last fit, from its description."""
    return [str(note) for note in described.get("notes", ())]


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
