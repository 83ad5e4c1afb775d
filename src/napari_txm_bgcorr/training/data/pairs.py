"""Training pairs: (raw, prior, background) batches drawn by number.

Batch `i` of a source is a pure function of the seed and `i`, so a resumed run sees the very
batches it would have seen. A new kind of pair is a class with `PairSource`'s two methods and a
row in `PAIRS`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from monai.data import ThreadDataLoader
from torch.utils.data import DataLoader, Dataset, Sampler

from napari_txm_bgcorr.core import TrainingData, cpu_cores
from napari_txm_bgcorr.errors import ConfigError, TxmError
from napari_txm_bgcorr.models import Batch, Pairs, network_input
from napari_txm_bgcorr.training.config import TrainConfig

from .mixed import KINDS, MixedPairs, PartMaker, Parts

__all__ = ["PAIRS", "PairSource", "batches", "build_pairs", "to_batch", "worker_count"]

MOST_WORKERS = {"win32": 4}  # every one loads torch, for which Windows sets memory aside at once
ANYWHERE = 8
WORKER_BYTES = 1.5 * 2**30  # torch, and pools of simulated sessions and specimens
AHEAD = 3  # batches that a worker has ready
ARRAYS = 5  # float32 fields of a tile in a batch, at most
SHARED = Path("/dev/shm")  # where Linux keeps what processes hand over


class PairSource(Protocol):
    """A kind of training pairs."""

    def draw(self, index: int) -> Pairs:
        """Batch `index` of the training stream; the same for the same seed and index."""

    def validation(self) -> dict[str, Pairs]:
        """Fixed tiles by case (``none``, ``stale``, ...), disjoint from the training stream."""


def _simulated(config: TrainConfig) -> PairSource:
    from .simulated import SimulatedPairs

    return SimulatedPairs(config)


PAIRS: dict[str, Callable[[TrainConfig], PairSource]] = {"simulated": _simulated}


def build_pairs(
    config: TrainConfig,
    data: TrainingData | None = None,
    device: torch.device | str = "cpu",
) -> PairSource:
    """Build the source that `config.data.mix` or `config.data.kind` names.

    Parameters
    ----------
    config : TrainConfig
    data : TrainingData or None
        Images that were read from the paths in `config.data`.
    device : device
        Where images live and batches are put together.

    Raises
    ------
    ConfigError
        If there is no such kind, or no image to learn from.
    ReadError
        If an image cannot be read.
    """
    kind = config.data.kind
    if config.data.mix or kind in KINDS[:-1]:
        return MixedPairs(config, data or TrainingData(), torch.device(device))
    if kind not in PAIRS:
        known = ", ".join((*KINDS[:-1], *PAIRS))
        raise ConfigError(f"data.kind: {kind!r} is unknown; choose one of {known}")
    return PAIRS[kind](config)


def to_batch(pairs: Pairs) -> Batch:
    """Put pairs into the network's channels; the target's level is the raw tile's."""
    inputs = network_input(pairs.log_raw, pairs.log_prior, pairs.rms)
    level = pairs.log_raw[:, :, :1, :1] - inputs[:, :1, :1, :1]
    return Batch(inputs, pairs.log_background - level, pairs.weight, pairs.free)


class _Stream(Dataset[Pairs]):
    """Pairs by number, in worker processes."""

    def __init__(self, source: PairSource) -> None:
        self.source = source

    def __getitem__(self, index: int) -> Pairs:
        return self.source.draw(index)


class _PartStream(Dataset[Parts]):
    """Data set of the parts that worker processes make for a mixed batch, by number."""

    def __init__(self, maker: PartMaker) -> None:
        self.maker = maker

    def __getitem__(self, index: int) -> Parts:
        return self.maker.parts(index)


class _Finished(Dataset[Pairs | TxmError]):
    """Mixed batches in their order, put together from parts as they come.

    An error is handed on as an item: raised in the thread that reads ahead, it would be lost.
    """

    def __init__(self, source: MixedPairs, parts: Iterator[Parts]) -> None:
        self.source, self.parts = source, parts

    def __getitem__(self, index: int) -> Pairs | TxmError:
        try:
            return self.source.finish(index, next(self.parts))
        except TxmError as error:
            return error


