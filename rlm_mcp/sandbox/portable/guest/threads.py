"""Threads, executors and event loops where there is one thread alone.

A thread runs its target when it is started, an executor runs what is submitted at once. Calls of
`llm_query` itself that are submitted to an executor are gathered and go out as one batch. What
would wait for another thread for ever raises instead, and says what to do.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import sys
import threading
import time
import traceback
from asyncio import base_events
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from rlm_mcp.sandbox.child import calls
from rlm_mcp.sandbox.child.written.prompts import as_text

if TYPE_CHECKING:
    from rlm_mcp.sandbox.child.namespace import Namespace

NO_WAIT = (
    "this would wait for another thread for ever: threads run one after another here; use "
    "llm_query_batch to make many calls at once"
)


class _Calls:
    """The helpers that an executor recognises."""

    one: Callable[..., Any] | None = None
    many: Callable[..., list[Any]] | None = None


def run_calls_together(namespace: Namespace) -> None:
    """Let executors gather the calls of a REPL's `llm_query`."""
    _Calls.one = namespace.variables.get("llm_query")
    _Calls.many = namespace.variables.get("llm_query_batch")


def _gathered(fn: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[str, Any] | None:
    """Return prompt and model of a call of `llm_query` that can wait for others, else None."""
    if fn != _Calls.one or not 1 <= len(args) <= 2 or named.keys() - {"model"}:
        return None
    model = args[1] if len(args) == 2 else named.get("model")
    if model is not None and not isinstance(model, str):  # an error of its own
        return None
    (prompt,), model = calls.with_long_text([as_text(args[0])], model)
    return prompt, model


def _ask(asked: list[tuple[str, Any]]) -> list[Any]:
    """Make calls, those of one model as one batch; return the replies in order."""
    assert _Calls.many is not None  # noqa: S101  # only calls of `llm_query` are gathered
    replies: list[Any] = [None] * len(asked)
    for model in dict.fromkeys(model for _, model in asked):
        places = [place for place, (_, other) in enumerate(asked) if other == model]
        found = _Calls.many([asked[place][0] for place in places], model)
        for place, reply in zip(places, found, strict=True):
            replies[place] = reply
    return replies


class GatheringExecutor(concurrent.futures.Executor):
    """Runs what is submitted at once; calls of `llm_query` itself go out together."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._waiting: list[tuple[Future[Any], tuple[str, Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call now, or put it with those that go out together."""
        call = _gathered(fn, args, kwargs)
        if call is not None:
            gathered = _GatheredFuture(self)
            self._waiting.append((gathered, call))
            return gathered
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # as an executor does: it is told by `result`
            future.set_exception(error)
        return future

    def send_waiting(self) -> None:
        """Send the calls that were gathered, as one batch."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        for (future, _), reply in zip(waiting, _ask([each for _, each in waiting]), strict=True):
            if type(reply) is str:
                future.set_result(reply)
            else:  # it stands for a failed call and reads as the reason
                future.set_exception(RuntimeError(str(reply)))

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **_: Any,
    ) -> Iterator[Any]:
        """Run a function over items, in order."""
        del timeout, chunksize
        futures = [self.submit(fn, *args) for args in zip(*iterables, strict=False)]
        self.send_waiting()
        return (future.result() for future in futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Send what still waits."""
        del wait, cancel_futures
        self.send_waiting()


class _GatheredFuture(Future[Any]):
    """The answer of a call that goes out with others; asking for it sends them."""

    def __init__(self, executor: GatheringExecutor) -> None:
        super().__init__()
        self._executor = executor

    def result(self, timeout: float | None = None) -> Any:
        del timeout
        self._executor.send_waiting()
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        del timeout
        self._executor.send_waiting()
        return super().exception(0)

    def done(self) -> bool:
        self._executor.send_waiting()
        return super().done()


def _start(self: Any) -> None:
    """Stand in for `Thread.start`: run the target now."""
    if self._started.is_set():
        raise RuntimeError("threads can only be started once")
    self._started.set()
    try:
        self.run()
    except SystemExit:
        pass
    except Exception:  # noqa: BLE001  # as a thread does: printed, and no more
        print(f"Exception in thread {self.name}:\n{traceback.format_exc()}", file=sys.stderr)  # noqa: T201  # into the cell's output


def _join(_self: Any, timeout: float | None = None) -> None:
    """Stand in for `Thread.join`: it ran when it was started."""
    del timeout


def _is_alive(_self: Any) -> bool:
    """Stand in for `Thread.is_alive`: it ran when it was started."""
    return False


def _wait(_self: Any, timeout: float | None = None) -> bool:
    """Stand in for `Condition.wait`: nobody else can notify."""
    if timeout is None:
        raise RuntimeError(NO_WAIT)
    time.sleep(timeout)
    return False


def _as_completed(futures: Iterable[Future[Any]], timeout: float | None = None) -> Any:
    del timeout
    return iter([future for future in futures if future.done()])


class _Waited(NamedTuple):
    done: set[Future[Any]]
    not_done: set[Future[Any]]


def _wait_for(
    fs: Iterable[Future[Any]], timeout: float | None = None, return_when: str = "ALL_COMPLETED"
) -> Any:
    del timeout, return_when
    return _Waited({future for future in fs if future.done()}, set[Any]())


class _Selector:
    """Waits for time, and sends the calls that were gathered when nothing else is left to do."""

    def __init__(self) -> None:
        self.gathered: list[
            tuple[Any, tuple[str, Any]]
        ] = []  # futures of the loop, and their calls

    def select(self, timeout: float | None = None) -> list[Any]:
        if self.gathered and timeout != 0:
            self._send_gathered()
            return []
        if timeout is None:
            raise RuntimeError(NO_WAIT)
        if timeout > 0:
            time.sleep(timeout)
        return []

    def _send_gathered(self) -> None:
        waiting, self.gathered = self.gathered, []
        for (future, _), reply in zip(waiting, _ask([each for _, each in waiting]), strict=True):
            if future.cancelled():
                continue
            if type(reply) is str:
                future.set_result(reply)
            else:
                future.set_exception(RuntimeError(str(reply)))

    def close(self) -> None:
        pass


class TimerLoop(base_events.BaseEventLoop):
    """An event loop of timers and of what is ready."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Selector()

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """Run a function now, or gather a call of `llm_query`; `to_thread` comes here."""
        del executor
        future = self.create_future()
        called, given, named = _unwrapped(func, args)
        call = _gathered(called, given, named)
        if call is not None:
            self._selector.gathered.append((future, call))
            return future
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # it is told to whoever awaits
            future.set_exception(error)
        return future


def _unwrapped(function: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Look into the `partial(context.run, function, ...)` that `to_thread` makes."""
    is_partial = isinstance(function, functools.partial)
    made: Any = function
    if is_partial and made.args and made.func.__name__ == "run":
        return made.args[0], (*made.args[1:], *args), dict(made.keywords)
    return made, args, {}


def replace_threads() -> None:
    """Put all this in the place of what needs threads."""
    thread: Any = threading.Thread
    thread.start, thread.join, thread.is_alive = _start, _join, _is_alive
    condition: Any = threading.Condition
    condition.wait = _wait
    futures: Any = concurrent.futures
    futures.ThreadPoolExecutor = futures.thread.ThreadPoolExecutor = GatheringExecutor
    futures.ProcessPoolExecutor = GatheringExecutor
    futures.wait, futures.as_completed = _wait_for, _as_completed
    loops: Any = asyncio
    loops.new_event_loop = loops.events.new_event_loop = TimerLoop
    loops.SelectorEventLoop = loops.DefaultEventLoop = TimerLoop
