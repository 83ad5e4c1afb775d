"""Write corrected tiles that are at hand or computed on the way; and the record they carry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.core import BackgroundMethod, Scan, TileResult, make_provenance

from .config import CorrectionConfig

__all__ = ["record_of", "save_tiles"]


def record_of(
    scan: Scan, method: BackgroundMethod, config: CorrectionConfig, *, repeatable: bool = True
) -> dict[str, Any]:
    """Record of a correction, JSON-ready: provenance, options, and the command that repeats it.

    Parameters
    ----------
    scan : Scan
    method : BackgroundMethod
        Fitted to it.
    config : CorrectionConfig
        Without inputs: those of the scan.
    repeatable : bool
        False where images, references or darks came from memory: no options are kept then.
    """
    device = str(method.describe().get("device", "cpu"))
    made = make_provenance(scan, method, device).to_dict()
    own = config
    if not own.inputs and scan.source.files:
        own = config.replaced(inputs=(scan.source.path,))
    if not (repeatable and own.inputs):
        return made | {"config": {}, "command": ""}
    return made | {"config": own.record(), "command": own.command()}


def save_tiles(
    out: Path,
    scan: Scan,
    provenance: Mapping[str, Any],
    tiles: Callable[[Sequence[int]], Iterator[TileResult]],
    *,
    format: str = "omezarr",
    parts: Sequence[str] = ("raw", "background", "corrected"),
    overwrite: bool = False,
) -> Iterator[int]:
    """Write the tiles of one scan; an interrupted call goes on where it stopped.

    Parameters
    ----------
    out : Path
    scan : Scan
    provenance : mapping
        JSON-ready.
    tiles : callable
        `tiles(todo)` gives those that are not written yet.
    format : {"omezarr", "ometiff", "tiff"}
    parts : sequence of str
    overwrite : bool

    Yields
    ------
    int
        Tiles written so far.

    Raises
    ------
    WriteError
        If the place is taken or cannot be written.
    """
    from napari_txm_bgcorr import io

    with io.open_output(
        out, format, scan, provenance, save=tuple(parts), overwrite=overwrite
    ) as writer:
        done = len(writer.done)
        yield done
        for tile in tiles(writer.todo):
            writer.write(tile)
            done += 1
            yield done
        writer.close_complete()
