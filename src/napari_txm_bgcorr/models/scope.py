"""Check, before a model is used, that a scan lies within the range on its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_txm_bgcorr.core import Scan

from .card import fits

__all__ = ["fitness"]

LEVEL_MARGIN = 1.5  # counts: noise and pedestal change with the level, shapes do not
LENGTH_MARGIN = 1.25
ENERGY_MARGIN = 1.2
LOOKED_AT = 3  # tiles read for the level
SQUARE = 1.2
MAX_TRANSMISSION = 10.0


def fitness(card: Mapping[str, Any], scan: Scan, name: str = "model") -> list[str]:
    """Sentences about what in a scan is outside the model's card.

    Parameters
    ----------
    card : mapping
        The model's card.
    scan : Scan
        With darks attached, where the user gave some. At most three tiles are read.
    name : str
        What the user calls the model.

    Returns
    -------
    list of str
        Empty where all that is known fits.
    """
    known = fits(card)
    said = [
        _binning(known.get("binning"), scan.binning),
        _outside("pixel size", "nm", known.get("pixel_nm"), scan.pixel_nm, LENGTH_MARGIN),
        _outside("field", "um", known.get("field_um"), _field_um(scan), LENGTH_MARGIN),
        _level(known.get("level_counts"), scan),
        _outside("photon energy", "eV", known.get("energy_ev"), scan.energy_ev, ENERGY_MARGIN),
        _dark(known.get("dark"), scan),
        _shape(card, scan),
    ]
    return [f"{name}: {sentence}" for sentence in said if sentence]


def _binning(trained: list[int] | None, binning: int | None) -> str | None:
    if not trained or binning is None or binning in trained:
        return None
    known = ", ".join(str(b) for b in trained)
    return f"trained at binning {known}, this scan has {binning}; check the result, or fine-tune"


def _outside(
    what: str, unit: str, span: list[float] | None, value: float | None, margin: float
) -> str | None:
    if span is None or value is None or not np.isfinite(value):
        return None
    low, high = span
    if low / margin <= value <= high * margin:
        return None
    trained = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return (
        f"trained at a {what} of {trained} {unit}, this scan has {value:.4g} {unit}; "
        "check the result, or fine-tune"
    )


def _field_um(scan: Scan) -> float | None:
    return None if scan.pixel_nm is None else scan.pixel_nm * scan.tiles.shape[-1] / 1000


def _level(span: list[float] | None, scan: Scan) -> str | None:
    which = np.unique(np.linspace(0, len(scan) - 1, LOOKED_AT).astype(int))
    level = float(np.median([np.nanmedian(scan.tiles[int(i)][::4, ::4]) for i in which]))
    if np.issubdtype(scan.tiles.dtype, np.floating) and abs(level) < MAX_TRANSMISSION:
        return (
            f"works on counts, this scan reads {level:.3g} at its median as if it were "
            "divided already; give the raw images"
        )
    return _outside("level", "counts", span, level, LEVEL_MARGIN)


def _dark(trained: str | None, scan: Scan) -> str | None:
    there = scan.darks is not None and scan.darks.shape[0] > 0
    if trained == "removed" and not there:
        return "trained with dark images removed, this scan has none; give --dark"
    if trained == "kept" and there:
        return "trained without dark images, this scan has some; check the result"
    return None


def _shape(card: Mapping[str, Any], scan: Scan) -> str | None:
    height, width = (int(n) for n in scan.tiles.shape[1:])
    if max(height, width) > SQUARE * min(height, width):
        return (
            f"trained on square fields, tiles are {width} x {height} px and are squeezed to "
            "a square; check the result"
        )
    network = card.get("network")
    edge = network.get("field_px") if isinstance(network, Mapping) else None
    if isinstance(edge, int) and min(height, width) * 2 < edge:
        return (
            f"works on {edge} px a field, tiles are {width} x {height} px and are enlarged; "
            "give unbinned images"
        )
    return None
