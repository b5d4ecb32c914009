"""`await` and `asyncio` for values that need no waiting: helpers return their replies at once.

Models write `await asyncio.gather(*[llm_query(p) for p in prompts])`, as where sub-calls are
coroutines. Runs in the REPL's process.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from types import ModuleType
from typing import Any, cast

_SYNCHRONOUS = ("llm_query", "rlm_query")
AWAITABLE = "__awaitable__"  # what a cell calls it


def awaitable(value: Any) -> Awaitable[Any]:  # of model code
    """Return what can be awaited for a value: itself, or a coroutine that returns it."""
    kind = cast("type[object]", type(value))
    return value if hasattr(kind, "__await__") else _given(value)


async def _given(value: Any) -> Any:  # likewise
    return value


class TolerantAwaits(ast.NodeTransformer):
    """Removes `await` before calls of helpers, and lets any other value be awaited."""

    def visit_Await(self, node: ast.Await) -> ast.expr:  # noqa: D102  # the name that `ast` calls
        self.generic_visit(node)
        call = node.value
        called = call.func if isinstance(call, ast.Call) else None
        if isinstance(called, ast.Name) and called.id.startswith(_SYNCHRONOUS):
            return call
        name = ast.copy_location(ast.Name(AWAITABLE, ast.Load()), call)
        node.value = ast.copy_location(ast.Call(name, [call], []), call)
        return node


def loosen_asyncio(code: str) -> None:
    """Let `asyncio` take values in place of coroutines, where a cell speaks of it."""
    if "asyncio" not in code:
        return
    import asyncio  # noqa: PLC0415  # few cells use it

    if getattr(asyncio, "_is_loosened", False):
        return
    asyncio.__dict__["_is_loosened"] = True
    for name in ("create_task", "ensure_future", "wait_for", "shield"):
        setattr(asyncio, name, _taking_one(getattr(asyncio, name)))
    for name in ("as_completed", "wait"):
        setattr(asyncio, name, _taking_many(getattr(asyncio, name), asyncio))
    asyncio.gather = _gathering(asyncio.gather)  # pyright: ignore[reportAttributeAccessIssue]  # of other arguments
    asyncio.run = _running(asyncio.run)
    asyncio.get_event_loop = _finding(asyncio.get_event_loop)
    loop: Any = asyncio.BaseEventLoop
    loop.run_until_complete = _until_complete(loop.run_until_complete)
    loop.create_task = _until_complete(loop.create_task)


def _taking_one(function: Callable[..., Any]) -> Callable[..., Any]:
    def taking(value: Any, *values: Any, **named: Any) -> Any:  # of model code
        return function(awaitable(value), *values, **named)

    return taking


def _until_complete(method: Callable[..., Any]) -> Callable[..., Any]:
    def taking(loop: Any, value: Any, *values: Any, **named: Any) -> Any:  # likewise
        return method(loop, awaitable(value), *values, **named)

    return taking


def _taking_many(function: Callable[..., Any], asyncio: ModuleType) -> Callable[..., Any]:
    def taking(values: Iterable[Any], **named: Any) -> Any:  # likewise
        given = [asyncio.ensure_future(awaitable(value)) for value in values]
        return function(given, **named)

    return taking


def _gathering(gather: Callable[..., Any]) -> Callable[..., Any]:
    def gathering(*values: Any, **named: Any) -> Any:  # likewise
        if len(values) == 1 and isinstance(values[0], list | tuple):
            values = tuple(cast("Iterable[Any]", values[0]))
        return gather(*map(awaitable, values), **named)

    return gathering


def _running(run: Callable[..., Any]) -> Callable[..., Any]:
    def running(main: Any, **named: Any) -> Any:  # likewise
        import asyncio  # noqa: PLC0415  # as above

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return run(_coroutine(main), **named)
        return _in_thread(lambda: run(_coroutine(main), **named))

    return running


def _finding(find: Callable[[], Any]) -> Callable[[], Any]:
    """Return an event loop that is open, also behind `asyncio.run`, which leaves none."""

    def finding() -> Any:
        import asyncio  # noqa: PLC0415  # as above

        try:
            loop = find()
        except RuntimeError:
            loop = None
        if loop is None or loop.is_closed():
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
        return loop

    return finding


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def _coroutine(value: Any) -> Any:  # of model code
    """Return a coroutine, which alone `asyncio.run` takes."""
    return value if hasattr(value, "send") else _awaited(awaitable(value))


def _in_thread(function: Callable[[], Any]) -> Any:
    """Run a second event loop beside the one that awaits the cell."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001  # raised again where it was called
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _apply(*_: object) -> None:
    """What `nest_asyncio.apply` would do is done already."""


def offer_nest_asyncio(code: str) -> None:
    """Let `import nest_asyncio` succeed: a loop within a loop is run here as it is."""
    if "nest_asyncio" in code and "nest_asyncio" not in sys.modules:
        module = ModuleType("nest_asyncio")
        module.__dict__["apply"] = _apply
        sys.modules["nest_asyncio"] = module
