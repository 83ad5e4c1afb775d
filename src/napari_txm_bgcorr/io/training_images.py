"""Find and read what a training learns from: references, clean samples, pairs.

Paths are files, folders or libraries (`io.reference_library`). A file named by the user must be
readable; an unreadable one in a folder is left out and noted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import ACQUISITION, ImageStack, References, Scan, TrainingData
from napari_txm_bgcorr.errors import ReadError

from . import reference_library as library
from .guard import check_frame, reading
from .readers.dispatch import read, read_references
from .readers.filename_metadata import is_dark, is_flat, natural_key

__all__ = ["read_training_data"]

Paths = Sequence[str | Path]
SUFFIXES = (".xrm", ".txrm", ".txm", ".tif", ".tiff", ".h5", ".hdf5", ".nxs", ".npy")


def read_training_data(
    references: Paths = (),
    samples: Paths = (),
    pairs: Sequence[tuple[str | Path, str | Path]] = (),
    darks: Paths = (),
) -> TrainingData:
    """Read training images; pixels stay in the files until they are asked for.

    Parameters
    ----------
    references : sequence of paths
        Images without sample. Of a scan that holds references beside its tiles, those; of a
        folder, the files named as references where there are some.
    samples : sequence of paths
        Corrected images: transmission, 1 without sample.
    pairs : sequence of (raw, background)
        Two stacks of equal length, or two folders with files of the same names.
    darks : sequence of paths
        Images without beam; their median is taken off every reference, and off pairs, of the
        same size.

    Returns
    -------
    TrainingData

    Raises
    ------
    ReadError
        If a path holds no usable image, or a pair does not match.
    """
    notes: list[str] = []
    dark = _dark(darks)
    found = [stack for path in references for stack in _stacks(Path(path), "references", notes)]
    clean = [stack for path in samples for stack in _stacks(Path(path), "samples", notes)]
    raws, backgrounds = [], []
    for raw, background in pairs:
        for one, other in _pair(Path(raw), Path(background), notes):
            raws.append(_with_dark(one, dark))
            backgrounds.append(_with_dark(other, dark))
    with_dark = [_with_dark(stack, dark) for stack in found]
    if dark is not None and not any(s.dark is not None for s in [*with_dark, *raws]):
        notes.append(
            f"darks of {dark.shape[0]} x {dark.shape[1]} px fit no image and are not used"
        )
    return TrainingData(
        tuple(with_dark), tuple(clean), tuple(raws), tuple(backgrounds), tuple(notes)
    )


def _dark(paths: Paths) -> NDArray[np.float32] | None:
    if not paths:
        return None
    stack = read_references(paths, role="darks").images
    return np.asarray(np.median(np.asarray(stack[:]), axis=0), np.float32)


def _with_dark(stack: ImageStack, dark: NDArray[np.float32] | None) -> ImageStack:
    if dark is None or tuple(stack.images.shape[1:]) != dark.shape:
        return stack
    return replace(stack, dark=dark)


def _stacks(path: Path, role: str, notes: list[str]) -> list[ImageStack]:
    """Every stack of images under a path."""
    if library.can_read(path):
        return library.open_library(path)
    if not path.is_dir() or _is_zarr(path):
        return [_stack(path, role)]
    found = []
    for file in _files(path, role):
        try:
            found.append(_stack(file, role))
        except ReadError as error:
            notes.append(f"left out: {error}")
    if not found:
        raise ReadError(f"{path}: no readable {role} in this folder; give the folder of the files")
    return found


def _is_zarr(path: Path) -> bool:
    return any((path / mark).is_file() for mark in ("zarr.json", ".zgroup", ".zattrs", ".zarray"))


def _files(folder: Path, role: str) -> list[Path]:
    """Image files under a folder; of references, those named so where there are some."""
    with reading(folder, "folder"):
        files = [
            file
            for file in folder.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and not file.name.startswith((".", "~"))
            and file.is_file()
        ]
    files.sort(key=lambda file: natural_key(str(file)))
    named = [file for file in files if is_flat(file.stem)] if role == "references" else []
    return named or [file for file in files if not is_dark(file.stem)]


def _stack(path: Path, role: str) -> ImageStack:
    """One file (or OME-Zarr) as a stack: its references, or the images themselves."""
    if path.suffix.lower() == ".npy":
        return _array(path)
    scan = read(path)
    # one Xradia image is the reference itself, though it may hold an older one
    own = None if role != "references" or _is_one_xradia_image(scan) else References.of(scan)
    taken = References.of_tiles(scan) if own is None else own
    count = len(taken)
    names = tuple(f"{path.stem}_flat{i + 1}" for i in range(count)) if own else scan.names
    return ImageStack(
        taken.images, names, _sessions(path, taken.times, count), taken.times, scan.dark(),
        tuple(_facts(scan, taken, k) for k in range(count)),
    )  # fmt: skip


def _facts(scan: Scan, taken: References, k: int) -> dict[str, float]:
    """Known acquisition facts of image `k`, by name."""
    each = {"energy_ev": taken.energies_ev, "exposure_s": taken.exposures_s}
    known = {name: getattr(scan, name) for name in ACQUISITION}
    known |= {name: None if values is None else values[k] for name, values in each.items()}
    return {name: float(v) for name, v in known.items() if v is not None and np.isfinite(v)}


def _is_one_xradia_image(scan: Scan) -> bool:
    return scan.source.format == "xradia" and scan.kind == "single"


def _array(path: Path) -> ImageStack:
    """Images saved by NumPy, `(Y, X)` or `(N, Y, X)`."""
    with reading(path, "array"):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise ReadError(f"{path}: array of shape {array.shape}; save images as (N, Y, X)")
    check_frame(path, array.shape[1:], array.dtype)
    names = tuple(f"{path.stem}_{i + 1:04d}" for i in range(len(array)))
    return ImageStack(array, names, (str(path),) * len(array))


def _sessions(path: Path, times: NDArray[np.datetime64] | None, count: int) -> tuple[str, ...]:
    """Day of each image; without times its file."""
    if times is None:
        return (str(path),) * count
    return tuple(str(day) for day in times.astype("datetime64[D]"))


def _pair(raw: Path, background: Path, notes: list[str]) -> list[tuple[ImageStack, ImageStack]]:
    """Matching stacks of raw images and backgrounds."""
    if raw.is_dir() and background.is_dir() and not (_is_zarr(raw) or _is_zarr(background)):
        return _by_name(raw, background, notes)
    one, other = _stack(raw, "raw"), _stack(background, "backgrounds")
    if one.images.shape != other.images.shape:
        raise ReadError(
            f"{background}: backgrounds {tuple(other.images.shape)} for raw images "
            f"{tuple(one.images.shape)} of {raw}; give one of the same size for each"
        )
    return [(one, other)]


def _by_name(raw: Path, background: Path, notes: list[str]) -> list[tuple[ImageStack, ImageStack]]:
    """Files of two folders that have the same relative name, whatever the suffix."""

    def named(folder: Path) -> dict[str, Path]:
        key: Callable[[Path], str] = lambda f: str(f.relative_to(folder).with_suffix(""))  # noqa: E731
        return {key(file): file for file in _files(folder, "raw")}

    raws, backgrounds = named(raw), named(background)
    both = [name for name in raws if name in backgrounds]
    if not both:
        raise ReadError(
            f"{background}: no file has the name of one in {raw}; give matching names in both"
        )
    if alone := len(raws.keys() ^ backgrounds.keys()):
        notes.append(f"{alone} files of {raw} and {background} have no partner and are left out")
    matched = []
    for name in both:
        try:
            one, other = _stack(raws[name], "raw"), _stack(backgrounds[name], "backgrounds")
        except ReadError as error:
            notes.append(f"left out: {error}")
            continue
        if one.images.shape != other.images.shape:
            notes.append(f"left out: {raws[name]}: its background has another size")
            continue
        matched.append((one, other))
    if not matched:
        raise ReadError(f"{raw}: no pair is usable; {notes[-1]}")
    return matched
