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

from napari_txm_bgcorr.core import (
    ACQUISITION,
    ImageStack,
    References,
    first_and_each,
    one_or_each,
    spread_indices,
)
from napari_txm_bgcorr.errors import ModelError

__all__ = ["PREFIX", "Carried", "choose_references"]

PREFIX = "references."  # of the names of their tensors
MOST_BYTES = 2**24  # of all images: 8 of 1024 px in 16 bits
RECENT_H = 48.0  # older than the newest by more: another session's, for another model
_EACH = ("energies_ev", "exposures_s")
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
        Any of `ACQUISITION` of the newest, as far as known.
    energies_ev, exposures_s : (N,) float64 or None
        Of each, NaN where unknown; None: as the newest.
    """

    images: NDArray[Any]
    times: NDArray[np.datetime64] | None = None
    acquisition: Mapping[str, float] = field(default_factory=dict)
    energies_ev: NDArray[np.float64] | None = None
    exposures_s: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def bundle(self) -> References:
        """The same, to attach to a scan."""
        count = len(self)
        return References(
            self.images,
            self.times,
            one_or_each(self.energies_ev, self.acquisition.get("energy_ev"), count),
            one_or_each(self.exposures_s, self.acquisition.get("exposure_s"), count),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Tensors to store beside the weights, by name."""
        found = {f"{PREFIX}images": torch.from_numpy(np.ascontiguousarray(self.images))}
        if self.times is not None:
            seconds = self.times.astype("datetime64[s]").astype(np.int64)
            found[f"{PREFIX}seconds"] = torch.from_numpy(seconds)
        for name in _EACH:
            values = getattr(self, name)
            if values is not None:
                found[PREFIX + name] = torch.from_numpy(np.asarray(values, np.float64))
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
        """Read the references in a model's file; None if it carries none.

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
        each = {name: tensors[PREFIX + name] for name in _EACH if PREFIX + name in tensors}
        listed = [*each.values(), *([] if seconds is None else [seconds])]
        if not whole or any(tuple(values.shape) != (len(stack),) for values in listed):
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
        known = {name: values.numpy().astype(np.float64) for name, values in each.items()}
        return cls(stack, times, facts, **known)


def choose_references(stacks: Sequence[ImageStack], most: int) -> Carried | None:
    """Few of the references that a model was trained on, for it to carry.

    Those of the newest one's size, binning and pixel size, not older than it by more than two
    days, evenly spread over time with the newest among them; of several photon energies first
    the newest of each. Without times the last ones count.

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
    known = [stack.facts_of(k) for _, stack, k in images]
    _, energies = first_and_each([one.get("energy_ev") for one in known])
    _, exposures = first_and_each([one.get("exposure_s") for one in known])
    pixels = _stacked([stack.images[k] for _, stack, k in images])
    return Carried(pixels, times, facts, energies, exposures)


def _newest(stack: ImageStack) -> Any:
    return np.max(stack.times) if stack.times is not None else np.datetime64("NaT")


def _hour(stack: ImageStack, k: int) -> float:
    if stack.times is None:
        return 0.0
    return float(stack.times[k].astype("datetime64[s]").astype(np.int64)) / 3600


def _alike(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    both = one.keys() & other.keys() - {"energy_ev", "exposure_s"}
    return all(abs(one[name] - other[name]) <= SAME * abs(other[name]) for name in both)


def _chosen(
    found: list[tuple[float, ImageStack, int]], most: int
) -> list[tuple[float, ImageStack, int]]:
    """The last of each energy and others spread evenly; as many as fit, the last among them."""
    size = 2 * int(np.prod(found[-1][1].images.shape[1:]))
    if np.dtype(found[-1][1].images.dtype).kind == "f":
        size *= 2
    count = max(1, min(most, MOST_BYTES // size))
    last_of: dict[float, int] = {}
    for k, (_, stack, i) in enumerate(found):
        last_of[round(stack.facts_of(i).get("energy_ev", 0.0))] = k
    wanted = [len(found) - 1, *sorted(last_of.values(), reverse=True)]
    if len(last_of) == 1 and count > 1:
        wanted = spread_indices(len(found), count)
    wanted += spread_indices(len(found), count)
    return [found[k] for k in sorted(list(dict.fromkeys(wanted))[:count])]


def _stacked(images: Sequence[Any]) -> NDArray[Any]:
    """Images as 16-bit integers where that loses nothing, else float32, which is computed with."""
    stack = np.stack([np.asarray(image) for image in images])
    if stack.dtype.kind in "ui" and stack.min() >= 0 and stack.max() <= np.iinfo(np.uint16).max:
        return stack.astype(np.uint16)
    return stack.astype(np.float32)
