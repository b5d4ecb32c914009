"""Makes of lines that end with a carriage return alone ordinary ones. Pure."""

from __future__ import annotations

from typing import Any

# Text without any line feed in so much of its beginning has none.
LOOKED_AT_BYTES = 8192


def is_cr_only(data: bytes) -> bool:
    """Whether the lines of a text end with CR alone, judged by its beginning."""
    looked_at = data[:LOOKED_AT_BYTES]
    return b"\r" in looked_at and b"\n" not in looked_at


class LineEnds:
    """Passes on UTF-8, split anywhere; a text whose lines end with CR alone gets LF instead."""

    def __init__(self) -> None:
        self._is_decided = False
        self._is_cr = False
        self._held = b""

    @property
    def is_quick(self) -> bool:
        """Whether `feed` only passes on what it gets."""
        return self._is_decided and not self._is_cr

    @property
    def waiting(self) -> bytes:
        """What is held until the kind of line ends is known."""
        return self._held

    def state(self) -> list[Any]:
        """Return as JSON what `resume` continues from."""
        return [self._is_decided, self._is_cr, self._held.hex()]

    def resume(self, state: list[Any]) -> None:
        """Continue from a state."""
        self._is_decided, self._is_cr, held = state
        self._held = bytes.fromhex(held)

    def feed(self, data: bytes) -> bytes:
        """Take in more; return what can pass."""
        if self._is_decided:
            return self._converted(data)
        self._held += data
        if b"\n" not in self._held and len(self._held) < LOOKED_AT_BYTES:
            return b""
        return self.end()

    def end(self) -> bytes:
        """Return what was held until here."""
        held, self._held = self._held, b""
        if not self._is_decided:
            self._is_decided = True
            self._is_cr = is_cr_only(held)
        return self._converted(held)

    def _converted(self, data: bytes) -> bytes:
        return data.replace(b"\r", b"\n") if self._is_cr else data
