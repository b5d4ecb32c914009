"""Reads mail: header lines, the words of the body, and the names of attachments.

Runs in the converter's process. The standard library knows the charsets that mail is in, which the
library that converts other documents does not.
"""

from __future__ import annotations

import email
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.header import decode_header
from email.message import Message
from typing import TYPE_CHECKING, Any, cast

from rlm_mcp.service.documents.archives import member_name
from rlm_mcp.service.documents.decoding import decoded

_SHOWN_HEADERS = ("Subject", "From", "To", "Cc", "Date")
if TYPE_CHECKING:
    AnyMessage = Message[Any, Any]


@dataclass(frozen=True)
class Mail:
    """A mail as text, and what is attached to it."""

    text: str
    attachments: tuple[str, ...] = ()


def read_mail(data: bytes, page_text: Callable[[str], str]) -> Mail:
    """Read a mail; one within it is read too.

    Args:
        data: the message.
        page_text: makes text of HTML, for mail that has nothing else.
    """
    found = _Found(page_text)
    found.take_mail(email.message_from_bytes(data))
    text = "\n\n".join(part.strip("\r\n") for part in found.parts if part.strip())
    return Mail(text, tuple(found.attachments))


@dataclass
class _Found:
    page_text: Callable[[str], str]
    parts: list[str] = field(default_factory=list[str])
    attachments: list[str] = field(default_factory=list[str])

    def take_mail(self, message: AnyMessage) -> None:
        headers = (f"{name}: {value}" for name in _SHOWN_HEADERS for value in _all(message, name))
        self.parts.append("\n".join(headers))
        self._take(message, has_words=True)

    def _take(self, part: AnyMessage, *, has_words: bool) -> None:
        """Take what a part holds; without `has_words` only the names of attachments."""
        kind = part.get_content_type()
        if kind == "message/rfc822" and part.is_multipart():
            for inner in _inner(part) if has_words else ():
                self.take_mail(inner)
        elif part.is_multipart():
            chosen = _chosen(part) if kind == "multipart/alternative" else None
            for inner in _inner(part):
                self._take(inner, has_words=has_words and chosen in (None, inner))
        elif _is_attached(part):
            self.attachments.append(member_name(_file_name(part) or kind))
        elif has_words:
            text = decoded(_payload(part), str(part.get_content_charset() or ""))
            self.parts.append(self.page_text(text) if kind == "text/html" else text)


def _inner(part: AnyMessage) -> Iterator[AnyMessage]:
    yield from cast("list[AnyMessage]", part.get_payload())


def _chosen(part: AnyMessage) -> AnyMessage | None:
    """Choose among alternatives: plain text, else the last one, which is meant to be the best."""
    inner = list(_inner(part))
    plain = [
        one for one in inner if one.get_content_type() == "text/plain" and _payload(one).strip()
    ]
    return (plain or inner or [None])[-1]


def _payload(part: AnyMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _is_attached(part: AnyMessage) -> bool:
    if part.get_content_maintype() != "text" or part.get_content_disposition() == "attachment":
        return True
    return bool(_file_name(part))


def _file_name(part: AnyMessage) -> str:
    return _words(part.get_filename() or "")


def _all(message: AnyMessage, wanted: str) -> Iterator[str]:
    """Yield the values of a header, their encoded words and raw bytes decoded."""
    for name, value in message.raw_items():
        if name.lower() == wanted.lower():
            yield _words(str(value))


def _words(value: str) -> str:
    raw = decoded(value.encode("utf-8", "surrogateescape"))
    pieces = decode_header(" ".join(raw.split()))
    return "".join(
        piece if isinstance(piece, str) else decoded(piece, charset or "")
        for piece, charset in cast("list[tuple[str | bytes, str | None]]", pieces)
    )
