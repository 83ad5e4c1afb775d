"""Tiles read once and kept until the last piece of work that needs them is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["TileCache"]

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class TileCache(Generic[Key, Value]):
    """Values by key, each loaded once and dropped after its last use; safe between threads.

    Parameters
    ----------
    load : callable
        ``load(key) -> value``; called outside of the lock, by the first that asks.
    uses : mapping
        How often each key will be asked for.
    """

    def __init__(self, load: Callable[[Key], Value], uses: Mapping[Key, int]) -> None:
        self._load = load
        self._left = dict(uses)
        self._kept: dict[Key, Future[Value]] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value:
        """Value of a key; waits where another thread is loading it."""
        with self._lock:
            found = self._kept.get(key)
            mine = found is None
            if found is None:
                found = self._kept[key] = Future()
        if mine:
            try:
                found.set_result(self._load(key))
            except BaseException as error:
                found.set_exception(error)
                raise
        return found.result()

    def done(self, key: Key) -> None:
        """One use is over; after the last the value is dropped."""
        with self._lock:
            self._left[key] -= 1
            if self._left[key] <= 0:
                self._kept.pop(key, None)

    def __len__(self) -> int:
        return len(self._kept)
