"""The SHA-256 that names a content, made as the content comes. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

# No UTF-8 begins with this byte, so no single document can have the digest of several.
_SEVERAL = b"\xffdocuments\n"


class ContentDigest:
    """Of one document it is that of its UTF-8; of several, that of each one's name and own digest.

    Documents are given in order: `update` with what the next one holds, then `end` it.
    """

    def __init__(self) -> None:
        self._documents = 0
        self._several = hashlib.sha256(_SEVERAL)
        self._one = hashlib.sha256()
        self._last = self._one

    def update(self, data: bytes | memoryview) -> None:
        """Take in more of the document."""
        self._one.update(data)

    def end(self, name: str) -> None:
        """End the document; what comes next is another one."""
        encoded = name.encode()
        self._several.update(len(encoded).to_bytes(8, "big") + encoded + self._one.digest())
        self._documents += 1
        self._last, self._one = self._one, hashlib.sha256()

    def hexdigest(self) -> str:
        """Give the digest of all documents that were ended."""
        return (self._last if self._documents == 1 else self._several).hexdigest()


def digest_of(chunks: Iterator[bytes], documents: Iterable[tuple[str, int]]) -> str:
    """Return the digest of a stored content.

    Args:
        chunks: the UTF-8 of all documents, without gaps.
        documents: names and sizes in bytes, in order.
    """
    digest, rest = ContentDigest(), memoryview(b"")
    for name, size in documents:
        missing = size
        while missing > 0:
            rest = rest or memoryview(next(chunks))
            digest.update(rest[:missing])
            missing, rest = missing - len(rest[:missing]), rest[missing:]
        digest.end(name)
    return digest.hexdigest()
