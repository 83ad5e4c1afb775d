"""Small JSON files, read with a clear error and written in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.core import replace_file
from napari_txm_bgcorr.errors import ReadError

from .guard import reading

__all__ = ["read_json", "write_json"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ReadError
        If the file is missing, damaged or holds something else.
    """
    with reading(path, "JSON"):
        value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ReadError(f"{path}: no JSON object; restore the file")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object under another name first, so that no half file is ever seen."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    replace_file(part, path)
