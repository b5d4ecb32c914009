"""Texts that arrive in pieces, at any size, in one call or in several."""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from sqlite3 import Connection
from typing import Any, NamedTuple

import anyio.from_thread
import anyio.to_thread

from rlm_mcp.errors import InvalidInputError, NotFoundError, NotTextError, StoreError
from rlm_mcp.store.connection import SPREAD, TEXT_LEAVES_BYTES, require_room
from rlm_mcp.store.contexts.chunking import CHUNK_BYTES, Cut, TextCutter, digest_of
from rlm_mcp.store.contexts.pages import PageMark, store_pages
from rlm_mcp.store.contexts.reading import chunk_data
from rlm_mcp.store.contexts.records import OpenUpload, SealedContext
from rlm_mcp.store.contexts.texts import (
    Entered,
    NewContext,
    cut_back,
    drop_text,
    enter_context,
    new_text,
    store_cut,
    utc_now,
)
from rlm_mcp.store.contexts.write_behind import Behind
from rlm_mcp.store.database import Database
from rlm_mcp.text import without_surrogates

# Pieces are collected up to this size before a worker thread cuts them: threads that take turns
# seldom wait less for each other.
_GATHERED_BYTES = 8 * CHUNK_BYTES
# What a piece counts besides its bytes: 20,000 empty documents are enough for one write.
_PIECE_BYTES = _GATHERED_BYTES // 20_000


class Pages(NamedTuple):
    """Where pages of a document begin: the character, and what each is called.

    They are kept once the text is sealed, not over a pause.
    """

    starts: tuple[tuple[int, str], ...]


# What a document begins with, its name; bytes of it; whole characters in valid UTF-8 with their
# number, which is None where it is not known; and where its pages begin.
Piece = str | bytes | tuple[bytes, int | None] | Pages


