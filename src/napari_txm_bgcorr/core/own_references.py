"""References that a background method brings along, for scans that have none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.scan import Scan

__all__ = ["ReferenceMethod", "method_notes", "with_own_references"]


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
