"""What napari calls: the reader of files and folders dropped on the window."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["get_reader", "read_layers"]

SUFFIXES = (".xrm", ".txrm", ".txm")
TILE_SUFFIXES = (*SUFFIXES, ".tif", ".tiff")
PROJECT_MARKS = ("TileConfiguration.txt", "TileConfiguration.registered.txt")
LOOK_AT = 2000

LayerTuples = list[tuple[Any, ...]]
PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], LayerTuples] | None:
    """Claim Xradia files and folders of tiles; leave everything else to napari.

    Parameters
    ----------
    path : str or list of str
        What was dropped.

    Returns
    -------
    callable or None
        Reads the same argument into layer data tuples.
    """
    paths = _paths(path)
    return read_layers if paths and all(_is_ours(p) for p in paths) else None


def read_layers(path: PathOrPaths) -> LayerTuples:
    """Read each path as a scan; one that cannot be read is reported as a notification."""
    from napari.utils.notifications import show_error

    from napari_txm_bgcorr.core.errors import TxmError
    from napari_txm_bgcorr.gui.outputs import parts
    from napari_txm_bgcorr.gui.tasks import errors_in_words

    layers: LayerTuples = []
    for given in _paths(path):
        try:
            with errors_in_words(str(given)):
                if result := _read_result(given):
                    layers.extend(result)
                    continue
        except TxmError as error:
            show_error(str(error))
            continue
        for each, role, name in parts(given):
            try:
                with errors_in_words(str(each)):
                    layers.extend(_read_part(each, role, name))
            except TxmError as error:
                show_error(str(error))
    return layers or [(None,)]  # npe2's way to say: read, but nothing to show


def _read_result(path: Path) -> LayerTuples:
    """Layers of a finished output; none where the path is something else."""
    from napari_txm_bgcorr.gui.opened import saved_result

    result = saved_result(path)
    if result is None:
        return []
    for _ in result.fill():
        pass
    return [*result.layers()]


def _read_part(path: Path, role: str | None, name: str | None) -> LayerTuples:
    from napari_txm_bgcorr import io
    from napari_txm_bgcorr.gui.layers import scan_layer
    from napari_txm_bgcorr.gui.stitched import read_stitched

    if pictures := read_stitched(path):
        return [*pictures]
    layer, pyramid = scan_layer(io.read(path), role, name)
    for _ in pyramid.fill() if pyramid is not None else ():
        pass
    return [layer]


def _paths(path: PathOrPaths) -> list[Path]:
    if isinstance(path, (str, os.PathLike)):
        return [Path(path)]
    return [Path(p) for p in path]


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return _holds_tiles(path)
    return path.suffix.lower() in SUFFIXES


def _holds_tiles(folder: Path) -> bool:
    """Look at the first names in a folder only: napari asks for every folder dropped."""
    from napari_txm_bgcorr.gui.outputs import is_saved

    if is_saved(folder):
        return True
    if folder.suffix.lower() == ".zarr":  # of another program
        return False
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(LOOK_AT), entries, strict=False):
                if entry.name in PROJECT_MARKS or entry.name.lower().endswith(TILE_SUFFIXES):
                    return True
    except OSError:
        return False
    return False
