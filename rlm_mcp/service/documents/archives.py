"""Takes archives and compressed files apart. Runs in the converter's process."""

from __future__ import annotations

import bz2
import io
import lzma
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
from rlm_mcp.service.documents.member_names import charset_of_names, name_of

MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 256 << 20
MAX_MEMBER_NAME_CHARS = 1000
_REASON_CHARS = 200
# The member that tells what a zip archive is; a file `mimetype` says it by itself.
_OFFICE = {"word/document.xml": "docx", "xl/workbook.xml": "xlsx", "ppt/presentation.xml": "pptx"}
_MIME_TYPES = {
    "application/epub+zip": "epub",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.presentation": "odp",
}


class UnreadableError(Exception):
    """A document cannot be read; its message says why, in a few words."""


# What the standard library raises for archives that are damaged, or made to be.
DAMAGE = (
    *(OSError, EOFError, ValueError, RuntimeError, MemoryError, IndexError, KeyError),
    *(struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError),
)

_OPENERS = {"bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}


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
        UnreadableError: it is not a zip archive.
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


def zip_names(data: bytes) -> list[str]:
    """Return the names in a zip archive.

    Raises:
        UnreadableError: it is not a zip archive.
    """
    with _opened_zip(data) as archive:
        return archive.namelist()


def zip_members(data: bytes, room: Room | None = None) -> Iterator[Member]:
    """Yield the files of a zip archive; `room` is that of the archive around it.

    Raises:
        UnreadableError: it is not a zip archive, or too much comes out of it.
    """
    room = room or Room.of(data)
    with _opened_zip(data) as archive:
        members = archive.infolist()
        charset = charset_of_names(members)
        for info in members:
            if not info.is_dir():
                name = member_name(name_of(info, charset))
                yield _zip_member(archive, info, name, room)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, room: Room) -> Member:
    if info.flag_bits & 1:
        return Member(name, reason="encrypted")
    if stat.S_ISLNK(info.external_attr >> 16):
        return Member(name, reason="a link, not followed")
    if reason := room.why_not(info.file_size):
        return Member(name, reason=reason)
    try:
        with archive.open(info) as file:
            content = file.read(info.file_size + 1)
    except DAMAGE as error:
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
    except DAMAGE as error:
        raise UnreadableError(_damaged(error)) from error


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

    Args:
        data: the file.
        coding: how it is compressed, as `packed_coding` tells it.

    Raises:
        UnreadableError: it is damaged, or too much comes out of it.
    """
    if coding in _OPENERS:
        return _opened(data, coding)
    try:
        unpacker = Unpacker(coding)
        content = b"".join(unpacker.unpack(data))
        unpacker.end()
    except RLMError as error:
        raise UnreadableError(error.message) from error
    return content


def _opened(data: bytes, coding: str) -> bytes:
    most = Room.of(data).left
    try:
        with _OPENERS[coding](io.BytesIO(data)) as file:
            content = file.read(most + 1)
    except DAMAGE as error:
        raise UnreadableError(_damaged(error)) from error
    if len(content) > most:
        raise UnreadableError(f"it unpacks to more than {MAX_GROWTH} times its size")
    return content


def _damaged(error: BaseException) -> str:
    words = " ".join(str(error).split()).partition(": - method")[0]  # of those that `tarfile` tried
    return f"damaged: {words[:_REASON_CHARS] or type(error).__name__}"


def _opened_zip(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except DAMAGE as error:
        raise UnreadableError(_damaged(error)) from error
