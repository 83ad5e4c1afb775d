"""Images as Python gives them, arrays or paths, as scans and stacks; wrong ones are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import ImageStack, Scan, TileArray, as_tiles
from napari_txm_bgcorr.errors import ConfigError, ReadError

from .config import CorrectionConfig
from .inputs import side_by_side

__all__ = ["path_of", "paths_of", "reference_stack", "scan_of", "with_arrays"]


def path_of(given: Any, argument: str) -> Path:
    """Return a path that the user gave.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if not isinstance(given, str | PathLike) or not str(given) or "\0" in str(given):
        raise ConfigError(f"{argument} {given!r:.60}: no path; give a text or a pathlib.Path")
    return Path(given)


def paths_of(given: Any, argument: str) -> tuple[Path, ...]:
    """Paths among the ways of giving images; empty where they are arrays, or none.

    Raises
    ------
    ConfigError
        If paths and arrays are mixed, or a path is empty.
    """
    if isinstance(given, str | PathLike):
        return (path_of(given, argument),)
    if not isinstance(given, list | tuple):
        return ()
    paths = [isinstance(one, str | PathLike) for one in given]
    if any(paths) and not all(paths):
        raise ConfigError(f"{argument}: paths and arrays together; give either")
    return tuple(path_of(one, argument) for one in given) if any(paths) else ()


def stack_of(images: Any, argument: str) -> TileArray:
    """Images in memory as one stack; a list of images and of stacks is joined.

    Raises
    ------
    ReadError
        If they are no images of one size.
    """
    if isinstance(images, Scan):
        return images.tiles
    if isinstance(images, list | tuple) and all(np.ndim(one) in (2, 3) for one in images):
        parts = [as_tiles(one, argument) for one in images]
        if len({tuple(part.shape[1:]) for part in parts}) > 1:
            raise ReadError(f"{argument}: images of different sizes; give one size")
        if parts:
            return np.concatenate([np.asarray(part[:]) for part in parts])
    return as_tiles(images, argument)


def scan_of(images: Any, config: CorrectionConfig) -> Scan:
    """Turn whatever was given as images into a scan.

    Parameters
    ----------
    images : Scan, array, or None
        None where the config has inputs.
    config : CorrectionConfig
        Inputs, grid and pixel size.

    Raises
    ------
    ReadError
        If a path cannot be read, or the images are none.
    ConfigError
        If a grid or pixel size is given beside a scan, or the files do not belong together.
    """
    if isinstance(images, Scan):
        for name in ("grid", "pixel_nm"):
            if getattr(config, name) is not None:
                raise ConfigError(f"{name}: a scan has its own; give it where the scan is made")
        return images
    if config.inputs:
        return _read(config)
    if isinstance(images, list | tuple) and not images:
        raise ConfigError(f"images {images!r}: none; give an array or a path")
    stack = stack_of(images, "images")
    return Scan.from_array(stack, grid=config.grid, pixel_nm=config.pixel_nm)


def _read(config: CorrectionConfig) -> Scan:
    """One file or folder; or several files of one image each as one stack."""
    from napari_txm_bgcorr import io

    scans = [io.read(path, grid=config.grid, pixel_nm=config.pixel_nm) for path in config.inputs]
    if len(scans) == 1:
        return scans[0]
    for scan in scans:
        if len(scan) > 1 or scan.tiles.shape != scans[0].tiles.shape:
            raise ConfigError(
                f"images: {scan.source.path}: several files are corrected together only if each "
                "is one image of the same size; correct it on its own"
            )
    return side_by_side(scans)


def with_arrays(
    scan: Scan, config: CorrectionConfig, references: Any, darks: Any
) -> tuple[Scan, bool]:
    """Put references and darks from memory in place of the scan's own.

    Returns
    -------
    Scan
    bool
        Whether there are any.

    Raises
    ------
    ReadError
        If one is no image of the scan's size.
    """
    given = references is not None and not config.references
    if given:
        flats = _fitting(stack_of(references, "references"), scan, "references")
        scan = replace(
            scan, flats=flats, flat_times=None, flat_energies_ev=None, flat_exposures_s=None,
            flat_monitor=None,
        )  # fmt: skip
    if darks is not None and not config.darks:
        scan = replace(scan, darks=_fitting(stack_of(darks, "darks"), scan, "darks"))
        given = True
    return scan, given


def _fitting(stack: TileArray, scan: Scan, argument: str) -> TileArray:
    if tuple(stack.shape[1:]) != tuple(scan.tiles.shape[1:]):
        raise ReadError(
            f"{argument}: {_px(stack.shape)} px for images of {_px(scan.tiles.shape)} px; give "
            "such as were taken with the same binning"
        )
    return stack


def _px(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape[1:])


def reference_stack(references: Any, darks: Any = None) -> ImageStack:
    """References from memory for a training, as one session.

    Parameters
    ----------
    references : array or sequence of arrays, counts
    darks : array or sequence of arrays, counts, optional
        Left aside where they are paths.

    Raises
    ------
    ReadError
        If one is no image, none is finite, or the darks are of another size.
    """
    images = stack_of(references, "references")
    count = int(images.shape[0])
    if not any(np.isfinite(np.asarray(images[k])).any() for k in range(count)):
        raise ReadError("references: not one finite pixel; give images of the empty beam")
    dark: NDArray[np.float32] | None = None
    if darks is not None and not paths_of(darks, "darks"):
        own = stack_of(darks, "darks")
        if tuple(own.shape[1:]) != tuple(images.shape[1:]):
            raise ReadError(
                f"darks: {_px(own.shape)} px for references of {_px(images.shape)} px; give such "
                "as were taken with the same binning"
            )
        dark = np.median(np.asarray(own[:]), axis=0).astype(np.float32)
    names = tuple(f"reference {k}" for k in range(count))
    return ImageStack(images, names, ("array",) * count, dark=dark)
