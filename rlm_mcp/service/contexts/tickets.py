"""One-time permissions to send a text, for a client that must not hold the server's token."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from rlm_mcp.errors import InvalidInputError, NotFoundError

TICKET_SECONDS = 900.0
MAX_OPEN_TICKETS = 1000


@dataclass(frozen=True)
class Ticket:
    """What a permission is for; `expires_at` is in seconds since the epoch."""

    caller: str
    name: str
    sha256: str
    expires_at: float

    @property
    def expires(self) -> str:
        """The time of expiry as ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.expires_at, UTC).isoformat(timespec="milliseconds")


class Tickets:
    """Open permissions by the digest of their secret.

    They are kept in memory alone: none outlives the server, and nobody finds one in a file.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._open: dict[bytes, Ticket] = {}

    def issue(self, caller: str, name: str, sha256: str) -> tuple[str, Ticket]:
        """Make a permission; returns its secret, of 256 random bits, and what it is for.

        Raises:
            InvalidInputError: the caller has too many that are not used.
        """
        self._drop_expired()
        held = sum(ticket.caller == caller for ticket in self._open.values())
        if held >= MAX_OPEN_TICKETS:
            raise InvalidInputError(
                f"There are {held:,} unused upload URLs, which is the limit.",
                fix="Use those; each expires 15 minutes after it was made.",
            )
        secret = secrets.token_urlsafe(32)
        ticket = Ticket(caller, name, sha256, self._clock() + TICKET_SECONDS)
        self._open[_digest(secret)] = ticket
        return secret, ticket

    def redeem(self, secret: str) -> Ticket:
        """Use a permission up, whatever becomes of the upload; of two who try at once one gets it.

        Raises:
            NotFoundError: it was used, has expired, or never was.
        """
        self._drop_expired()
        ticket = self._open.pop(_digest(secret), None)
        if ticket is None:
            raise NotFoundError(
                "This upload URL was used already, has expired, or never existed.",
                fix="Ask for a new one with rlm_context_upload_url.",
            )
        return ticket

    def _drop_expired(self) -> None:
        now = self._clock()
        for key in [key for key, ticket in self._open.items() if ticket.expires_at <= now]:
            del self._open[key]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