def _as_is(item: Pairs | TxmError) -> Pairs | TxmError:
    return item


def _checked(items: Iterable[Pairs | TxmError]) -> Iterator[Pairs]:
    for item in items:
        if isinstance(item, TxmError):
            raise item
        yield item


def _flipped(batch: Batch, share: float, rng: np.random.Generator) -> Batch:
    """Mirror some tiles, all channels alike."""
    for axis in (1, 2):
        drawn = torch.from_numpy(rng.random(batch.target.shape[0]) < share / 2)
        chosen = drawn.to(batch.target.device)
        if chosen.any():
            for tensor in batch:
                tensor[chosen] = tensor[chosen].flip(axis + 1)
    return batch


class _From(Sampler[int]):
    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.end))

    def __len__(self) -> int:
        return self.end - self.first


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def worker_count(config: TrainConfig, device: torch.device | str, processes: int = 1) -> int:
    """Processes that draw batches for one training process.

    A GPU waits for simulated tiles unless several cores draw them: all cores but one do. On a
    CPU the training itself wants the cores: one in four. Memory for all of them is free, also
    where Linux keeps what processes hand over (64 MB in many containers).

    Parameters
    ----------
    config : TrainConfig
        ``data.workers`` is taken as it is, unless it is ``auto``.
    device : device
        That trains.
    processes : int
        Training processes on this machine.
    """
    if config.data.workers != "auto":
        return config.data.workers
    processes = max(processes, 1)
    cores = cpu_cores() // processes
    wanted = cores // 4 if torch.device(device).type == "cpu" else cores - 1
    room = psutil.virtual_memory().available / processes / WORKER_BYTES
    if SHARED.is_dir():
        one = AHEAD * config.batch * ARRAYS * 4 * config.network.field_px**2
        room = min(room, shutil.disk_usage(SHARED).free / processes / one)
    return max(1, min(wanted, int(room), MOST_WORKERS.get(sys.platform, ANYWHERE)))


def batches(
    source: PairSource, config: TrainConfig, first: int, workers: int | None = None
) -> Iterator[Batch]:
    """Batches from number `first` on, drawn by worker processes ahead of time.

    Of mixed pairs the workers make what needs no image; the rest is composed on the device.

    Parameters
    ----------
    source : PairSource
    config : TrainConfig
    first : int
        Number of the first batch: the steps already done.
    workers : int or None
        Processes that draw; None: as `worker_count` has it where a CPU trains.
    """
    workers = worker_count(config, "cpu") if workers is None else workers
    end = max(config.steps, first)
    drawn: Iterator[Pairs]
    if isinstance(source, MixedPairs):
        drawn = _mixed(source, workers, _From(first, end))
    else:
        drawn = iter(_loader(_Stream(source), workers, _From(first, end)))
    return map(_Flips(config), range(first, end), drawn)


def _mixed(source: MixedPairs, workers: int, numbers: _From) -> Iterator[Pairs]:
    """Mixed batches; where images live in a MONAI dataset, read ahead by a thread."""
    needed = any(name in ("references", "simulated") for name, _ in source.maker.shares.mix)
    parts = iter(_loader(_PartStream(source.maker), workers if needed else 0, numbers))
    finished = _Finished(source, parts)
    if source.on_device:
        return _checked(finished[index] for index in numbers)
    return _checked(
        ThreadDataLoader(
            finished,  # type: ignore[arg-type]  # MONAI names its own, takes any of torch's
            buffer_size=2,
            batch_size=None,
            sampler=numbers,
            num_workers=0,
            collate_fn=_as_is,
            generator=torch.Generator(),
        )
    )


def _loader(dataset: Dataset[Any], workers: int, numbers: _From) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_one_thread,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own, so that loading leaves the run's state alone
    )


class _Flips:
    """Pairs to the network's channels, with flips drawn from the seed and the number."""

    def __init__(self, config: TrainConfig) -> None:
        self.seed, self.p_flip = config.seed, config.data.p_flip

    def __call__(self, index: int, pairs: Pairs) -> Batch:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(2, index)))
        return _flipped(to_batch(pairs), self.p_flip, rng)
