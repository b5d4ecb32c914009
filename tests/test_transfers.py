"""Bodies as they arrive: which thread reads them, what is in memory, and how large they may be."""

from __future__ import annotations

import gzip
import hashlib
import threading
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from rlm_mcp.errors import TooLargeError
from rlm_mcp.service.contexts.file_text import Piece
from rlm_mcp.service.contexts.tickets import SharedTickets
from rlm_mcp.service.contexts.transfers import Body, TransferService
from rlm_mcp.service.contexts.writing import no_report, write_batches
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.contexts.records import Span
from rlm_mcp.store.database import Database, open_database
from rlm_mcp.store.runs.leases import Leases

MIB = 1 << 20
LINE = "Größe der Straße in Köln: ".encode() + b"x" * 4000 + b"\n"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / "rlm.sqlite3") as database:
        yield database


@pytest.fixture
async def contexts(database: Database) -> Contexts:
    return Contexts(database)


def transfers(database: Database, max_bytes: int = 1 << 40) -> TransferService:
    tickets = SharedTickets(database.path.parent, Leases(database, owner="test"))
    return TransferService(Contexts(database), tickets, caller="", max_upload_bytes=max_bytes)


async def arriving(piece: bytes, count: int = 1, size: int = 1 << 17) -> AsyncIterator[bytes]:
    for _ in range(count):
        for start in range(0, len(piece), size):
            yield piece[start : start + size]


@pytest.mark.parametrize("size", [1000, 1 << 16, MIB])
async def test_a_text_is_the_same_however_its_bytes_arrive(
    database: Database, contexts: Contexts, size: int
) -> None:
    text = "".join(f"{number}: é 😀 {'x' * (number % 300)}\n" for number in range(20_000))
    digest = hashlib.sha256(text.encode()).hexdigest()
    body = Body(arriving(text.encode(), size=size))

    added = await transfers(database).receive("text", body, digest)

    assert (added.sha256, added.chars) == (digest, len(text))
    assert (await contexts.get(str(added.handle))).lines == 20_000
    assert (await contexts.read(str(added.handle), Span(limit=1 << 30))).text == text


@pytest.mark.parametrize("form", ["gzip", "cp1252"])
async def test_what_becomes_much_text_takes_a_few_megabytes(database: Database, form: str) -> None:
    piece = LINE * (4 * MIB // len(LINE))
    packed = gzip.compress(piece) if form == "gzip" else piece.decode().encode(form)
    tracemalloc.start()
    try:
        added = await transfers(database).receive("much", Body(arriving(packed, 15)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert added.bytes == 15 * len(piece)
    assert peak < 72 * MIB


@pytest.mark.parametrize("form", ["utf-8", "cp1252"])
async def test_a_body_is_bounded_while_it_arrives_whatever_its_charset(
    database: Database, contexts: Contexts, form: str
) -> None:
    taken: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            taken.append(1)
            yield LINE.decode().encode(form)

    with pytest.raises(TooLargeError, match="1,000,000 bytes"):
        await transfers(database, 1_000_000).receive("endless", Body(endless()))
    assert len(taken) <= 1_000_000 // len(LINE) + 2
    assert not (await contexts.list()).items


async def test_pieces_are_read_in_another_thread_than_the_event_loops(contexts: Contexts) -> None:
    threads: set[int] = set()

    def pieces() -> Iterator[bytes]:
        for _ in range(6):
            threads.add(threading.get_ident())
            yield b"x" * MIB

    async with contexts.open_upload("pieces") as upload:
        await upload.write_all(pieces(), 6 * MIB)
        await upload.flush()
        assert threads
        sealed = await upload.seal()
    assert threading.get_ident() not in threads
    assert sealed.record.bytes == 6 * MIB


class Watched(tuple[tuple[str, str], ...]):
    """Notes the threads in which it is gone through."""

    __slots__ = ()
    threads: ClassVar[set[int]] = set()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self.threads.add(threading.get_ident())
        return super().__iter__()


async def test_a_batch_of_many_files_is_gone_through_in_another_thread(contexts: Contexts) -> None:
    def batches() -> Generator[list[Piece]]:
        left_out = Watched([("b.bin", "binary")])
        yield [Piece(b"a text\n", "a"), *[Piece(b"", left_out=left_out)] * 10_000]

    async with contexts.open_upload("files") as upload:
        decoded = await write_batches(upload, batches(), 7, no_report, "path 'files'")
        await upload.seal()
    assert decoded.left_out.counts == {"binary": 10_000}
    assert Watched.threads
    assert threading.get_ident() not in Watched.threads
