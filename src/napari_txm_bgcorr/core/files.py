"""Writing files in one step; renaming and removing those that others have open for a moment.

On Windows what is open elsewhere (by a panel that reads it, a virus scanner, a backup) can be
neither replaced nor removed, and a folder that holds it cannot be renamed; most let go of it
within milliseconds. Other systems know no such thing: there nothing is tried twice.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from napari_txm_bgcorr.errors import WriteError

__all__ = [
    "discard",
    "is_busy",
    "patiently",
    "remove_file",
    "remove_folder",
    "rename",
    "replace_file",
    "standing",
    "write_atomic",
]

# access denied (also: folder with an open file), sharing and lock violation, folder not empty yet
BUSY = (5, 32, 33, 145)
PATIENCE_S = 2.0
_WINDOWS = os.name == "nt"
Result = TypeVar("Result")


def is_busy(error: OSError) -> bool:
    """Return True if another program may have the file open (Windows only)."""
    # opening a file, unlike renaming one, tells no number of Windows
    denied = _WINDOWS and isinstance(error, PermissionError)
    return denied or getattr(error, "winerror", None) in BUSY


def patiently(call: Callable[[], Result], seconds: float = PATIENCE_S) -> Result:
    """Result of a call, tried again for some time while another program has the file open.

    Parameters
    ----------
    call : callable
    seconds : float
        No new try begins later.

    Raises
    ------
    OSError
        As the call does, at once where the file is not busy.
    """
    began, pause = time.monotonic(), 0.005
    while True:
        try:
            return call()
        except OSError as error:
            if not is_busy(error) or time.monotonic() - began > seconds:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def replace_file(part: Path, path: Path) -> None:
    """Rename a file to a name that may be taken, in one step."""
    patiently(lambda: os.replace(part, path))


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that is free."""
    patiently(lambda: os.rename(source, target))


def remove_file(path: Path) -> None:
    """Remove a file, if there is one."""
    patiently(lambda: path.unlink(missing_ok=True))


def discard(path: Path) -> None:
    """Remove a file that does no harm where it cannot be removed."""
    with suppress(OSError):
        patiently(lambda: path.unlink(missing_ok=True), 0.2)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it."""
    patiently(lambda: shutil.rmtree(path))


def standing(path: Path) -> Path | None:
    """The path itself or its nearest parent that is there; None: the drive or share is away."""
    whole = path.absolute()
    return next((place for place in (whole, *whole.parents) if place.exists()), None)


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write beside the place, then rename into it: readers see the old file or the new one.

    Parameters
    ----------
    path : Path
    data : bytes
    durable : bool
        Wait until the disk holds it, so that it survives a power cut too.

    Raises
    ------
    WriteError
        If the disk is full or the folder not writable.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        replace_file(part, path)
    except OSError as error:
        discard(part)
        raise WriteError(f"{path}: cannot be written ({error}); free or choose a place") from error
