"""Texts of which single passages can be read, so that what is cited can be checked."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable


class SourcePlace(NamedTuple):
    """The place of a passage, as its reader knows it.

    `document` counts within the text that `handle` names; the library has no handles. `page` is
    the label of a page, sheet or slide, for documents that have some.
    """

    handle: str
    document: int
    name: str
    page: str | None = None


@runtime_checkable
class Citable(Protocol):
    """A `ContextSource` of which single passages can be read. Blocking: call in a thread."""

    def text_at(self, document: int, start: int, end: int) -> str:
        """Return some characters of a document; fewer where it ends before."""
        ...

    def place_of(self, document: int, start: int) -> SourcePlace:
        """Return the place of a character of a document."""
        ...
