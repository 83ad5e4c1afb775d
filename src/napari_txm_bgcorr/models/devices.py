"""Devices by name, and one place where torch's errors become ours."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from napari_txm_bgcorr.errors import DeviceError

__all__ = [
    "DeviceInfo",
    "choose_device",
    "guard",
    "has_bf16",
    "is_out_of_memory",
    "list_devices",
    "on_device",
    "one_thread",
    "trains_in_bf16",
]


OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",  # CPU, Linux
    "not enough memory",  # CPU, Windows and macOS
    "alloc_failed",  # cuBLAS and cuDNN
    "paging file is too small",  # Windows, while a library is loaded
)
AMPERE = 8  # the first generation of NVIDIA GPUs that computes in bfloat16; others emulate it


@dataclass(frozen=True)
class DeviceInfo:
    """A device that computes.

    Attributes
    ----------
    name : str
        As `choose_device` takes it: ``cpu``, ``cuda:0``, ``mps``.
    label : str
        What the maker calls it.
    memory_gb : float
        Its memory in GiB.
    """

    name: str
    label: str
    memory_gb: float


def list_devices() -> list[DeviceInfo]:
    """Devices of this machine, the best first; the CPU is always among them, last."""
    found = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(i)
            found.append(DeviceInfo(f"cuda:{i}", facts.name, facts.total_memory / 2**30))
    memory = psutil.virtual_memory().total / 2**30
    if torch.backends.mps.is_available():
        found.append(DeviceInfo("mps", "Apple GPU", memory))
    return [*found, DeviceInfo("cpu", _cpu_label(), memory)]


def _cpu_label() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "CPU"


def choose_device(wanted: str = "auto") -> str:
    """Name of the device to use.

    Parameters
    ----------
    wanted : str
        ``auto`` (the first of `list_devices`), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises
    ------
    DeviceError
        If this machine has no such device.
    """
    names = [device.name for device in list_devices()]
    if wanted == "auto":
        return names[0]
    name = "cuda:0" if wanted == "cuda" else wanted
    if name not in names:
        raise DeviceError(f"device {wanted}: not on this machine; choose {', '.join(names)}")
    return name


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in OUT_OF_MEMORY)


def has_bf16(device: str | torch.device) -> bool:
    """Return True if a device computes in bfloat16 itself, and faster than in float32."""
    place = torch.device(device)
    if place.type != "cuda":
        return False
    return bool(torch.version.hip) or torch.cuda.get_device_capability(place)[0] >= AMPERE


def trains_in_bf16(device: str | torch.device) -> bool:
    """Return True if training is faster in bfloat16, as it also is on CPUs that multiply in it.

    Tiles are corrected in float32 on every CPU alike.
    """
    if torch.device(device).type != "cpu":
        return has_bf16(device)
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public function
    return native is not None and bool(native())


def on_device(device: str | torch.device) -> AbstractContextManager[Any]:
    """Inside, a GPU is CUDA's current one, which streams, graphs and pinned memory go by."""
    place = torch.device(device)
    return torch.cuda.device(place) if place.type == "cuda" else nullcontext()


@contextmanager
def guard(device: str) -> Iterator[None]:
    """Turn torch's errors inside the block into one-line `DeviceError`s."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if is_out_of_memory(error):
            raise DeviceError(
                f"device {device}: out of memory ({first}); close other programs, or choose cpu"
            ) from error
        raise DeviceError(f"device {device}: computing failed ({first}); choose cpu") from error


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Let torch use one thread inside the block if the device is the CPU.

    Tiles are spread over threads by `correct_tiles`; within a tile one thread neither waits
    for others nor changes the order of sums. torch's setting is restored afterwards.
    """
    if device != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
