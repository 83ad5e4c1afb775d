"""A training as a process of its own, which may outlive napari."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from napari_txm_bgcorr.errors import DeviceError, WriteError
from napari_txm_bgcorr.training.run import RunStatus

__all__ = ["CONSOLE", "RunProcess", "train_command"]

CONSOLE = "console.txt"
TAIL_BYTES = 8192
NAME = "txm-bgcorr: "

# Windows: no console flashes up, and closing napari's does not end the training.
FLAGS = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(
    subprocess, "CREATE_NEW_PROCESS_GROUP", 0
)
# A process that ends after its panel is gone must still be collected: keep them all.
_started: list[subprocess.Popen[bytes]] = []


def train_command(*arguments: str) -> list[str]:
    """Command line of ``txm-bgcorr train`` with this Python.

    Raises
    ------
    DeviceError
        If this program does not know its own Python.
    """
    if not sys.executable:
        raise DeviceError("Python: its program file is unknown; start the training by command")
    # -P: nothing in the current folder can stand in for a module
    return [sys.executable, "-P", "-m", "napari_txm_bgcorr.cli", "train", *arguments]


class RunProcess:
    """One started training.

    Parameters
    ----------
    run : Path
        Its folder, which takes what it says as ``console.txt``.
    arguments : sequence of str
        What follows ``txm-bgcorr train``.

    Raises
    ------
    WriteError
        If the folder cannot be made.
    DeviceError
        If the system starts no process.
    """

    def __init__(self, run: Path, arguments: Sequence[str]) -> None:
        self.run = run
        _started[:] = [each for each in _started if each.poll() is None]
        try:
            run.mkdir(parents=True, exist_ok=True)
            console = (run / CONSOLE).open("wb")
        except OSError as error:
            raise WriteError(
                f"{run}: cannot be written ({error.strerror}); choose another run folder"
            ) from error
        began = time.time()
        with console:
            try:
                self._process = subprocess.Popen(
                    train_command(*arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    creationflags=FLAGS,
                    start_new_session=os.name == "posix",
                    env=os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
                )
            except OSError as error:
                raise DeviceError(
                    f"{sys.executable}: cannot be started ({error.strerror}); "
                    "start the training by command"
                ) from error
        _started.append(self._process)
        self.pid = self._process.pid
        try:
            self._began = psutil.Process(self.pid).create_time()
        except psutil.Error:  # it is over already
            self._began = began

    def wrote(self, status: RunStatus | None) -> bool:
        """Return True if a status is from this process, or from the one that it has launched.

        In a virtual environment on Windows ``python.exe`` only launches the Python that trains,
        so the training has another number; it began later than its launcher, what an earlier
        process left behind began before.
        """
        if status is None:
            return False
        here = status.host == socket.gethostname() and status.process_started >= self._began
        return status.pid == self.pid or here

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float = 60) -> int:
        """Exit code, when it has ended."""
        return self._process.wait(seconds)

    def end(self) -> None:
        """End it at once: for a run that has not begun."""
        if self.poll() is None:
            self._process.terminate()

    def last_words(self) -> str:
        """Last line the process has said, without its name; empty if it said nothing."""
        try:
            with (self.run / CONSOLE).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = stream.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip()]
        own = [line.removeprefix(NAME) for line in said if line.startswith(NAME)]
        return (own or said or [""])[-1][:400]
