"""Small variables as an opaque blob that outlives a killed REPL. Runs in the REPL's process.

The host keeps the blob and never opens it: unpickling runs whatever code the pickle names. Only a
fresh, confined REPL of the same run opens it.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

from rlm_mcp.sandbox.child.values import is_foreign, size_of
from rlm_mcp.sandbox.wire import MAX_KEPT_BYTES

MAX_VALUE_BYTES = 256 << 10
# What is pickled in all, in vain too: this runs after each cell.
MAX_WORK_BYTES = 2 * MAX_KEPT_BYTES
_SCALARS = frozenset({float, bool, type(None)})
_LARGEST = 1 << 64  # larger whole numbers have their size checked
MAX_SHORT_CHARS = 1_000
PLAIN_BYTES = 100  # at most, of the pickle of a name and a value, without their characters
CHAR_BYTES = 4


class FullError(Exception):
    """There is no room for a value, which is not kept."""


class Bounded(io.RawIOBase):
    """Receives what pickle writes and stops it at a limit, so that it walks no huge value."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit
        self.written = 0
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        """Take what is written."""
        return True

    def write(self, data: Any, /) -> int:  # any buffer
        """Keep a part.

        Raises:
            FullError: it is too much.
        """
        part = bytes(data)
        self.written += len(part)
        if self.written > self._left:
            raise FullError
        self.parts.append(part)
        return len(part)


class _Pickler(pickle.Pickler):
    """Refuses objects of classes that a cell defined: their class is missing where it is opened."""

    def reducer_override(self, obj: Any) -> Any:  # any object that is not of a built-in type
        """Leave the others to pickle; called before any `__reduce__`."""
        kind: type[Any] = type(obj)  # pyright: ignore[reportUnknownVariableType]  # of any object
        if is_foreign(kind) or (issubclass(kind, type) and is_foreign(obj)):
            raise FullError
        return NotImplemented


def pack(variables: Iterable[tuple[str, Any]]) -> bytes:
    """Pickle the variables that are small and can be pickled; skip the others.

    Plain ones are pickled together. Each of the others has a pickle of its own, so that one that
    cannot be opened does not affect the rest. An interrupt ends it; what it has by then is kept.
    """
    plain: dict[str, object] = {}
    kept: dict[str, bytes] = {}
    room = _Room()
    try:
        for name, value in variables:
            size = _plain_bytes(name, value)
            if size and size <= room.left_bytes:
                plain[name] = value
                room.left_bytes -= size
            elif (packed := _packed(value, room)) is not None:
                kept[name] = packed
                room.left_bytes -= len(packed) + PLAIN_BYTES + CHAR_BYTES * len(name)
    except KeyboardInterrupt:
        pass
    return pickle.dumps((plain, kept), protocol=5) if plain or kept else b""


def unpack(blob: bytes) -> dict[str, Any]:
    """Return what `pack` kept; a variable that cannot be opened is left out.

    A blob that model code forged may hold anything.
    """
    if not blob:
        return {}
    variables: dict[str, Any]
    kept: dict[str, bytes]
    try:
        variables, kept = pickle.loads(blob)  # noqa: S301  # only in a confined child
        for name, value in kept.items():
            try:
                variables[name] = pickle.loads(value)  # noqa: S301  # likewise
            except Exception:  # noqa: BLE001, S112  # its class may not exist here
                continue
        return {name: value for name, value in variables.items() if type(name) is str}
    except Exception:  # noqa: BLE001  # forged
        return {}


class _Room:
    """The bytes that may still be kept, and those that may still be pickled."""

    def __init__(self) -> None:
        self.left_bytes = MAX_KEPT_BYTES - CHAR_BYTES * MAX_SHORT_CHARS
        self.left_work = MAX_WORK_BYTES


def _plain_bytes(name: str, value: object) -> int:
    """Return an upper bound of a plain value's size; 0 for any other, which is measured.

    `isinstance` comes second: it asks a value for its `__class__`, which may be model code.
    """
    kind, size = type(value), PLAIN_BYTES + CHAR_BYTES * len(name)
    if kind is str and isinstance(value, str) and len(value) <= MAX_SHORT_CHARS:
        return size + CHAR_BYTES * len(value)
    is_small = kind is int and isinstance(value, int) and -_LARGEST < value < _LARGEST
    return size if is_small or kind in _SCALARS else 0


def _packed(value: object, room: _Room) -> bytes | None:
    """Pickle a value; None if it is too large or cannot be pickled."""
    most = min(room.left_bytes, room.left_work, MAX_VALUE_BYTES)
    if is_foreign(type(value)) or size_of(value) > most:  # an item takes a byte at least
        return None
    target = Bounded(most)
    try:
        _Pickler(target, protocol=5).dump(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # values of model code raise what they like
        return None
    finally:
        room.left_work -= target.written
    return b"".join(target.parts)
