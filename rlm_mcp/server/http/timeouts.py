"""Connections with time limits for headers and for clients that read slowly; fast with bodies."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol

_TOO_LARGE = 431
_TOO_LARGE_TEXT = b"The headers of the request are larger than 64 KiB."
_TOO_LARGE_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_TOO_LARGE_TEXT), _TOO_LARGE_TEXT)
)


@dataclass(frozen=True)
class Patience:
    """Limits of waiting, in seconds.

    Args:
        headers: until a request's headers are whole.
        body: for a body, before it counts how fast it comes.
        body_bytes: how many bytes of a body must come in a second then.
        rest: for the rest of a body that is not wanted any more.
        reader: for a client that reads nothing of its answer.
        answers: for requests to be answered once the server stops.
    """

    headers: float = 15.0
    body: float = 30.0
    body_bytes: float = 1024.0
    rest: float = 2.0
    reader: float = 60.0
    answers: float = 2.0


def patient(patience: Patience) -> type[H11Protocol]:
    """Return the class of connections with these limits."""
    return type("Connection", (_Connection,), {"patience": patience})


class _Connection(H11Protocol):
    """uvicorn's own, with two timers that it lacks; its others end what is idle between requests.

    Bodies pass through it uncopied.

    Without the first, connections that send a byte of a header now and then are held for good,
    until no descriptor is left; without the second, those that ask and never read the answer are.
    """

    patience = Patience()
    _headers_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None
    _is_refused = False

    # uvicorn, too, takes the transport that asyncio's protocol declares more widely.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both timers."""
        super().connection_lost(exc)
        self._headers_timer = _stopped(self._headers_timer)
        self._reader_timer = _stopped(self._reader_timer)

    def data_received(self, data: bytes) -> None:
        """Take in what arrived; the timer runs until a request is complete."""
        if self._is_refused:  # the rest of it; see `send_400_response`
            return
        if not self._take_body(data):
            super().data_received(data)
            self._watch_headers()

    def pause_writing(self) -> None:
        """Start the timer for the client that does not read."""
        super().pause_writing()
        if self._reader_timer is None:
            self._reader_timer = self.loop.call_later(self.patience.reader, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer: the client reads again."""
        super().resume_writing()
        self._reader_timer = _stopped(self._reader_timer)

    def send_400_response(self, msg: str) -> None:
        """Refuse an invalid request: with 431 if its headers are too large.

        Many clients see no answer before they have sent all they have, and closing with unread data
        would reset the connection and lose the answer; so what still comes is discarded for a
        while.
        """
        error = sys.exception()
        self._is_refused = True
        if getattr(error, "error_status_hint", 400) != _TOO_LARGE:
            super().send_400_response(msg)
            return
        self._headers_timer = _stopped(self._headers_timer)
        self.transport.write(_TOO_LARGE_ANSWER)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(self.patience.rest, self.transport.close)

    def _take_body(self, data: bytes) -> bool:
        """Hand on bytes in the middle of a body of known length as they are.

        `h11` and uvicorn would copy them five times, under the interpreter's lock.
        """
        reader: Any = vars(self.conn).get("_reader")  # where it moved, h11 does all of it
        cycle = self.cycle
        left: int = getattr(reader, "_remaining", 0)
        # The end of a body, and what comes after an answer, is for h11, as is what it holds.
        if left <= len(data) or cycle.response_complete or self.conn.trailing_data[0]:
            return False
        if self.conn.they_are_waiting_for_100_continue:
            return False
        reader._remaining = left - len(data)
        body = cycle.body + data if cycle.body else data
        cycle.body = body  # pyright: ignore[reportAttributeAccessIssue]  # bytes are not copied
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()
        return True

    def _watch_headers(self) -> None:
        has_request = self.cycle is not None and not self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]  # None at first
        if has_request:
            self._headers_timer = _stopped(self._headers_timer)
        elif self._headers_timer is None and not self._is_refused:
            self._headers_timer = self.loop.call_later(self.patience.headers, self.transport.close)


def _stopped(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
