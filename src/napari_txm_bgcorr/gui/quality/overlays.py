"""Layers that the quality panel lays over a mosaic: outlines, coloured cells, the chosen tile."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray

from napari_txm_bgcorr.gui.layers.canvas import CanvasLayout
from napari_txm_bgcorr.gui.layers.convert import owner_of, placement, role_of
from napari_txm_bgcorr.gui.layers.result import Result
from napari_txm_bgcorr.gui.layers.saved_result import OpenedResult
from napari_txm_bgcorr.gui.layers.tile_overlay import cells_layer, outlines_layer, tile_at
from napari_txm_bgcorr.gui.layers.view import camera_of
from napari_txm_bgcorr.quality import COLUMNS, TileQuality

__all__ = ["QualityLayers", "result_label", "shown_results"]

OUTLINES, CELLS, CHOSEN = "tile outlines", "tile quality", "chosen tiles"
TAKEN_OVER = ("contrast_limits", "metadata", "edge_width", "edge_color")


def shown_results(viewer: Any) -> dict[str, Result]:
    """Results that the viewer shows, by what the list calls them, the latest last."""
    shown: list[Result] = []
    for layer in viewer.layers:
        owner = owner_of(layer)
        if role_of(layer) == "corrected" and isinstance(owner, Result):
            shown = [each for each in shown if each is not owner] + [owner]
    found: dict[str, Result] = {}
    for result in shown:
        label, count = result_label(result), 1
        while label in found:
            count += 1
            label = f"{result_label(result)} ({count})"
        found[label] = result
    return found


def result_label(result: Result) -> str:
    """Name of a result, and whether it was opened from the disk."""
    return f"{result.name}, on disk" if isinstance(result, OpenedResult) else result.name


class QualityLayers:
    """Adds, replaces and removes the overlays of one result at a time.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.result: Result | None = None
        self._layout: CanvasLayout | None = None
        self._mine: dict[str, Layer] = {}

    def look_at(self, result: Result | None) -> None:
        """Take another result; overlays of the former go."""
        if result is self.result:
            return
        self.clear()
        self.result = result
        self._layout = None if result is None else CanvasLayout.of(result.scan)

    def clear(self) -> None:
        """Remove every overlay."""
        for name in (OUTLINES, CELLS, CHOSEN):
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._mine.pop(name, None)
        if name in self.viewer.layers:
            self.viewer.layers.remove(name)

    @property
    def _corrected(self) -> Layer | None:
        return next(
            (
                layer
                for layer in self.viewer.layers
                if owner_of(layer) is self.result and role_of(layer) == "corrected"
            ),
            None,
        )

    @property
    def on_canvas(self) -> bool:
        """True if the tiles lie side by side; a series shows one at a time."""
        return self.result is not None and self.result.scan.kind == "mosaic"

    def _put(self, layer: tuple[Any, dict[str, Any], str]) -> Layer:
        """Show an overlay in the layer of its name, or add it; the user's selection stays.

        A new layer takes napari ten times as long as new data.
        """
        name = layer[1]["name"]
        there = self._mine.get(name)
        if there is not None and there in self.viewer.layers and _fits(there, layer):
            there.data = layer[0]
            for key in TAKEN_OVER:
                if key in layer[1]:
                    setattr(there, key, layer[1][key])
            return there
        self._remove(name)
        kept = set(self.viewer.layers.selection)
        added = self._mine[name] = Layer.create(*layer)
        self.viewer.add_layer(added)
        self.viewer.layers.selection = {each for each in kept if each in self.viewer.layers}
        return added

    def outline(self, on: bool) -> None:
        """Draw lines round all tiles, or none."""
        self._frames(OUTLINES, None if on else [], "#8fd3ff")

    def choose(self, indices: list[int]) -> None:
        """Draw a frame round the chosen tiles."""
        self._frames(CHOSEN, indices, "#ffb000")

    def _frames(self, name: str, indices: list[int] | None, colour: str) -> None:
        corrected = self._corrected
        if indices == [] or corrected is None or not self.on_canvas or self._layout is None:
            self._remove(name)
            return
        data, arguments, kind = outlines_layer(self._layout, placement(corrected), name, indices)
        if indices is not None:
            arguments["edge_width"] *= 2
        self._put((data, {**arguments, "edge_color": colour}, kind))

    def colour(self, quality: TileQuality | None, key: str | None) -> None:
        """Colour the tiles by a figure of the table, or remove the colours."""
        corrected = self._corrected
        if quality is None or key is None or corrected is None or self._layout is None:
            self._remove(CELLS)
            return
        if not self.on_canvas:
            return
        column = COLUMNS[key]
        values = quality.column(key) * column.scale
        layer = cells_layer(self._layout, values, placement(corrected), CELLS, _limits(values))
        layer[1]["metadata"] = {"figure": column.label, "unit": column.unit}
        self._put(layer)

    def show_legend(self) -> None:
        """Show the values of the colours on the canvas, where napari can (0.7 and later)."""
        legend = getattr(self._mine.get(CELLS), "colorbar", None)
        if legend is not None and not legend.visible:
            legend.visible = legend.box = True

    def tile_under(self, world: Any) -> int | None:
        """Tile of the result at a place of the canvas in world coordinates."""
        corrected = self._corrected
        if corrected is None or self._layout is None or not self.on_canvas:
            return None
        return tile_at(self._layout, corrected.world_to_data(world))

    def jump_to(self, i: int) -> None:
        """Bring tile `i` into view: the camera over it, or the slider to it."""
        corrected = self._corrected
        if corrected is None or self._layout is None:
            return
        if not self.on_canvas:
            if corrected.ndim == 3:
                self.viewer.dims.set_current_step(0, i)
            return
        middle = self._layout.corners[i] + np.asarray(self._layout.tile) / 2
        y, x = corrected.data_to_world(middle)[-2:]
        camera = camera_of(self.viewer)
        camera.center = (0.0, float(y), float(x))
        across = 2.5 * max(self._layout.tile) * float(corrected.scale[-1])
        camera.zoom = min(_canvas_px(self.viewer)) / across


def _fits(there: Layer, layer: tuple[Any, dict[str, Any], str]) -> bool:
    """Return True if a layer can take new data: the same kind, size and place."""
    data, arguments, kind = layer
    alike = kind == "vectors" or tuple(there.data.shape) == tuple(data.shape)
    return (
        type(there).__name__.lower() == kind
        and alike
        and all(
            np.allclose(getattr(there, key), arguments[key])
            for key in ("scale", "translate")
            if key in arguments
        )
    )


def _canvas_px(viewer: Any) -> tuple[int, int]:
    """Size of the canvas; napari below 0.9 keeps it elsewhere."""
    canvas = getattr(viewer, "canvas", None)
    size: Any = getattr(canvas, "size", None) or getattr(viewer, "_canvas_size", (600, 600))
    return int(size[0]), int(size[1])


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Values of the first and the last colour: outer percentiles, never equal."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(known, (2, 98)))
    return (low, high) if high > low else (low, low + 1e-3)
