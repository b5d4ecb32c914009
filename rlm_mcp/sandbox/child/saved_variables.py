"""Small variables as an opaque blob that outlives a killed REPL. Runs in the REPL's process.

The host keeps the blob and never opens it: unpickling runs whatever the code that pickled it
wanted. Only a fresh, confined REPL of the same run does.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

MAX_VALUE_BYTES = 256 << 10
MAX_BLOB_BYTES = 1 << 20
_SCALARS = frozenset({float, bool, type(None)})
_LARGEST = 1 << 64  # of whole numbers that are kept without a look at their size
MAX_SHORT_CHARS = 1_000
PLAIN_BYTES = 100  # at most, of a name's and a value's pickle, their characters left out
CHAR_BYTES = 4


class _Full(Exception):  # noqa: N818  # not an error: the value is too large to keep
    pass


class _Bounded(io.RawIOBase):
    """Takes what pickle writes and stops it at a limit, so that no huge value is walked whole."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # any buffer
        part = bytes(data)
        self._left -= len(part)
        if self._left < 0:
            raise _Full
        self.parts.append(part)
        return len(part)


def pack(variables: Iterable[tuple[str, Any]]) -> bytes:
    """Pickle the variables that are small and can be pickled; the others are left out.

    Plain ones are pickled in one go. Each of the others has a pickle of its own, so that one that
    cannot be opened is no loss to the rest.
    """
    plain: dict[str, object] = {}
    kept: dict[str, bytes] = {}
    left = MAX_BLOB_BYTES
    for name, value in variables:
        if (size := _plain_bytes(name, value)) and size <= left:
            plain[name] = value
            left -= size
            continue
        try:
            packed = _packed(value, min(left, MAX_VALUE_BYTES))
        except Exception:  # noqa: BLE001, S112  # values of model code raise what they like
            continue
        kept[name] = packed
        left -= len(packed)
    return pickle.dumps((plain, kept), protocol=5) if plain or kept else b""


def unpack(blob: bytes) -> dict[str, Any]:
    """Give back what `pack` kept; a variable that cannot be read is left out."""
    if not blob:
        return {}
    variables: dict[str, Any]
    kept: dict[str, bytes]
    variables, kept = pickle.loads(blob)  # noqa: S301  # in a confined child alone
    for name, value in kept.items():
        try:
            variables[name] = pickle.loads(value)  # noqa: S301  # likewise
        except Exception:  # noqa: BLE001, S112  # its class may be gone
            continue
    return variables


def _plain_bytes(name: str, value: object) -> int:
    """Return what a plain value takes at most; 0 for any other, which needs a size check."""
    kind, size = type(value), PLAIN_BYTES + CHAR_BYTES * len(name)
    if isinstance(value, str) and kind is str and len(value) <= MAX_SHORT_CHARS:
        return size + CHAR_BYTES * len(value)
    is_small = isinstance(value, int) and kind is int and -_LARGEST < value < _LARGEST
    return size if is_small or kind in _SCALARS else 0


def _packed(value: object, limit: int) -> bytes:
    target = _Bounded(limit)
    pickle.Pickler(target, protocol=5).dump(value)
    return b"".join(target.parts)
