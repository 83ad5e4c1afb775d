"""Status file of a run, ``status.json``, and a test that the run is alive.

Needs neither torch nor a training: windows and other machines read it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from napari_txm_bgcorr.core import patiently, write_atomic
from napari_txm_bgcorr.errors import WriteError

__all__ = ["ACTIVE", "STATES", "Heartbeat", "RunStatus", "read_status"]

STATES = ("starting", "running", "paused", "stopped", "finished", "failed")
ACTIVE = ("starting", "running", "paused")
HEARTBEAT_S = 5.0
SILENCE = 12  # heartbeats that may fail to come from another machine: clocks and file systems lag


@dataclass(frozen=True)
class RunStatus:
    """The content of ``status.json``.

    Attributes
    ----------
    state : str
        One of `STATES`, as the run's process wrote it last.
    pid : int
        Process that trains (that of rank 0 where there are several).
    host : str
        Machine it runs on.
    process_started : float
        When that process began, Unix time in seconds: a later process with the same number
        is another one.
    heartbeat, heartbeat_s : float
        When the file was written (Unix time in seconds), and after how many seconds it is
        written again at the latest while the process lives.
    step, steps : int
        Steps done, and the most there will be.
    progress : float
        Share of the run done, 0 to 1, by steps or by the clock.
    elapsed_s : float
        Training time in seconds, earlier parts of a resumed run included, pauses not.
    left_s : float or None
        Training time left in seconds, if it goes on as so far.
    samples_per_s : float
        Tiles in a second, since the log line before.
    lr : float
        Learning rate.
    batch, micro_batch, processes : int
        Tiles in a step, tiles that are on a device at once, processes that share a step.
    device, device_name : str
        As torch calls it, and as its maker does.
    device_memory_gb, device_memory_total_gb : float or None
        Memory that the training holds there and all that is there, GiB (CPU: of the process).
    power_w : float or None
        Power drawn now by the device in watts; None: not measured.
    validation_start, validation, validation_best : float or None
        Mean scale-free validation error of the weights that the run started from, now, and
        the least so far (0.01 is 1 %).
    energy : dict
        As `training.energy.EnergyMeter.report` gives it.
    reason : str
        Why the run ended or waits, in words.
    error : str
        What made it fail.
    warnings : tuple of str
        What went wrong on the way and was dealt with, newest last.
    """

    state: str
    pid: int = 0
    host: str = ""
    process_started: float = 0.0
    heartbeat: float = 0.0
    heartbeat_s: float = HEARTBEAT_S
    step: int = 0
    steps: int = 0
    progress: float = 0.0
    elapsed_s: float = 0.0
    left_s: float | None = None
    samples_per_s: float = 0.0
    lr: float = 0.0
    batch: int = 0
    micro_batch: int = 0
    processes: int = 1
    device: str = ""
    device_name: str = ""
    device_memory_gb: float | None = None
    device_memory_total_gb: float | None = None
    power_w: float | None = None
    validation_start: float | None = None
    validation: float | None = None
    validation_best: float | None = None
    energy: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    error: str = ""
    warnings: tuple[str, ...] = ()

    def alive(self, now: float | None = None) -> bool:
        """Return True if the run's process is alive, as far as this machine can know.

        On the run's own machine the process is looked up; from another one the heartbeat
        must be younger than `SILENCE` intervals.
        """
        if self.state not in ACTIVE:
            return False
        if self.host == socket.gethostname():
            return _process_lives(self.pid, self.process_started)
        return (time.time() if now is None else now) - self.heartbeat < SILENCE * self.heartbeat_s

    def seen_state(self) -> str:
        """`state`, or ``died`` where the process is gone without having said how it ended."""
        return "died" if self.state in ACTIVE and not self.alive() else self.state


def _process_lives(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def read_status(path: Path) -> RunStatus | None:
    """Read a run's ``status.json``; None if there is none, or none that can be read.

    Parameters
    ----------
    path : Path
        The run's folder. Keys that this version does not know are left out.
    """
    try:
        place = Path(path) / "status.json"
        values = json.loads(patiently(lambda: place.read_text(encoding="utf-8"), 0.5))
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict) or values.get("state") not in STATES:
        return None
    known = {f.name for f in fields(RunStatus)}
    kept = {key: value for key, value in values.items() if key in known}
    return RunStatus(**kept | {"warnings": tuple(kept.get("warnings", ()))})


class Heartbeat:
    """Keeps ``status.json`` fresh: on every change of state, and at least every few seconds.

    A thread renews the file, so that a long validation or a pause does not look like a death.
    A failed write is tried again at the next heartbeat: a full disk must not end a run
    that only wants to tell how it is.

    Parameters
    ----------
    folder : Path
    interval_s : float
        Longest time between two writes in seconds.
    """

    def __init__(self, folder: Path, interval_s: float = HEARTBEAT_S) -> None:
        self._place = Path(folder) / "status.json"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._written = 0.0
        self._interval_s = interval_s
        self.status = RunStatus(
            "starting",
            os.getpid(),
            socket.gethostname(),
            psutil.Process().create_time(),
            heartbeat_s=interval_s,
        )
        self._write()
        self._thread = threading.Thread(target=self._beat, name="run heartbeat", daemon=True)
        self._thread.start()

    def update(self, state: str | None = None, **facts: Any) -> None:
        """Take new facts; they are written at once if the state changes, else within a second."""
        with self._lock:
            changed = state is not None and state != self.status.state
            self.status = replace(self.status, **facts, state=state or self.status.state)
        if changed or time.monotonic() - self._written > 1:
            self._write()

    def warn(self, sentence: str) -> None:
        """Add a warning; the newest ten are kept."""
        with self._lock:
            kept = (*self.status.warnings, sentence)[-10:]
            self.status = replace(self.status, warnings=kept)
        self._write()

    def close(self, state: str, **facts: Any) -> None:
        """Write the last word and end the thread."""
        self._ended.set()
        self._thread.join()
        with self._lock:
            self.status = replace(self.status, **facts, state=state)
        self._write()

    def _beat(self) -> None:
        while not self._ended.wait(self._interval_s / 2):
            if time.monotonic() - self._written > self._interval_s / 2:
                self._write()

    def _write(self) -> None:
        with self._lock:
            now = time.time()
            said = asdict(replace(self.status, heartbeat=now))
            said["time"] = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
            try:
                write_atomic(self._place, json.dumps(said, indent=1).encode(), durable=False)
            except WriteError:
                return
            self._written = time.monotonic()
