"""Registered places of a mosaic's tiles as Fiji's `TileConfiguration.registered.txt`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.errors import WriteError

from .config import CorrectionConfig

__all__ = ["TABLE", "write_positions"]

TABLE = "TileConfiguration.registered.txt"


def write_positions(
    out: Path, scan: Scan, described: Mapping[str, Any], config: CorrectionConfig
) -> str:
    """Write the table into OUT, under the input's own names where each tile is a file.

    With the format ``tiff`` it lies beside the tiles of each part, too, under their names.

    Parameters
    ----------
    out : Path
        A complete output.
    scan : Scan
        With the registered places.
    described : mapping
        What the method says of itself.
    config : CorrectionConfig

    Returns
    -------
    str
        A note for the user: where it is, or why it is not there.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    from napari_txm_bgcorr.io.readers import tile_configuration_text

    stage = described.get("joint")
    if not isinstance(stage, Mapping) or not stage.get("pairs_registered"):
        why = "no neighbouring tiles were registered" if stage else "without the joint stage"
        return f"{TABLE} not written: {why}"
    if scan.positions_px is None:
        return f"{TABLE} not written: no positions"
    files = scan.source.files
    names = (
        [f.name for f in files] if len(files) == len(scan) else [f"{n}.tif" for n in scan.names]
    )
    tables = {out / TABLE: names}
    if config.format == "tiff":
        for part in config.parts:
            tables[out / part / TABLE] = [f"{name}.tif" for name in scan.names]
    for table, rows in tables.items():
        try:
            table.write_text(tile_configuration_text(rows, scan.positions_px), "utf-8")
        except OSError as error:
            raise WriteError(
                f"{table}: {error.strerror or error}; check disk and permissions"
            ) from error
    return f"registered places: {out / TABLE}"
