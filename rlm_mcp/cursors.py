"""Opaque cursors: where a list continues, as a text that clients pass back unchanged."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from rlm_mcp.errors import InvalidInputError


def encode_cursor(kind: str, *position: Any) -> str:
    """Make a cursor of a position in the list named `kind`; the position is JSON-like."""
    said = json.dumps([kind, *position], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(said).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str) -> list[Any]:
    """Return the position in a cursor that `encode_cursor` made for this list.

    Whoever calls checks the types of what comes back: a cursor is a client's.

    Raises:
        InvalidInputError: the cursor belongs to another list, or was never a cursor.
    """
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        match json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)):
            case [found, *position] if found == kind:
                return position
            case _:
                pass
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise invalid_cursor(cursor)


def invalid_cursor(cursor: str) -> InvalidInputError:
    """Make the error for a cursor that does not belong to the list it was sent to."""
    return InvalidInputError(
        f"The cursor {cursor[:100]!r} does not belong to this list.",
        fix="Pass the next_cursor of an earlier page unchanged, or none to begin at the start.",
    )
