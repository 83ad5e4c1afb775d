"""Energy that a device has drawn, as its own counter says; never an estimate.

NVIDIA devices count joules since the driver was loaded (NVML,
``nvmlDeviceGetTotalEnergyConsumption``, Volta and later). Intel and AMD processors count
microjoules per package (RAPL, through Linux's ``powercap``), in a register that wraps round.
Where there is no counter, or it may not be read, the answer is None and the source
"not measured".
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["NOT_MEASURED", "EnergyConfig", "EnergyMeter", "describe"]

NOT_MEASURED = "not measured"
POWERCAP = Path("/sys/class/powercap")


class EnergyConfig(BaseModel):
    """Factors that turn measured kWh into cost and carbon dioxide.

    The defaults are round assumptions, written beside every figure; put those of your site.

    Attributes
    ----------
    price_per_kwh : float
        Price of a kWh in `currency`.
    currency : str
    co2_kg_per_kwh : float
        Kilograms of carbon dioxide per kWh from your grid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    price_per_kwh: float = Field(default=0.15, ge=0)
    currency: str = "USD"
    co2_kg_per_kwh: float = Field(default=0.5, ge=0)


class _Counter(Protocol):
    source: str

    def joules(self) -> float:
        """Joules since any fixed moment."""

    def watts(self) -> float | None:
        """Power drawn now."""


class EnergyMeter:
    """Joules that a device drew since `start`.

    A GPU's counter holds that GPU alone (not the host); the processor's holds its packages
    (without memory and power supply), whatever else runs on them.

    Parameters
    ----------
    device : str
        As torch calls it: ``cuda:0``, ``cpu``. Several, joined by commas, are added up.
    powercap : Path
        Where Linux shows the processor's counters.
    """

    def __init__(self, device: str, powercap: Path = POWERCAP) -> None:
        found = [_counter(name.strip(), powercap) for name in device.split(",")]
        self._counters = [c for c in found if c is not None] if all(found) else []
        self._first: float | None = None

    @property
    def source(self) -> str:
        """``nvml``, ``rapl`` (joined by ``+`` where there are both) or ``not measured``."""
        return "+".join(sorted({c.source for c in self._counters})) or NOT_MEASURED

    def start(self) -> EnergyMeter:
        """Count from now on."""
        self._first = self._total()
        return self

    def joules(self) -> float | None:
        """Joules since `start`; None where nothing is measured.

        Ask at least every few minutes: a processor's counter wraps round.
        """
        now = self._total()
        return None if now is None or self._first is None else now - self._first

    def watts(self) -> float | None:
        """Power drawn now; None where it is not measured."""
        parts = [c.watts() for c in self._counters]
        known = [p for p in parts if p is not None]
        return sum(known) if known and len(known) == len(parts) else None

    def _total(self) -> float | None:
        try:
            return sum(c.joules() for c in self._counters) if self._counters else None
        except OSError:
            self._counters = []  # a counter that went away: from here on nothing is known
            return None


def describe(
    joules: float | None, source: str, samples: int, factors: EnergyConfig
) -> dict[str, Any]:
    """Figures from joules, with the factors they were made with.

    Parameters
    ----------
    joules : float or None
    source : str
        As `EnergyMeter.source`.
    samples : int
        Tiles trained on meanwhile.
    factors : EnergyConfig

    Returns
    -------
    dict
        ``source``, ``joules``, ``joules_per_1000_samples``, ``kwh``, ``cost``, ``currency``,
        ``price_per_kwh``, ``co2_kg``, ``co2_kg_per_kwh``. Where nothing was measured only
        ``source``.
    """
    if joules is None:
        return {"source": NOT_MEASURED}
    kwh = joules / 3.6e6
    return {
        "source": source,
        "joules": round(joules, 1),
        "joules_per_1000_samples": round(1000 * joules / samples, 2) if samples else None,
        "kwh": kwh,
        "cost": kwh * factors.price_per_kwh,
        "currency": factors.currency,
        "price_per_kwh": factors.price_per_kwh,
        "co2_kg": kwh * factors.co2_kg_per_kwh,
        "co2_kg_per_kwh": factors.co2_kg_per_kwh,
    }


def _counter(device: str, powercap: Path) -> _Counter | None:
    if device.startswith("cuda"):
        return _Nvml.find(device)
    return _Rapl.find(powercap) if device == "cpu" else None


class _Nvml:
    """One NVIDIA device's counter."""

    source = "nvml"

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    @classmethod
    def find(cls, device: str) -> _Nvml | None:
        """Counter of a torch device; None without the library, the driver or the counter."""
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return None
        try:
            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByUUID(_cuda_uuid(device))
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except (nvml.NVMLError, LookupError):
            return None
        return cls(nvml, handle)

    def joules(self) -> float:
        """Joules since the driver was loaded."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except self._nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error

    def watts(self) -> float | None:
        """Power drawn now."""
        try:
            return float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1e3
        except self._nvml.NVMLError:
            return None


def _cuda_uuid(device: str) -> str:
    """NVML's name of a torch device, whatever ``CUDA_VISIBLE_DEVICES`` makes of the numbers."""
    import torch

    number = int(device.partition(":")[2] or 0)
    if number >= torch.cuda.device_count():
        raise LookupError(device)
    uuid = str(getattr(torch.cuda.get_device_properties(number), "uuid", ""))
    if not uuid:
        raise LookupError(device)
    return uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"


class _Rapl:
    """The processor packages' counters, with their wraps undone."""

    source = "rapl"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._ranges = [_number(z / "max_energy_range_uj") for z in zones]
        self._last = self._read()
        self._sum_uj = self._sum_then = 0
        self._at = time.monotonic()
        self._watts: float | None = None

    @classmethod
    def find(cls, powercap: Path) -> _Rapl | None:
        """Counters of the packages; None if there are none, or they may not be read."""
        try:
            zones = [
                zone
                for zone in sorted(powercap.glob("intel-rapl:*"))
                if (zone / "name").read_text().strip().startswith("package")
            ]
            return cls(zones) if zones else None
        except (OSError, ValueError):
            return None

    def _read(self) -> list[int]:
        return [_number(zone / "energy_uj") for zone in self._zones]

    def joules(self) -> float:
        """Joules since the counter was found."""
        now, at = self._read(), time.monotonic()
        drawn = 0
        for new, old, range_uj in zip(now, self._last, self._ranges, strict=True):
            drawn += new - old if new >= old else new - old + range_uj
        self._last, self._sum_uj = now, self._sum_uj + drawn
        if at - self._at > 0.05:
            self._watts = (self._sum_uj - self._sum_then) / 1e6 / (at - self._at)
            self._at, self._sum_then = at, self._sum_uj
        return self._sum_uj / 1e6

    def watts(self) -> float | None:
        """Mean power between the last two readings."""
        return self._watts


def _number(place: Path) -> int:
    return int(place.read_text())
