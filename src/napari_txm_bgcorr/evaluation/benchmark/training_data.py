"""Pairs for the training benchmark, held in three ways: files, host memory, device memory.

All three give the same samples of the same kind: log counts less the median of the raw tile,
with the random jitter of pix2pix (Isola et al. 2017, appendix 6.2: enlarge 256 px to 286 px,
cut 256 px out at random, mirror half of them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_txm_bgcorr.models import median, network_input
from napari_txm_bgcorr.simulation import draw_session, draw_specimen

__all__ = ["SOURCES", "Sources", "TimedPairs", "normalised", "simulate_pairs", "write_pairs"]

ENLARGED = 286 / 256
PER_SESSION = 4
OFFSET = 32768  # uint16 counts live on the device as int16, which torch can index everywhere
Counts = NDArray[np.uint16]
Files = Sequence[tuple[Path, Path]]


def simulate_pairs(count: int, field_px: int, seed: int) -> Counts:
    """Raw tiles and their backgrounds from simulated sessions, four tiles a session.

    Returns
    -------
    (count, 2, F, F) uint16, counts
        Raw tile, and the background as a reference would show it.
    """
    pairs = np.empty((count, 2, field_px, field_px), np.uint16)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        if i % PER_SESSION == 0:
            session = draw_session(rng, size=field_px)
        hours = 0.02 * (i % PER_SESSION)
        pairs[i, 0] = session.expose(draw_specimen(rng, (field_px, field_px)), hours, rng)
        reference = session.background(hours) + session.dark
        pairs[i, 1] = np.clip(np.rint(reference), 0, 65535)
    return pairs


def write_pairs(pairs: Counts, folder: Path) -> Files:
    """Write one compressed TIFF an image, as data sets for pix2pix come."""
    files = []
    for i, (raw, background) in enumerate(pairs):
        names = (folder / f"raw_{i:05d}.tif", folder / f"background_{i:05d}.tif")
        for name, image in zip(names, (raw, background), strict=True):
            tifffile.imwrite(name, image, compression="zlib")
        files.append(names)
    return files


class TimedPairs(Protocol):
    """Interface of a source of training pairs."""

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Input `(N, 3, F, F)` and target `(N, 1, F, F)`, float32, on the device."""


class FromFiles:
    """Decode, take logarithms and jitter image by image: the plain data loader."""

    def __init__(self, pairs: Counts, files: Files, device: str) -> None:
        self.files, self.device = files, device
        self.rng = torch.Generator().manual_seed(1)

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Read `batch` pairs of files."""
        return _one_by_one(self._read, len(self.files), batch, self.rng, self.device)

    def _read(self, i: int) -> Tensor:
        raw, background = (tifffile.imread(path) for path in self.files[i])
        return _log(torch.from_numpy(np.stack([raw, background]).astype(np.float32))[None])


class FromMemory:
    """The same with decoded logarithms in host memory."""

    def __init__(self, pairs: Counts, files: Files, device: str) -> None:
        self.logs = _log(torch.from_numpy(pairs.astype(np.float32)))
        self.device = device
        self.rng = torch.Generator().manual_seed(1)

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Jitter `batch` pairs one by one and send them to the device."""
        logs = self.logs
        return _one_by_one(lambda i: logs[i : i + 1], len(logs), batch, self.rng, self.device)


class FromDevice:
    """All counts on the device as 16-bit integers; indexed and jittered there, in batch."""

    def __init__(self, pairs: Counts, files: Files, device: str) -> None:
        stored = (pairs.astype(np.int32) - OFFSET).astype(np.int16)
        self.counts = torch.from_numpy(stored).to(device)
        self.rng = torch.Generator(device).manual_seed(1)

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Index and jitter on the device; no transfer, no synchronisation."""
        device = self.counts.device
        index = torch.randint(len(self.counts), (batch,), generator=self.rng, device=device)
        logs = _log(self.counts[index].float() + OFFSET)
        return normalised(_jitter_batch(logs, self.rng))


SOURCES: dict[str, Callable[[Counts, Files, str], TimedPairs]] = {
    "files": FromFiles,
    "memory": FromMemory,
    "device": FromDevice,
}


class Sources:
    """The benchmark's pairs, opened in each of the three ways when first asked for."""

    def __init__(self, pairs: Counts, folder: Path, device: str) -> None:
        self._pairs, self._device = pairs, device
        self._files = write_pairs(pairs, folder)
        self._open: dict[str, TimedPairs] = {}

    def __getitem__(self, name: str) -> TimedPairs:
        if name not in self._open:
            self._open[name] = SOURCES[name](self._pairs, self._files, self._device)
        return self._open[name]


def normalised(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Log counts `(N, 2, F, F)` to the network's input and its target."""
    raw, background = logs[:, :1], logs[:, 1:]
    return network_input(raw, None, None), background - median(raw)


def _log(counts: Tensor) -> Tensor:
    return counts.clamp_min(1).log()


def _one_by_one(
    read: Callable[[int], Tensor], count: int, batch: int, rng: torch.Generator, device: str
) -> tuple[Tensor, Tensor]:
    samples = []
    for _ in range(batch):
        logs = read(int(torch.randint(count, (1,), generator=rng)))
        edge = logs.shape[-1]
        large = _enlarged(logs)
        room = large.shape[-1] - edge + 1
        y, x = (int(torch.randint(room, (1,), generator=rng)) for _ in range(2))
        cut = large[..., y : y + edge, x : x + edge]
        samples.append(cut.flip(-1) if torch.rand(1, generator=rng) < 0.5 else cut)
    inputs, target = normalised(torch.cat(samples))
    return inputs.to(device), target.to(device)


def _jitter_batch(logs: Tensor, rng: torch.Generator) -> Tensor:
    """Cut and mirror every sample at its own random place; nothing is read back."""
    edge, device = logs.shape[-1], logs.device
    large = _enlarged(logs)
    count, channels, room = len(logs), logs.shape[1], large.shape[-1] - edge + 1
    corner = torch.randint(room, (2, count, 1), generator=rng, device=device)
    mirrored = torch.rand((count, 1), generator=rng, device=device) < 0.5
    along = torch.arange(edge, device=device)
    rows = corner[0] + along
    columns = corner[1] + torch.where(mirrored, edge - 1 - along, along)
    rows = rows[:, None, :, None].expand(-1, channels, -1, large.shape[-1])
    columns = columns[:, None, None, :].expand(-1, channels, edge, -1)
    return large.gather(2, rows).gather(3, columns)


def _enlarged(logs: Tensor) -> Tensor:
    size = round(logs.shape[-1] * ENLARGED)
    return functional.interpolate(logs, (size, size), mode="bilinear", align_corners=False)
