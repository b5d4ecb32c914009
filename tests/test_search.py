from __future__ import annotations

import re

import pytest

from rlm_mcp.cursors import encode_cursor
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import ReplOptions
from rlm_mcp.service.contexts.requests import SearchQuery
from rlm_mcp.service.contexts.search import FoundMatch, check_pattern, search
from tests.overtime import with_enough_time

RUNAWAY = "(a+)+c"


async def found(
    text: str | list[str], query: SearchQuery, cursor: str = "", seconds: float = 20
) -> tuple[list[FoundMatch], str | None]:
    sandbox = ProcessSandbox(min_isolation="process")
    async with sandbox.open_repl(TextContext.of(text), ReplOptions()) as repl:
        return await search(repl, query, cursor, seconds)


async def test_a_pattern_that_runs_away_is_stopped_by_time() -> None:
    with pytest.raises(InvalidInputError, match=r"stopped after 0\.5 s without a match") as error:
        await found("a" * 40 + "b", SearchQuery(RUNAWAY), seconds=0.5)

    assert "nested repetition" in error.value.fix


async def test_what_was_found_before_the_time_was_up_is_given() -> None:
    text = "b\n" * 3 + "a" * 40 + "d"

    matches, cursor = await with_enough_time(
        lambda seconds: found(text, SearchQuery(f"b|{RUNAWAY}"), seconds=seconds),
        lambda page: len(page[0]) == 3,
    )

    assert [match.start for match in matches] == [0, 2, 4]
    assert cursor is not None


async def test_pages_join_to_what_one_page_gives() -> None:
    texts = ["one two\ntwo\n", "", "two\n\ntwo two"]
    whole, end = await found(texts, SearchQuery("two", limit=100))
    paged: list[FoundMatch] = []
    cursor: str | None = ""
    while cursor is not None:
        page, cursor = await found(texts, SearchQuery("two", limit=2), cursor)
        paged += page

    assert end is None
    assert paged == whole
    expected = [
        (number, match.start(), text.count("\n", 0, match.start()) + 1)
        for number, text in enumerate(texts)
        for match in re.finditer("two", text)
    ]
    assert [(match.document, match.start, match.line) for match in whole] == expected


async def test_lines_around_a_match_are_given_when_asked_for() -> None:
    text = "one\ntwo\nthree\nfour\nfive"

    [match], _ = await found(text, SearchQuery("three", context_lines=1))
    [first], _ = await found(text, SearchQuery("one", context_lines=3))

    assert match.text == "two\nthree\nfour"
    assert first.text == "one\ntwo\nthree\nfour"


async def test_a_match_in_a_very_long_line_is_shown_with_its_surroundings() -> None:
    [match], _ = await found("x" * 100_000 + "needle" + "x" * 100_000, SearchQuery("needle"))

    assert "needle" in match.text
    assert len(match.text) <= 1006


async def test_a_match_of_nothing_moves_on() -> None:
    matches, cursor = await found("ab", SearchQuery("x*", limit=2))
    rest, end = await found("ab", SearchQuery("x*", limit=2), cursor or "")

    assert [match.start for match in matches + rest] == [0, 1, 2]
    assert end is None


@pytest.mark.parametrize("pattern", ["(a", "a{2,1}", "[z-a]", "(?P<1>a)"])
async def test_what_is_no_expression_is_told_with_the_reason(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a regular expression"):
        await found("text", SearchQuery(pattern))


async def test_a_literal_is_found_as_it_is() -> None:
    [match], _ = await found("a.b (a+) axb", SearchQuery("(a+)", literal=True))

    assert (match.start, match.end) == (4, 8)


@pytest.mark.parametrize("pattern", ["", "a" * 10_001])
def test_a_pattern_must_have_a_usable_length(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{len(pattern):,} characters"):
        check_pattern(SearchQuery(pattern))


@pytest.mark.parametrize(
    "cursor",
    [
        "no cursor",
        encode_cursor("ranked", 1),
        encode_cursor("runs", 1, 1),
        encode_cursor("search", 1),
        encode_cursor("search", -1, 0),
        encode_cursor("search", 0, 10**30),
        encode_cursor("search", "0", "0"),
    ],
)
async def test_a_cursor_that_is_not_ours_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInputError, match="cursor"):
        await found("text", SearchQuery("t"), cursor)
