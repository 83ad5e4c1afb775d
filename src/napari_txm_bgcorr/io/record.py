"""The record that every output carries under ``txm_bgcorr``, and its way back into a scan."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import UNCERTAINTY_UNIT, Scan

from .guard import reading

__all__ = ["KEY", "UNITS", "find_block", "make_block", "restore", "scan_record"]

KEY = "txm_bgcorr"
UNITS = {"uncertainty": UNCERTAINTY_UNIT}
"""Unit of the pixels of a role, where its name does not tell."""

_EACH = ("energies_ev", "exposures_s", "monitor")  # one a tile, where they are known


def scan_record(scan: Scan) -> dict[str, Any]:
    """Facts of a scan that its outputs keep, JSON-ready.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    dict
        ``kind, names, grid, raster_index, positions_px, pixel_nm, energy_ev, exposure_s,
        binning, times, angles_deg``, and of what there is one a tile ``energies_ev,
        exposures_s, monitor``.
    """
    facts = scan.facts()
    keep = (
        "kind",
        "grid",
        "raster_index",
        "pixel_nm",
        "energy_ev",
        "exposure_s",
        "binning",
        "times",
    )
    return {
        **{key: facts[key] for key in (*keep, "times")},
        "names": list(scan.names),
        "positions_px": None if scan.positions_px is None else scan.positions_px.tolist(),
        "angles_deg": None if scan.angles_deg is None else scan.angles_deg.tolist(),
        **{name: _numbers(getattr(scan, name)) for name in _EACH if _has(scan, name)},
    }


def _has(scan: Scan, name: str) -> bool:
    return getattr(scan, name) is not None


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Values for JSON, which has no NaN."""
    return [v if math.isfinite(v) else None for v in values.tolist()]


def make_block(
    role: str, provenance: Mapping[str, Any], record: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Record of one output: its role, what was done, and the facts of the scan.

    Parameters
    ----------
    role : {"raw", "background", "corrected", "mask", "uncertainty"}
    provenance : mapping
        JSON-ready.
    record : mapping, optional
        From `scan_record`; left out of files that hold one tile of many.
    """
    block: dict[str, Any] = {"role": role, "provenance": dict(provenance)}
    if role in UNITS:
        block["unit"] = UNITS[role]
    return block if record is None else {**block, "scan": dict(record)}


def find_block(texts: Iterable[str]) -> Mapping[str, Any] | None:
    """First record found in texts that are, or contain, JSON with the key ``txm_bgcorr``.

    Parameters
    ----------
    texts : iterable of str
        Image descriptions, annotations.

    Returns
    -------
    mapping or None
    """
    for text in texts:
        start = text.find('{"' + KEY + '"')
        if start < 0:
            continue
        try:
            block = json.JSONDecoder().raw_decode(text, start)[0][KEY]
        except ValueError:
            continue
        if isinstance(block, dict) and isinstance(block.get("role"), str):
            return block
    return None


def restore(scan: Scan, block: Mapping[str, Any]) -> Scan:
    """Give a scan read from one of our outputs the facts that the output carries.

    Parameters
    ----------
    scan : Scan
        With the pixels and whatever the format itself says.
    block : mapping
        From `find_block`.

    Returns
    -------
    Scan
        With `provenance` where the pixels are corrected ones, or stitched.

    Raises
    ------
    ReadError
        If the record does not fit the tiles.
    """
    with reading(scan.source.path, KEY):
        record = block.get("scan") or {}
        facts: dict[str, Any] = {}
        for key in ("pixel_nm", "energy_ev", "exposure_s"):
            if record.get(key) is not None and math.isfinite(value := float(record[key])):
                facts[key] = value
        if record.get("binning") is not None:
            facts["binning"] = int(record["binning"])
        if len(record.get("names") or ()) == len(scan):
            facts |= _tile_facts(record, scan)
        stitched = block.get("stitched")
        if block.get("role") == "corrected" or stitched:
            facts["provenance"] = dict(block.get("provenance") or {})
        if isinstance(stitched, Mapping):
            facts["provenance"] |= {"stitched": dict(stitched)}
            text = "{tiles} tiles stitched; positions {positions}: {note}"
            facts["notes"] = (*scan.notes, text.format_map(stitched))
        return replace(scan, **facts)


def _tile_facts(record: Mapping[str, Any], scan: Scan) -> dict[str, Any]:
    """Facts of which there is one a tile; the grid only where none was given."""
    facts: dict[str, Any] = {"names": tuple(str(name) for name in record["names"])}
    if scan.grid is None and record.get("kind") in ("single", "mosaic", "series"):
        facts["kind"] = record["kind"]
        if record.get("grid") is not None:
            rows, columns = record["grid"]
            facts["grid"] = (int(rows), int(columns))
        if record.get("raster_index") is not None:
            facts["raster_index"] = np.asarray(record["raster_index"], np.int64)
        if record.get("positions_px") is not None:
            facts["positions_px"] = np.asarray(record["positions_px"], np.float64)
    if record.get("times") is not None:
        facts["times"] = np.asarray(record["times"], "datetime64[s]")
    for name in _EACH:
        if record.get(name) is not None:
            facts[name] = np.array([np.nan if v is None else v for v in record[name]], np.float64)
    if record.get("angles_deg") is not None:
        facts["angles_deg"] = np.asarray(record["angles_deg"], np.float64)
    return facts
