"""Work in threads gives the results of a plain loop, in order, and runs ahead only so far."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from napari_txm_bgcorr.core.parallel import AHEAD, cpu_cores, one_algebra_thread, spread


@settings(deadline=None, max_examples=40)
@given(items=st.lists(st.integers(), max_size=40), workers=st.integers(0, 4))
def test_results_are_those_of_a_loop(items: list[int], workers: int) -> None:
    assert list(spread(lambda n: (n, n * n), items, workers)) == [(n, n * n) for n in items]


def test_order_holds_though_the_first_item_ends_last() -> None:
    later = threading.Event()

    def work(k: int) -> int:
        if k == 0:
            assert later.wait(30)
        if k == 3:
            later.set()
        return k

    assert list(spread(work, range(8), 2)) == list(range(8))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_more_is_taken_than_a_few_items_ahead(workers: int) -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for k in range(200):
            taken.append(k)
            yield k

    ahead = workers * AHEAD if workers > 1 else 0
    for number, result in enumerate(spread(lambda k: k, source(), workers), 1):
        assert result == number - 1
        assert len(taken) <= number + ahead
    assert len(taken) == 200


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_at_its_place_and_ends_the_work(workers: int) -> None:
    worked: list[int] = []

    def work(k: int) -> int:
        worked.append(k)
        if k == 5:
            raise ValueError("item five")
        return k

    got: list[int] = []
    with pytest.raises(ValueError, match="item five"):
        for result in spread(work, range(1000), workers):
            got.append(result)  # noqa: PERF402 - those before the error count
    assert got == [0, 1, 2, 3, 4]
    assert len(worked) <= 6 + 3 * AHEAD


def test_whoever_takes_no_more_ends_the_work_and_its_threads() -> None:
    worked: list[int] = []
    results = spread(lambda k: worked.append(k), range(10_000), 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(worked) <= 1 + 2 * AHEAD + 1
    assert not [t for t in threading.enumerate() if t.name.startswith("spread")]


def test_one_worker_is_the_calling_thread_and_waits_for_demand() -> None:
    where: list[str] = []
    results = spread(lambda k: where.append(threading.current_thread().name), range(3), 1)
    assert where == []
    next(results)
    assert where == [threading.current_thread().name]


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_cores() >= 1
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1, 5, 7}, raising=False)
    assert cpu_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cpu_cores() == 1


def test_products_take_one_thread_only_inside() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with one_algebra_thread():
        assert set(threads()) <= {1}
    assert threads() == before
