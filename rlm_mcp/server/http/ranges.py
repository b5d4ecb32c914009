"""The part of a text that a request asks for, by its headers (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*", re.ASCII)


@dataclass(frozen=True)
class Part:
    """Bytes from `start` to before `end`, of `total`; empty where the range lies outside."""

    start: int
    end: int
    total: int

    @property
    def is_whole(self) -> bool:
        """Whether the range is the whole text."""
        return self.end - self.start == self.total

    @property
    def is_outside(self) -> bool:
        """Whether the range lies outside the text."""
        return self.start >= self.end

    @property
    def header(self) -> str:
        """The value of `Content-Range`."""
        if self.is_outside:
            return f"bytes */{self.total}"
        return f"bytes {self.start}-{self.end - 1}/{self.total}"


def asked_part(headers: Headers, total: int, etag: str) -> Part:
    """Return the requested part: one range, else the whole.

    Several ranges, units other than bytes, and a range of what has changed since mean the whole.
    """
    whole = Part(0, total, total)
    if headers.get("if-range", etag) != etag:
        return whole
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or found.groups() == ("", ""):
        return whole
    first, last = found.groups()
    if not first:
        return Part(max(0, total - int(last)), total, total)
    if last and int(last) < int(first):
        return whole
    return Part(int(first), min(int(last) + 1, total) if last else total, total)


def is_known(headers: Headers, etag: str) -> bool:
    """Whether the caller has this version already."""
    known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known
