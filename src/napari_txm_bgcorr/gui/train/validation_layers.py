"""The run's fixed validation tile as four napari layers side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import lit_field

if TYPE_CHECKING:
    import napari

__all__ = ["PARTS", "TileLayers", "tile_images"]

PARTS = ("raw", "predicted", "true", "difference")
KEY = "txm_bgcorr_training"
GAP = 0.06
DIFFERENCE_LIMITS = (-0.1, 0.1)


def tile_images(preview: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Pictures of a preview.

    Parameters
    ----------
    preview : mapping
        ``raw``, ``predicted``, ``true``: (F, F) log counts, the raw tile's level removed.

    Returns
    -------
    dict of (F, F) float32
        The three as share of the raw tile's level, and ``difference``: predicted over true
        less 1, after removing one scale (0.01 is 1 %), as the validation error is measured;
        0 behind the aperture, where nothing is divided.
    """
    if not {"raw", "predicted", "true"} <= set(preview):
        return {}
    logs = {name: np.asarray(preview[name], np.float32) for name in PARTS[:3]}
    error = logs["predicted"] - logs["true"]
    images = {name: np.exp(log) for name, log in logs.items()}
    lit = lit_field(images["true"])
    error = np.where(lit, error - np.median(error[lit]), np.float32(0))
    return images | {"difference": np.expm1(error).astype(np.float32)}


class TileLayers:
    """Raw and predicted above, true and difference below; one set of layers for each run.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self.viewer = viewer
        self._layers: dict[str, Any] = {}
        self._shown = False

    def forget(self) -> None:
        """Take a newer run's tile into layers of its own; the old ones stay."""
        self._layers, self._shown = {}, False

    def show(self, preview: Mapping[str, NDArray[Any]]) -> Iterator[None]:
        """Draw a preview, one layer a step; layers the user has deleted stay away."""
        images = tile_images(preview)
        if not images:
            return
        limits = _limits(images)
        first = not self._shown
        self._shown = True
        for place, name in enumerate(PARTS):
            layer = self._layers.get(name)
            if layer is not None and layer in self.viewer.layers:
                layer.data = images[name]
            elif first:
                self._layers[name] = self._new(name, place, images[name], limits)
            yield
        if first:
            self._look_at_them(images["raw"].shape)

    def _new(self, name: str, place: int, image: NDArray[np.float32], limits: Any) -> Any:
        row, column = divmod(place, 2)
        step = image.shape[0] * (1 + GAP)
        different = name == "difference"
        keep = set(self.viewer.layers.selection)
        layer = self.viewer.add_image(
            image,
            name=f"training: {name}",
            translate=(row * step, column * step),
            contrast_limits=DIFFERENCE_LIMITS if different else limits,
            colormap="PiYG" if different else "gray",
            metadata={KEY: name},
        )
        # the correction panel takes the selected layers as its input: these are none
        self.viewer.layers.selection = keep & set(self.viewer.layers)
        return layer

    def _look_at_them(self, shape: tuple[int, ...]) -> None:
        """Bring the four into view if nothing else is shown."""
        if not any(layer.visible and KEY not in layer.metadata for layer in self.viewer.layers):
            self.viewer.reset_view()


def _limits(images: Mapping[str, NDArray[np.float32]]) -> tuple[float, float]:
    values = np.concatenate([images[name].ravel()[::7] for name in ("raw", "true")])
    low, high = (float(v) for v in np.percentile(values[np.isfinite(values)], (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1)
