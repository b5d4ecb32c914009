"""`multiprocessing.Pool` and `ThreadPool` on threads alone. Runs in the REPL's process.

Python's own make a semaphore of the system and further processes, which the walls refuse, and
model code uses them for nothing but calls that wait.
"""

from __future__ import annotations

import concurrent.futures
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Self

DEFAULT_THREADS = 8


class Result:
    """What an asynchronous call returns."""

    def __init__(self, futures: list[Future[Any]], *, is_one: bool) -> None:
        self._futures = futures
        self._is_one = is_one

    def get(self, timeout: float | None = None) -> Any:  # of model code
        """Wait for the value; a call that failed raises here."""
        values = [future.result(timeout) for future in self._futures]
        return values[0] if self._is_one else values

    def ready(self) -> bool:
        """Return whether all calls have ended."""
        return all(future.done() for future in self._futures)


class Pool:
    """Calls functions in threads, as the pools of `multiprocessing` do."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        # By its module, where the portable sandbox puts an executor of its own.
        self._threads = concurrent.futures.ThreadPoolExecutor(
            processes or DEFAULT_THREADS, initializer=initializer, initargs=tuple(initargs)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        """Call a function once."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None
    ) -> Result:
        """Start one call."""
        return Result([self._threads.submit(func, *args, **(kwds or {}))], is_one=True)

    def map(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Call a function with each item; the values are in the order of the items."""
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], _chunksize: int | None = None
    ) -> Result:
        """Start a call with each item."""
        return Result([self._threads.submit(func, item) for item in iterable], is_one=False)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        _chunksize: int | None = None,
    ) -> list[Any]:
        """Call a function with the items of each item."""
        started = [self._threads.submit(func, *items) for items in iterable]
        return Result(started, is_one=False).get()

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], _chunksize: int = 1
    ) -> Iterator[Any]:
        """Call a function with each item, and yield the values in order."""
        started = [self._threads.submit(func, item) for item in iterable]
        return (future.result() for future in started)

    imap_unordered = imap

    def close(self) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait=False)

    def terminate(self) -> None:
        """Drop the calls that have not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for all calls."""
        self._threads.shutdown(wait=True)


class ProcessExecutor(concurrent.futures.Executor):
    """`ProcessPoolExecutor` on threads."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        del mp_context, max_tasks_per_child  # of processes
        self._threads = concurrent.futures.ThreadPoolExecutor(
            max_workers or DEFAULT_THREADS, initializer=initializer, initargs=tuple(initargs)
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start one call."""
        return self._threads.submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """Call a function with items, and yield the values in order."""
        return self._threads.map(fn, *iterables, timeout=timeout, chunksize=chunksize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)


class Process(threading.Thread):
    """A thread with what is asked of a process."""

    @property
    def exitcode(self) -> int | None:
        """0 once it has ended."""
        return None if self.is_alive() else 0

    def terminate(self) -> None:
        """A thread ends by itself, or with its cell."""

    kill = close = terminate


_POOLS: Mapping[str, Mapping[str, object]] = {
    "multiprocessing": {
        "Pool": Pool,
        "Process": Process,
        "Queue": queue.Queue,
        "JoinableQueue": queue.Queue,
        "SimpleQueue": queue.SimpleQueue,
        "Lock": threading.Lock,
        "RLock": threading.RLock,
        "Event": threading.Event,
        "Semaphore": threading.Semaphore,
    },
    "multiprocessing.dummy": {"Pool": Pool},
    "multiprocessing.pool": {"Pool": Pool, "ThreadPool": Pool},
}


def replace_pools(code: str) -> None:
    """Put pools on threads in place where a cell speaks of those on processes."""
    if "ProcessPoolExecutor" in code:
        concurrent.futures.ProcessPoolExecutor = ProcessExecutor  # pyright: ignore[reportAttributeAccessIssue]  # of other arguments
    if "multiprocessing" not in code:
        return
    for name, replaced in _POOLS.items():
        __import__(name)
        for each, ours in replaced.items():
            setattr(sys.modules[name], each, ours)
