"""Defaults of the panel, kept in napari's plugin preferences where this napari has them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Preferences", "preferences"]

PLUGIN = "napari-txm-bgcorr"


@dataclass(frozen=True)
class Preferences:
    """Start values of the panel; names as in the manifest's ``configurations``."""

    method: str = "auto"
    model: str = "default"
    device: str = "auto"
    save_format: str = "omezarr"


def preferences() -> Preferences:
    """Read the preferences; the built-in defaults where napari keeps none for plugins."""
    try:
        from napari.settings import get_plugin_settings

        settings: Any = get_plugin_settings(PLUGIN)  # its fields are those of the manifest
        kept = settings.correction
    except (ImportError, KeyError, AttributeError):
        return Preferences()
    defaults = Preferences()
    return Preferences(
        **{f.name: getattr(kept, f.name, getattr(defaults, f.name)) for f in fields(Preferences)}
    )
