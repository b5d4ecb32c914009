"""Checks what an answer cites against the text, and says how the answer came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anyio import to_thread

from rlm_mcp.engine.citations.finding import Found, find_passages
from rlm_mcp.engine.citations.quotations import normalised, quotations
from rlm_mcp.errors import StoreError
from rlm_mcp.events import CheckedCitation
from rlm_mcp.sandbox.citable import Citable
from rlm_mcp.sandbox.types import Citation, ContextSource

MAX_CITATIONS = 200
# What the run cited is looked for longer than what its answer merely quotes.
CITED_SECONDS = 5.0
QUOTED_SECONDS = 1.0


async def check_citations(
    source: ContextSource, cited: Sequence[Citation], answer: str
) -> tuple[CheckedCitation, ...]:
    """Check what was cited, and the quotations in the answer that were not; none is dropped.

    Where the text was deleted meanwhile, all are marked as not looked for.

    Args:
        source: the text.
        cited: passages, with the places that the REPL named.
        answer: its quotations are looked for; empty where it holds no words of its own.
    """
    unique = _distinct(cited)[:MAX_CITATIONS]
    known = [normalised(one.quote) for one in unique]
    quoted = [
        quote for quote in quotations(answer) if not any(normalised(quote) in one for one in known)
    ]
    if not unique and not quoted:
        return ()
    try:
        return await to_thread.run_sync(_check, source, unique, quoted, abandon_on_cancel=True)
    except StoreError:  # an answer is not lost because its text is
        unseen = _Outcome(None, is_whole=False)
        return tuple(
            _checked(source, quote, unseen, is_cited=is_cited)
            for quote, is_cited in _marked(unique, quoted)
        )


def _distinct(cited: Sequence[Citation]) -> list[Citation]:
    """Return each passage once; the same words at two known places are two passages."""
    placed = {normalised(one.quote) for one in cited if one.document is not None}
    found: dict[tuple[str, int | None, int], Citation] = {}
    for one in cited:
        words = normalised(one.quote)
        if one.document is not None or words not in placed:
            found.setdefault((words, one.document, one.start), one)
    return list(found.values())


@dataclass(frozen=True)
class _Outcome:
    """The place of a passage, if it was found; `is_whole`: the whole text was searched."""

    found: Found | None
    is_whole: bool = True


def _check(
    source: ContextSource, cited: Sequence[Citation], quoted: Sequence[str]
) -> tuple[CheckedCitation, ...]:
    places = [_at_its_place(source, one) for one in cited]
    missing = [one.quote for one, place in zip(cited, places, strict=True) if place is None]
    outcomes: dict[str, _Outcome] = {}
    for quotes, seconds in ((missing, CITED_SECONDS), (quoted, QUOTED_SECONDS)):
        if quotes:
            found, is_whole = find_passages(source, quotes, seconds)
            outcomes |= {quote: _Outcome(found.get(quote), is_whole) for quote in quotes}
    at_places = [_Outcome(place) if place else None for place in (*places, *(None for _ in quoted))]
    return tuple(
        _checked(source, quote, there or outcomes[quote], is_cited=is_cited)
        for (quote, is_cited), there in zip(_marked(cited, quoted), at_places, strict=True)
    )


def _marked(cited: Sequence[Citation], quoted: Sequence[str]) -> list[tuple[str, bool]]:
    """Return all passages, each with whether it was cited."""
    return [(one.quote, True) for one in cited] + [(quote, False) for quote in quoted]


def _at_its_place(source: ContextSource, cited: Citation) -> Found | None:
    """Look where the REPL says that a passage is, which is only a claim."""
    number = cited.document
    if number is None or number >= len(source.char_lengths) or not isinstance(source, Citable):
        return None
    text = source.text_at(number, cited.start, cited.end)
    if normalised(text) != normalised(cited.quote) or not text:
        return None
    return Found(number, cited.start, cited.start + len(text), text == cited.quote)


def _checked(
    source: ContextSource, quote: str, outcome: _Outcome, *, is_cited: bool
) -> CheckedCitation:
    found = outcome.found
    if found is None:
        how = "not found" if outcome.is_whole else "not looked for"
        return CheckedCitation(quote, verified=False, how=how, cited=is_cited)
    handle, document, name, page = (None, found.document, None, None)
    if isinstance(source, Citable):
        handle, document, name, page = source.place_of(found.document, found.start)
    return CheckedCitation(
        quote,
        verified=True,
        how="exact" if found.is_exact else "normalised",
        cited=is_cited,
        handle=handle or None,
        document=document,
        name=name,
        start=found.start,
        end=found.end,
        page=page,
    )
