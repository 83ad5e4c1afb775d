"""Saved results: where they are put, and their parts when they are opened again."""

from __future__ import annotations

from pathlib import Path

from napari_txm_bgcorr.gui.session import FORMAT_SUFFIX

__all__ = ["is_saved", "parts", "result_name", "saved_path"]

ROLES = ("raw", "background", "corrected")
MARKS = ("provenance.json", "zarr.json")


def saved_path(name: str, folder: Path, save_format: str) -> Path:
    """Path at which a result called `name` is saved."""
    return folder / f"{name} corrected{FORMAT_SUFFIX[save_format]}"


def parts(path: Path) -> list[tuple[Path, str | None, str | None]]:
    """Split a saved result into its parts.

    Parameters
    ----------
    path : Path
        File or folder the user wants opened.

    Returns
    -------
    list of (path, role, name)
        One for each part of a saved result; for anything else, stitched mosaics among it, the
        path alone, with None for role and name.
    """
    if path.is_dir() and any((path / mark).is_file() for mark in MARKS) and not _stitched(path):
        found = [
            (part, role, result_name(path))
            for role in ROLES
            for part in (path / role, path / f"{role}.ome.tif")
            if part.exists()
        ]
        if found:
            return [*found]
    return [(path, None, None)]


def _stitched(path: Path) -> bool:
    """Return True if the parts are pictures of the whole mosaic, not tiles."""
    try:
        return b'"stitched"' in (path / MARKS[1]).read_bytes()
    except OSError:
        return False


def is_saved(path: Path) -> bool:
    """Return True if a folder's record marks an output of this program; images stay unopened."""
    for mark in MARKS:
        try:
            if b'"txm_bgcorr"' in (path / mark).read_bytes()[: 2**20]:
                return True
        except OSError:
            continue
    return False


def result_name(path: Path) -> str:
    """Name of a saved result's layers."""
    name = path.name
    for suffix in FORMAT_SUFFIX.values():
        name = name.removesuffix(suffix)
    return name.removesuffix(" corrected") or name
