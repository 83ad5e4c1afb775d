"""The button that shows how far backgrounds may be off, as a layer over the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from napari.layers import Layer
from qtpy.QtWidgets import QToolButton

from napari_txm_bgcorr.gui.layers.canvas import CachedTiles, CanvasLayout, StackArray
from napari_txm_bgcorr.gui.layers.convert import (
    METADATA_KEY,
    metadata,
    owner_of,
    placement,
    role_of,
)
from napari_txm_bgcorr.gui.layers.overview_loader import fill_in
from napari_txm_bgcorr.gui.layers.result import PicturePyramid, Result

__all__ = ["ROLE", "UncertaintyButton"]

ROLE = "uncertainty"
UNIT = "per cent of the background, standard deviation, level left out"
TOP = 99.5  # per cent of the pixels of a few tiles are within the contrast limits


class UncertaintyButton(QToolButton):
    """Shows and hides the layer ``NAME uncertainty`` of each result.

    Layers are hidden, not removed, and shown again with new pixels.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    results : callable
        Gives the results whose backgrounds are asked about.
    """

    def __init__(self, viewer: Any, results: Callable[[], Sequence[Result]]) -> None:
        super().__init__()
        self._viewer, self._results = viewer, results
        self.setObjectName("uncertainty_button")
        self.setText("±")
        self.setCheckable(True)
        self.setEnabled(False)
        self.setToolTip(
            "Show how far the background may be off (per cent, one standard deviation, level left "
            "out); known after Refine over the whole scan"
        )
        self.clicked.connect(self.toggle_layers)

    def refresh(self) -> None:
        """Offer what is known; a layer of an earlier result of the same name is given over."""
        results = self._results()
        for result in results:
            layer = self._layer(result)
            if layer is not None and owner_of(layer) is not result:
                layer.visible = False
                self._update(result, layer)  # or the earlier result would be kept for it
        self.setEnabled(any(each.uncertainty.known for each in results))
        self.setChecked(self._shown())

    def toggle_layers(self) -> None:
        """Show the layers, or hide them where one is seen."""
        show, selected = not self._shown(), set(self._viewer.layers.selection)
        for result in self._results():
            layer = self._layer(result)
            if show and result.uncertainty.known:
                self._show(result, layer)
            elif layer is not None:
                layer.visible = False
        self._viewer.layers.selection = selected
        self.setChecked(self._shown())

    def _shown(self) -> bool:
        layers = [self._layer(result) for result in self._results()]
        return any(layer is not None and layer.visible for layer in layers)

    def _show(self, result: Result, layer: Any) -> None:
        pyramid = None if layer is None else self._update(result, layer)
        if layer is None:
            data, pyramid = _picture(result)
            place = {} if (over := self._over(result)) is None else placement(over)
            arguments = {
                "name": f"{result.name} {ROLE}",
                "colormap": "viridis",
                "contrast_limits": (0.0, _high(result)),
                "multiscale": isinstance(data, list),
                "metadata": _facts(result),
                "rgb": False,
                **place,
            }
            self._viewer.add_layer(Layer.create(data, arguments, "image"))
        else:
            layer.visible = True
        if pyramid is not None and pyramid.coarse:
            fill_in((result,), result.name, len(result), pyramid.fill())

    def _update(self, result: Result, layer: Any) -> PicturePyramid | None:
        """Give a layer the pixels of a result as they are now."""
        data, pyramid = _picture(result)
        if layer.multiscale == isinstance(data, list):
            layer.data = data
        layer.metadata.update(_facts(result))
        layer.contrast_limits = (0.0, _high(result))
        return pyramid

    def _layer(self, result: Result) -> Any:
        name = f"{result.name} {ROLE}"
        return next(
            (each for each in self._viewer.layers if each.name == name and role_of(each) == ROLE),
            None,
        )

    def _over(self, result: Result) -> Any:
        """The layer of the result that it is laid over."""
        return next(
            (
                each
                for each in self._viewer.layers
                if owner_of(each) is result and role_of(each) == "corrected"
            ),
            None,
        )


def _facts(result: Result) -> dict[str, Any]:
    facts = metadata(result.scan, ROLE, result.provenance)
    facts[METADATA_KEY]["unit"] = UNIT
    return facts


def _picture(result: Result) -> tuple[Any, PicturePyramid | None]:
    """Uncertainties in per cent as napari shows them."""
    if result.scan.kind == "mosaic":
        pyramid = PicturePyramid(
            CachedTiles(result.uncertainty), CanvasLayout.of(result.scan), owner=result
        )
        return pyramid.data, pyramid
    flat = result.scan.kind == "single"
    return StackArray(result.uncertainty, flat=flat, owner=result), None


def _high(result: Result) -> float:
    """Upper contrast limit, per cent."""
    chosen = np.unique(np.linspace(0, len(result) - 1, 5).astype(int))
    found = np.concatenate([result.uncertainty[int(i)][::4, ::4].ravel() for i in chosen])
    finite = found[np.isfinite(found)]
    top = float(np.percentile(finite, TOP)) if finite.size else 0.0
    return top if top > 0 else 1.0
