"""Cursors of lists, and errors for names that do not exist."""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Iterable

from rlm_mcp.errors import InvalidInputError, NotFoundError

MAX_PAGE = 1000
# How many of the newest names a mistyped one is compared with.
COMPARED = 1000
# The largest integer that SQLite holds.
LARGEST = (1 << 63) - 1


def encode_cursor(kind: str, row: int) -> str:
    """Make the cursor for what is older than `row` in the list named `kind`."""
    return base64.urlsafe_b64encode(f"{kind}:{row}".encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str | None) -> int:
    """Return the row before which a page starts; without a cursor, past every row.

    Raises:
        InvalidInputError: the cursor was not made by `encode_cursor` for this list.
    """
    if cursor is None:
        return LARGEST
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found, _, row = (
            base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition(":")
        )
        if found == kind and row.isascii() and row.isdigit() and int(row) <= LARGEST:
            return int(row)
    except (binascii.Error, ValueError):
        pass
    raise InvalidInputError(
        f"The cursor {cursor!r} is not one of this list.",
        fix="Pass the next_cursor of an earlier page, or none to begin at the start.",
    )


def check_limit(limit: int) -> int:
    """Return how many entries a page may have, at most 1,000.

    Raises:
        InvalidInputError: the limit is below 1.
    """
    if limit < 1:
        raise InvalidInputError(
            f"limit must be at least 1, not {limit!r}.", fix="Leave it out for the usual number."
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
            fix="Counting begins at 0; to read an end, begin so far before `total`.",
        )
    return min(value, LARGEST)


def not_found(noun: str, given: str, known: Iterable[str], tool: str) -> NotFoundError:
    """Make the error for a name that does not exist, with up to three near ones."""
    near = difflib.get_close_matches(given[:200], list(known), n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    return NotFoundError(
        f"There is no {noun} {given[:200]!r}.", fix=f"{hint}{tool} lists them all."
    )
