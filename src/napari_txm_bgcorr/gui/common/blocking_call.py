"""Work that somebody waits for, done beside the window. Importing this takes no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from qtpy.QtCore import QCoreApplication, QEventLoop, QThread

from .worker import Runner

__all__ = ["beside", "somebody_looks"]

Answer = TypeVar("Answer")


def somebody_looks() -> bool:
    """Whether an event loop serves the window: False in scripts, which want complete layers."""
    app, here = QCoreApplication.instance(), QThread.currentThread()
    return app is not None and app.thread() is here and here.loopLevel() > 0


def beside(work: Callable[[], Answer]) -> Answer | None:
    """Do some work beside the window, and wait: it is painted meanwhile, clicks wait as well.

    Parameters
    ----------
    work : callable
        Touches no layer and no widget.

    Returns
    -------
    object
        What the work returns; None if it broke by a fault of the program (napari shows it).
    """
    if not somebody_looks():
        return work()
    runner, loop = Runner(), QEventLoop()
    answers: list[Answer] = []
    runner.message.connect(answers.append)
    runner.ended.connect(lambda broken: loop.quit())
    runner.start(lambda stop, tell: iter([work()]))  # type: ignore[list-item]
    loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
    runner.close()
    return answers[0] if answers else None
