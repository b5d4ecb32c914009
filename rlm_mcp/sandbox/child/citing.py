"""`cite`: passages of the text that support the answer. Runs in the REPL's process.

What is recorded here is a claim: the host checks it against the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, cast

from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.child.documents import Documents
from rlm_mcp.sandbox.child.search import Match
from rlm_mcp.sandbox.child.values import type_name
from rlm_mcp.sandbox.types import Citation

_SINGLE, _IN_LIST = 2, 3  # numbers of a span: start and end, of a document before them
# Where models write a citation as a dict.
_QUOTES, _SPANS = ("quote", "text", "passage", "citation"), ("document", "start", "end")
_SHOWN_CHARS = 80


def cite(context: str | Documents, given: Iterable[object], found: list[Citation]) -> list[str]:
    """Add passages to those found; return their words.

    Args:
        context: the text.
        given: quotes, spans, matches of `re` and of `search`, or lists of them; dicts with a
            quote or a span too.
        found: where to add them.

    Raises:
        TypeError: something cites nothing, such as a number.
        ValueError: a span lies outside the text, or there are too many.
    """
    added = [_citation(context, one) for one in _flat(given)]
    if len(found) + len(added) > wire.MAX_CITATIONS:
        raise ValueError(f"at most {wire.MAX_CITATIONS} passages can be cited in a block")
    for one in added:
        if one.document is None:
            shown = one.quote[:_SHOWN_CHARS]
            print(f"cite: not in context word for word: {shown!r}")  # noqa: T201  # into the cell's output
    found += added
    return [one.quote for one in added]


class PackedCitations(NamedTuple):
    """Citations as a frame holds them."""

    numbers: list[int]
    quotes: list[bytes]


def packed_citations(citations: Iterable[Citation]) -> PackedCitations:
    """Return citations as a frame holds them; model code may have put anything among them."""
    numbers: list[int] = []
    quotes: list[bytes] = []
    for one in list(citations)[: wire.MAX_CITATIONS]:
        place = (one.document or 0, one.start, one.end if one.document is not None else 0)
        numbers += (min(max(0, number), wire.MAX_NUMBER) for number in place)
        quotes.append(wire.clip(one.quote, wire.MAX_QUOTE_BYTES))
    return PackedCitations(numbers, quotes)


def _flat(given: Iterable[object]) -> Iterable[object]:
    for one in given:
        if isinstance(one, dict):
            yield _of_dict(cast("dict[object, object]", one))
        elif isinstance(one, str | bytes | Match) or _is_span(one) or not isinstance(one, Iterable):
            yield one
        else:
            yield from _flat(cast("Iterable[object]", one))


def _of_dict(fields: dict[object, object]) -> object:
    quote = next((fields[name] for name in _QUOTES if fields.get(name)), None)
    span = tuple(fields[name] for name in _SPANS if fields.get(name) is not None)
    if quote is None or not isinstance(quote, str):
        return span if quote is None and _is_span(span) else quote
    return _Placed(quote, cast("tuple[int, ...]", span)) if _is_span(span) else quote


class _Placed(NamedTuple):
    """A quote with the span in which it is said to be."""

    quote: str
    span: tuple[int, ...]


def _is_span(value: object) -> bool:
    if not isinstance(value, tuple | list):
        return False
    numbers = cast("tuple[object, ...]", value)
    return len(numbers) in (_SINGLE, _IN_LIST) and all(type(one) is int for one in numbers)


def _citation(context: str | Documents, given: object) -> Citation:
    match given:
        case _Placed(quote, span):
            return _placed(context, quote, span)
        case Match():
            return _quoted(context, given.text.strip("…"))
        case re.Match():
            return _matched(context, cast("re.Match[str]", given))
        case tuple() | list():
            return _span(context, cast("tuple[int, ...]", given))
        case str():
            return _quoted(context, given)
        case bytes():
            return _quoted(context, given.decode("utf-8", "replace"))
        case _:
            raise TypeError(
                f"a {type_name(given)} cites nothing: give a quote, a span (start, end) or a match"
            )


def _placed(context: str | Documents, quote: str, span: tuple[int, ...]) -> Citation:
    """Return a quote at its span if that holds it: the same words may be at other places too."""
    try:
        there = _span(context, span)
    except (ValueError, IndexError):
        return _quoted(context, quote)
    return there if there.quote.split() == quote.split() else _quoted(context, quote)


def _matched(context: str | Documents, match: re.Match[str]) -> Citation:
    if match.string is context:
        return _span(context, match.span())
    return _quoted(context, match.group())


def _span(context: str | Documents, numbers: tuple[int, ...]) -> Citation:
    if isinstance(context, str):
        document, text = 0, context
        start, end = numbers[-_SINGLE:]
    elif len(numbers) == _IN_LIST:
        document, start, end = numbers
        text = context[document]
        document %= len(context)
    else:
        raise ValueError("context is a list: give (document, start, end)")
    if not 0 <= start < end <= len(text):
        raise ValueError(f"no passage from {start:,} to {end:,} in a text of {len(text):,}")
    end = min(end, start + wire.MAX_QUOTE_CHARS)
    return Citation(text[start:end], document, start, end)


def _quoted(context: str | Documents, quote: str) -> Citation:
    quote = quote.strip()[: wire.MAX_QUOTE_CHARS]
    if not quote:
        raise ValueError("an empty quote cites nothing")
    if isinstance(context, str):
        start = context.find(quote)
        return Citation(quote, 0, start, start + len(quote)) if start >= 0 else Citation(quote)
    return _quoted_in_list(context, quote)


def _quoted_in_list(documents: Documents, quote: str) -> Citation:
    needle = quote.encode("utf-8", "replace")
    at, last = (
        (documents.span(0)[0], documents.span(len(documents) - 1)[1]) if documents else (0, 0)
    )
    while (at := documents.find(needle, at, last)) >= 0:
        document = documents.document_at(at)
        start, end = documents.span(document)
        if at + len(needle) <= end:  # else it goes over into the next document
            chars = len(documents.cut(start, at))
            return Citation(quote, document, chars, chars + len(quote))
        at += 1
    return Citation(quote)
