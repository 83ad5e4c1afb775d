"""Several processes that train as one, started by `torchrun`; or one, for whom all is simple.

Every process takes its rows of every batch; gradients are averaged (DistributedDataParallel), so
the weights stay equal. What all must agree on (when to stop, losses, validation, the clock of the
schedule) comes from rank 0, or is the mean over all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models import Batch, choose_device, on_device

__all__ = ["ALONE", "World", "join"]

SETTLE_S = 0.5
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them.

    Attributes
    ----------
    rank, size : int
        Number of this process, and number of processes.
    local_size : int
        How many of them are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def lead(self) -> bool:
        """True for the process that writes the run's folder and validates."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """The value that rank 0 gave."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Mean of each value over the processes, which all hold the same names."""
        if self.size == 1:
            return dict(values)
        names = sorted(values)
        stack = torch.tensor([values[name] for name in names], dtype=torch.float64)
        distributed.all_reduce(stack)
        mean = dict(zip(names, (stack / self.size).tolist(), strict=True))
        return {name: mean[name] for name in values}

    def settle(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean of sums, as tensors: what a checkpoint of rank 0 may hold for all."""
        if self.size == 1:
            return dict(sums)
        means = self.mean({name: float(value) for name, value in sums.items()})
        return {name: torch.full_like(sums[name], mean) for name, mean in means.items()}

    def least(self, value: int) -> int:
        """Least of a number over the processes."""
        if self.size == 1:
            return value
        box = torch.tensor(value)
        distributed.all_reduce(box, op=distributed.ReduceOp.MIN)
        return int(box)

    def part(self, batch: Batch) -> Batch:
        """Rows of a batch for this process."""
        if self.size == 1:
            return batch
        rows = batch.target.shape[0] // self.size
        return Batch(*(t[self.rank * rows : (self.rank + 1) * rows] for t in batch))

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the processes."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network)

    def check(self, batch: int) -> None:
        """Refuse a batch that cannot be shared out evenly.

        Raises
        ------
        ConfigError
        """
        if batch % self.size:
            raise ConfigError(f"batch: {batch} is no multiple of the {self.size} processes")


ALONE = World()


def unsynced(network: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """Inside, gradients add up without being averaged: all but the last part of a batch."""
    if wanted and isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return nullcontext()


def _backend(place: str) -> str:
    """Backend for communication; Windows has no NCCL, there gloo goes by way of the CPU."""
    nccl = place.startswith("cuda") and distributed.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if nccl else "gloo"


@contextmanager
def join(device: str) -> Iterator[tuple[World, str]]:
    """Take part in the run that `torchrun` started, or be alone.

    Parameters
    ----------
    device : str
        As `choose_device` takes it; with ``auto`` or ``cuda`` each process of a machine takes
        the device of its local rank, if there are enough.

    Yields
    ------
    World, str
        The processes, and this one's device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        place = choose_device(device)
        with on_device(place):
            yield ALONE, place
        return
    local, local_size = (int(os.environ.get(k, "0")) for k in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    place = choose_device(device)
    if device in ("auto", "cuda") and place.startswith("cuda"):
        if torch.cuda.device_count() < local_size:
            raise ConfigError(
                f"torchrun: {local_size} processes on {torch.cuda.device_count()} GPUs; start "
                "one for each GPU"
            )
        place = f"cuda:{local}"
    if place.startswith("cuda"):
        torch.cuda.set_device(place)
    # small values that all agree on travel between CPUs, gradients between the devices
    distributed.init_process_group(_backend(place))
    try:
        yield World(int(os.environ["RANK"]), size, local_size), place
    finally:
        # Threads of gloo let go of the last tensors now, for which they need Python's lock; the
        # end of the group holds it while it waits for them (seen as a deadlock with torch 2.13).
        time.sleep(SETTLE_S)
        distributed.destroy_process_group()
