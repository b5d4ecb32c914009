"""Large texts as files that REPLs map as they are: no copy, and still there after a crash.

The first question over a text lays it out in a file, which the holder of the REPLs maps at once; it
gets its name, by which later processes find it, when all of it was compared with its SHA-256.
`text_file` says how a file is told from one that was changed, `text_folder` which files are kept.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import TaskGroup

from rlm_mcp.errors import StoreError

if TYPE_CHECKING:
    from rlm_mcp.sandbox.layout import Layout
    from rlm_mcp.store.contexts.reading import StoredSource
    from rlm_mcp.store.contexts.text_file import Draft
    from rlm_mcp.store.contexts.text_folder import TextFolder
    from rlm_mcp.store.database import Database

FOLDER = "texts"
# Below this the memory is filled in some milliseconds, and a file saves next to nothing.
LEAST_BYTES = 8 << 20
WORKS_HERE = sys.platform == "linux"  # where REPLs map their text

log = logging.getLogger(__name__)


class TextCache:
    """The files of one database's texts.

    Args:
        tasks: in which files are checked, beside what works with them.
        directory: where they are; None for a folder beside the database.
        most_megabytes: what they may take; 0 for none, None for a share of the disk.
    """

    def __init__(
        self,
        database: Database,
        tasks: TaskGroup,
        directory: Path | None = None,
        most_megabytes: int | None = None,
    ) -> None:
        self._database = database
        self._tasks = tasks
        self._directory = directory or database.path.parent / FOLDER
        self._most_bytes = None if most_megabytes is None else most_megabytes * 1_000_000
        self._made: TextFolder | None = None
        self._has_complained = False

    async def lay_out(
        self, source: StoredSource, write: Callable[[int], Awaitable[Layout]]
    ) -> tuple[int, Layout] | None:
        """Return a descriptor of a source's file and its layout; the caller closes it.

        Args:
            write: lays the text out in a file, if there is none of it.

        Returns:
            None if the text is not to be in a file, or cannot be: then memory takes it.

        Raises:
            StoreError: the text was deleted meanwhile.
        """
        if not WORKS_HERE or source.text_bytes < LEAST_BYTES:
            return None
        try:
            return await self._find(source) or await self._write(source, write)
        except OSError as error:
            self._complain(error)
            return None

    async def _find(self, source: StoredSource) -> tuple[int, Layout] | None:
        try:
            found = await anyio.to_thread.run_sync(lambda: self._folder().find(source))
        except ValueError as error:
            log.warning("the file of a text is made anew: %s", error)
            return None
        return None if found is None else (found[0], found[1].layout)

    async def _write(
        self, source: StoredSource, write: Callable[[int], Awaitable[Layout]]
    ) -> tuple[int, Layout] | None:
        draft = await anyio.to_thread.run_sync(lambda: self._folder().begin(source))
        if draft is None:
            return None
        try:
            layout = await write(draft.descriptor)
            reader = await anyio.to_thread.run_sync(draft.reader)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(draft.close)
            raise
        self._tasks.start_soon(self._complete, draft, layout)
        return reader, layout

    async def _complete(self, draft: Draft, layout: Layout) -> None:
        """Check a file that is in use already, and give it its name."""
        try:
            await anyio.to_thread.run_sync(self._publish, draft, layout)
        except StoreError:
            log.debug("a text was deleted before its file was complete")
        except OSError as error:
            self._complain(error)
        except Exception:  # the outermost frame of this task: the server continues without it
            log.exception("checking the file of a text failed")
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(draft.close)

    def _publish(self, draft: Draft, layout: Layout) -> None:
        folder, source = self._folder(), draft.source
        if not draft.is_right(layout, anyio.from_thread.check_cancelled):
            log.error(
                "what the database gave of %s is not what was stored: it does not have its SHA-256",
                ", ".join(source.handles),
            )
            return
        draft.publish(folder.path_of(source), layout)
        folder.drop_deleted(source)  # meanwhile

    async def drop(self, caller: str, sha256: str) -> None:
        """Delete a caller's files that hold a text."""
        if await self._has_files():
            await anyio.to_thread.run_sync(lambda: self._folder().drop(caller, sha256))

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory

    async def held_bytes(self, caller: str | None = None) -> int:
        """Return what the files of a caller take; of all callers for None."""
        if not await self._has_files():
            return 0
        return await anyio.to_thread.run_sync(lambda: self._folder().held_bytes(caller))

    async def sweep(self) -> int:
        """Delete what is of no use any more; return how many files. See `TextFolder.sweep`.

        Raises:
            StoreError: the database could not be read.
        """
        if not await self._has_files():
            return 0
        return await anyio.to_thread.run_sync(lambda: self._folder().sweep())

    async def _has_files(self) -> bool:
        return WORKS_HERE and await anyio.Path(self._directory).is_dir()

    def _complain(self, error: OSError) -> None:
        """Log once that texts are in memory instead."""
        if not self._has_complained:
            self._has_complained = True
            log.warning("large texts are not kept as files, but copied into memory: %s", error)

    def _folder(self) -> TextFolder:
        """Return the folder. Blocking: few runs need the modules."""
        if self._made is None:
            from rlm_mcp.store.contexts.text_folder import TextFolder  # noqa: PLC0415  # see above

            self._made = TextFolder(self._database, self._directory, self._most_bytes)
        return self._made
