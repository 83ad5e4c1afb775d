"""Scans and results as napari layers, and layers as scans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_txm_bgcorr.core import LazyTiles, Scan, Source, TileArray
from napari_txm_bgcorr.gui.session import InputInfo

from .canvas import Picture
from .result import PicturePyramid, Result, raw_picture, saved_picture

__all__ = [
    "CORRECTED_LIMITS",
    "METADATA_KEY",
    "contrast_limits",
    "describe_scan",
    "draw_thumbnail",
    "input_info",
    "metadata",
    "owner_of",
    "placement",
    "result_layers",
    "role_of",
    "scan_layer",
    "scan_name",
    "warm_up",
]

METADATA_KEY = "txm_bgcorr"
CORRECTED_LIMITS = (0.0, 1.2)
LayerTuple = tuple[Any, dict[str, Any], str]


def warm_up() -> None:
    """Make the first layer of the process, for nobody to see; in the window's thread only.

    With it napari loads xarray and builds its table of units, which would hold the window when
    the first scan is shown. The table is not made for two threads.
    """
    from napari.layers import Image

    Image(np.zeros((2, 2)), units=("um", "um"))


def scan_name(scan: Scan) -> str:
    """Name of a scan's layers: that of its file or folder, without suffix."""
    name = scan.source.path.name or str(scan.source.path)
    for suffix in (".ome.zarr", ".ome.tiff", ".ome.tif"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name if scan.source.path.is_dir() else Path(name).stem


def scan_layer(
    scan: Scan, role: str | None = None, name: str | None = None
) -> tuple[LayerTuple, PicturePyramid | None]:
    """Show a scan as one image layer.

    Parameters
    ----------
    scan : Scan
        A single image is shown as (Y, X), a series as (T, Y, X), a mosaic on one canvas.
    role : str or None
        Which part of a saved result it is; None: raw, unless the scan says otherwise.
    name : str or None
        In place of the name of the scan's file.

    Returns
    -------
    layer : (data, arguments, "image")
        A layer data tuple.
    pyramid : PicturePyramid or None
        Coarse levels of a large mosaic that are still empty, to be filled with `Pyramid.fill`.
    """
    role = role or ("corrected" if scan.provenance else "raw")
    data, pyramid = saved_picture(scan) if role == "corrected" else raw_picture(scan)
    arguments = {
        "name": f"{name or scan_name(scan)} {role}",
        "contrast_limits": CORRECTED_LIMITS
        if role == "corrected"
        else contrast_limits(scan.tiles),
        "metadata": metadata(scan, role, scan.provenance),
        "multiscale": isinstance(data, list),
        "rgb": False,
        **_own_placement(scan),
    }
    return (data, arguments, "image"), pyramid


def result_layers(result: Result, place: Mapping[str, Any], limits: Any) -> list[LayerTuple]:
    """Show a result as a background and a corrected layer.

    Parameters
    ----------
    result : Result
    place : mapping
        Scale, units and position of the raw layer, as `placement` gives them.
    limits : (low, high)
        Contrast of the raw layer, counts; the background shares it.
    """
    return [
        (
            result.pictures[role],
            {
                "name": f"{result.name} {role}",
                "contrast_limits": limits if role == "background" else CORRECTED_LIMITS,
                "metadata": metadata(result.scan, role, result.provenance),
                "multiscale": isinstance(result.pictures[role], list),
                "visible": role == "corrected",
                "rgb": False,
                **place,
            },
            "image",
        )
        for role in ("background", "corrected")
    ]


def metadata(scan: Scan, role: str, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Facts of a scan under the key that readers, writers and the panel share."""
    facts = scan.facts()
    return {
        METADATA_KEY: {
            "role": role,
            "facts": facts,
            "source": facts["source"],
            "provenance": None if provenance is None else dict(provenance),
        }
    }


def contrast_limits(tiles: TileArray, sample: int = 5) -> tuple[float, float]:
    """Range of the counts in a few tiles, single hot and dead pixels left out.

    Parameters
    ----------
    tiles : (T, Y, X) array-like, counts
    sample : int
        How many tiles to read.
    """
    chosen = np.unique(np.linspace(0, tiles.shape[0] - 1, sample).round().astype(int))
    pixels = np.concatenate([np.asarray(tiles[int(i)])[::4, ::4].ravel() for i in chosen])
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, (0.2, 99.8)))
    return (low, high) if high > low else (low, low + 1.0)


def _own_placement(scan: Scan) -> dict[str, Any]:
    series = scan.kind == "series"
    axes = (("projection",) if series else ()) + ("y", "x")
    if scan.pixel_nm is None:
        return {"axis_labels": axes}
    micrometre = scan.pixel_nm / 1000
    return {
        "scale": ((1.0,) if series else ()) + (micrometre, micrometre),
        "units": (("pixel",) if series else ()) + ("micrometer", "micrometer"),
        "axis_labels": axes,
    }


def placement(layer: Any) -> dict[str, Any]:
    """Scale, units, labels and position of a layer, for layers laid over it."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def draw_thumbnail(layer: Any) -> None:
    """Draw the small picture of a hidden layer too: napari does that for shown ones only."""
    if not layer.visible:
        layer.visible = True
        layer.visible = False


def role_of(layer: Any) -> str | None:
    """Say which part of a correction a layer shows, or None."""
    notes = layer.metadata.get(METADATA_KEY)
    role = notes.get("role") if isinstance(notes, Mapping) else None
    return role if isinstance(role, str) else None


def owner_of(layer: Any) -> Any:
    """Scan or result behind a layer, or None for a layer of another origin."""
    data: Any = getattr(layer, "data", None)
    base = data[0] if getattr(layer, "multiscale", False) else data
    return base.owner if isinstance(base, Picture) else None


def input_info(layer: Any) -> InputInfo:
    """Describe a layer for the decision whether it can be corrected."""
    kind = str(getattr(layer, "_type_string", type(layer).__name__.lower()))
    rgb = bool(getattr(layer, "rgb", False))
    usable = kind == "image" and not rgb and layer.ndim in (2, 3)
    owner = owner_of(layer) if usable else None
    scan = owner if isinstance(owner, Scan) else None
    if usable and scan is None:
        scan = _scan_of_array(layer)
    return InputInfo(
        name=layer.name,
        key=id(layer),
        kind=kind,
        ndim=int(layer.ndim),
        rgb=rgb,
        role=role_of(layer),
        scan=scan,
    )


def _scan_of_array(layer: Any) -> Scan:
    """Take a plain layer as a single image (Y, X) or a series (T, Y, X)."""
    data = layer.data[0] if layer.multiscale else layer.data
    single = layer.ndim == 2
    count, height, width = (int(n) for n in ((1, *data.shape) if single else data.shape))
    path = Path(layer.source.path) if layer.source.path else Path(layer.name)
    notes = layer.metadata.get(METADATA_KEY)
    return Scan(
        tiles=LazyTiles(
            (count, height, width),
            data.dtype,
            (lambda i: np.asarray(data)) if single else (lambda i: np.asarray(data[i])),
        ),
        kind="single" if single else "series",
        source=Source(path, "napari layer", (path,) if path.is_file() else ()),
        names=(layer.name,) if single else tuple(f"{layer.name}_{i:04d}" for i in range(count)),
        pixel_nm=_pixel_nm(layer),
        provenance=notes.get("provenance") if isinstance(notes, Mapping) else None,
    )


def _pixel_nm(layer: Any) -> float | None:
    unit = layer.units[-1]
    if not unit.is_compatible_with("nanometer"):
        return None
    return float((float(layer.scale[-1]) * unit).to("nanometer").magnitude)


def describe_scan(scan: Scan) -> str:
    """Say in one line what a scan is."""
    count, height, width = scan.tiles.shape
    what = {"single": "single image", "series": f"series of {count}"}.get(scan.kind)
    if what is None:
        rows, columns = scan.grid or (1, count)
        what = f"mosaic of {rows} x {columns} tiles"
    parts = [what, f"{width} x {height} px"]
    if scan.pixel_nm:
        parts.append(f"{scan.pixel_nm:.3g} nm/px")
    if scan.energy_ev:
        parts.append(f"{scan.energy_ev / 1000:.4g} keV")
    if scan.exposure_s:
        parts.append(f"{scan.exposure_s:.4g} s")
    flats = 0 if scan.flats is None else int(scan.flats.shape[0])
    parts.append({0: "no reference", 1: "1 reference"}.get(flats, f"{flats} references"))
    return ", ".join(parts)
