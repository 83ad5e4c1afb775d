"""Prepare a scan for correction from paths and options, and make its background method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.core import BackgroundMethod, References, Scan, refuse_if_corrected

from .config import CorrectionConfig

__all__ = ["Shared", "attach", "method_of", "model_notes", "open_scan", "with_references"]

Shared = dict[tuple[int, ...], dict[str, References]]
"""References and darks by size of tile, read for one path and used for the next; not darks
from behind the aperture, which are each scan's own."""


def open_scan(path: Path, config: CorrectionConfig, shared: Shared | None = None) -> Scan:
    """Read a path and attach the user's references and darks to it.

    Parameters
    ----------
    path : Path
    config : CorrectionConfig
    shared : dict, optional
        See `Shared`.

    Raises
    ------
    ReadError
        If the path or a reference cannot be read.
    AlreadyCorrectedError
        If the path is itself a corrected result and `force` is not set.
    """
    from napari_txm_bgcorr import io

    return attach(io.read(path, grid=config.grid, pixel_nm=config.pixel_nm), config, shared)


def attach(scan: Scan, config: CorrectionConfig, shared: Shared | None = None) -> Scan:
    """Attach the user's references and darks to a scan; they replace its own.

    Parameters
    ----------
    scan : Scan
    config : CorrectionConfig
    shared : dict, optional
        See `Shared`.

    Raises
    ------
    ReadError
        If a reference cannot be read, or is of another size.
    AlreadyCorrectedError
        If the scan is a corrected result and `force` is not set.
    """
    from napari_txm_bgcorr import io

    refuse_if_corrected(scan, force=config.force)
    shared = {} if shared is None else shared
    size = tuple(scan.tiles.shape[1:])
    if size not in shared:
        given: dict[str, References] = {}
        shared[size] = given
        if config.references:
            given["flats"] = io.read_references(config.references, like=scan)
        if config.darks and not io.from_aperture(config.darks):
            given["darks"] = io.read_references(config.darks, like=scan, role="darks")
    if "flats" in shared[size]:
        scan = shared[size]["flats"].attach(scan)
    darks = shared[size].get("darks")
    if io.from_aperture(config.darks):
        darks = io.read_references(config.darks, like=scan, role="darks")
    if config.combine == "mean":
        scan = replace(scan, darks_combined="mean")
    return scan if darks is None else replace(scan, darks=darks.images)


def with_references(
    scan: Scan, references: Sequence[Path] = (), darks: Sequence[Path] = ()
) -> Scan:
    """Put the user's references and darks in place of the scan's own, where there are any.

    Raises
    ------
    ReadError
        If one cannot be read, or is of another size.
    """
    from napari_txm_bgcorr import io

    if references:
        scan = io.read_references(references, like=scan).attach(scan)
    if not darks:
        return scan
    return replace(scan, darks=io.read_references(darks, like=scan, role="darks").images)


def method_of(config: CorrectionConfig) -> BackgroundMethod:
    """Make the method that was asked for, not yet fitted.

    Raises
    ------
    MethodError, ModelError, DeviceError
        If there is no such method, model or device.
    """
    from napari_txm_bgcorr.backgrounds import LEARNED, make_method

    learned = config.method in LEARNED
    given: dict[str, Any] = {"model": config.model, "device": config.device} if learned else {}
    if config.combine is not None:
        given["combine"] = config.combine
    return make_method(config.method, joint=config.joint, i0=config.i0, **given)


def model_notes(scans: Sequence[Scan], config: CorrectionConfig) -> list[str]:
    """Tell what in the scans is outside the model's card."""
    from napari_txm_bgcorr.backgrounds import LEARNED

    if config.method not in LEARNED:
        return []
    from napari_txm_bgcorr.models import fitness, read_card, resolve_model

    card, name = read_card(resolve_model(config.model)), f"model {Path(config.model).name}"
    return list(dict.fromkeys(s for scan in scans for s in fitness(card, scan, name)))
