"""Load, memory and power of the GPU over a while, as ``nvidia-smi`` reads them."""

from __future__ import annotations

import shutil
import subprocess
import threading
from types import TracebackType
from typing import Self

__all__ = ["GpuSampler"]

QUERY = "utilization.gpu,memory.used,power.draw"
EVERY_MS = 200


class GpuSampler:
    """Read the first GPU a few times a second inside a ``with`` block.

    Attributes
    ----------
    readings : list of (float, float, float)
        Share of time with a kernel on the GPU (%), memory used (MiB), power (W).
    """

    def __init__(self) -> None:
        self.readings: list[tuple[float, float, float]] = []
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if shutil.which("nvidia-smi") is None:
            return self
        command = [
            "nvidia-smi", "-i", "0", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits",
            "-lms", str(EVERY_MS),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def _read(self) -> None:
        lines = self._process.stdout if self._process is not None else None
        for line in lines or ():
            try:
                load, memory, watts = (float(part) for part in line.split(","))
            except ValueError:  # "[N/A]"
                continue
            self.readings.append((load, memory, watts))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None or self._thread is None:
            return
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def summary(self) -> dict[str, float] | None:
        """Mean load (%) and power (W), greatest memory (MiB); None where nothing was read."""
        if not self.readings:
            return None
        load, memory, watts = zip(*self.readings, strict=True)
        return {
            "load_percent": round(sum(load) / len(load), 1),
            "peak_memory_mib": max(memory),
            "mean_watts": round(sum(watts) / len(watts), 1),
        }
