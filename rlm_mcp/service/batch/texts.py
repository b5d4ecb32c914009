"""The texts of a batch, by the names that its questions may give them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.contexts.added import Added
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.text import preview

AddText = Callable[[NewText], Awaitable[Added]]


class BatchTexts:
    """Stores sources, and finds them by what they are called.

    Args:
        sources: files, directories, globs, or handles of stored texts.
        add: stores one of them.
    """

    def __init__(self, sources: Sequence[str], add: AddText) -> None:
        self._sources = sources
        self._add = add
        self._handles: dict[str, str] = {}
        self._all: tuple[str, ...] = ()
        self._adding = anyio.Lock()

    async def add_all(self) -> None:
        """Store every source that is not a handle.

        Raises:
            InvalidInputError: one cannot be read, or is not text.
            StoreError: the database could not store it.
        """
        handles: list[str] = []
        for source in self._sources:
            if source.startswith("ctx_"):
                handles.append(source)
                continue
            added = await self._add(NewText(path=source))
            handles.append(str(added.handle))
            for name in (source, added.name, Path(source).name):
                self._handles.setdefault(name, str(added.handle))
        self._all = tuple(dict.fromkeys(handles))

    async def find(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the handles of names, storing a file of a given directory when it is named.

        Raises:
            InvalidInputError: a name is unknown.
        """
        if not names:
            return self._all
        async with self._adding:
            return tuple([await self._find(name) for name in names])

    async def _find(self, name: str) -> str:
        if name in self._handles or name.startswith("ctx_"):
            return self._handles.get(name, name)
        for source in self._sources:
            path = await anyio.to_thread.run_sync(_file_in, source, name)
            if path is not None:
                added = await self._add(NewText(path=path))
                self._handles[name] = str(added.handle)
                return self._handles[name]
        raise InvalidInputError(
            f"There is no text {preview(name)!r} among those of the batch.",
            fix="Name a text as it was given to the batch, a file in a directory that is one, or a "
            "handle.",
        )


def _file_in(source: str, name: str) -> str | None:
    """Return the path of the file in a directory that has a name there; none leads out of it."""
    directory = Path(os.path.normpath(Path(source).expanduser().absolute()))
    path = Path(os.path.normpath(directory / name))
    try:
        is_there = path.is_relative_to(directory) and path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return None
    return str(path) if is_there else None
