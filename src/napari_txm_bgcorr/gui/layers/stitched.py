"""Stitched mosaics: made from a result by the worker, shown as multiscale layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from napari_txm_bgcorr.core import LazyTiles, Scan
from napari_txm_bgcorr.errors import ReadError, TxmError, WriteError
from napari_txm_bgcorr.gui.common.errors import errors_in_words
from napari_txm_bgcorr.gui.common.messages import Failed, Preparing, Saved, Shown, Tell
from napari_txm_bgcorr.gui.common.throttle import Pace

from .convert import CORRECTED_LIMITS, METADATA_KEY, LayerTuple
from .result import Result

__all__ = ["STITCHED", "read_stitched", "stitch_results", "stitched_layers", "stitched_path"]

STITCHED = "stitched"
"""Role of the layers: to be looked at, not to be corrected."""

PARTS = ("raw", "background", "corrected")


def stitched_path(name: str, folder: Path) -> Path:
    """Path at which the stitched picture of a result called `name` is saved."""
    return folder / f"{name} stitched.ome.zarr"


def stitch_results(
    results: list[Result], folder: Path, overwrite: bool, stop: Event, tell: Tell
) -> Iterator[Preparing | Saved | Shown | Failed]:
    """Blend the tiles of mosaics into pyramids on disk, and show these.

    Problems come as `Failed` messages: nothing complete, a full disk, a place that is taken.
    """
    for result in results:
        target = stitched_path(result.name, folder)
        yield Preparing(f"Stitching {target.name} …")
        try:
            with errors_in_words(str(target)):
                if not _stitch(result, target, overwrite, stop, tell):
                    return
                yield Saved(target)
                yield Shown(tuple(read_stitched(target)))
        except TxmError as error:
            yield Failed(error)


def _stitch(result: Result, target: Path, overwrite: bool, stop: Event, tell: Tell) -> bool:
    from napari_txm_bgcorr.io.output import Places, TileParts, find_places
    from napari_txm_bgcorr.workflows import StitchOptions, stitch_tiles

    if not result.complete or result.provenance is None:
        raise WriteError(
            f"{result.name}: {int(result.done.sum())} of {len(result)} tiles are corrected; "
            "press Correct again and let it end before stitching"
        )
    source = TileParts(target, _parts(result), result.provenance)
    if result.registered and result.scan.positions_px is not None:
        places = Places(result.scan.positions_px, "registered", "in the correction")
    else:
        places = find_places(source)
    pace: list[Pace] = []

    def report(done: int, total: int) -> None:
        if not pace:
            pace.append(Pace(total))
        if message := pace[0].step(f"Stitching {target.name}"):
            tell(message)

    options = StitchOptions(parts=PARTS, overwrite=overwrite)
    done = stitch_tiles(source, places, target, options, report=report, should_stop=stop.is_set)
    return bool(done["complete"])


def _parts(result: Result) -> dict[str, Scan]:
    scan = result.scan
    count, height, width = (int(n) for n in scan.tiles.shape)
    mask = LazyTiles(
        (count, height, width), "uint8", lambda i: result.tile(i).valid.astype("uint8")
    )
    stores: dict[str, Any] = {
        "raw": scan.tiles,
        "background": result.background,
        "corrected": result.corrected,
        "mask": mask,
    }
    return {part: replace(scan, tiles=tiles) for part, tiles in stores.items()}


def read_stitched(path: Path) -> list[LayerTuple]:
    """Layers of a stitched mosaic; none where the path is something else."""
    from napari_txm_bgcorr.io.output import open_pyramid

    try:
        return stitched_layers(path, open_pyramid(path))
    except ReadError:
        return []


def stitched_layers(path: Path, pyramid: Any) -> list[LayerTuple]:
    """Show each part of a stitched mosaic as one multiscale image layer.

    Parameters
    ----------
    path : Path
        Gives the name.
    pyramid : io.output.pyramid_reader.Pyramid
    """
    name = path.name.removesuffix(".ome.zarr")
    place: dict[str, Any] = {"axis_labels": ("y", "x")}
    if pyramid.pixel_nm:
        micrometre = pyramid.pixel_nm / 1000
        place |= {"scale": (micrometre, micrometre), "units": ("micrometer", "micrometer")}
    counts = _counts_limits(pyramid)
    layers: list[LayerTuple] = []
    for part, levels in pyramid.levels.items():
        corrected = part == "corrected" and pyramid.domain == "transmission"
        arguments = {
            "name": f"{name} {part}",
            "contrast_limits": CORRECTED_LIMITS if corrected else counts,
            "metadata": {
                METADATA_KEY: {
                    "role": STITCHED,
                    "part": part,
                    "source": {"path": str(path), "format": "stitched OME-Zarr"},
                    "provenance": dict(pyramid.provenance),
                }
            },
            "multiscale": len(levels) > 1,
            "visible": part == "corrected",
            "rgb": False,
            **place,
        }
        if part == "corrected" and not corrected:
            arguments["contrast_limits"] = (0.0, 2.0)  # optical density
        layers.append((list(levels) if len(levels) > 1 else levels[0], arguments, "image"))
    return layers


def _counts_limits(pyramid: Any) -> tuple[float, float]:
    """Range of the counts on the coarsest level; raw and background share it."""
    import numpy as np

    for part in ("raw", "background"):
        if part in pyramid.levels:
            pixels = np.asarray(pyramid.levels[part][-1][:], np.float32)
            known = pixels[np.isfinite(pixels) & (pixels > 0)]
            if known.size:
                low, high = (float(v) for v in np.percentile(known, (0.5, 99.8)))
                return (low, high) if high > low else (low, low + 1.0)
    return 0.0, 1.0
