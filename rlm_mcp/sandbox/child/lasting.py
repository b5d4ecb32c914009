"""Variables as they are kept for a later question. Runs in the REPL's process.

A value is pickled; a function or class of a cell is kept as its source, a module as its import.
What two variables share, they share afterwards too. The host keeps what comes out and never opens
it: only a confined REPL does.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import io
import linecache
import marshal
import pickle
import re
import sys
import textwrap
import types
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from rlm_mcp.sandbox.child.saved_variables import Bounded, FullError
from rlm_mcp.sandbox.child.values import is_foreign, size_of, type_name

# No pickle begins so.
SOURCE = b"source\0"
# Likewise; source, and what was put into the class or function since.
_STATED = b"stated\0"
_OPENED = "<cell {number}>"
_CELL = re.compile(r"<cell \d+>")
_FIRST_OPENED = 1_000_000_000  # numbers of cells that no run reaches
# What is opened may need what comes after it, such as the value of a default argument.
_PASSES = 20
_SCALARS = (str, bytes, int, float, bool, type(None))
# Whether two variables share one of these makes no difference, or pickle sees to it.
_UNSHARED = (*_SCALARS, tuple, frozenset, range, type, types.ModuleType, types.FunctionType)
_STATE = (*_SCALARS, list, dict, set, tuple, frozenset, Counter, defaultdict)
_MAX_SUBMODULES = 50
_FAILED_BYTES = 1 << 10  # what a value counts at least that was pickled in vain
_UNPICKLABLE = re.compile(r"cannot pickle '([\w.]+)' object")
_CachedFunction = type(functools.lru_cache(len))


class Lasting(NamedTuple):
    """A name with what it is kept as; without that, the reason why it is lost."""

    name: str
    payload: bytes = b""
    reason: str = ""


def keep(
    variables: dict[str, Any], names: Iterable[str], context: object, bounds: tuple[int, int]
) -> Iterator[Lasting]:
    """Yield what names are kept as: modules first, then code, then values.

    Args:
        variables: of the REPL.
        names: which of them.
        context: the text; a further name of it is kept as that.
        bounds: bytes of each value, and of all, which also bounds what is pickled in vain.
    """
    most, room = bounds
    wasted = 0
    shared = {id(context): "context"}
    ordered = sorted(names, key=lambda name: _order(variables[name]))
    for name in ordered:
        value, left = variables[name], min(most, room, bounds[1] - wasted)
        # An item takes a byte at least.
        if value is not context and size_of(value) > left:
            yield Lasting(name, reason=_too_large(left, most))
            continue
        target = Bounded(left)
        one = _kept(name, value, shared, target, (left, most))
        if one.payload and not issubclass(type(value), _UNSHARED):
            shared.setdefault(id(value), name)
        room -= len(one.payload)
        wasted += 0 if one.payload else target.written + _FAILED_BYTES
        yield one


def _too_large(left: int, most: int) -> str:
    return f"{'it is' if left == most else 'all variables together are'} larger than is kept"


def open_kept(payloads: Iterable[tuple[str, bytes]], variables: dict[str, Any]) -> list[str]:
    """Put back what was kept, in order; return the names that could be opened."""
    closed = list(enumerate(payloads, _FIRST_OPENED))
    opened: list[str] = []
    for _ in range(_PASSES):
        failed: list[tuple[int, tuple[str, bytes]]] = []
        for number, one in closed:
            if _open(number, one, variables, opened):
                opened.append(one[0])
            else:
                failed.append((number, one))
        if len(failed) in (0, len(closed)):
            break
        closed = failed
    return opened


def _open(
    number: int, kept: tuple[str, bytes], variables: dict[str, Any], opened: list[str]
) -> bool:
    name, payload = kept
    try:
        if payload.startswith(SOURCE):
            _run(payload[len(SOURCE) :].decode(), number, variables)
        elif payload.startswith(_STATED):
            source, state = pickle.loads(payload[len(_STATED) :])  # noqa: S301  # only in a confined child
            _run(source, number, variables)
            for key, value in pickle.loads(state).items():  # noqa: S301  # likewise
                setattr(variables[name], key, value)
        else:
            variables[name] = _Unpickler(payload, variables, opened).load()
    except Exception:  # noqa: BLE001  # what it needs may not exist here
        return False
    return True


def _order(value: object) -> int:
    kind = type(value)
    if issubclass(kind, types.ModuleType):
        return 0
    return 1 if issubclass(kind, type | types.FunctionType) else 2


def _kept(
    name: str, value: Any, shared: Mapping[int, str], target: Bounded, bounds: tuple[int, int]
) -> Lasting:
    most, limit = bounds
    try:
        if shared.get(id(value)) == "context":
            return Lasting(name, SOURCE + f"{name} = context".encode())
        try:
            source = _source(name, value)
        except _NoSourceError:
            if type(value) is not types.FunctionType or value.__closure__:
                raise
            source = None
        if source is not None:
            return Lasting(name, _with_state(value, source, most))
        _Pickler(target, value, shared).dump(value)
        return Lasting(name, b"".join(target.parts))
    except FullError:
        return Lasting(name, reason=_too_large(most, limit))
    except _NoSourceError as error:
        return Lasting(name, reason=str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # values of model code raise what they like
        return Lasting(name, reason=_unpicklable(value, error))


def _unpicklable(value: object, error: BaseException) -> str:
    said = error.args[0] if type(error) in (TypeError, pickle.PicklingError) and error.args else ""
    found = _UNPICKLABLE.search(said) if type(said) is str else None
    inner = found[1] if found is not None else ""
    is_within = inner.rpartition(".")[2] not in ("", type_name(value))
    within = f" that holds one of type {inner}" if is_within else ""
    return f"a value of type {type_name(value)}{within} cannot be kept"


def _with_state(value: Any, source: str, most: int) -> bytes:
    """Return source, with the plain values among what was put into the class or function."""
    plain = SOURCE + source.encode()
    if type(value) not in (type, types.FunctionType):
        return plain
    attributes = cast("Mapping[str, Any]", vars(value))
    state = {
        key: one
        for key, one in attributes.items()
        if not key.startswith("__") and type(one) in _STATE
    }
    if not state:
        return plain
    target = Bounded(most)
    try:
        _Pickler(target, value, {}).dump(state)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # likewise: the source is worth more than nothing
        return plain
    return _STATED + pickle.dumps((source, b"".join(target.parts)), protocol=5)


class _Pickler(pickle.Pickler):
    """Keeps what other variables hold by their names, and functions within values by their code.

    Args:
        target: is written to.
        whole: what is pickled.
        shared: the names of the variables that hold other objects, by their identity.
    """

    def __init__(self, target: Bounded, whole: object, shared: Mapping[int, str]) -> None:
        super().__init__(cast("Any", target), protocol=5)
        self._whole = whole
        self._shared = shared

    def persistent_id(self, obj: Any) -> str | None:  # any object
        """Return the name of the variable that holds an object, if one does."""
        return self._shared.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:  # any object that is not of a built-in type
        """Leave to pickle what is known by name or cannot be made again."""
        if type(obj) is not types.FunctionType or obj.__module__ != "__main__" or obj.__closure__:
            return NotImplemented
        is_named = getattr(sys.modules.get("__main__"), obj.__qualname__, None) is obj
        if is_named and obj is not self._whole:
            return NotImplemented
        code = importlib.util.MAGIC_NUMBER + marshal.dumps(obj.__code__)
        return function_of, (code, obj.__name__, obj.__defaults__, obj.__kwdefaults__)


class _Unpickler(pickle.Unpickler):
    """Opens what `_Pickler` wrote."""

    def __init__(self, payload: bytes, variables: dict[str, Any], opened: list[str]) -> None:
        super().__init__(io.BytesIO(payload))
        self._variables = variables
        self._opened = opened

    def persistent_load(self, pid: Any) -> Any:  # any object
        """Return what a variable holds.

        Raises:
            UnpicklingError: it is not opened yet.
        """
        if pid != "context" and pid not in self._opened:
            raise pickle.UnpicklingError(pid)
        return self._variables[pid]


def function_of(
    code: bytes, name: str, defaults: tuple[Any, ...] | None, by_name: dict[str, Any] | None
) -> types.FunctionType:
    """Make a function again. What was kept names this function: it stays here, by this name.

    Raises:
        ValueError: another version of Python wrote it.
    """
    magic = importlib.util.MAGIC_NUMBER
    if not code.startswith(magic):
        raise ValueError("code of another version of Python")
    body = marshal.loads(code[len(magic) :])  # noqa: S302  # only in a confined child
    made = types.FunctionType(body, vars(sys.modules["__main__"]), name, defaults)
    made.__kwdefaults__ = by_name
    return made


class _NoSourceError(Exception):
    """Why code has no source that makes it again."""


def _source(name: str, value: Any) -> str | None:
    """Return code that makes a module, or a function or class of a cell, again; None for others."""
    if isinstance(value, types.ModuleType):
        return _imports(name, value.__name__)
    if isinstance(value, types.FunctionType | _CachedFunction) and value.__module__ == "__main__":
        inner: Any = inspect.unwrap(cast("Any", value))
        if isinstance(inner, types.FunctionType) and inner.__closure__:
            raise _NoSourceError("a function that uses variables of another function")
        return _definition(name, inner)
    if isinstance(value, type) and is_foreign(value):
        try:
            return _definition(name, value)
        except _NoSourceError:
            if code := _named_tuple(name, value):
                return code
            raise
    return None


def _imports(name: str, module: str) -> str:
    """Import a module, with those within it that were imported: `urllib` alone has no `parse`."""
    within = [
        one
        for one in list(sys.modules)
        if one.startswith(f"{module}.") and not any(part[:1] == "_" for part in one.split("."))
    ]
    lines = [f"__import__({one!r})" for one in within[:_MAX_SUBMODULES]]
    return "\n".join([f"import {module} as {name}", *lines])


def _definition(name: str, value: Any) -> str:
    try:
        source = _class_source(value) if isinstance(value, type) else inspect.getsource(value)
        source = textwrap.dedent(source)
        statements = ast.parse(source).body
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError):
        raise _NoSourceError("code whose source is not known") from None
    match statements:
        case [ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() as one]:
            return source if one.name == name else f"{source}\n{name} = {one.name}"
        case [ast.Assign(targets=[ast.Name(id=target)], value=ast.Lambda())] if target == name:
            return source
        case _:
            raise _NoSourceError("code whose source is not known")


def _class_source(value: type) -> str:
    """Return the source of a class from the latest cell that defines it at its top level.

    `inspect` looks for a class in a file of its module, and a REPL has none.
    """
    cells = [name for name in list(linecache.cache) if _CELL.fullmatch(name)]
    for cell in sorted(cells, key=lambda name: int(name[6:-1]), reverse=True):
        source = "".join(linecache.getlines(cell))
        for node in reversed(_statements(source)):
            if isinstance(node, ast.ClassDef) and node.name == value.__name__:
                first = min((one.lineno for one in node.decorator_list), default=node.lineno)
                lines = source.splitlines(keepends=True)[first - 1 : node.end_lineno]
                return "".join(lines)
    raise OSError(value.__name__)


def _named_tuple(name: str, value: Any) -> str:
    """Return code that makes a class of `collections.namedtuple` again; empty for other classes."""
    fields: Any = getattr(value, "_fields", None)
    defaults: dict[str, Any] = getattr(value, "_field_defaults", {})
    is_plain = all(type(one) in _SCALARS for one in defaults.values())
    if value.__bases__ != (tuple,) or not fields or not is_plain:
        return ""
    given = f"{value.__name__!r}, {list(fields)!r}, defaults={list(defaults.values())!r}"
    return f"{name} = __import__('collections').namedtuple({given})"


def _statements(source: str) -> list[ast.stmt]:
    """Return the statements of a cell; none where it does not parse."""
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _run(source: str, number: int, variables: dict[str, Any]) -> None:
    # Under the name of a cell, so that its source is known the next time too.
    name = _OPENED.format(number=number)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), variables)  # noqa: S102  # likewise
