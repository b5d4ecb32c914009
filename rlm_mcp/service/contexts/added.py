"""What a caller learns of a text that was stored, or of an upload that is still open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.contexts.charsets import UTF_8
from rlm_mcp.store.contexts.records import OpenUpload, SealedContext, estimated_tokens

MAX_NAME_CHARS = 200
_HOLE = "NUL bytes at its start were left out"


@dataclass(frozen=True)
class Added:
    """A stored text, or an upload that waits for more (`handle` and `sha256` are None)."""

    handle: str | None
    upload_id: str | None
    name: str
    sha256: str | None
    bytes: int
    chars: int
    documents: int
    estimated_tokens: int
    deduplicated: bool = False
    skipped: tuple[tuple[str, str], ...] = ()
    skipped_reasons: Mapping[str, int] = field(default_factory=dict[str, int])
    replaced_characters: int = 0
    preview: str = ""
    charset: str = UTF_8


@dataclass(frozen=True)
class Decoded:
    """What decoding found: charsets other than UTF-8, characters replaced, holes left out."""

    charsets: tuple[str, ...] = ()
    replaced: int = 0
    holes: tuple[tuple[str, str], ...] = ()

    def plus(self, name: str, charset: str, replaced: int, hole_bytes: int) -> Decoded:
        """Add what was found in one more document; an empty charset is UTF-8."""
        holes = self.holes
        if hole_bytes:
            holes += ((name, f"{hole_bytes:,} {_HOLE}"),)
        if charset in ("", UTF_8):
            return replace(self, holes=holes)
        charsets = tuple(dict.fromkeys((*self.charsets, charset)))
        return Decoded(charsets, self.replaced + replaced, holes)

    @property
    def reasons(self) -> Mapping[str, int]:
        """How often each reason stands among the holes."""
        return Counter(_HOLE if reason.endswith(_HOLE) else reason for _, reason in self.holes)

    def leaving_out(self, left_out: tuple[tuple[str, str], ...]) -> Decoded:
        """Add what was not converted: names and reasons."""
        return replace(self, holes=(*self.holes, *left_out)) if left_out else self


def sealed_view(
    sealed: SealedContext,
    skipped: tuple[tuple[str, str], ...] = (),
    decoded: Decoded = Decoded(),
) -> Added:
    """What became of a text that was stored."""
    record = sealed.record
    return Added(
        handle=record.handle,
        upload_id=None,
        name=record.name,
        sha256=record.sha256,
        bytes=record.bytes,
        chars=record.chars,
        documents=record.documents,
        estimated_tokens=record.estimated_tokens,
        deduplicated=sealed.deduplicated,
        skipped=(*skipped, *decoded.holes),
        skipped_reasons=dict(decoded.reasons),
        replaced_characters=sealed.replaced_characters + decoded.replaced,
        charset=", ".join(decoded.charsets) or UTF_8,
        preview=record.preview,
    )


def open_view(upload: OpenUpload) -> Added:
    """What is known of an upload that waits for more."""
    return Added(
        handle=None,
        upload_id=upload.upload_id,
        name=upload.name,
        sha256=None,
        bytes=upload.bytes,
        chars=upload.chars,
        documents=upload.documents,
        estimated_tokens=estimated_tokens(upload.chars, upload.bytes),
    )


def check_name(name: str) -> None:
    """Refuse a name that is too long.

    Raises:
        InvalidInputError: with its beginning and its length.
    """
    if len(name) > MAX_NAME_CHARS:
        raise InvalidInputError(
            f"The name {name[:40]!r}... has {len(name)} characters; the limit is {MAX_NAME_CHARS}.",
            fix="Give a shorter name.",
        )
