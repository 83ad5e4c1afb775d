"""Work spread over threads, its results in order: the bits do not depend on their number."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import psutil
from threadpoolctl import threadpool_limits

__all__ = ["cpu_cores", "one_algebra_thread", "peak_rss_mb", "spread"]

MB = 1e6

AHEAD = 4  # items for each thread that may wait for whoever takes the results
Item = TypeVar("Item")
Result = TypeVar("Result")


def cpu_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_algebra_thread() -> threadpool_limits:
    """Context in which products of matrices take one thread.

    Their sums are made in another order with another number of threads, and results would differ
    in the last digits from machine to machine.
    """
    return threadpool_limits(1, user_api="blas")


def spread(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int = 1
) -> Iterator[Result]:
    """Results of `work` on each item, in order, computed by threads a few items ahead.

    Parameters
    ----------
    work : callable
        Safe to call from threads.
    items : iterable
    workers : int
        Threads; 1: none is started.

    Yields
    ------
    result of `work`
    """
    if workers <= 1:
        yield from map(work, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="spread") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in islice(rest, workers * AHEAD):
                waiting.append(pool.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
                for item in islice(rest, 1):
                    waiting.append(pool.submit(work, item))
        finally:
            for future in waiting:
                future.cancel()


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    peak_wset = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if peak_wset is not None:  # Windows
        return float(peak_wset) / MB
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MB if sys.platform == "darwin" else peak * 1024 / MB
