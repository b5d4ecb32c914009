"""Takes archives, mailboxes and SQLite files apart. Runs in the converter's process."""

from __future__ import annotations

import io
import lzma
import sqlite3
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from rlm_mcp.errors import RLMError
from rlm_mcp.service.contexts.decompression import ALWAYS_ALLOWED_BYTES, MAX_GROWTH, Unpacker
from rlm_mcp.service.documents.kinds import packed_coding

MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 256 << 20
MAX_MEMBER_NAME_CHARS = 1000
MAX_CELL_CHARS = 10_000
# The member that tells what a zip archive is; a file `mimetype` says it by itself.
_OFFICE = {"word/document.xml": "docx", "xl/workbook.xml": "xlsx", "ppt/presentation.xml": "pptx"}
_MIME_TYPES = {
    "application/epub+zip": "epub",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.presentation": "odp",
}


_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".emf", ".wmf")


class UnreadableError(Exception):
    """A document cannot be read; its message says why, in a few words."""


# What the standard library raises for archives that are damaged, or made to be.
_DAMAGE = (
    *(OSError, EOFError, ValueError, RuntimeError, MemoryError, IndexError, KeyError),
    *(struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError),
)


@dataclass(frozen=True)
class Member:
    """One file of an archive; a reason instead of data if it is left out."""

    name: str
    data: bytes = b""
    reason: str = ""


@dataclass
class Room:
    """How much may still be unpacked of one archive, those within it included."""

    left: int = 0
    members: int = 0

    @classmethod
    def of(cls, data: bytes) -> Room:
        """Return what an archive of this size may unpack to."""
        return cls(max(ALWAYS_ALLOWED_BYTES, MAX_GROWTH * len(data)))

    def why_not(self, size: int) -> str:
        """Count a member; say why it is not unpacked, empty if it may be.

        Raises:
            UnreadableError: nothing more may be unpacked.
        """
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise UnreadableError(f"it holds more than {MAX_MEMBERS:,} files")
        if size > MAX_MEMBER_BYTES:
            return f"larger than {MAX_MEMBER_BYTES:,} bytes"
        if size > self.left:
            raise UnreadableError(f"it unpacks to more than {MAX_GROWTH} times its size")
        return ""

    def take(self, size: int) -> None:
        """Count what was unpacked."""
        self.left -= size


def member_name(name: str) -> str:
    """Return the name of a member as that of a document: no control characters, not endless.

    It names no place of this machine, whatever it begins with.
    """
    plain = name if name.isprintable() else "".join(c if c.isprintable() else "?" for c in name)
    short = plain.lstrip("/")[: MAX_MEMBER_NAME_CHARS + 1]
    return short if len(short) <= MAX_MEMBER_NAME_CHARS else f"{short[:-2]}…"


def zip_kind(data: bytes) -> str:
    """Tell which office file or book a zip archive is; `archive` if it is none.

    Raises:
        UnreadableError: it is no zip archive.
    """
    with _opened_zip(data) as archive:
        names = set(archive.namelist())
        for name, kind in _OFFICE.items():
            if name in names:
                return kind
        if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
            said = archive.read("mimetype").decode("ascii", "replace").strip()
            return _MIME_TYPES.get(said, "archive")
    return "archive"


def count_images(data: bytes) -> int:
    """Count the pictures inside an office file or book."""
    with _opened_zip(data) as archive:
        names = [name.lower() for name in archive.namelist() if not name.startswith("docProps/")]
    return sum(name.endswith(_PICTURES) for name in names)


def zip_members(data: bytes, room: Room | None = None) -> Iterator[Member]:
    """Yield the files of a zip archive; `room` is that of the archive around it.

    Raises:
        UnreadableError: it is no zip archive, or too much comes out of it.
    """
    room = room or Room.of(data)
    with _opened_zip(data) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield _zip_member(archive, info, room)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, room: Room) -> Member:
    name = member_name(info.filename)
    if info.flag_bits & 1:
        return Member(name, reason="encrypted")
    if stat.S_ISLNK(info.external_attr >> 16):
        return Member(name, reason="a link, not followed")
    if reason := room.why_not(info.file_size):
        return Member(name, reason=reason)
    try:
        with archive.open(info) as file:
            content = file.read(info.file_size + 1)
    except _DAMAGE as error:
        return Member(name, reason=f"cannot be unpacked: {error or type(error).__name__}")
    room.take(len(content))
    return Member(name, content)


