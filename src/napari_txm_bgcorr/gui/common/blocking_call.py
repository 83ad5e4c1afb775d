"""Run work that the caller waits for in a thread. Importing this module takes no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from qtpy.QtCore import QCoreApplication, QEventLoop, QThread

from .worker import Runner

__all__ = ["beside", "somebody_looks"]

Answer = TypeVar("Answer")


def somebody_looks() -> bool:
    """Return True if an event loop serves the window; in scripts False: layers come complete."""
    app, here = QCoreApplication.instance(), QThread.currentThread()
    if app is None or here is None or app.thread() is not here:
        return False
    return here.loopLevel() > 0


def beside(work: Callable[[], Answer]) -> Answer | None:
    """Run some work in a thread and wait; the window is repainted meanwhile, clicks are held back.

    Parameters
    ----------
    work : callable
        Touches no layer and no widget.

    Returns
    -------
    object
        Result of the work; None if it failed by a fault of the program (napari shows it).
    """
    if not somebody_looks():
        return work()
    runner, loop = Runner(), QEventLoop()
    answers: list[Answer] = []
    runner.message.connect(answers.append)
    runner.ended.connect(lambda broken: loop.quit())
    runner.start(lambda stop, tell: iter([work()]))
    loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
    runner.close()
    return answers[0] if answers else None
