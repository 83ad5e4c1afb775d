"""Looks at what was dropped on the training panel: counts, small pictures, what seems wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import ImageStack
from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.gui.common.errors import errors_in_words

from .messages import Complaint, DataFound, Reading, Thumb
from .session import DataItem

__all__ = ["Level", "look_at", "looks_wrong"]

THUMB_PX = 44
THUMBS_EACH = 12
SATURATED_SHARE = 1e-3
DARK_SHARE = 0.25
LEAST_COUNTS = 30.0


class Level:
    """Size and brightness of the references seen so far: what later ones are compared with."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.counts = 0.0


def looks_wrong(image: NDArray[Any], role: str, level: Level) -> tuple[str, ...]:
    """Say in a few words what seems wrong with an image.

    Parameters
    ----------
    image : (Y, X), counts; transmission for clean samples
    role : str
        One of `gui.train.session.ROLES`.
    level : Level
        Of the references before it.
    """
    values = image[np.isfinite(image)] if image.dtype.kind == "f" else image.ravel()
    if not values.size or not values.any():
        return ("empty",)
    median, top = float(np.median(values)), float(values.max())
    found = []
    if role == "samples":
        if median > 20:
            found.append("looks like counts; clean samples are corrected images (transmission)")
    elif role != "darks":
        if median < max(LEAST_COUNTS, DARK_SHARE * level.counts) and top > 5:
            found.append("looks dark")
        if top <= 5:
            found.append("looks corrected already; references are counts")
        if _saturated(values, top):
            found.append("saturated")
        level.counts = max(level.counts, median)
    if role != "samples":
        if level.size is None:
            level.size = (int(image.shape[0]), int(image.shape[1]))
        elif level.size != image.shape:
            y, x = level.size
            found.append(f"different size: {image.shape[0]} x {image.shape[1]}, not {y} x {x}")
    return tuple(found)


def _saturated(values: NDArray[Any], top: float) -> bool:
    """Many pixels at the very greatest value, as no noise leaves them."""
    if top < 200:
        return False
    return float(np.mean(values == values.dtype.type(top))) > SATURATED_SHARE


def look_at(items: Sequence[DataItem], level: Level, stop: Event) -> Iterator[Any]:
    """Read each item as the training will, and make small pictures of some of its images."""
    for item in items:
        if stop.is_set():
            return
        yield Reading(f"Looking at {item.name} …")
        try:
            with errors_in_words(item.name):
                stacks, notes = _stacks(item)
                yield _found(item, stacks, notes, level, stop)
        except TxmError as error:
            yield Complaint(error)


def _stacks(item: DataItem) -> tuple[Sequence[ImageStack], tuple[str, ...]]:
    """Images of an item, and what the reader had to say."""
    if item.array is not None:
        count = int(item.array.shape[0])
        names = tuple(f"{item.name} {i + 1}" for i in range(count))
        return [ImageStack(item.array, names, (item.name,) * count)], ()
    from napari_txm_bgcorr.io import read_training_data

    path = [Path(item.path)]
    if item.role == "references":
        data = read_training_data(references=path)
        return data.references, data.notes
    data = read_training_data(samples=path)
    return data.samples, data.notes


def _found(
    item: DataItem, stacks: Sequence[ImageStack], notes: Sequence[str], level: Level, stop: Event
) -> DataFound:
    places = [(stack, k) for stack in stacks for k in range(len(stack))]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), THUMBS_EACH)).astype(int))
    if level.size is None and item.role != "samples":  # what most images are like is usual
        level.size = _size(max(stacks, key=len))
    thumbs: list[Thumb] = []
    for i in chosen:
        if stop.is_set():
            break
        stack, k = places[int(i)]
        image = np.asarray(stack.images[k])
        wrong = looks_wrong(image, item.role, level)
        thumbs.append(Thumb(stack.names[k], _picture(image), wrong))
    counted = {word for thumb in thumbs for word in thumb.warnings}
    warnings = [
        f"{_how_many(word, thumbs)} {word}" if len(thumbs) > 1 else f"{item.name}: {word}"
        for word in sorted(counted)
    ]
    sizes = {_size(stack) for stack in stacks}
    seen = replace(
        item,
        count=len(places),
        size=sizes.pop() if len(sizes) == 1 else (0, 0),
        warnings=(*warnings, *notes),
    )
    return DataFound(seen, tuple(thumbs))


def _size(stack: ImageStack) -> tuple[int, int]:
    height, width = (int(n) for n in stack.images.shape[1:])
    return height, width


def _how_many(word: str, thumbs: Sequence[Thumb]) -> str:
    hit = [thumb for thumb in thumbs if word in thumb.warnings]
    return f"{hit[0].name}:" if len(hit) == 1 else f"{len(hit)} of {len(thumbs)} images seen:"


def _picture(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey picture of `THUMB_PX` a side at most; the outermost per cent of values cut off."""
    step = max(1, -(-max(image.shape) // THUMB_PX))
    small = np.nan_to_num(image[::step, ::step].astype(np.float32))
    low, high = (float(v) for v in np.percentile(small, (1, 99)))
    span = (small - low) / (high - low) if high > low else np.zeros_like(small)
    return np.ascontiguousarray((255 * span.clip(0, 1)).astype(np.uint8))