class Upload:
    """A text that is being uploaded; made by `Contexts.open_upload` and `Contexts.continue_upload`.

    Not for concurrent use. After a failed call an upload accepts no more: leave its block.
    """

    def __init__(
        self, database: Database, row: dict[str, Any], cutter: TextCutter, behind: Behind
    ) -> None:
        self.upload_id: str = row["upload_id"]
        self.name: str = row["name"]
        self._caller: str = row["caller"]
        self._text_id: int = row["text_id"]
        self._claim: str = row["claim"]
        self._database = database
        self._cutter = cutter
        self._pieces: list[Iterable[Piece]] = []
        self._gathered = 0
        self._was_cut, self._written = behind.cutting, behind.writing
        self._is_broken = False
        self._marks: list[PageMark] = []
        self.is_kept = False

    async def expect(self, size: int) -> None:
        """Reject a text of so many bytes before any of it is written, if there is no room.

        Raises:
            StoreFullError: the disk has not enough room.
        """
        need = int(size * SPREAD)
        await anyio.to_thread.run_sync(require_room, self._database.path, need, TEXT_LEAVES_BYTES)

    async def begin_document(self, name: str) -> None:
        """Start a document; without this, text goes to one with the context's name."""
        await self.write_all((name,), 0)

    async def write(self, data: bytes) -> None:
        """Add bytes to the document: UTF-8, split anywhere.

        They are written while more is taken in, so an error may come with a later call.

        Raises:
            InvalidInputError: another call has continued this upload in the meantime.
            NotFoundError: the upload was aborted in the meantime.
            StoreError: the database could not take it.
        """
        self._require_unbroken()
        for start in range(0, len(data), CHUNK_BYTES):
            piece = bytes(data[start : start + CHUNK_BYTES])
            await self.write_all((piece,), len(piece))

    async def write_all(self, pieces: Iterable[Piece], size: int, count: int = 1) -> None:
        """Add pieces in order, however many: they are iterated in the thread that cuts.

        Args:
            pieces: may be an iterator, which then does its work there.
            size: about how many bytes they are.
            count: how many pieces.

        Raises:
            RLMError: as for `write`, and what `pieces` raised.
        """
        self._require_unbroken()
        self._pieces.append(pieces)
        self._gathered += size + count * _PIECE_BYTES
        if self._gathered >= _GATHERED_BYTES:
            await self._drain()

    async def flush(self) -> None:
        """Have all that was added cut; `pieces` of earlier calls are read to their ends then.

        Raises:
            RLMError: as for `write_all`.
        """
        await self._drain()
        with self._unbroken():
            await self._was_cut.done()

    @property
    def reader_state(self) -> str:
        """What was given to the last pause."""
        return self._cutter.reader_state

    async def pause(self, reader_state: str = "") -> OpenUpload:
        """Store everything written so far; the upload can be continued by its id.

        Args:
            reader_state: kept for whoever continues it, and not looked at.

        Raises:
            InvalidInputError, NotFoundError, StoreError: as for `write`.
        """
        await self._drain_all()
        self._cutter.reader_state = reader_state
        with self._unbroken():
            await self._database.write(self._save, leave_bytes=TEXT_LEAVES_BYTES)
        self.is_kept = True
        end = self._cutter.end
        return OpenUpload(self.upload_id, self.name, end.byte, end.char, self._cutter.documents)

    async def seal(self) -> SealedContext:
        """Create a context from what was written. Equal content is stored once.

        Content that the caller already has keeps its name, unless it had none. It is not revealed
        whether another caller has it too.

        Raises:
            NotTextError: nothing was written.
            InvalidInputError, NotFoundError, StoreError: as for `write`.
        """
        await self._drain_all()
        with self._unbroken():
            await anyio.to_thread.run_sync(self._cutter.finish)
            if self._cutter.end.char == 0:
                raise NotTextError(f"The text {self.name!r} is empty.", fix="Pass a longer text.")
            await self._database.write(self._save, leave_bytes=TEXT_LEAVES_BYTES)
            sha256 = self._cutter.sha256 or await self._database.scan(self._digest)
            entered = await self._database.write(lambda db: self._enter(db, sha256))
        self.is_kept = True
        # How long this takes must not tell one of several callers what the others hold: the next
        # sweep drops it then.
        if not (entered.is_text_used or self._caller):
            await drop_text(self._database, self._text_id)
        return SealedContext(entered.record, not entered.is_new, self._cutter.replaced)

    async def abort(self) -> None:
        """Delete everything written, unless it was sealed or another call continues it."""
        if await self._database.write(self._forget):
            await drop_text(self._database, self._text_id)

    async def _drain(self) -> None:
        """Have what was collected cut, and then written, while more is taken in."""
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        with self._unbroken():
            await self._was_cut.room()
            self._was_cut.start(lambda: self._cut_and_write(pieces))

    async def _cut_and_write(self, pieces: Sequence[Iterable[Piece]]) -> None:
        cut = await anyio.to_thread.run_sync(self._cut, pieces)
        await self._written.room()
        if cut.chunks or cut.documents:
            self._written.start(lambda: self._write_cut(cut))

    async def _write_cut(self, cut: Cut) -> None:
        await self._database.write(lambda db: self._store(db, cut), leave_bytes=TEXT_LEAVES_BYTES)

    async def _drain_all(self) -> None:
        """Cut and write all that was collected."""
        await self.flush()
        with self._unbroken():
            await self._written.done()

    @contextmanager
    def _unbroken(self) -> Generator[None]:
        self._require_unbroken()
        self._is_broken = True
        yield
        self._is_broken = False

    def _require_unbroken(self) -> None:
        # After a step that failed or was cancelled, the file and the cutter differ: sealing would
        # silently lose a part of the text.
        if self._is_broken:
            raise StoreError(
                f"The upload {self.upload_id!r} failed earlier and accepts no more text.",
                fix="Continue it from its last pause, or start a new one.",
            )

    def _cut(self, pieces: Iterable[Iterable[Piece]]) -> Cut:
        cutter = self._cutter
        for piece in chain.from_iterable(pieces):
            if isinstance(piece, str):
                cutter.begin(piece)
                continue
            if cutter.documents == 0:
                cutter.begin(self.name)
            if isinstance(piece, Pages):
                document = cutter.documents - 1
                self._marks += (PageMark(document, *start) for start in piece.starts)
            elif isinstance(piece, bytes):
                cutter.feed(piece)
            else:
                cutter.feed_whole(*piece)
        return cutter.take()

    def _store(self, db: Connection, cut: Cut) -> None:
        self._check_claim(db)
        store_cut(db, self._text_id, cut)

    def _save(self, db: Connection) -> None:
        """Write the chunk that is not full yet, and the state of the upload."""
        cut, rest = self._cutter.take(), self._cutter.rest()
        self._store(db, Cut([*cut.chunks, *([rest] if rest else [])], cut.documents))
        db.execute(
            "UPDATE uploads SET state = ? WHERE upload_id = ?",
            [self._cutter.state(), self.upload_id],
        )

    def _check_claim(self, db: Connection) -> None:
        changed = db.execute(
            "UPDATE uploads SET touched_at = ? WHERE upload_id = ? AND claim = ?",
            [time.time(), self.upload_id, self._claim],
        ).rowcount
        if changed:
            return
        find_upload(db, self._caller, self.upload_id)
        raise InvalidInputError(
            f"Another call continued the upload {self.upload_id!r}.",
            fix="Send the parts of a text one after the other.",
        )

    def _forget(self, db: Connection) -> bool:
        deleted = db.execute(
            "DELETE FROM uploads WHERE upload_id = ? AND claim = ?", [self.upload_id, self._claim]
        )
        return deleted.rowcount > 0

    def _digest(self, db: Connection) -> str:
        documents = db.execute(
            "SELECT name, bytes FROM documents WHERE text_id = ? ORDER BY position", [self._text_id]
        )
        chunks = _cancellable(data for _, data in chunk_data(db, self._text_id))
        return digest_of(chunks, documents)

    def _enter(self, db: Connection, sha256: str) -> Entered:
        self._check_claim(db)
        self._forget(db)
        end, documents = self._cutter.end, self._cutter.documents
        counted = (sha256, end.byte, end.char, documents)
        new = NewContext(self._caller, self._text_id, self.name, *counted)
        entered = enter_context(db, new)
        if self._marks:
            store_pages(db, self._caller, entered.record.handle, self._marks)
        return entered


