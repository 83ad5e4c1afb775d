"""Reader hook of napari for files and folders dropped on the window."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
    """Read each path as a scan; one that cannot be read is reported as a notification.

    The window is painted meanwhile, and the overview of a large mosaic fills when its layers
    are on show. Where no event loop runs, as in a script, it is complete when this returns.
    """
    from napari.utils.notifications import show_error

    from .common.blocking_call import beside

    found = beside(lambda: _read(_paths(path))) or _Found()
    _draw_overviews(found)
    for error in found.errors:
        show_error(error)
    return found.layers or [(None,)]  # npe2's way to say: read, but nothing to show


@dataclass
class _Found:
    """Layers that were read, overviews still to be drawn on them, and errors of unread paths."""

    layers: LayerTuples = field(default_factory=list)
    fills: list[tuple[tuple[Any, ...], str, int, Iterator[int]]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def _draw_overviews(found: _Found) -> None:
    from napari_txm_bgcorr.errors import TxmError

    from .layers.overview_loader import fill_in

    for fill in found.fills:
        try:
            fill_in(*fill)
        except TxmError as error:
            found.errors.append(str(error))


def _read(paths: Sequence[Path]) -> _Found:
    import napari_txm_bgcorr.gui.layers.overview_loader  # noqa: F401 - takes its time; the window has none
    from napari_txm_bgcorr.errors import TxmError

    from .common.errors import errors_in_words
    from .layers.outputs import parts

    found = _Found()
    for given in paths:
        try:
            with errors_in_words(str(given)):
                if _read_result(given, found):
                    continue
        except TxmError as error:
            found.errors.append(str(error))
            continue
        for each, role, name in parts(given):
            try:
                with errors_in_words(str(each)):
                    _read_part(each, role, name, found)
            except TxmError as error:
                found.errors.append(str(error))
    return found


def _read_result(path: Path, found: _Found) -> bool:
    """Read a finished output; False where the path is something else."""
    from .layers.saved_result import saved_result

    result = saved_result(path)
    if result is None:
        return False
    found.layers += result.layers()
    found.fills.append(((result, result.original), str(path), len(result), result.fill()))
    return True


def _read_part(path: Path, role: str | None, name: str | None, found: _Found) -> None:
    from napari_txm_bgcorr import io

    from .layers.convert import scan_layer
    from .layers.stitched import read_stitched

    if pictures := read_stitched(path):
        found.layers += pictures
        return
    scan = io.read(path)
    layer, pyramid = scan_layer(scan, role, name)
    found.layers.append(layer)
    if pyramid is not None:
        found.fills.append(((scan,), str(path), len(scan), pyramid.fill()))


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
    from .layers.outputs import is_saved

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
