"""Storage of training images: on the device as 16-bit fields, or in one of MONAI's datasets.

Every image is read once and reduced to the network's field, so that 10,000 references of any
size are 1.3 GB at 256 px. `Images.take` gives counts on the device by number; which numbers a
batch may use is a pure function of the batch's number (`Images.window`).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from weakref import finalize

import numpy as np
import psutil
import torch
from monai.data import CacheDataset, PersistentDataset, SmartCacheDataset
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_txm_bgcorr.core import ImageStack, lit_field, standing
from napari_txm_bgcorr.errors import ConfigError, TxmError
from napari_txm_bgcorr.models import field_of
from napari_txm_bgcorr.training.config import DataConfig

__all__ = ["Images", "Taken", "choose_residency", "hold", "reduced"]

LIT_CELL = 4  # pixels of the field a side share one bit of the lit field
DEVICE_SHARE, HOST_SHARE = 0.4, 0.4  # of the free memory that images may take
BATCHES_PER_ROUND = 50  # of a smart cache, between two replacements
REPLACE_RATE = 0.1
HALF = 32768  # torch cannot index uint16 on every device: stored as int16 less this

Item = dict[str, Tensor]


@dataclass(frozen=True)
class Taken:
    """Some images on the device.

    Attributes
    ----------
    counts : (N, 1, F, F) float32
        Dark taken off where it is known.
    lit : (N, 1, F, F) float32
        1 where the aperture leaves the field open, else 0.
    """

    counts: Tensor
    lit: Tensor


class _Store(Protocol):
    def take(self, index: NDArray[np.int64], batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """16-bit values `(N, F, F)`, scales `(N,)`, lit cells `(N, C, C)`."""

    def window(self, batch: int) -> NDArray[np.int64]:
        """Numbers that the batch may use."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one role, reduced to the field.

    Attributes
    ----------
    residency : str
        Where they live.
    sessions : (N,) str array
        Session of each.
    hours : (N,) float64
        When each was taken; NaN where unknown.
    pedestal : (N,) float64
        Median of the dark that was taken off; NaN where none is known.
    shrink : (N,) float64
        Pixels of the image averaged into one of the field (its area), at least 1.
    """

    residency: str
    sessions: NDArray[np.str_]
    hours: NDArray[np.float64]
    pedestal: NDArray[np.float64]
    shrink: NDArray[np.float64]
    field_px: int
    device: torch.device
    _store: _Store

    def __len__(self) -> int:
        return len(self.sessions)

    def take(self, index: NDArray[np.int64], batch: int) -> Taken:
        """Images by number, for batch number `batch` (-1: validation)."""
        values, scales, cells = self._store.take(index, batch)
        values, scales, cells = (t.to(self.device) for t in (values, scales, cells))
        counts = (values.float() + HALF) * scales.view(-1, 1, 1)
        size = (self.field_px, self.field_px)
        lit = functional.interpolate(cells[:, None].float(), size, mode="nearest")
        return Taken(counts[:, None], lit)

    def window(self, batch: int) -> NDArray[np.int64]:
        """Numbers that batch number `batch` may use."""
        return self._store.window(batch)


def reduced(image: Any, dark: NDArray[np.float32] | None, field_px: int) -> Item:
    """One image on the field as 16-bit values and their scale.

    Parameters
    ----------
    image : (Y, X) counts (or transmission)
    dark : (Y, X) float32 or None
    field_px : int

    Returns
    -------
    dict
        ``values`` (F, F) int16: ``counts / scale - 32768``; ``scale`` float32; ``lit``
        (C, C) uint8 with ``C = ceil(F / 4)``: 1 where the whole cell is lit.
    """
    counts = np.asarray(image, np.float32)
    if dark is not None:
        counts = counts - dark
    field = field_of(torch.from_numpy(np.ascontiguousarray(counts))[None, None], field_px)
    field = field.clamp_min(0)
    scale = (field.amax() / 65535).clamp_min(1e-12)
    values = (field[0, 0] / scale).round().clamp(0, 65535) - HALF
    lit = torch.from_numpy(lit_field(field[0, 0].numpy()).astype(np.float32))[None, None]
    cells = -(-field_px // LIT_CELL)
    open_cells = -functional.adaptive_max_pool2d(-lit, cells)  # the least of each cell
    return {
        "values": values.to(torch.int16),
        "scale": scale,
        "lit": open_cells[0, 0].to(torch.uint8),
    }


class _Reduce:
    """MONAI transform: item (stack and image number) to its reduced field."""

    def __init__(self, stacks: Sequence[ImageStack], field_px: int) -> None:
        self.stacks, self.field_px = tuple(stacks), field_px

    def __call__(self, item: Mapping[str, Any]) -> Item:
        stack = self.stacks[item["stack"]]
        return reduced(stack.images[item["image"]], stack.dark, self.field_px)


class _OnDevice:
    def __init__(self, items: Sequence[dict[str, Any]], load: _Reduce, device: torch.device):
        found = [load(item) for item in items]
        self.parts = tuple(
            torch.stack([item[key] for item in found]).to(device)
            for key in ("values", "scale", "lit")
        )
        self.everything = np.arange(len(items))

    def take(self, index: NDArray[np.int64], batch: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.from_numpy(index).to(self.parts[0].device)
        values, scales, lit = (part[chosen] for part in self.parts)
        return values, scales, lit

    def window(self, batch: int) -> NDArray[np.int64]:
        return self.everything


def _item_of(dataset: Any, place: int) -> Item:
    """Item of a MONAI dataset; of its own error about a transform, ours that caused it."""
    try:
        item: Item = dataset[place]
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, TxmError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from error
    return item


class _InDataset:
    """Items of a MONAI dataset, by number."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset, self.everything = dataset, np.arange(count)

    def take(self, index: NDArray[np.int64], batch: int) -> tuple[Tensor, Tensor, Tensor]:
        found = [_item_of(self.dataset, int(k)) for k in index]
        values, scales, lit = (
            torch.stack([item[key] for item in found]) for key in ("values", "scale", "lit")
        )
        return values, scales, lit

    def window(self, batch: int) -> NDArray[np.int64]:
        return self.everything