def begin_upload(db: Connection, caller: str, name: str) -> dict[str, Any]:
    """Insert the row of a new upload."""
    row: dict[str, Any] = {
        "upload_id": f"upl_{secrets.token_hex(16)}",
        "text_id": new_text(db),
        "name": without_surrogates(name),
        "caller": caller,
        "state": TextCutter().state(),
        "claim": secrets.token_hex(8),
        "created_at": utc_now(),
        "touched_at": time.time(),
    }
    db.execute(
        "INSERT INTO uploads(upload_id, text_id, name, caller, state, claim, created_at, "
        "touched_at) VALUES (:upload_id, :text_id, :name, :caller, :state, :claim, :created_at, "
        ":touched_at)",
        row,
    )
    return row


def claim_upload(db: Connection, caller: str, upload_id: str) -> tuple[dict[str, Any], TextCutter]:
    """Take over a caller's upload, as it was at its last pause."""
    row = find_upload(db, caller, upload_id)
    state = TextCutter.resumed(row["state"], None)
    tail = cut_back(db, row["text_id"], state.end.byte, state.finished_documents)
    row["claim"] = secrets.token_hex(8)
    db.execute("UPDATE uploads SET claim = ? WHERE upload_id = ?", [row["claim"], upload_id])
    return row, TextCutter.resumed(row["state"], tail)


def find_upload(db: Connection, caller: str, upload_id: str) -> dict[str, Any]:
    """Return the row of a caller's upload.

    Raises:
        NotFoundError: it does not exist, or no longer.
    """
    columns = ("upload_id", "text_id", "name", "caller", "state")
    sql = f"SELECT {', '.join(columns)} FROM uploads WHERE upload_id = ? AND caller = ?"  # noqa: S608  # our constants
    row = db.execute(sql, [without_surrogates(upload_id), caller]).fetchone()
    if row is not None:
        return dict(zip(columns, row, strict=True))
    raise NotFoundError(
        f"Upload {upload_id!r} is not open: it was sealed or aborted, or never existed.",
        fix="Start a new one with rlm_context_add.",
    )


def _cancellable(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        anyio.from_thread.check_cancelled()
        yield chunk
