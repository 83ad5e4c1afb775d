"""Threads: messages arrive in the window's thread, stale ones do not, and none is left behind."""

import sys
import threading

import pytest
from qtpy.QtCore import QThread

from napari_txm_bgcorr.gui.common import worker
from napari_txm_bgcorr.gui.common.messages import Preparing
from napari_txm_bgcorr.gui.common.worker import Runner


@pytest.fixture
def runner(qtbot):
    made = Runner()
    made.heard, made.ends = [], []
    made.message.connect(lambda m: made.heard.append((m.text, QThread.currentThread())))
    made.ended.connect(made.ends.append)
    yield made
    made.close()
    assert not worker.threads_at_work()


def test_messages_come_in_order_in_the_windows_thread(runner, qtbot):
    seen = []

    def task(stop, tell):
        seen.append(threading.get_ident())
        tell(Preparing("told"))
        for i in range(3):
            yield Preparing(str(i))

    runner.start(task)
    assert runner.running
    qtbot.waitUntil(lambda: runner.ends == [False])
    assert [text for text, _ in runner.heard] == ["told", "0", "1", "2"]
    assert {thread for _, thread in runner.heard} == {QThread.currentThread()}
    assert seen and seen[0] != threading.get_ident()
    assert not runner.running and not runner.busy


def test_a_newer_task_voids_the_older(runner, qtbot):
    go = threading.Event()

    def old(stop, tell):
        go.wait(10)
        yield Preparing("old")

    runner.start(old)
    runner.start(lambda stop, tell: iter([Preparing("new")]))
    go.set()
    qtbot.waitUntil(lambda: not runner.busy)
    assert [text for text, _ in runner.heard] == ["new"] and runner.ends == [False]


def test_cancel_is_seen_by_the_task_and_its_last_words_are_heard(runner, qtbot):
    def task(stop, tell):
        yield Preparing("begun")
        stop.wait(10)
        yield Preparing("stopped" if stop.is_set() else "timed out")

    runner.start(task)
    qtbot.waitUntil(lambda: len(runner.heard) == 1)
    runner.cancel()
    qtbot.waitUntil(lambda: not runner.busy)
    assert [text for text, _ in runner.heard] == ["begun", "stopped"]


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_a_fault_of_the_program_is_not_lost(runner, qtbot, kind):
    from napari.utils.notifications import notification_manager

    def task(stop, tell):
        yield Preparing("begun")
        raise kind("a fault")

    before = len(notification_manager.records)
    runner.start(task)
    qtbot.waitUntil(lambda: runner.ends == [True])
    (record,) = notification_manager.records[before:]
    assert record.message == "a fault"
    notification_manager.records.pop()


def test_close_waits_for_the_thread(runner):
    over = []

    def task(stop, tell):
        yield Preparing("begun")
        stop.wait(10)
        over.append(True)

    runner.start(task)
    runner.close()
    assert over == [True] and not runner.busy


def test_leaving_the_program_stops_what_is_left(qtbot):
    runner, over = Runner(), []

    def task(stop, tell):
        stop.wait(10)
        over.append(True)
        yield Preparing("void")

    runner.start(task)
    worker.wait_for_threads()
    assert over == [True] and not worker.threads_at_work()


def test_the_lock_changes_hands_faster_only_while_a_thread_works(runner, qtbot):
    usual, seen = sys.getswitchinterval(), []

    def task(stop, tell):
        seen.append(sys.getswitchinterval())
        yield Preparing("begun")
        raise ValueError

    runner.start(task)
    qtbot.waitUntil(lambda: runner.ends == [True])
    assert seen[0] < usual == sys.getswitchinterval()
