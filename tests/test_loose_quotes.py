"""Quotes as models write them: shortened, in other case, with the marks of their own sentence."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rlm_mcp.engine.citations.checking import check_citations
from rlm_mcp.engine.citations.finding import find_passages
from rlm_mcp.engine.citations.quotations import quotations
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import Citation
from tests.serving import cell, open_served, turns

LINE = "The harbour master counted nine ships in the fog."


@pytest.mark.parametrize(
    ("text", "quote", "found"),
    [
        (LINE, "The harbour master … in the fog", LINE[:-1]),
        (LINE, "The harbour master [...] in the fog.", LINE[:-1]),
        (LINE, "The harbour (…) counted ... the fog", LINE[:-1]),
        (LINE, "… counted nine ships …", "counted nine ships"),
        (LINE, "counted nine ships...", "counted nine ships"),
        (LINE, "Counted nine ships in the fog", "counted nine ships in the fog"),
        (LINE, "THE HARBOUR MASTER", "The harbour master"),
        (LINE, "counted nine ships,", "counted nine ships"),
        ("Herr ÖZTÜRK aus Köln kam.", "Herr Öztürk aus Köln", "Herr ÖZTÜRK aus Köln"),
        ("The o\ufb03ce was \ufb01rst to \ufb02y.", "office was first to fly", None),
        ("The office was first to fly.", "o\ufb03ce was \ufb01rst to \ufb02y", None),
        ("这是世界上最\n长的日志文件。", "世界上最长的日志", "世界上最\n长的日志"),
        ("The **harbour** master _counted_ nine", "harbour master counted", None),
        ("the exami-\nnation of all ships", "The examination … all ships", None),
        ("page one ends with\fhalf of it and goes on", "ends with half of it", None),
        ("| North | 1,000 € | up |", "North 1,000 € up", "North | 1,000 € | up"),
        ("the zero\u200bwidth \u202bword\u202c here", "zerowidth word here", None),
        ("ten\u202fthousand\u00a0ships", "Ten thousand ships", "ten\u202fthousand\u00a0ships"),
    ],
)
def test_a_quote_is_found_as_it_was_meant(text: str, quote: str, found: str | None) -> None:
    whole = f"Before it.\n{text}\nAfter it."

    places, is_whole = find_passages(TextContext.of(whole), [quote], 60)

    assert is_whole
    place = places[quote]
    assert not place.is_exact
    passage = whole[place.start : place.end]
    assert passage == found if found is not None else passage in text


@pytest.mark.parametrize(
    "quote",
    [
        "The … fog",  # so little is in many texts
        "in the fog … The harbour master",  # in another order
        "The harbour master … in the sun",
        "counted ten ships",
        "…",
        "The harbour master ... ten ships ... the fog",
    ],
)
def test_what_the_text_does_not_say_is_not_found(quote: str) -> None:
    assert find_passages(TextContext.of(f"{LINE}\n"), [quote], 60)[0] == {}


def test_an_ellipsis_stands_for_a_few_sentences_and_not_for_a_chapter() -> None:
    far = f"The harbour master came.\n{'x ' * 4000}\nThere were nine ships."

    assert not find_passages(TextContext.of(far), ["The harbour master … nine ships"], 60)[0]


def test_a_quote_word_for_word_is_preferred_to_an_earlier_one_in_other_case() -> None:
    text = f"NINE SHIPS\n{'x' * 3_000_000}\nnine ships"

    found, _ = find_passages(TextContext.of(text), ["nine ships"], 60)

    assert (found["nine ships"].start, found["nine ships"].is_exact) == (text.rindex("nine"), True)


def test_a_quote_made_to_take_long_does_not() -> None:
    text = "the fog and " * 200_000
    begun = time.monotonic()

    find_passages(TextContext.of(text), [" … ".join(["the fog"] * 60 + ["the sun"])], 60)

    assert time.monotonic() - begun < 60


async def test_the_same_words_at_two_places_are_two_citations() -> None:
    text = f"{LINE}\nNothing else.\n{LINE}\n"
    first, second = text.index("nine"), text.rindex("nine")
    cited = [
        Citation("nine ships", 0, first, first + 10),
        Citation("nine ships", 0, second, second + 10),
        Citation("nine ships", 0, second, second + 10),
        Citation("nine ships"),
        Citation("ten ships"),
        Citation("ten  ships"),
    ]

    checked = await check_citations(TextContext.of(text), cited, "")

    assert [(one.quote, one.start) for one in checked] == [
        ("nine ships", first),
        ("nine ships", second),
        ("ten ships", None),
    ]


def test_strings_of_a_typed_answer_are_quotations_where_they_are_called_so() -> None:
    answer = (
        '{"summary": "The harbour master saw many ships that day.", "n": 9,'
        ' "reason": "It says “counted nine ships in the fog” there.",'
        ' "quotes": ["counted nine ships in the fog, he said", "too short"]}'
    )

    assert quotations(answer) == [
        "counted nine ships in the fog",
        "counted nine ships in the fog, he said",
    ]
    assert quotations("{" * 100_000) == quotations('{"a": ') == []


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_typed_answer_has_its_quotations_checked(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "quote": {"type": "string"}},
        "required": ["n", "quote"],
    }
    code = "FINAL({'n': 9, 'quote': 'counted nine ships in the fog'}, citations=['ten ships'])"
    async with open_served(tmp_path, turns(cell(code))) as served:
        handle = (await served.call("rlm_context_add", text=LINE * 50))["handle"]
        run = await served.call(
            "rlm_query",
            question="How many?",
            contexts=[handle],
            answer_schema=schema,
            wait_seconds=60,
        )

    assert run["data"]["n"] == 9
    assert [(one["quote"], one["verified"], one["cited"]) for one in run["citations"]] == [
        ("ten ships", False, True),
        ("counted nine ships in the fog", True, False),
    ]


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_a_quote_with_its_place_is_cited_there(tmp_path: Path) -> None:
    text = f"{LINE}\nNothing else.\n{LINE}\n"
    last = text.rindex("nine")
    given = [
        {"quote": "nine ships", "start": last, "end": last + 10},
        {"quote": "nine ships", "start": 3, "end": 9},
        {"quote": "harbour", "document": 7, "start": 0, "end": 4},
    ]
    async with open_served(tmp_path, turns(cell(f"FINAL('nine', citations={given})"))) as served:
        run = await served.call("rlm_query", question="How many?", text=text, wait_seconds=60)

    assert [(one["start"], one["verified"]) for one in run["citations"]] == [
        (last, True),
        (text.index("nine"), True),
        (text.index("harbour"), True),
    ]
