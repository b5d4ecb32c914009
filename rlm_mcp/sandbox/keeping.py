"""Small variables as an opaque blob that outlives a killed REPL. Runs in the REPL's process.

The host keeps the blob and never opens it: unpickling runs whatever the code that pickled it
wanted. Only a fresh, confined REPL of the same run does.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

from rlm_mcp.sandbox.values import size_of

MAX_VALUE_BYTES = 256 << 10
MAX_BLOB_BYTES = 1 << 20
_SCALARS = frozenset({float, bool, type(None)})
MAX_SHORT_CHARS = 1_000


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
    """Pickle the variables that are small and can be pickled; the others are left out."""
    kept: dict[str, bytes] = {}
    left = MAX_BLOB_BYTES
    for name, value in variables:
        try:
            packed = _packed(value, min(left, MAX_VALUE_BYTES))
        except Exception:  # noqa: BLE001, S112  # values of model code raise what they like
            continue
        kept[name] = packed
        left -= len(packed)
    return pickle.dumps(kept) if kept else b""


def unpack(blob: bytes) -> dict[str, Any]:
    """Give back what `pack` kept; a variable that cannot be read is left out."""
    variables: dict[str, Any] = {}
    kept: dict[str, bytes] = pickle.loads(blob) if blob else {}  # noqa: S301  # in a confined child alone
    for name, value in kept.items():
        try:
            variables[name] = pickle.loads(value)  # noqa: S301  # likewise
        except Exception:  # noqa: BLE001, S112  # its class may be gone
            continue
    return variables


def _packed(value: object, limit: int) -> bytes:
    kind = type(value)
    is_short = kind is str and size_of(value) <= MAX_SHORT_CHARS
    if limit > 4 * MAX_SHORT_CHARS + 100 and (is_short or kind in _SCALARS):
        return pickle.dumps(value, protocol=5)  # most values; nothing needs to be bounded
    target = _Bounded(limit)
    pickle.Pickler(target, protocol=5).dump(value)
    return b"".join(target.parts)
