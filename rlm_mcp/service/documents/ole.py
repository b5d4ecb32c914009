"""Office files from before 2007, mail of Outlook, and encrypted office files: OLE containers."""

from __future__ import annotations

from collections.abc import Callable

_WORD = b"\xec\xa5"  # what a Word file's main stream begins with, at a sector's start
_WORD_FLAGS, _WORD_ENCRYPTED = 11, 0x01
_ENCRYPTED_POWERPOINT = b"\x14\x00\x00\x00\xdf\xc4\xd1\xf3"  # of its stream `Current User`
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_SECTOR_BYTES = 512
_NAME_BYTES = 64  # of a stream, in the directory of the container
# The streams that tell what a container is. Mail comes first and workbooks come last: the former
# may hold all others, and all others may hold a workbook.
_STREAMS = (
    ("msg", ("__properties_version1.0", "__nameid_version1.0")),
    ("ppt", ("PowerPoint Document",)),
    ("doc", ("WordDocument",)),
    ("xls", ("Workbook", "Book")),
)


def office_kind(data: bytes, ending: str) -> str:
    """Tell what a container holds: the kind of its ending if that is in it, else the first found.

    Args:
        data: the whole file.
        ending: that of the file's name, without a dot; empty if it has none.
    """
    found = [kind for kind, names in _STREAMS if any(map(_stream_in(data), names))]
    if ending in found or not found:
        return ending
    return found[0]


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
    has = _stream_in(data)
    return has("Book") and not has("Workbook")


def _stream_in(data: bytes) -> Callable[[str], bool]:
    def has(name: str) -> bool:
        return name.encode("utf-16-le").ljust(_NAME_BYTES, b"\0") in data

    return has
