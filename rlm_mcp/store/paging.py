"""Cursors of lists, and errors for names that do not exist."""

from __future__ import annotations

from collections.abc import Iterable

from rlm_mcp.cursors import decode_cursor, invalid_cursor
from rlm_mcp.errors import InvalidInputError, NotFoundError
from rlm_mcp.text import nearest

MAX_PAGE = 1000
# How many of the newest names a mistyped one is compared with.
COMPARED = 1000
# The largest integer that SQLite holds.
LARGEST = (1 << 63) - 1


def row_before(kind: str, cursor: str | None) -> int:
    """Return the row before which a page starts; without a cursor, past every row.

    Raises:
        InvalidInputError: the cursor was not made for the list named `kind`.
    """
    if cursor is None:
        return LARGEST
    match decode_cursor(kind, cursor):
        case [int() as row] if 0 <= row <= LARGEST:
            return row
        case _:
            raise invalid_cursor(cursor)


def check_limit(limit: int) -> int:
    """Return how many entries a page may have, at most 1,000.

    Raises:
        InvalidInputError: the limit is below 1.
    """
    if limit < 1:
        raise InvalidInputError(
            f"limit must be at least 1, not {limit!r}.", fix="Leave it out for the default."
        )
    return min(limit, MAX_PAGE)


def check_offset(name: str, value: int) -> int:
    """Return an offset, no larger than SQLite can hold.

    Raises:
        InvalidInputError: it is negative; the error calls it `name`.
    """
    if value < 0:
        raise InvalidInputError(
            f"{name} must not be negative, not {value!r}.",
            fix="Offsets start at 0; to read the end, start that far before `total`."
            if name == "start"
            else "Leave it out to begin at the start.",
        )
    return min(value, LARGEST)


def not_found(noun: str, given: str, known: Iterable[str], tool: str) -> NotFoundError:
    """Return the error for an unknown name, with up to three similar ones."""
    near = nearest(given, known, 3)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    return NotFoundError(
        f"There is no {noun} {given[:200]!r}.", fix=f"{hint}{tool} lists them all."
    )
