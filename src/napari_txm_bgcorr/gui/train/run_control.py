"""The run that the panel starts, watches and steers through its folder."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_txm_bgcorr.errors import DeviceError, TxmError
from napari_txm_bgcorr.gui.common.widgets import time_left
from napari_txm_bgcorr.gui.common.worker import Runner
from napari_txm_bgcorr.training.run import ACTIVE, RunFolder, RunStatus

from .messages import Complaint, Launched, RunNews
from .monitor_step import RunStep
from .process import RunProcess
from .session import TrainJob, job_arguments, resume_arguments
from .tasks import launch, start_run, watch_run
from .validation_layers import TileLayers

__all__ = ["RunControl", "describe"]

LIVE = (*ACTIVE, "stopping", "pausing")
Later = Callable[[Iterator[None]], None]


class RunControl(QObject):
    """Starts a run or attaches to one, shows its news, and writes its stop and pause requests.

    Parameters
    ----------
    view : RunStep
    tile : TileLayers
    later : callable
        Does the steps of an iterator, one per pass of the event loop.
    parent : QObject

    Signals
    -------
    changed : None
        The state, or what can be done with the run, is another.
    complained : TxmError
    """

    changed = Signal()
    complained = Signal(object)

    def __init__(self, view: RunStep, tile: TileLayers, later: Later, parent: QObject) -> None:
        super().__init__(parent)
        self.view, self.tile, self._later = view, tile, later
        self.run: Path | None = None
        self.state = "none"
        self.has_model = self.stop_when_closed = False
        self.status: RunStatus | None = None
        self._process: RunProcess | None = None
        self._arguments: list[str] = []
        self.watcher = Runner(self)
        self.watcher.message.connect(self._hear)
        self.watcher.ended.connect(self._watch_ended)

    @property
    def live(self) -> bool:
        """True while the run goes on, as far as is known."""
        return self.state in LIVE

    def start(self, job: TrainJob) -> None:
        """Start a new run."""
        self._begin(job.run, "starting")
        try:
            self._arguments = job_arguments(job)
        except TxmError as error:
            self._fail(error)
            return
        self.watcher.start(lambda stop, tell: start_run(job, stop))

    def attach(self, run: Path) -> None:
        """Watch a run from its first line on."""
        self._begin(run, "none")
        self.watcher.start(lambda stop, tell: watch_run(run, stop))

    def resume(self, device: str) -> None:
        """Let a paused run go on, or start an ended one's process again."""
        if self.run is None:
            return
        run = self.run
        if self.state == "paused":
            self._wish(lambda folder: folder.withdraw("pause"))
            return
        self._begin(run, "starting")
        self._arguments = resume_arguments(run, device)
        arguments = self._arguments
        self.watcher.start(lambda stop, tell: launch(run, arguments, stop))

    def pause(self) -> None:
        """Ask the run to wait after the current step."""
        if self.state == "running" and self._wish(_pause):
            self._become("pausing", "Pausing after the current step …")

    def stop(self) -> None:
        """Ask the run to end after the current step; one that has not begun is ended at once."""
        if self.live and self._wish(self._stop):
            self._become("stopping", "Stopping after the current step …")

    def close(self) -> None:
        """Watch no more; the run goes on, or stops if that was the answer."""
        if self.stop_when_closed and self.live and self.run is not None:
            with suppress(TxmError):  # there is no window left to say it in
                self._stop(RunFolder(self.run))
        self.watcher.close()

    def _stop(self, folder: RunFolder) -> None:
        if self._process is not None and self.status is None:
            self._process.end()  # a starting run removes an earlier stop request
        else:
            folder.ask("stop")

    def command(self, job: Callable[[], TrainJob]) -> str:
        """Command line of the run, or of the job that Start would begin."""
        arguments = self._arguments if self.live and self._arguments else job_arguments(job())
        words = ["txm-bgcorr", "train", *arguments]
        return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)

    def _wish(self, write: Callable[[RunFolder], None]) -> bool:
        if self.run is None:
            return False
        try:
            write(RunFolder(self.run))
        except (TxmError, OSError) as error:
            self.complained.emit(
                error if isinstance(error, TxmError)
                else DeviceError(f"{self.run}: {error.strerror}; check the permissions")
            )  # fmt: skip
            return False
        return True

    def _begin(self, run: Path, state: str) -> None:
        if run != self.run:
            self.tile.forget()
        self.run, self.status, self._process = run, None, None
        self.has_model = self.stop_when_closed = False
        self.view.clear()
        self._arguments = []
        self._become(state, f"Starting {run.name} …" if state == "starting" else str(run))

    def _become(self, state: str, words: str) -> None:
        self.state = state
        self.view.status_label.setText(words)
        self.view.status_label.setToolTip(f"{words}\n{self.run or ''}")
        self.changed.emit()

    # -- news ---------------------------------------------------------------------------------

    def _hear(self, message: Any) -> None:
        if isinstance(message, Launched):
            self._process = message.process
        elif isinstance(message, Complaint):
            self._fail(message.error)
        elif isinstance(message, RunNews):
            self._later(self._show(message))

    def _fail(self, error: TxmError) -> None:
        self._become("none", str(error))
        self.complained.emit(error)

    def _show(self, news: RunNews) -> Iterator[None]:
        if news.run != self.run:
            return
        if news.anew:
            self.view.loss_curves.clear()
            self.view.quality_curves.clear()
        self.status, self.has_model = news.status, news.model
        self.view.show_lines(news.lines, news.status)
        yield
        self._show_state(news)
        yield
        if news.preview and self.view.tile_box.isChecked():
            yield from self.tile.show(news.preview)

    def _show_state(self, news: RunNews) -> None:
        state = news.state
        if self.state == "stopping" and state in ACTIVE:
            state = "stopping"
        elif self.state == "pausing" and state == "running":
            state = "pausing"
        if self._process is not None and state == "none":
            state = "starting"
        begun = news.status is not None and news.status.step > 0
        self.view.show_progress(news.status, self.live and not begun)
        self._become(state, describe(state, news))

    def _watch_ended(self, broken: bool) -> None:
        """The process is over, or there is nothing more to watch."""
        self._later(self._settle())

    def _settle(self) -> Iterator[None]:
        process = self._process
        code = None if process is None else process.poll()
        if self.live and process is not None and code is not None:
            words = process.last_words() or f"ended with code {code}"
            state = "stopped" if self.state == "stopping" else "failed"
            self._become(state if self.status or state == "failed" else "none", words)
            self.view.show_progress(self.status)
        yield


