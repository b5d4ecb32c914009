"""Server-sent events (WHATWG HTML, 9.2.6), as providers send the pieces of a reply."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import cast

from rlm_mcp.errors import ModelReplyError

DONE = "[DONE]"


class EventStream:
    """Turns the bytes of a body, in pieces of any size, into what its events hold.

    `is_done` says that the provider has said so, whatever may follow.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._begun: list[bytes] = []  # pieces of a line, which may be long
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[object]:
        """Give the JSON of each event that ends in this piece.

        Raises:
            ModelReplyError: an event is not JSON, or holds an error.
        """
        first, *others = piece.split(b"\n")
        self._begun.append(first)
        for other in others:
            line, self._begun = b"".join(self._begun), [other]
            yield from self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))

    def end(self) -> Iterator[object]:
        """Give the JSON of an event that the end of the body cut short."""
        for line in (b"".join(self._begun).decode("utf-8", "replace"), ""):
            yield from self._line(line)

    def _line(self, line: str) -> Iterator[object]:
        if line.startswith("data:"):
            self._data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and self._data:
            event, self._data = "\n".join(self._data), []
            self.is_done = self.is_done or event.startswith(DONE)
            if not self.is_done:
                yield _parsed(event)


def _parsed(event: str) -> object:
    try:
        chunk = json.loads(event)
    except (ValueError, RecursionError) as error:
        raise ModelReplyError(f"The stream holds what is not JSON: {event[:200]!r}.") from error
    if isinstance(chunk, Mapping):
        problem = cast("Mapping[str, object]", chunk).get("error")
        if problem:
            raise ModelReplyError(f"The stream holds an error: {json.dumps(problem)[:500]}.")
    return cast("object", chunk)
