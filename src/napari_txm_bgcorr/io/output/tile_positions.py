"""Positions of the tiles of a result: from a table, as stored, or by registration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import LazyTiles
from napari_txm_bgcorr.errors import MethodError, ReadError
from napari_txm_bgcorr.io.readers.tile_layout import parse_tile_configuration
from napari_txm_bgcorr.io.record import KEY
from napari_txm_bgcorr.mosaic import nominal_positions, register

from .result import TileParts

__all__ = ["HOW", "Places", "begun_places", "find_places"]

HOW = ("auto", "stored", "register", "nominal")
"""Names of the sources of positions; anything else is the path of a table."""


@dataclass(frozen=True, eq=False)
class Places:
    """Positions of the tiles and where they come from.

    Attributes
    ----------
    positions_px : (T, 2) float64
        Top left corners (y, x) in pixels, y downwards.
    source : {"table", "registered", "registered here", "nominal"}
    note : str
        One sentence for the user.
    """

    positions_px: NDArray[np.float64]
    source: str
    note: str


def find_places(parts: TileParts, how: str = "auto") -> Places:
    """Find the places of all tiles.

    Parameters
    ----------
    parts : TileParts
    how : str
        ``auto``: as registered during the correction, else registered here, else nominal;
        ``stored``: what the result holds; ``register``: registered here; ``nominal``: the
        stage's steps as the result holds them; or the path of a Fiji TileConfiguration.

    Raises
    ------
    ReadError
        If the table cannot be read or does not name every tile.
    MethodError
        If the result is no mosaic.
    """
    scan = parts.corrected
    if how not in HOW:
        return _from_table(parts, Path(how))
    if scan.grid is None and scan.positions_px is None:
        raise MethodError(
            f"{parts.path}: no mosaic: no grid and no positions in it; "
            "correct it with --grid, or give --positions TABLE"
        )
    stage = _joint_record(parts)
    if how in ("auto", "stored", "nominal") and stage.get("pairs_registered"):
        text = stage.get("registration") or f"{stage['pairs_registered']} pairs registered"
        return Places(nominal_positions(scan), "registered", f"in the correction: {text}")
    if how in ("stored", "nominal") or len(scan) < 2:
        return Places(
            nominal_positions(scan), "nominal", "as the scan states them, not registered"
        )
    return _registered(parts)


def begun_places(out: Path, parts: TileParts) -> Places | None:
    """Places that an interrupted run registered, so that it need not be done again.

    Parameters
    ----------
    out : Path
        Where the mosaic will be; looked for in ``OUT.part``.
    parts : TileParts

    Returns
    -------
    Places or None
        None where there is no such run of the same result.
    """
    part = out.with_name(out.name + ".part")
    for record in (part / "provenance.json", *sorted(part.glob("*/zarr.json"))):
        try:
            content = json.loads(record.read_text(encoding="utf-8"))
            block = content.get(KEY) or content["attributes"][KEY]
            stitched, places = block["stitched"], np.array(block["scan"]["positions_px"], float)
            same = block["provenance"] == json.loads(json.dumps(dict(parts.provenance)))
            here = stitched["positions"] == "registered here"
            note = str(stitched["note"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
        if same and here and places.shape == (len(parts.corrected), 2):
            return Places(places, "registered here", note)
    return None


def _joint_record(parts: TileParts) -> dict[str, Any]:
    """Record of the joint stage; the stored positions are its own if it registered any."""
    parameters = parts.provenance.get("parameters")
    stage = parameters.get("joint") if isinstance(parameters, dict) else None
    return stage if isinstance(stage, dict) else {}


def _registered(parts: TileParts) -> Places:
    """Register by the raw tiles and their backgrounds, or by the corrected tiles alone."""
    raw, background = parts.scans.get("raw"), parts.scans.get("background")
    if raw is not None and background is not None:
        found = register(raw, background.tiles)
    else:
        count, y, x = (int(n) for n in parts.corrected.tiles.shape)
        even = np.ones((y, x), np.float32)
        found = register(parts.corrected, LazyTiles((count, y, x), np.float32, lambda i: even))
    if not found.used:
        return Places(found.positions_px, "nominal", f"nothing to register by: {found.note}")
    return Places(found.positions_px, "registered here", found.note)


def _from_table(parts: TileParts, table: Path) -> Places:
    """Positions by name; a suffix in the table is left out where names have none."""
    rows = parse_tile_configuration(table)
    by_name = {Path(name).stem: place for name, place in rows.items()} | rows
    names = parts.corrected.names
    missing = [name for name in names if name not in by_name]
    if missing:
        if len(rows) != len(names) or len(missing) < len(names):
            raise ReadError(
                f"{table}: tile {missing[0]} is not in it ({len(rows)} rows for {len(names)} "
                "tiles); give the table of this mosaic"
            )
        raise ReadError(
            f"{table}: no tile of {parts.path.name} is in it (its first is {names[0]}); "
            "give the table of this mosaic"
        )
    places = np.array([by_name[name] for name in names], np.float64)
    return Places(places, "table", f"from {table.name}")
