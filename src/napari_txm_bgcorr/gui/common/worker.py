"""Worker threads: run a task's generator and deliver its messages to the window's thread."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Iterator
from threading import Event, Lock
from typing import Any

from napari.utils.notifications import notification_manager
from qtpy.QtCore import QObject, Qt, QThread, Signal, Slot

from .messages import Tell

__all__ = ["Runner", "Task", "drop_when_gone", "threads_at_work", "wait_for_threads"]

CLOSE_WAIT_MS = 30_000

Task = Callable[[Event, Tell], Iterator[Any]]
"""`task(stop, tell)` yields messages until it is done or `stop` is set."""


class _ShortTurns:
    """While any thread of ours works, Python's lock changes hands ten times as often.

    napari's drawing asks for the lock many times in a row and would wait 5 ms for each.
    """

    TURN_S = 0.0005

    def __init__(self) -> None:
        self._lock, self._users, self._usual = Lock(), 0, 0.005

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self.TURN_S, self._usual))
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                sys.setswitchinterval(self._usual)


_short_turns = _ShortTurns()


class _Thread(QThread):
    """Runs one task.

    napari's own worker is not used: it loses every RuntimeError, and it changes the warning
    filters of the whole process, which two at a time leave changed for good.
    """

    told = Signal(int, object)
    broke = Signal(int, object)
    over = Signal(int)

    def __init__(self, task: Task, stop: Event, generation: int) -> None:
        super().__init__()
        self.stop = stop
        self._task, self._generation = task, generation

    def run(self) -> None:
        """Do the work, in the thread."""
        try:
            with _short_turns:
                for message in self._task(self.stop, self._tell):
                    self._tell(message)
        except Exception as error:  # noqa: BLE001 - a fault of ours, shown with its traceback
            self.broke.emit(self._generation, error)
        finally:
            del self._task  # with it goes the scan
            self.over.emit(self._generation)

    def _tell(self, message: Any) -> None:
        self.told.emit(self._generation, message)


# A thread object that is collected while it runs takes the whole program down: keep them all.
_alive: set[_Thread] = set()


def threads_at_work() -> int:
    """Count the plugin's threads, those of closed panels included."""
    _alive.difference_update([thread for thread in _alive if thread.isFinished()])
    return len(_alive)


@atexit.register
def wait_for_threads() -> None:
    """Stop every thread of the plugin and wait for its end."""
    for thread in list(_alive):
        thread.stop.set()
        thread.wait(CLOSE_WAIT_MS)
    _alive.clear()


class Runner(QObject):
    """One activity at a time; starting a newer one makes the older's messages void.

    Signals
    -------
    message : object
        A message of the running task, delivered in the thread of the window.
    ended : bool
        The task is over; True if it broke by a fault of the program (napari has shown it).
    """

    message = Signal(object)
    ended = Signal(bool)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._generation = 0
        self._stop = Event()
        self._threads: dict[int, _Thread] = {}
        self._broken = False

    @property
    def running(self) -> bool:
        """True while the newest task is at work."""
        return self._generation in self._threads

    @property
    def busy(self) -> bool:
        """True while any thread is at work, even one whose messages are discarded."""
        return bool(self._threads)

    def start(self, task: Task) -> None:
        """Run `task(stop, tell)` in a thread; what ran before is stopped and no longer heard."""
        self.drop()
        threads_at_work()  # forget those that ended when their panel was gone
        self._broken = False
        self._stop = Event()
        thread = _Thread(task, self._stop, self._generation)
        self._threads[self._generation] = thread
        _alive.add(thread)
        queued = Qt.ConnectionType.QueuedConnection
        for signal, slot in (
            (thread.told, self._deliver),
            (thread.broke, self._show_fault),
            (thread.over, self._end),
        ):
            # PyQt6 takes the type, its stub does not know of it
            signal.connect(slot, queued)  # type: ignore[call-arg]
        thread.start()

    def cancel(self) -> None:
        """Ask the running task to stop; it still tells what it has done."""
        self._stop.set()

    def drop(self) -> None:
        """Ask the running task to stop and hear no more of it."""
        self._stop.set()
        self._generation += 1

    def close(self) -> None:
        """Stop, and wait until no thread of this runner is at work."""
        self.drop()
        for thread in self._threads.values():
            thread.wait(CLOSE_WAIT_MS)
            _alive.discard(thread)
        self._threads.clear()

    @Slot(int, object)
    def _deliver(self, generation: int, message: Any) -> None:
        if generation == self._generation:
            self.message.emit(message)

    @Slot(int, object)
    def _show_fault(self, generation: int, error: Exception) -> None:
        self._broken = self._broken or generation == self._generation
        notification_manager.receive_error(type(error), error, error.__traceback__)

    @Slot(int)
    def _end(self, generation: int) -> None:
        thread = self._threads.pop(generation, None)
        if thread is not None:
            thread.wait()  # it has said its last word; only the system's part is left
            _alive.discard(thread)
        if generation == self._generation:
            self.ended.emit(self._broken)


def drop_when_gone(panel: QObject, *runners: Runner) -> None:
    """Stop the tasks of a panel that Qt deletes without closing it."""

    def drop() -> None:
        for runner in runners:
            runner.drop()

    panel.destroyed.connect(drop)
