"""One-time permissions to send a text, for a client that must not hold the server's token.

A permission is signed, not kept: any server over the same data directory takes it, one that was
restarted too. What is kept is which were used.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from rlm_mcp.errors import InvalidInputError, NotFoundError, StoreError

if TYPE_CHECKING:
    from rlm_mcp.store.runs.leases import Leases

TICKET_SECONDS = 900.0
MAX_OPEN_TICKETS = 1000
KEY_NAME = "upload.key"
KEY_BYTES = 32


@dataclass(frozen=True)
class Ticket:
    """What a permission is for; `expires_at` is in seconds since the epoch."""

    caller: str
    name: str
    sha256: str
    expires_at: float
    nonce: str

    @property
    def expires(self) -> str:
        """The time of expiry as ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.expires_at, UTC).isoformat(timespec="milliseconds")


class Tickets:
    """Makes permissions, and takes each once in this process.

    Args:
        key: what they are signed with; None for one that nobody else has.
        clock: seconds since the epoch.
    """

    def __init__(self, key: bytes | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._key = key or secrets.token_bytes(KEY_BYTES)
        self._clock = clock
        self._unused: dict[str, Ticket] = {}
        self._used: dict[str, Ticket] = {}

    def issue(self, caller: str, name: str, sha256: str) -> tuple[str, Ticket]:
        """Make a permission; returns its secret, and what it is for.

        Raises:
            InvalidInputError: the caller has too many that are not used.
        """
        self._drop_expired()
        held = sum(ticket.caller == caller for ticket in self._unused.values())
        if held >= MAX_OPEN_TICKETS:
            raise InvalidInputError(
                f"There are {held:,} unused upload URLs, which is the limit.",
                fix="Use those; each expires 15 minutes after it was made.",
            )
        expires_at = self._clock() + TICKET_SECONDS
        ticket = Ticket(caller, name, sha256, expires_at, secrets.token_hex(16))
        self._unused[ticket.nonce] = ticket
        told = _encoded(json.dumps(astuple(ticket), separators=(",", ":")).encode())
        return f"{told}.{self._signature(told)}", ticket

    def redeem(self, secret: str) -> Ticket:
        """Use a permission up, whatever becomes of the upload; of two who try at once one gets it.

        Raises:
            NotFoundError: it was used, has expired, or never was.
        """
        self._drop_expired()
        told, _, signature = secret.partition(".")
        signed = signature.encode("utf-8", "replace")
        if not hmac.compare_digest(signed, self._signature(told).encode()):
            raise unusable()
        ticket = Ticket(*json.loads(_decoded(told)))
        if ticket.nonce in self._used or ticket.expires_at <= self._clock():
            raise unusable()
        self._unused.pop(ticket.nonce, None)
        self._used[ticket.nonce] = ticket
        return ticket

    def _signature(self, told: str) -> str:
        return _encoded(hmac.digest(self._key, told.encode("utf-8", "replace"), "sha256"))

    def _drop_expired(self) -> None:
        now = self._clock()
        for known in (self._unused, self._used):
            for nonce in [one.nonce for one in known.values() if one.expires_at <= now]:
                del known[nonce]


class SharedTickets:
    """Permissions of all servers over one data directory, each of which is taken once in all.

    Args:
        directory: keeps the key that they are signed with, from the first permission on.
        leases: keep which were used, until these would have expired.
    """

    def __init__(self, directory: Path, leases: Leases) -> None:
        self._directory = directory
        self._leases = leases
        self._opening = anyio.Lock()
        self._open: Tickets | None = None

    async def issue(self, caller: str, name: str, sha256: str) -> tuple[str, Ticket]:
        """Make a permission; see `Tickets.issue`.

        Raises:
            InvalidInputError: the caller has too many that are not used.
            StoreError: the key cannot be read or made.
        """
        return (await self._tickets()).issue(caller, name, sha256)

    async def redeem(self, secret: str) -> Ticket:
        """Use a permission up; see `Tickets.redeem`.

        Raises:
            NotFoundError: it was used here or at another server, has expired, or never was.
            StoreError: the key cannot be read, or the database could not be written.
        """
        ticket = (await self._tickets()).redeem(secret)
        if not await self._leases.take_once(f"upload {ticket.nonce}", ticket.expires_at):
            raise unusable()
        return ticket

    async def _tickets(self) -> Tickets:
        async with self._opening:
            if self._open is None:
                self._open = Tickets(await anyio.to_thread.run_sync(read_key, self._directory))
            return self._open


def unusable() -> NotFoundError:
    """Return the error for a permission that is not taken."""
    return NotFoundError(
        "This upload URL was used already, has expired, or never existed.",
        fix="Ask for a new one with rlm_context_upload_url.",
    )


def read_key(directory: Path) -> bytes:
    """Return the key of a data directory, made where there is none; blocks.

    Raises:
        StoreError: it cannot be read or made.
    """
    path = directory / KEY_NAME
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"The key of upload URLs, {KEY_NAME!r}, cannot be read or made: {error.strerror}.",
            fix="Let the server read and write its data directory.",
        ) from error
    if len(key) != KEY_BYTES:
        raise StoreError(
            f"The key of upload URLs, {KEY_NAME!r}, is damaged.",
            fix="Delete the file in the server's data directory; a new one is made.",
        )
    return key


def _make_key(path: Path) -> None:
    """Make a key, complete before others see it; of two servers that do so, one's key stays."""
    part = path.with_name(f"{KEY_NAME}.{secrets.token_hex(8)}")
    part.touch(mode=0o600, exist_ok=False)
    try:
        with part.open("wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
