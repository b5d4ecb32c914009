"""The converter's process: reads documents from a pipe and writes their text to another.

Parsers read what strangers wrote. So this process gets the bytes and opens no file, has no
environment, limits of memory and of the processor's time, and where Linux has them the walls that
hold model code. It ends with a document that kills its parser; the server starts another.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from rlm_mcp.service.contexts.decompression import Unpacker
from rlm_mcp.service.contexts.text_reader import EMPTY, is_stored_as_it_is
from rlm_mcp.service.documents.decoding import load_charsets
from rlm_mcp.service.documents.frames import (
    BEGUN,
    DATA,
    DONE,
    ENDED,
    PIECE_BYTES,
    FrameError,
    Small,
    read_exactly,
    read_frame,
    write_frame,
    write_json,
    write_small,
)
from rlm_mcp.service.documents.reading import Converted, LeftOut, convert

MEMORY_BYTES = 2 << 30
PROCESSOR_SECONDS = 3600  # of its whole life; the server limits each document by the clock
# Short texts of an archive travel together: so many, or so many bytes with their names.
MAX_TOGETHER = 500
MAX_TOGETHER_BYTES = 64 << 10
_PDF = (
    b"%PDF-1.1\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\ntrailer<</Root 1 0 R>>\n"
)
_MAIL = b"""\
Subject: =?utf-8?q?words?= =?utf-8?b?d29yZHM=?=
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/html
Content-Transfer-Encoding: quoted-printable

<p>words</p>
--b
Content-Type: text/plain
Content-Transfer-Encoding: base64

d29yZHM=
--b
Content-Type: message/rfc822

Subject: words

words
--b
Content-Type: image/png; name*=utf-8''words
Content-Transfer-Encoding: x-uuencode

--b--
"""


def main() -> None:
    """Answer requests until standard input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    give_way_to_the_server()
    warm_up()
    confine()
    with contextlib.suppress(FrameError):
        while True:
            _, header = read_frame(requests)
            wanted = json.loads(header)
            data, telling = read_exactly(requests, wanted["size"]), Telling(answers)
            # A document may kill its parser: what came before it is safe by then.
            found = convert(wanted["name"], wanted["kind"], data, before_parser=telling.send)
            for answer in found:
                telling.tell(answer)
            telling.end()


def give_way_to_the_server() -> None:
    """Lower this process's priority: loading the parsers, too, takes time of the processor."""
    if sys.platform == "linux":
        # Other systems have nothing of this.
        from rlm_mcp.sandbox.walls.confine import give_way, repl_niceness  # noqa: PLC0415

        give_way(repl_niceness())


class Telling:
    """Writes the answers to one request; short texts, and what was left out, many at once."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._some: list[Small] = []
        self._bytes = 0

    def tell(self, answer: Converted | LeftOut) -> None:
        """Write one document, or that it was left out."""
        small = _left_out(answer) if isinstance(answer, LeftOut) else _small(answer)
        if isinstance(small, Converted):
            self._write_some()
            _write_document(self._answers, small)
            return
        self._some.append(small)
        self._bytes += len(small.name) + len(small.data)
        if len(self._some) >= MAX_TOGETHER or self._bytes >= MAX_TOGETHER_BYTES:
            self._write_some()

    def send(self) -> None:
        """Have all that was told so far reach the server."""
        self._write_some()
        self._answers.flush()

    def end(self) -> None:
        """End the request."""
        self._write_some()
        write_frame(self._answers, DONE, b"")
        self._answers.flush()

    def _write_some(self) -> None:
        if self._some:
            write_small(self._answers, self._some)
        self._some, self._bytes = [], 0


def _left_out(answer: LeftOut) -> Small:
    return Small(answer.name, reason=answer.reason)


def _small(document: Converted) -> Small | Converted:
    """Return a short text that is stored as it is as such; any other document as it is."""
    if not document.is_raw or document.notes or len(document.data) > MAX_TOGETHER_BYTES:
        return document
    if not document.data:
        return Small(document.name, reason=EMPTY)
    if is_stored_as_it_is(document.data):
        return Small(document.name, document.data)
    return document


def _write_document(answers: BinaryIO, document: Converted) -> None:
    write_json(answers, BEGUN, {"name": document.name, "is_raw": document.is_raw})
    for start in range(0, len(document.data), PIECE_BYTES):
        write_frame(answers, DATA, document.data[start : start + PIECE_BYTES])
    pages = [list(page) for page in document.pages]
    for start in range(0, len(pages), 10_000):
        more = {"pages": pages[start : start + 10_000]}
        write_json(answers, ENDED, more | {"notes": [], "is_last": False})
    write_json(answers, ENDED, {"pages": [], "notes": document.notes, "is_last": True})


def warm_up() -> None:
    """Load what the parsers load at first use, while files may still be opened.

    PDF's library is unpacked to the directory for temporary files and loaded from there. So that is
    one of our own, which is gone before the first document comes.
    """
    own = tempfile.mkdtemp(prefix="rlm-mcp-")
    os.environ["TMPDIR"] = os.environ["TMP"] = own
    try:
        Unpacker("zstd")
        load_charsets()
        for kind, data in _samples():
            for _ in convert("", kind, data):
                pass
    finally:
        shutil.rmtree(own, ignore_errors=True)  # Windows removes no library that is loaded


def _samples() -> Iterator[tuple[str, bytes]]:
    yield "pdf", _PDF
    yield "html", b"<p>words</p>"
    yield "rtf", b"{\\rtf1 words}"
    yield "eml", _MAIL
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("words.txt", "words")
    yield "zip", packed.getvalue()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w"):
        pass
    for compress in (bytes, gzip.compress, bz2.compress, lzma.compress):
        yield "tar", compress(packed.getvalue())


def confine() -> None:
    """Put up the limits, and the walls that hold on this machine."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  # Windows has none

    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
    from rlm_mcp.sandbox.walls.limits import limit, mapped_bytes  # noqa: PLC0415  # likewise

    if sys.platform == "linux":
        # Other systems have no such walls.
        from rlm_mcp.sandbox.types import Walls  # noqa: PLC0415
        from rlm_mcp.sandbox.walls.confine import (  # noqa: PLC0415
            WallReport,
            confine_repl,
            try_walls,
        )

        wanted = Walls(namespaces=False, thread_limit=False)
        confine_repl(try_walls(wanted, WallReport()), MEMORY_BYTES, mapped_bytes())
    else:
        limit(MEMORY_BYTES, mapped_bytes())


if __name__ == "__main__":
    main()