def tar_members(data: bytes, room: Room | None = None) -> Iterator[Member]:
    """Yield the files of a tar archive, compressed or not; `room` is that of the archive around it.

    Raises:
        UnreadableError: it is none, it is damaged, or too much comes out of it.
    """
    room = room or Room.of(data)
    try:
        with tarfile.open(fileobj=io.BytesIO(_unzstd(data)), mode="r:*") as archive:
            for info in archive:
                if not info.isdir():
                    yield _tar_member(archive, info, room)
    except _DAMAGE as error:
        raise UnreadableError(f"damaged: {error or type(error).__name__}") from error


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, room: Room) -> Member:
    name = member_name(info.name)
    file = archive.extractfile(info) if info.isreg() else None
    reason = "not a regular file" if file is None else room.why_not(info.size)
    if file is None or reason:
        return Member(name, reason=reason)
    content = file.read(info.size)
    room.take(len(content))
    return Member(name, content)


def _unzstd(data: bytes) -> bytes:
    return unpacked(data, "zstd") if packed_coding(data) == "zstd" else data


def unpacked(data: bytes, coding: str) -> bytes:
    """Decompress a single file.

    Raises:
        UnreadableError: it is damaged, or too much comes out of it.
    """
    try:
        unpacker = Unpacker(coding)
        content = b"".join(unpacker.unpack(data))
        unpacker.end()
    except RLMError as error:
        raise UnreadableError(error.message) from error
    return content


_WORD = b"\xec\xa5"  # what a Word file's main stream begins with, at a sector's start
_WORD_FLAGS, _WORD_ENCRYPTED = 11, 0x01
_ENCRYPTED_POWERPOINT = b"\x14\x00\x00\x00\xdf\xc4\xd1\xf3"  # of its stream `Current User`
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_SECTOR_BYTES = 512


def is_encrypted_office(data: bytes) -> bool:
    """Whether an office file in an OLE container is encrypted; old Excel files say so themselves.

    Newer ones are OLE containers only where they are encrypted. Where the flags are is said in
    [MS-OFFCRYPTO], [MS-DOC] 2.5.1 and [MS-PPT] 2.3.2.
    """
    if _ENCRYPTED_PACKAGE in data or _ENCRYPTED_POWERPOINT in data:
        return True
    starts = range(_SECTOR_BYTES, len(data) - _WORD_FLAGS, _SECTOR_BYTES)
    return any(
        data.startswith(_WORD, at) and data[at + _WORD_FLAGS] & _WORD_ENCRYPTED for at in starts
    )


def is_old_excel(data: bytes) -> bool:
    """Whether a workbook is as Excel stored it before 1997: under another name in its container."""
    return _stream_name("Book") in data and _stream_name("Workbook") not in data


def _stream_name(name: str) -> bytes:
    return name.encode("utf-16-le").ljust(64, b"\0")


def mails_of(data: bytes) -> Iterator[bytes]:
    """Yield the messages of a mailbox (mbox), each without its separator line."""
    start = 0
    while start < len(data):
        begin = data.find(b"\n", start) + 1
        if not begin:
            return
        end = data.find(b"\n\nFrom ", begin - 1)
        stop = len(data) if end < 0 else end + 1
        yield data[begin:stop].replace(b"\n>From ", b"\nFrom ")
        start = len(data) if end < 0 else end + 2


def tables_of(data: bytes) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the tables of an SQLite file as rows of text: first the column names.

    A value of bytes is shown as its size, NULL is empty, and a long text is cut.

    Raises:
        UnreadableError: it is no SQLite file, or a damaged one.
    """
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(data)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        schema = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name"
        ).fetchall()
        yield "schema", [[f"{sql};"] for _, sql in schema]
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            if not name.startswith("sqlite_"):
                quoted = '"' + name.replace('"', '""') + '"'
                rows = connection.execute(f"SELECT * FROM {quoted}")  # noqa: S608  # quoted above
                columns = [column[0] for column in rows.description]
                yield f"table {name}", [columns, *([_cell(value) for value in row] for row in rows)]
    except sqlite3.Error as error:
        raise UnreadableError(f"damaged: {error}") from error
    finally:
        connection.close()


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bytes():
            return f"<{len(value):,} bytes>"
        case str() if len(value) > MAX_CELL_CHARS:
            return value[:MAX_CELL_CHARS] + "..."
        case _:
            return str(value)


def _opened_zip(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGE as error:
        raise UnreadableError(f"damaged: {error or type(error).__name__}") from error
