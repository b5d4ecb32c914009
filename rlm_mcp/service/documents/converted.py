"""What a document becomes: text with pages, and notes on what is not in it. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

Pages = tuple[tuple[int, str], ...]
_DATA_ADDRESS = re.compile(r"\(data:[^)\s]*\)")  # a picture within the text
_REPLACEMENT = "\ufffd".encode()
_SHOWN_NAMES = 5


@dataclass(frozen=True)
class Converted:
    """One document as text, or as the bytes of a text file from an archive.

    `name` is empty for the file itself, else its path within. `notes` say what was left out.
    """

    name: str
    data: bytes
    is_raw: bool = False
    pages: Pages = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A document that was not converted, and why."""

    name: str
    reason: str


def csv_of(rows: Iterable[Sequence[str]]) -> str:
    """Write rows as CSV, which any program parses."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def lines_of(rows: Iterable[Sequence[str]]) -> str:
    """Write the only cell of each row as a line."""
    return "\n".join(row[0] for row in rows)


def joined(path: str, parts: Iterable[tuple[str, str]]) -> Converted:
    """Join parts, and note where each begins; one without a label has no mark."""
    pages: list[tuple[int, str]] = []
    texts: list[str] = []
    at = 0
    for label, raw in parts:
        text = plain(raw).strip("\n") + "\n\n"
        if label:
            pages.append((at, label))
        texts.append(text)
        at += len(text)
    data = "".join(texts).encode("utf-8", "replace")
    return Converted(path, data, pages=tuple(pages))


def plain(text: str) -> str:
    """Return a text with ordinary line ends, without NULs, and without pictures written out."""
    text = _DATA_ADDRESS.sub("()", text) if "(data:" in text else text
    return text.replace("\r\n", "\n").replace("\0", "").removeprefix("\ufeff")


def with_parts(converted: Converted, parts: Iterable[tuple[str, str]]) -> Converted:
    """Add parts at the end, each under its name, which is the label of its page too."""
    text, pages = converted.data.decode(), list(converted.pages)
    for name, words in parts:
        text = f"{text.rstrip()}\n\n" if text.strip() else ""
        pages.append((len(text), name))
        text += f"{name.capitalize()}:\n\n{plain(words)}\n"
    return replace(converted, data=text.encode("utf-8", "replace"), pages=tuple(pages))


def attachments_note(names: Sequence[str]) -> Iterator[str]:
    """Yield a note on what was attached, if there is something."""
    if names:
        more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
        yield "attachments were left out: " + ", ".join(names[:_SHOWN_NAMES]) + more


def replaced_note(converted: Converted) -> Iterator[str]:
    """Yield a note on characters that could not be read, if there are some."""
    replaced = converted.data.count(_REPLACEMENT)
    if replaced:
        yield f"{replaced:,} characters could not be read and became U+FFFD"
