"""Check of an output path: nothing is lost there, and it can be written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_txm_bgcorr.core import Scan, standing
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io.guard import writing

from .job import JOB, ROLES, drop_notes, is_output

__all__ = ["check_place"]


def check_place(out: Path, scan: Scan, save: Sequence[str], *, overwrite: bool) -> None:
    """Refuse a place where writing would harm something.

    Parameters
    ----------
    out : Path
    scan : Scan
        Its files must not be touched.
    save : sequence of str
    overwrite : bool

    Raises
    ------
    WriteError
        If `out` exists (unless it is an output and `overwrite`), is a link, or is or holds the
        input, or lies inside another output.
    """
    unknown = sorted(set(save) - set(ROLES))
    if unknown or not save:
        raise WriteError(f"{out}: save {unknown or 'nothing'}; choose from {', '.join(ROLES)}")
    with writing(out):
        if out.is_symlink():
            raise WriteError(f"{out}: is a link; give a folder of its own")
        _keep_input(out, scan)
        _refuse_unwritable(out)
        if not out.exists():
            return
        if out.is_dir() and not any(out.iterdir()):
            return
        if (out / JOB).is_file() and is_output(out):  # killed right after its last rename
            drop_notes(out)
        if not overwrite:
            raise WriteError(f"{out}: exists; choose another place or pass --overwrite")
        if not is_output(out):
            raise WriteError(
                f"{out}: exists and is no output of this program, so it is never replaced; "
                "choose another place"
            )


def _refuse_unwritable(out: Path) -> None:
    """Tell before any work is done where no output can be made."""
    parent = standing(out.absolute().parent)
    if parent is None:
        raise WriteError(f"{out}: the drive or share is not there; choose another folder")
    if not parent.is_dir():
        raise WriteError(f"{out}: {parent} is a file, not a folder; choose another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise WriteError(f"{out}: no permission to write in {parent}; choose another folder")


def _keep_input(out: Path, scan: Scan) -> None:
    """Refuse an output that is or holds the input, or lies within another output."""
    place = out.resolve()
    inputs = {Path(p).resolve() for p in (scan.source.path, *scan.source.files)}
    for path in inputs:
        if place == path or place in path.parents:
            raise WriteError(f"{out}: is or holds the input {path.name}; choose another place")
    for folder in place.parents:
        if (folder / "zarr.json").is_file() or is_output(folder):
            raise WriteError(f"{out}: lies inside the output {folder.name}; choose another place")