def _pause(folder: RunFolder) -> None:
    """Pause a run and free its device: the weights are moved off it until the run resumes."""
    folder.ask("pause", free_device=True)


def describe(state: str, news: RunNews) -> str:
    """Describe the state of a run in one or two lines."""
    status, name = news.status, news.run.name
    if state == "none" or status is None:
        nothing = "starting …" if state == "starting" else "has said nothing yet"
        return f"{name}: {news.last_words or nothing}"
    at = f"step {status.step}{_error(status)}"
    where = f" on {status.host}" if status.host else ""
    after = f" after {time_left(status.elapsed_s)}"
    failure = status.error or status.reason or news.last_words
    words = {
        "starting": f"starting{where} …",
        "running": f"running{where}, {at}",
        "pausing": "pausing after this step …",
        "paused": f"paused, {at}",
        "stopping": "stopping after this step …",
        "stopped": f"stopped{after}, {at}",
        "finished": f"finished{after}, {at}",
        "failed": f"failed at step {status.step}: {failure}",
        "died": f"died{where} at step {status.step}; Resume goes on from its last checkpoint",
    }[state]
    warning = f"\n⚠ {status.warnings[-1]}" if status.warnings else ""
    return f"{name}: {words}{warning}"


def _error(status: RunStatus) -> str:
    """Validation error now, and that of the start."""
    if status.validation is None:
        return ""
    start = status.validation_start
    before = "" if start is None else f" (at the start {100 * start:.2f} %)"
    return f", error {100 * status.validation:.2f} %{before}"
