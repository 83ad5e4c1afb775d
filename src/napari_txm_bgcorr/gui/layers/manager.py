"""Layers of the viewer that belong to each scan and result; all layer changes of the panel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from napari.layers import Image, Layer

from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.gui.session import CorrectionJob, InputInfo

from .convert import (
    describe_scan,
    draw_thumbnail,
    input_info,
    metadata,
    owner_of,
    placement,
    result_layers,
    role_of,
)
from .result import Result
from .saved_result import OpenedResult

__all__ = ["LayerBook"]


@dataclass
class _Place:
    """Placement of an input layer when Correct was pressed; it may be gone when results come."""

    placement: dict[str, Any]
    limits: Any
    role: str | None


class LayerBook:
    """Adds, finds, refreshes and replaces the layers of scans and results.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self._places: dict[int, _Place] = {}
        self._opened: list[Layer] = []
        self._overviews: list[Layer] = []
        self._latest: list[Result] = []

    # -- input ------------------------------------------------------------------------------

    def selected_inputs(self) -> tuple[InputInfo, ...]:
        """Describe the selected layers, in the order of the layer list."""
        chosen = self.viewer.layers.selection
        found = []
        for layer in list(self.viewer.layers):
            if layer in chosen:
                try:
                    found.append(input_info(layer))
                except TxmError:  # an empty or odd array: shown as an input without tiles
                    found.append(InputInfo(layer.name, id(layer), ndim=int(layer.ndim)))
        return tuple(found)

    def describe_inputs(self, inputs: Sequence[InputInfo]) -> str:
        """Say in a line or two what will be corrected."""
        if not inputs:
            return "Input: no layer selected"
        if len(inputs) > 1:
            return f"Input: {len(inputs)} selected layers"
        (info,) = inputs
        if info.scan is None or info.role in ("background", "corrected"):
            return f"Input: {info.name}"
        return f"Input: {info.name} ({describe_scan(info.scan)})"

    def begin_opening(self) -> None:
        """Forget what was opened before: the next ones are selected together."""
        self._opened = []

    def opened(self, layer: Layer) -> None:
        """Add a layer that was read, and select it with the others of the same drop."""
        self.viewer.add_layer(layer)
        if layer.multiscale:
            self._overviews.append(layer)
        self._opened = [each for each in self._opened if each in self.viewer.layers] + [layer]
        self._select(self._opened)

    def reopened(self, layers: Sequence[Any]) -> Iterator[None]:
        """Add the layers of a finished output, one for each step; the raw one is selected."""
        for k, layer in enumerate(layers):
            kept = list(self._opened)
            self.opened(Layer.create(*layer))
            draw_thumbnail(self.viewer.layers[-1])
            if k > 0:
                self._opened = kept
                self._select(kept)
            yield

    def show_picture(self, layer: Any) -> None:
        """Add a picture to look at, in place of one of the same name; what is selected stays."""
        kept = list(self.viewer.layers.selection)
        if layer[1]["name"] in self.viewer.layers:
            self.viewer.layers.remove(layer[1]["name"])
        self.viewer.add_layer(Layer.create(*layer))
        self._select(kept)

    # -- results ----------------------------------------------------------------------------

    def remember(self, job: CorrectionJob) -> None:
        """Note how the input layers lie, before the run."""
        by_key = {id(layer): layer for layer in self.viewer.layers}
        self._latest = []
        self._places = {
            item.key: _Place(placement(layer), layer.contrast_limits, role_of(layer))
            for item in job.inputs
            if (layer := by_key.get(item.key)) is not None
        }

    def show(self, key: int, result: Result) -> Iterator[None]:
        """Add the background and corrected layers of a result, empty as yet.

        One layer for each step of the iterator: napari takes a tenth of a second for each, and
        the window is to be served in between.
        """
        place = self._places.get(key)
        if place is None:
            return
        self._latest.append(result)
        kept = list(self.viewer.layers.selection)
        source = next((layer for layer in self.viewer.layers if id(layer) == key), None)
        if isinstance(source, Image) and place.role is None:
            kept = [self._twin(source, result)]
            yield
        self._drop_older(result)
        for layer in result_layers(result, place.placement, place.limits):
            self.viewer.add_layer(Layer.create(*layer))
            yield
        self._select(kept)

    def _twin(self, source: Image, result: Result) -> Layer:
        """Show a plain layer's data as the raw part; the user's layer stays, hidden."""
        twin = Layer.create(
            source.data,
            {
                "name": f"{result.name} raw",
                "contrast_limits": source.contrast_limits,
                "metadata": metadata(result.scan, "raw", None),
                "multiscale": source.multiscale,
                "rgb": False,
                **placement(source),
            },
            "image",
        )
        self.viewer.add_layer(twin)
        source.visible = False
        return twin

    def _drop_older(self, result: Result) -> None:
        """Remove the layers of an earlier result of the same name."""
        names = {f"{result.name} background", f"{result.name} corrected"}
        for layer in list(self.viewer.layers):
            if layer.name in names and isinstance(owner_of(layer), Result):
                self.viewer.layers.remove(layer)

    def finish(self, result: Result) -> Iterator[None]:
        """Write down in the layers how they were made, one for each step."""
        if result.registered:
            yield from self._move(result)
        for layer in self._of(result):
            role = role_of(layer) or "corrected"
            layer.metadata.update(metadata(result.scan, role, result.provenance))
            draw_thumbnail(layer)
            yield

    def _move(self, result: Result) -> Iterator[None]:
        """Show the tiles at the places that were found for them, the raw ones too."""
        raw = self._raw_of(result)
        if raw is not None:
            raw.data = result.pictures["raw"]
            yield
        for layer in self._of(result):
            if (picture := result.pictures.get(role_of(layer) or "corrected")) is not None:
                layer.data = picture
                yield

    def redraw_results(self) -> None:
        """Draw the layers of the latest results anew."""
        for result in self._latest:
            for layer in self._of(result):
                if layer.visible:
                    layer.refresh()

    def redraw_opened(self) -> None:
        """Draw the overviews of what was opened anew."""
        for layer in self._overviews:
            if layer in self.viewer.layers and layer.visible:
                layer.refresh()

    def overviews_done(self) -> Iterator[None]:
        """Draw them for the last time, the small pictures of hidden layers too."""
        done, self._overviews = self._overviews, []
        for layer in done:
            if layer in self.viewer.layers:
                layer.refresh()
                draw_thumbnail(layer)
                yield

    def results(self) -> list[Result]:
        """List the latest results that are still shown; where there are none, opened ones."""
        latest = [result for result in self._latest if any(self._of(result))]
        if latest or self._latest:
            return latest
        owners = {id(o): o for each in self.viewer.layers if (o := owner_of(each)) is not None}
        return [owner for owner in owners.values() if isinstance(owner, OpenedResult)]

    def outcome(self, ended: str = "Cancelled") -> str:
        """Say how the latest run ended; `ended` tells why where tiles are missing."""
        done = sum(int(result.done.sum()) for result in self._latest)
        total = sum(len(result) for result in self._latest)
        tiles = "1 tile" if done == 1 else f"{done} tiles"
        if not self._latest:
            return ended
        if done < total:
            return f"{ended}: {done} of {total} tiles corrected"
        notes = dict.fromkeys(note for result in self._latest for note in result.notes)
        gone = [] if any(self.results()) else ["Its layers are gone, so it cannot be saved"]
        return "\n".join([f"Done: {tiles} corrected", *map(_sentence, notes), *gone])

    def pairs(self) -> Iterator[tuple[Layer | None, Layer]]:
        """Find each corrected layer and the raw layer under it."""
        for layer in list(self.viewer.layers):
            owner = owner_of(layer)
            if role_of(layer) == "corrected" and isinstance(owner, Result):
                yield self._raw_of(owner), layer

    def _raw_of(self, result: Result) -> Layer | None:
        name = f"{result.name} raw"
        return next(
            (
                layer
                for layer in self.viewer.layers
                if role_of(layer) == "raw"
                and (
                    layer.name == name
                    or (isinstance(owner := owner_of(layer), Scan) and owner is result.original)
                )
            ),
            None,
        )

    def _of(self, result: Result) -> list[Layer]:
        return [layer for layer in self.viewer.layers if owner_of(layer) is result]

    def _select(self, layers: Sequence[Layer]) -> None:
        with suppress(ValueError, KeyError):
            self.viewer.layers.selection = {each for each in layers if each in self.viewer.layers}


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]
