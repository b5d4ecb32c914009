"""What a caller learns of a text that was stored, or of an upload that is still open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.contexts.charsets import UTF_8
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.walking import Omissions
from rlm_mcp.store.contexts.records import OpenUpload, SealedContext
from rlm_mcp.text import estimated_tokens, utf8

MAX_NAME_CHARS = 200
_HOLE = "NUL bytes at its start were left out"


@dataclass(frozen=True)
class Added:
    """A stored text, or an upload that waits for more (`handle` and `sha256` are None).

    `note` is what the caller should know about the arguments; empty for nothing.
    """

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
    note: str = ""

    @property
    def skipped_total(self) -> int:
        """How many files, or parts of some, were left out; `skipped` names the first of them."""
        return sum(self.skipped_reasons.values())


class Decoded:
    """What decoding found in the documents of a text.

    Attributes:
        charsets: the charsets other than UTF-8.
        replaced: how many characters these lack.
        left_out: documents, and parts of some, that are not in the text.
    """

    def __init__(self) -> None:
        self.charsets: tuple[str, ...] = ()
        self.replaced = 0
        self.left_out = Omissions()

    def note(self, name: str, charset: str, replaced: int, hole_bytes: int) -> None:
        """Note what was found in one more document; an empty charset is UTF-8."""
        if hole_bytes:
            self.left_out.note(name, f"{hole_bytes:,} {_HOLE}", counted_as=_HOLE)
        self.replaced += replaced
        if charset not in ("", UTF_8):
            self.charsets = tuple(dict.fromkeys((*self.charsets, charset)))


def sealed_view(
    sealed: SealedContext,
    skipped: tuple[tuple[str, str], ...] = (),
    decoded: Decoded | None = None,
) -> Added:
    """What became of a text that was stored."""
    record, decoded = sealed.record, decoded or Decoded()
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
        skipped=(*skipped, *decoded.left_out.listed),
        skipped_reasons=dict(decoded.left_out.counts),
        replaced_characters=sealed.replaced_characters + decoded.replaced,
        charset=", ".join(decoded.charsets) or UTF_8,
        preview=record.preview,
    )


def open_view(upload: OpenUpload, waiting: str = "") -> Added:
    """What is known of an upload that waits for more; `waiting` came, and is not stored yet."""
    size, chars = upload.bytes + len(utf8(waiting)), upload.chars + len(waiting)
    return Added(
        handle=None,
        upload_id=upload.upload_id,
        name=upload.name,
        sha256=None,
        bytes=size,
        chars=chars,
        documents=upload.documents,
        estimated_tokens=estimated_tokens(chars, size),
    )


def idle_note(new: NewText) -> str:
    """Say which arguments have no effect where no directory is read; empty where all have one."""
    idle = " and ".join(name for name in ("include", "exclude") if getattr(new, name))
    if not idle:
        return ""
    given = "and the path names a single file" if new.path else "and no path was given"
    return f"{idle.capitalize()} had no effect: they choose files of a directory or glob, {given}."


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
