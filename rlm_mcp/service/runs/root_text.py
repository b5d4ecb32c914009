"""What a root model writes at this moment, for whoever looks on; the log has it once it is whole.

Only a run that somebody watches has such a text, and asks its model to stream: pieces cost time.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

GATHER_SECONDS = 0.2  # pieces that come within this time are told as one


@dataclass(frozen=True)
class RootPiece:
    """A piece of what a turn's reply holds so far: `text` stands `at` this character of it.

    What a watcher had after that place is no longer so: the model began anew.
    """

    turn: int
    at: int
    text: str


class RootText:
    """What the root model of one run has written in this turn."""

    def __init__(self) -> None:
        self.turn = 0
        self.news = anyio.Event()
        self.begun = 0  # how often a text began
        self.watchers = 0
        self._pieces: list[str] = []

    def begin(self, turn: int) -> None:
        """Forget what was written: the log has it, or a turn begins."""
        self.turn = turn
        self._clear()

    async def add(self, piece: str) -> None:
        """Take a piece in; an empty one says that the model begins anew."""
        if piece:
            self._pieces.append(piece)
        else:
            self._clear()
        news, self.news = self.news, anyio.Event()
        news.set()

    @property
    def text(self) -> str:
        """What was written so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def _clear(self) -> None:
        if self._pieces:
            self._pieces = []
            self.begun += 1


class RootTextWatch:
    """One watcher's place in a run's text; made by `watch_text`."""

    def __init__(self, source: RootText) -> None:
        self._source = source
        self._seen = (0, 0, 0)  # turn, beginning, characters

    def take(self) -> RootPiece | None:
        """Return what is new, if anything is."""
        source, text = self._source, self._source.text
        place = (source.turn, source.begun, len(text))
        if place == self._seen or not text:
            return None
        at = self._seen[2] if place[:2] == self._seen[:2] else 0
        self._seen = place
        return RootPiece(source.turn, at, text[at:])

    async def wait(self) -> None:
        """Wait until something is new and what follows it at once has come."""
        source = self._source
        while not source.text or (source.turn, source.begun, len(source.text)) == self._seen:
            await source.news.wait()
        await anyio.sleep(GATHER_SECONDS)


@contextmanager
def watch_text(texts: dict[str, RootText], run_id: str) -> Generator[RootTextWatch]:
    """Look on while the block lasts; the run's model streams from its next turn on."""
    text = texts.setdefault(run_id, RootText())
    text.watchers += 1
    try:
        yield RootTextWatch(text)
    finally:
        text.watchers -= 1
        if not text.watchers:
            del texts[run_id]