class _InSmartCache:
    """A window over the items that moves on every `BATCHES_PER_ROUND` batches.

    The window of a batch follows from its number; a run that is resumed starts the cache at
    the window of its first batch. What lies outside (validation) is read directly.
    """

    def __init__(self, items: Sequence[dict[str, Any]], load: _Reduce, window: int) -> None:
        self.items, self.load, self.size = list(items), load, min(window, len(items) - 1)
        self.step = min(-(-self.size // int(1 / REPLACE_RATE)), len(items) - self.size)
        self.dataset: Any = None
        self._end: Any = None
        self.first, self.round = 0, -1

    def window(self, batch: int) -> NDArray[np.int64]:
        start = (max(batch, 0) // BATCHES_PER_ROUND) * self.step
        return np.asarray((start + np.arange(self.size)) % len(self.items), np.int64)

    def take(self, index: NDArray[np.int64], batch: int) -> tuple[Tensor, Tensor, Tensor]:
        found = [self._item(int(k), batch) for k in index]
        values, scales, lit = (
            torch.stack([item[key] for item in found]) for key in ("values", "scale", "lit")
        )
        return values, scales, lit

    def _item(self, number: int, batch: int) -> Item:
        if batch < 0:
            return self.load(self.items[number])
        self._turn_to(batch // BATCHES_PER_ROUND)
        place = (number - self.round * self.step) % len(self.items)
        inside = place < self.size
        return _item_of(self.dataset, place) if inside else self.load(self.items[number])

    def _turn_to(self, wanted: int) -> None:
        """Move the window on, or start anew where the run starts or goes back."""
        if self.dataset is None or not 0 <= wanted - self.round <= 1:
            self._start(wanted)
        while self.round < wanted:
            self.dataset.update_cache()
            self.round += 1

    def _start(self, wanted: int) -> None:
        if self._end is not None:
            self._end()
        first = (wanted * self.step) % len(self.items)
        self.dataset = SmartCacheDataset(
            self.items[first:] + self.items[:first],
            self.load,
            replace_rate=(self.step - 0.5) / self.size,  # rounded up again there
            cache_num=self.size,
            progress=False,
            shuffle=False,
            copy_cache=False,
        )
        self.dataset.start()
        self._end = finalize(self, self.dataset.shutdown)  # its thread would go on without us
        self._end.atexit = False  # a daemon
        self.round = wanted


def choose_residency(
    wanted: str, count: int, field_px: int, device: torch.device, folder: str | None = None
) -> str:
    """Choose the place to store `count` images.

    Parameters
    ----------
    wanted : str
        ``auto``, or the name of the place.
    count, field_px : int
    device : device
    folder : str or None
        Folder of the persistent dataset.

    Returns
    -------
    str
        ``device`` where they fit into 40 % of its free memory, else ``cache`` where they fit
        into 40 % of the computer's, else ``persistent`` where they fit on the disk twice,
        else ``smart-cache``.
    """
    if wanted != "auto":
        return wanted
    size = count * (2 * field_px**2 + (field_px // LIT_CELL) ** 2)
    free = psutil.virtual_memory().available
    on_device = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free
    if size <= DEVICE_SHARE * on_device:
        return "device"
    if size <= HOST_SHARE * free:
        return "cache"
    place = Path(folder) if folder else Path(tempfile.gettempdir())
    there = standing(place)
    room = 0 if there is None else shutil.disk_usage(there).free
    return "persistent" if 2 * size <= room else "smart-cache"


def hold(
    stacks: Sequence[ImageStack], config: DataConfig, field_px: int, device: torch.device
) -> Images:
    """Reduce images to the field and put them where they are to live.

    Parameters
    ----------
    stacks : sequence of ImageStack
    config : DataConfig
        ``residency`` and ``cache_folder`` are read.
    field_px : int
    device : device

    Raises
    ------
    ReadError
        If an image cannot be read.
    ConfigError
        If there is no image.
    """
    count = sum(len(stack) for stack in stacks)
    if not count:
        raise ConfigError("training data: no image; give references, samples or pairs")
    items = [
        {
            "stack": s,
            "image": k,
            "name": stack.names[k],
            "session": stack.sessions[k],
            "time": "" if stack.times is None else str(stack.times[k]),
            "field_px": field_px,
        }
        for s, stack in enumerate(stacks)
        for k in range(len(stack))
    ]
    place = choose_residency(config.residency, count, field_px, device, config.cache_folder)
    if place == "smart-cache" and count < 2:
        place = "cache"
    store = STORES[place](items, _Reduce(stacks, field_px), config, device)
    shrink = [max(1.0, s.images.shape[1] * s.images.shape[2] / field_px**2) for s in stacks]
    pedestals = [np.nan if s.dark is None else float(np.median(s.dark)) for s in stacks]
    sizes = [len(stack) for stack in stacks]
    return Images(
        place,
        np.array([item["session"] for item in items]),
        np.concatenate([_hours(stack) for stack in stacks]),
        np.repeat(pedestals, sizes),
        np.repeat(shrink, sizes),
        field_px,
        device,
        store,
    )


def _hours(stack: ImageStack) -> NDArray[np.float64]:
    if stack.times is None:
        return np.full(len(stack), np.nan)
    return np.asarray(stack.times.astype("datetime64[s]").astype(np.int64) / 3600.0, np.float64)


def _on_device(items: Any, load: _Reduce, config: DataConfig, device: torch.device) -> _Store:
    return _OnDevice(items, load, device)


def _cache(items: Any, load: _Reduce, config: DataConfig, device: torch.device) -> _Store:
    dataset = CacheDataset(items, load, progress=False, copy_cache=False, runtime_cache="threads")
    return _InDataset(dataset, len(items))


def _persistent(items: Any, load: _Reduce, config: DataConfig, device: torch.device) -> _Store:
    folder = config.cache_folder or tempfile.mkdtemp(prefix="txm-bgcorr-")
    store = _InDataset(PersistentDataset(items, load, cache_dir=folder), len(items))
    if config.cache_folder is None:
        finalize(store, shutil.rmtree, folder, ignore_errors=True)
    return store


def _smart(items: Any, load: _Reduce, config: DataConfig, device: torch.device) -> _Store:
    one = 2 * load.field_px**2
    room = int(HOST_SHARE * psutil.virtual_memory().available / one)
    return _InSmartCache(items, load, min(max(room, 1), config.smart_cache or sys.maxsize))


STORES: dict[str, Callable[[Any, _Reduce, DataConfig, torch.device], _Store]] = {
    "device": _on_device,
    "cache": _cache,
    "smart-cache": _smart,
    "persistent": _persistent,
}
