"""napari layers as training data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.gui.layers.convert import input_info, owner_of, role_of
from napari_txm_bgcorr.gui.layers.result import Result

from .session import DataItem

if TYPE_CHECKING:
    import napari

__all__ = ["selected_items"]


def selected_items(viewer: napari.viewer.Viewer, role: str) -> Iterator[DataItem]:
    """Give the selected layers as data, in the order of the layer list.

    A layer read from a file by this plugin stands for its file; any other is written into the
    run's folder when the run starts. A corrected result counts as clean samples.

    Raises
    ------
    ConfigError
        If nothing is selected, or a layer holds no counts.
    """
    chosen = [layer for layer in viewer.layers if layer in viewer.layers.selection]
    if not chosen:
        raise ConfigError("layers: none selected; select image layers in the layer list")
    for layer in chosen:
        yield _item(layer, role)


def _item(layer: Any, role: str) -> DataItem:
    info = input_info(layer)
    if info.kind != "image" or info.rgb or info.ndim not in (2, 3):
        raise ConfigError(
            f"{layer.name}: no grey image (Y, X) or (T, Y, X); select an image layer"
        )
    owner = owner_of(layer)
    if isinstance(owner, Scan) and owner.source.path.exists():
        role = "samples" if owner.provenance and role_of(layer) == "corrected" else role
        return DataItem(owner.source.path, role, layer.name)
    if isinstance(owner, Result) and role_of(layer) in ("corrected", "background"):
        if not owner.complete:
            raise ConfigError(f"{layer.name}: not all tiles are corrected; correct them first")
        corrected = role_of(layer) == "corrected"
        array = owner.corrected if corrected else owner.background
        return DataItem(
            Path(layer.name), "samples" if corrected else role, layer.name, array=array
        )
    if info.scan is None:
        raise ConfigError(f"{layer.name}: holds no images; select an image layer")
    return DataItem(Path(layer.name), role, layer.name, array=info.scan.tiles)
