"""Cuts mailboxes (mbox) into messages. Runs in the converter's process."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A line between two messages: it ends with a time and a year, or a header follows it. A sentence of
# a mail that begins with "From" after an empty line, which careless programs leave unquoted, does
# neither.
_BETWEEN = re.compile(
    rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From "
    rb"(?:[^\n]{0,200}\d\d:\d\d[^\n]{0,40}\b\d{4}\b[^\n]{0,12}\n|[^\n]*\n(?=[!-9;-~]+:))"
)
_FIRST = re.compile(rb"\AFrom [^\n]*\n")
_QUOTED = re.compile(rb"(?m)^>From ")


def mails_of(data: bytes) -> Iterator[bytes]:
    """Yield the messages of a mailbox, each without the line that separates it from others."""
    first = _FIRST.match(data)
    start = first.end() if first else len(data)
    for between in _BETWEEN.finditer(data, start):
        yield _unquoted(data[start : between.start()])
        start = between.end()
    if start < len(data):
        yield _unquoted(data[start:])


def _unquoted(mail: bytes) -> bytes:
    return _QUOTED.sub(b"From ", mail)
