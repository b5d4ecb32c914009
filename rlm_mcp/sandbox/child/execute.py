"""One cell: compile, run, describe errors. Runs in the REPL's process."""

from __future__ import annotations

import ast
import difflib
import inspect
import linecache
import re
import traceback
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, MappingProxyType
from typing import Any

from rlm_mcp.sandbox.child.search import Matches
from rlm_mcp.sandbox.child.values import NAME_CHARS, exact_text, type_name
from rlm_mcp.sandbox.child.written.awaits import AWAITABLE, TolerantAwaits, awaitable
from rlm_mcp.sandbox.child.written.imports import WithoutHelperImports

NO_HELPERS: Mapping[str, Any] = MappingProxyType({})
MESSAGE_CHARS = 4_000
TRACEBACK_CHARS = 16_000
_MOST_LINES = 1 << 31
_CELL_NAME = re.compile(r"<cell \d+>")


class CellEnd(BaseException):
    """Ends a cell whose answer is recorded. Not an `Exception`: `except Exception` skips it."""


@dataclass(frozen=True)
class Failure:
    """What a cell raised, as text. `line` is the line of the cell, if known."""

    type: str
    message: str
    traceback: str
    line: int | None


def run(
    code: str,
    number: int,
    namespace: dict[str, Any],
    echo: Callable[[object], object],
    helpers: Mapping[str, Any] = NO_HELPERS,
) -> None:
    """Run a cell in a namespace; echo the value of a final expression, as a notebook does.

    Raises:
        BaseException: whatever the cell raised.
    """
    name = f"<cell {number}>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    tree = ast.parse(code, name)
    if "await" in code:
        namespace[AWAITABLE] = awaitable
        tree = ast.fix_missing_locations(TolerantAwaits().visit(tree))
    if "import" in code:
        without = WithoutHelperImports(helpers, namespace)
        tree = ast.fix_missing_locations(without.visit(tree))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    parts: list[CodeType] = [compile(tree, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)]
    if isinstance(last, ast.Expr):
        shown = ast.Expression(last.value)
        parts.append(compile(shown, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    values = _evaluate(parts, namespace)
    value = values[-1] if isinstance(last, ast.Expr) else None
    if value is not None and not isinstance(value, Matches):
        namespace["_"] = value
        echo(value)


def _evaluate(parts: Sequence[CodeType], namespace: dict[str, Any]) -> list[Any]:
    """Run compiled parts of a cell in order; one that awaits at its top level runs in a loop."""
    if not any(part.co_flags & inspect.CO_COROUTINE for part in parts):
        return [eval(part, namespace) for part in parts]  # noqa: S307  # a REPL's purpose; the walls confine it

    import asyncio  # noqa: PLC0415  # few cells await

    async def main() -> list[Any]:
        values: list[Any] = []
        for part in parts:
            value = eval(part, namespace)  # noqa: S307  # likewise
            values.append(await value if inspect.iscoroutine(value) else value)
        return values

    return asyncio.run(main())


def failure(error: BaseException, names: Iterable[str]) -> Failure:
    """Describe what a cell raised: only frames of cells, type and message uncut and last."""
    try:
        report = traceback.TracebackException.from_exception(error)
        _drop_foreign_frames(report)
        message = _cut(_message(error), MESSAGE_CHARS)
        text = "".join(map(exact_text, report.format())).rstrip()
    except BaseException as broken:  # noqa: BLE001  # exceptions of model code may raise when formatted
        message = f"(its text cannot be shown: {type_name(broken)})"
        text = f"{type_name(error)}: {message}"
    hint = _hint(error, names)
    kind = type_name(error)
    if len(text) > TRACEBACK_CHARS:
        text = f"{_cut(text, TRACEBACK_CHARS)}\n{kind}: {message}"
    if "Did you mean" not in text:  # Python 3.12 and later say it themselves
        text += hint
    return Failure(kind, message + hint, text, _line(error))


def assigns_final(code: str) -> bool:
    """Return whether a cell assigns to the name `Final` anywhere, inside functions too."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(
        isinstance(node, ast.Name) and node.id == "Final" and isinstance(node.ctx, ast.Store)
        for node in ast.walk(tree)
    )


def sets_answer(code: str) -> bool:
    """Return whether a cell assigns the name `answer`, or an item of it."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    stored = [node for node in nodes if isinstance(getattr(node, "ctx", None), ast.Store)]
    targets = [node.value if isinstance(node, ast.Subscript) else node for node in stored]
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    targets += [func.value for func in called if isinstance(func, ast.Attribute)]
    return any(isinstance(target, ast.Name) and target.id == "answer" for target in targets)


def is_final_value(value: object) -> bool:
    """Return whether the value of `Final` is an answer, not `typing.Final`."""
    return value is not None and value is not typing.Final


def _drop_foreign_frames(report: traceback.TracebackException) -> None:
    pending, seen = [report], set[int]()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        frames = [frame for frame in current.stack if _CELL_NAME.fullmatch(frame.filename)]
        current.stack = traceback.StackSummary.from_list(frames)
        linked = (current.__cause__, current.__context__, *(current.exceptions or ()))
        pending.extend(other for other in linked if other is not None)


def _message(error: BaseException) -> str:
    return exact_text(str(error.msg if isinstance(error, SyntaxError) else error))


def _line(error: BaseException) -> int | None:
    if isinstance(error, SyntaxError):
        line = error.lineno  # model code may set anything
        return line if type(line) is int and 0 < line < _MOST_LINES else None
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _CELL_NAME.fullmatch(frame.f_code.co_filename)
    ]
    return lines[-1] if lines else None


def _hint(error: BaseException, names: Iterable[str]) -> str:
    missing = getattr(error, "name", None)
    if not isinstance(error, NameError) or not isinstance(missing, str):
        return ""
    missing = exact_text(missing)[:NAME_CHARS]
    alike = {name.casefold(): name for name in names}  # models write `Final` for `FINAL`
    close = difflib.get_close_matches(missing.casefold(), list(alike), n=1)
    return f". Did you mean: {alike[close[0]]!r}?" if close else ""


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… [{len(text) - 2 * half:,} characters cut] …\n{text[-half:]}"
