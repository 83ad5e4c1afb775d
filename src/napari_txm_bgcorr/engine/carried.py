"""References that a model carries: those it was fine-tuned on, for scans that bring none.

They lie in the weights file beside the network, pixel by pixel as they were read, so that the
result is the same bits as with the files themselves: a prior keeps its full size and its finest
pattern when correcting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_txm_bgcorr.core.errors import ModelError
from napari_txm_bgcorr.core.training_data import ACQUISITION, ImageStack
from napari_txm_bgcorr.engine.priors import spread_indices

__all__ = ["PREFIX", "Carried", "choose_references"]

PREFIX = "references."  # of the names of their tensors
MOST_BYTES = 2**24  # of all images: 8 of 1024 px in 16 bits
RECENT_H = 48.0  # older than the newest by more: another session's, for another model
SAME = 1e-3  # relative difference of acquisition facts that counts as none


@dataclass(frozen=True, eq=False)
class Carried:
    """References inside a model.

    Attributes
    ----------
    images : (N, Y, X) uint16 or float32, counts
        As read: a pedestal is still in them.
    times : (N,) datetime64[s] or None
    acquisition : mapping
        Any of `ACQUISITION`, as far as known.
    """

    images: NDArray[Any]
    times: NDArray[np.datetime64] | None = None
    acquisition: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def tensors(self) -> dict[str, Tensor]:
        """What is stored beside the weights, by name."""
        found = {f"{PREFIX}images": torch.from_numpy(np.ascontiguousarray(self.images))}
        if self.times is not None:
            seconds = self.times.astype("datetime64[s]").astype(np.int64)
            found[f"{PREFIX}seconds"] = torch.from_numpy(seconds)
        return found

    def describe(self) -> dict[str, Any]:
        """Entry ``references`` of the model's card, JSON-ready."""
        count, rows, columns = self.images.shape
        spelt = [] if self.times is None else [str(t) for t in np.sort(self.times)]
        return {
            "count": count,
            "size": [rows, columns],
            "first": spelt[0] if spelt else None,
            "newest": spelt[-1] if spelt else None,
            "dark": "included",
            **{name: value for name, value in self.acquisition.items() if name in ACQUISITION},
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Carried | None:
        """Those of a model's file, or None where it carries none.

        Raises
        ------
        ModelError
            If they are malformed.
        """
        images = tensors.get(f"{PREFIX}images")
        if images is None:
            return None
        stack, seconds = images.numpy(), tensors.get(f"{PREFIX}seconds")
        kinds = (np.dtype(np.uint16), np.dtype(np.float32))
        whole = stack.ndim == 3 and stack.dtype in kinds and stack.size > 0
        if not whole or (seconds is not None and tuple(seconds.shape) != (len(stack),)):
            raise ModelError(
                f"references of the model: {tuple(stack.shape)} {stack.dtype} are malformed; "
                "copy it again"
            )
        times = None if seconds is None else seconds.numpy().astype("datetime64[s]")
        stated = card.get("references")
        stated = stated if isinstance(stated, Mapping) else {}
        facts = {
            name: float(stated[name])
            for name in ACQUISITION
            if isinstance(stated.get(name), (int, float))
        }
        return cls(stack, times, facts)


def choose_references(stacks: Sequence[ImageStack], most: int) -> Carried | None:
    """Few of the references that a model was trained on, for it to carry.

    Those of the newest one's size and acquisition, not older than it by more than two days,
    evenly spread over time with the newest among them. Without times the last ones count.

    Parameters
    ----------
    stacks : sequence of ImageStack
    most : int
        Images at most; fewer where they are large. 0: none.

    Returns
    -------
    Carried or None
    """
    stacks = [stack for stack in stacks if len(stack)]
    if not stacks or most < 1:
        return None
    dated = [stack for stack in stacks if stack.times is not None]
    home = max(dated, key=_newest) if dated else stacks[-1]
    last = int(np.argmax(home.times)) if home.times is not None else len(home) - 1
    facts = home.facts_of(last)
    found: list[tuple[float, ImageStack, int]] = []
    for stack in dated if dated else stacks:
        if tuple(stack.images.shape[1:]) == tuple(home.images.shape[1:]):
            found += [(_hour(stack, k), stack, k) for k in range(len(stack))
                      if _alike(stack.facts_of(k), facts)]  # fmt: skip
    newest = _hour(home, last)
    found = [entry for entry in found if newest - entry[0] <= RECENT_H]
    found.sort(key=lambda entry: entry[0])  # stable: without times as they were given
    images = _chosen(found, most)
    times = None
    if dated:
        times = np.array([stack.times[k] for _, stack, k in images if stack.times is not None])
    return Carried(_stacked([stack.images[k] for _, stack, k in images]), times, facts)


def _newest(stack: ImageStack) -> Any:
    return np.max(stack.times) if stack.times is not None else np.datetime64("NaT")


def _hour(stack: ImageStack, k: int) -> float:
    if stack.times is None:
        return 0.0
    return float(stack.times[k].astype("datetime64[s]").astype(np.int64)) / 3600


def _alike(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    both = one.keys() & other.keys()
    return all(abs(one[name] - other[name]) <= SAME * abs(other[name]) for name in both)


def _chosen(
    found: list[tuple[float, ImageStack, int]], most: int
) -> list[tuple[float, ImageStack, int]]:
    """Spread evenly, the last among them; as many as fit."""
    size = 2 * int(np.prod(found[-1][1].images.shape[1:]))
    if np.dtype(found[-1][1].images.dtype).kind == "f":
        size *= 2
    count = max(1, min(most, MOST_BYTES // size))
    if count == 1:
        return found[-1:]
    return [found[k] for k in spread_indices(len(found), count)]


def _stacked(images: Sequence[Any]) -> NDArray[Any]:
    """Images as 16-bit integers where that loses nothing, else float32, which is computed with."""
    stack = np.stack([np.asarray(image) for image in images])
    if stack.dtype.kind in "ui" and stack.min() >= 0 and stack.max() <= np.iinfo(np.uint16).max:
        return stack.astype(np.uint16)
    return stack.astype(np.float32)
