"""Server-sent events as providers send them: the bytes of a body into the JSON of its events.

Ours, since the parsers of client libraries give neither the end mark, without which a stream that
broke off looks whole, nor what is not JSON.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from rlm_mcp.errors import ModelReplyError

_DONE = ("[DONE]", "DONE")
_END_KINDS = frozenset({"done", "end", "close"})
# What some proxies send as an event so that a connection is not closed.
_SIGNS_OF_LIFE = frozenset({"ping", "heartbeat", "keep-alive", "keepalive", "keep alive", "null"})
_Decoder = codecs.getincrementaldecoder("utf-8-sig")  # a byte order mark may stand first


class Events(Protocol):
    """Turns the bytes of a body into what its events hold; see `EventStream`."""

    is_done: bool

    def feed(self, piece: bytes) -> Iterator[object]:
        """Return the JSON of each event that ends in this piece."""
        ...

    def end(self) -> Iterator[object]:
        """Return the JSON of an event that the end of the body cut short."""
        ...


class EventStream:
    """Turns the bytes of a body, in pieces of any size, into what its events hold.

    Lines may end with LF, CR or both (WHATWG HTML, 9.2.5). `is_done` says that the provider has
    sent its end mark, whatever may follow.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._decoder = _Decoder("replace")
        self._ended_with_cr = False
        self._begun: list[str] = []  # pieces of a line, which may be long
        self._data: list[str] = []
        self._kind = ""

    def feed(self, piece: bytes) -> Iterator[object]:
        """Return the JSON of each event that ends in this piece.

        Raises:
            ModelReplyError: an event is not JSON.
        """
        yield from self._feed_text(self._decoder.decode(piece))

    def end(self) -> Iterator[object]:
        """Return the JSON of an event that the end of the body cut short."""
        yield from self._feed_text(self._decoder.decode(b"", final=True) + "\n\n")

    def _feed_text(self, text: str) -> Iterator[object]:
        if not text:
            return
        if self._ended_with_cr:
            text = text.removeprefix("\n")
        self._ended_with_cr = text.endswith("\r")
        first, *others = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._begun.append(first)
        for other in others:
            line, self._begun = "".join(self._begun), [other]
            yield from self._line(line)

    def _line(self, line: str) -> Iterator[object]:
        line = line.lstrip(" \0")
        if line.startswith("data:"):
            self._data.append(line.removeprefix("data:").removeprefix(" "))
        elif line.startswith(("{", "[")) and not self._data and _is_json(line):
            yield from self._event("", line)  # of a server that sends JSON and no events
        elif line.startswith("error:"):  # as llama.cpp sent them
            self._kind = "error"
            self._data.append(line.removeprefix("error:"))
        elif line.startswith("event:"):
            self._kind = line.removeprefix("event:").strip()
        elif not line:
            lines, self._data = self._data, []
            kind, self._kind = self._kind, ""
            for event in _events_of(lines):
                yield from self._event(kind, event)

    def _event(self, kind: str, event: str) -> Iterator[object]:
        bare = event.strip().removeprefix("data:").strip()
        self.is_done = self.is_done or bare.upper().startswith(_DONE)
        if self.is_done or bare.lower() in _SIGNS_OF_LIFE:
            return
        chunk = _parsed(bare if event.lstrip().startswith("data:") else event)
        self.is_done = kind in _END_KINDS
        is_bare = kind == "error" and not (isinstance(chunk, dict) and "error" in chunk)
        yield {"error": chunk} if is_bare else chunk


def _events_of(lines: Sequence[str]) -> Sequence[str]:
    """Join the lines of an event; some servers leave out the empty line between two events."""
    joined = "\n".join(lines)
    if len(lines) < 2:
        return [joined] if joined.strip() else []
    try:
        json.loads(joined)
    except (ValueError, RecursionError):
        return [line for line in lines if line.strip()]
    return [joined]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(event: str) -> object:
    try:
        return cast("object", json.loads(event))
    except (ValueError, RecursionError) as error:
        raise ModelReplyError(f"The stream holds what is not JSON: {event[:200]!r}.") from error
