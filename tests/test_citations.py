from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp import RLMConfig, RLMWrapper
from rlm_mcp.engine.citations.checking import check_citations
from rlm_mcp.engine.citations.finding import Found, find_passages
from rlm_mcp.engine.citations.quotations import quotations
from rlm_mcp.engine.parsing.cited_finals import split_citations
from rlm_mcp.engine.parsing.reply import parse_reply
from rlm_mcp.engine.wrapper import RLMResponse
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import Citation
from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.commands import command, environment
from tests.serving import Served, cell, open_served, text_of, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

BOOK = (
    "The harbour master counted nine ships in the fog.\n"
    "“Nothing comes in\ntoday”, he said — and went home.\n" + "Nothing else happened.\n" * 50
)


@dataclass(frozen=True)
class Asked:
    """A run that ended, and the server that it ran on."""

    served: Served
    run: dict[str, Any]
    handle: str


async def asked(served: Served, text: str, *more: str) -> Asked:
    """Store texts as the documents of one context and ask about them."""
    source: dict[str, Any] = {"documents": [text, *more]} if more else {"text": text}
    added = await served.call("rlm_context_add", **source, name="book")
    run = await served.call(
        "rlm_query", question="How many ships?", contexts=[added["handle"]], wait_seconds=60
    )
    return Asked(served, run, added["handle"])


async def test_a_passage_that_code_cites_is_verified_and_placed(tmp_path: Path) -> None:
    script = turns(cell("cite('counted nine ships')\nFINAL('nine')"))
    async with open_served(tmp_path, script) as served:
        found = await asked(served, BOOK)

    [one] = found.run["citations"]
    start = BOOK.index("counted")
    assert one == {
        "handle": found.handle,
        "document": 0,
        "name": "book",
        "start": start,
        "end": start + 18,
        "page": None,
        "quote": "counted nine ships",
        "verified": True,
        "how": "exact",
        "cited": True,
    }
    assert found.run["support"] == {
        "origin": "output",
        "citations": 1,
        "verified": 1,
        "agreement": None,
    }


async def test_a_passage_that_the_model_made_up_is_marked_and_never_dropped(
    tmp_path: Path,
) -> None:
    made_up = "FINAL('ten', citations=['counted ten ships', 'nine ships'])"
    async with open_served(tmp_path, turns(cell(made_up))) as served:
        found = await asked(served, BOOK)
        result = await served.raw("rlm_run_wait", run_id=found.run["run_id"])
        trace = await served.call("rlm_run_trace", run_id=found.run["run_id"], limit=50)

    wrong, right = found.run["citations"]
    assert (wrong["quote"], wrong["verified"], wrong["how"]) == (
        "counted ten ships",
        False,
        "not found",
    )
    assert wrong["handle"] is wrong["start"] is None
    assert right["verified"]
    assert "1 of 2 citations were found in the text" in text_of(result)
    assert "NOT FOUND: 'counted ten ships'" in text_of(result)
    [final] = [event for event in trace["events"] if event["type"] == "final_answer"]
    assert [one["how"] for one in final["detail"]["citations"]] == ["not found", "exact"]
    ran = [event for event in trace["events"] if event["type"] == "code_executed"]
    assert [one["document"] for one in ran[0]["detail"]["cited"]] == [None, 0]


async def test_a_cell_of_the_caller_gets_its_citations_checked(tmp_path: Path) -> None:
    answer = 'It says "counted nine ships in the fog".'
    code = f"FINAL({answer!r}, citations=['nine ships', 'ten ships'])"
    async with open_served(tmp_path, turns("never")) as served:
        handle = (await served.call("rlm_context_add", text=BOOK, name="book"))["handle"]
        ran = await served.raw("rlm_exec", code=code, contexts=[handle])
        done: dict[str, Any] = ran.structured_content or {}
        run = await served.call("rlm_run_wait", run_id=done["run_id"])
        trace = await served.call("rlm_run_trace", run_id=done["run_id"], limit=50)

    found = [(one["quote"], one["how"], one["cited"]) for one in done["citations"]]
    assert found == [
        ("nine ships", "exact", True),
        ("ten ships", "not found", True),
        ("counted nine ships in the fog", "exact", False),
    ]
    start = BOOK.index("nine ships")
    assert "2 of 3 citations were found in the text:" in text_of(ran)
    assert f"[1] book, characters {start} to {start + 10}: 'nine ships'" in text_of(ran)
    assert "[2] NOT FOUND: 'ten ships'" in text_of(ran)
    assert (run["citations"], run["support"]["verified"]) == (done["citations"], 2)
    [executed] = [event for event in trace["events"] if event["type"] == "code_executed"]
    assert executed["detail"]["citations"] == done["citations"]


async def test_a_later_cell_of_the_caller_may_cite_without_an_answer(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never")) as served:
        added = await served.call("rlm_context_add", documents=["a walrus", "nine ships"])
        first = await served.call("rlm_exec", code="1", contexts=[added["handle"]])
        ran = await served.raw("rlm_exec", code="cite((1, 0, 4))", run_id=first["run_id"])
    second: dict[str, Any] = ran.structured_content or {}

    assert "1 of 1 citation was found in the text:" in text_of(ran)
    assert (first["citations"], second["answer"]) == ([], None)
    assert [(one["document"], one["quote"], one["verified"]) for one in second["citations"]] == [
        (1, "nine", True)
    ]


async def test_citations_of_a_text_that_was_deleted_meanwhile_are_kept_unchecked(
    tmp_path: Path,
) -> None:
    async with open_database(tmp_path / DATABASE_NAME) as database:
        contexts = Contexts(database)
        async with contexts.open_upload("book") as upload:
            await upload.write(BOOK.encode())
            handle = (await upload.seal()).record.handle
        source = await contexts.source([handle])
        await contexts.delete(handle)
        cited = [Citation("nine ships", 0, 27, 37), Citation("no place")]
        checked = await check_citations(source, cited, 'It says "counted nine ships in the fog".')

    assert [(one.quote, one.how, one.cited) for one in checked] == [
        ("nine ships", "not looked for", True),
        ("no place", "not looked for", True),
        ("counted nine ships in the fog", "not looked for", False),
    ]


async def test_quotation_marks_dashes_and_line_ends_may_differ(tmp_path: Path) -> None:
    quote = '"Nothing comes in today", he said - and'
    async with open_served(tmp_path, turns(cell(f"FINAL('none', citations={quote!r})"))) as served:
        found = await asked(served, BOOK)

    [one] = found.run["citations"]
    assert (one["verified"], one["how"]) == (True, "normalised")
    assert BOOK[one["start"] : one["end"]] == "“Nothing comes in\ntoday”, he said — and"


async def test_a_quotation_in_the_answer_is_looked_up_by_itself(tmp_path: Path) -> None:
    answer = 'FINAL(It says "counted nine ships in the fog" and "sold forty ships in the sun".)'
    async with open_served(tmp_path, turns(cell("print(context[:50])"), answer)) as served:
        found = await asked(served, BOOK)

    assert [(one["quote"], one["verified"], one["cited"]) for one in found.run["citations"]] == [
        ("counted nine ships in the fog", True, False),
        ("sold forty ships in the sun", False, False),
    ]
    assert found.run["support"]["origin"] == "output"


async def test_a_final_outside_code_may_cite(tmp_path: Path) -> None:
    answer = "FINAL(There were nine., citations=['nine ships', 'no such words'])"
    async with open_served(tmp_path, turns(cell("print(context[:50])"), answer)) as served:
        found = await asked(served, BOOK)

    assert found.run["answer"] == "There were nine."
    assert [one["verified"] for one in found.run["citations"]] == [True, False]


async def test_documents_are_named_and_spans_and_matches_can_be_cited(tmp_path: Path) -> None:
    code = (
        "import re\ncite((1, 3, 9))\n"
        "cite(re.search('Müller', context[2]))\ncite(search('walrus', 1)[0])\nFINAL('x')"
    )
    texts = ["a walrus", "é - nine ships", "Herr Müller"]
    async with open_served(tmp_path, turns(cell(code))) as served:
        found = await asked(served, *texts)

    places = [(one["document"], one["name"], one["quote"]) for one in found.run["citations"]]
    assert places == [
        (1, "document 1", " nine "),
        (2, "document 2", "Müller"),
        (0, "document 0", "a walrus"),
    ]
    for one in found.run["citations"]:
        assert texts[one["document"]][one["start"] : one["end"]] == one["quote"]


async def test_citations_are_heard_in_the_forms_that_models_write(tmp_path: Path) -> None:
    given = (
        "[{'quote': 'nine ships', 'page': 3}, {'start': 4, 'end': 11}, [4, 11], b'harbour',"
        " (c for c in ['in the fog']), 'nowhere in it', {'page': 9, 'text': 'ten ships'}]"
    )
    async with open_served(tmp_path, turns(cell(f"FINAL('nine', citations={given})"))) as served:
        found = await asked(served, BOOK)

    assert [(one["quote"], one["verified"]) for one in found.run["citations"]] == [
        ("nine ships", True),
        ("harbour", True),
        ("in the fog", True),
        ("nowhere in it", False),
        ("ten ships", False),
    ]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("7", "a int cites nothing"),
        ("[None]", "a NoneType cites nothing"),
        ("[{'page': 3}]", "a NoneType cites nothing"),
        ("['  ']", "an empty quote cites nothing"),
        ("[(5, 999_999)]", "no passage from 5 to 999,999"),
    ],
)
async def test_what_cites_nothing_is_told_to_the_model_and_costs_no_answer(
    tmp_path: Path, given: str, problem: str
) -> None:
    script = turns(cell(f"FINAL('nine', citations={given})"), cell("FINAL('nine')"))
    async with open_served(tmp_path, script) as served:
        found = await asked(served, BOOK)
        told = str(served.model.requests[-1].messages[-1]["content"])

    assert problem in told
    assert (found.run["answer"], found.run["citations"]) == ("nine", [])


async def test_a_long_quote_and_one_of_another_document_are_placed(tmp_path: Path) -> None:
    long = "word " * 200_000
    code = f"FINAL('x', citations=[{long[:50]!r} * 20_000, 'only in the second', 'in all three'])"
    texts = [f"in all three {long}", "only in the second, in all three", "in all three"]
    async with open_served(tmp_path, turns(cell(code))) as served:
        found = await asked(served, *texts)

    cited, second, first = found.run["citations"]
    assert (len(cited["quote"]), cited["verified"], cited["document"]) == (2_000, True, 0)
    assert (second["document"], second["start"]) == (1, 0)
    assert (first["document"], first["start"]) == (0, 0)


async def test_a_guess_a_direct_answer_and_a_best_effort_are_told_apart(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("FINAL(nine)")) as served:
        long = await asked(served, BOOK * 100)
        short = await served.call(
            "rlm_query",
            question="How many?",
            text="nine ships",
            wait_seconds=60,
            options={"direct_max_chars": 10_000},
        )
        last = await served.call(
            "rlm_query",
            question="How many at most?",
            contexts=[long.handle],
            wait_seconds=60,
            budget={"max_iterations": 1},
        )

    assert long.run["support"]["origin"] == "guess"
    assert short["support"]["origin"] == "direct"
    assert last["support"]["origin"] in ("best_effort", "guess")


async def test_the_command_shows_citations_beside_the_answer(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(BOOK)
    script = turns(cell("FINAL('nine', citations=['nine ships', 'ten ships'])"))
    async with open_scripted_model(script) as model:
        given = environment(tmp_path, model.base_url)
        done = await command(given, "query", "How many?", "--file", str(tmp_path / "book.txt"))

    assert done.stdout == "nine\n"
    start = BOOK.index("nine ships")
    assert f"[1] book.txt, characters {start} to {start + 10}: 'nine ships'" in done.stderr
    assert "[2] NOT FOUND: 'ten ships'" in done.stderr


async def test_the_library_has_citations_and_support() -> None:
    script = turns(cell("FINAL('nine', citations=['nine ships', 'ten ships'])"))
    async with open_scripted_model(script) as model:
        response = await answered(model.base_url)

    assert [(one.document, one.name, one.verified) for one in response.citations] == [
        (0, "context", True),
        (None, None, False),
    ]
    assert response.support is not None
    assert (response.support.origin, response.support.verified) == ("output", 1)


async def answered(base_url: str) -> RLMResponse:
    from openai import AsyncOpenAI  # noqa: PLC0415  # loads slowly

    sandbox = ProcessSandbox(min_isolation="process")
    async with AsyncOpenAI(base_url=base_url, api_key="k") as client:
        wrapper = RLMWrapper(client, "root", config=RLMConfig(), sandbox=sandbox)
        return await wrapper.agenerate("How many ships?", BOOK)


@pytest.mark.parametrize("chunk", [1, 7, 50, 4096])
def test_passages_are_found_wherever_the_text_is_cut(chunk: int) -> None:
    documents = ("Die Straße war naß. ", "x", "", "éé “eine kleine\nNacht­musik” und mehr", "ß ende")
    source = _Cut(documents, names=tuple("abcde"), chunk=chunk)
    quotes = ["Straße war", '"eine kleine', "ende", "mehrß", "naß. x"]

    found, is_whole = find_passages(source, quotes, 60)

    assert is_whole
    assert found == {
        "Straße war": Found(0, 4, 14, is_exact=True),
        '"eine kleine': Found(3, 3, 15, is_exact=False),
        "ende": Found(4, 2, 6, is_exact=True),
    }


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("a careful exami-\nnation of all", "careful examination of"),
        ("a careful exami-\r\n  nation of all", "careful examination of"),
        ("ein auf\xadfäl\xadliges Zeichen", "ein auffälliges Zeichen"),
        ("made by a well-\nknown author", "a well-known author"),
        ("he waited… then left", "he waited... then left"),
        ("he waited... then left", "waited… then"),
        ("the cafe\u0301 in Ko\u0308ln", "café in Köln"),
        ("the café in Köln", "cafe\u0301 in Ko\u0308ln"),
        ("each word was hyphen-\nated, over-\nlong", "hyphenated, overlong"),
    ],
)
def test_words_cut_at_line_ends_dots_and_accents_may_differ(text: str, quote: str) -> None:
    source = TextContext.of(f"Before it.\n-- -\n{text}\nAfter it.")

    found, _ = find_passages(source, [quote, f"no {quote}"], 60)

    [(of_quote, place)] = found.items()
    spelled = source.documents[0][place.start : place.end]
    assert (of_quote, place.is_exact) == (quote, False)
    assert spelled in text
    assert (spelled.split()[0][0], spelled.split()[-1][-1]) == (quote[0], spelled[-1])
    assert len(spelled) >= len(quote) - 2


def test_a_passage_that_goes_over_into_another_document_is_looked_for_further_on() -> None:
    source = TextContext(("one two", "three two three"), names=("a", "b"))

    assert find_passages(source, ["twothree", "two three"], 60)[0] == {
        "two three": Found(1, 6, 15, is_exact=True)
    }


@dataclass(frozen=True)
class _Cut(TextContext):
    """A text that comes in chunks of some characters."""

    chunk: int = 1

    def chunks(self) -> Iterator[bytes]:
        whole = "".join(self.documents)
        for start in range(0, len(whole), self.chunk):
            yield whole[start : start + self.chunk].encode()


def test_a_look_that_takes_too_long_ends_in_time_and_says_so() -> None:
    source = TextContext.of("a\n" * 4_000_000 + "the very last words")
    ticks = iter(range(1000))

    found, is_whole = find_passages(
        source, ["the very last words"], 1.5, clock=lambda: float(next(ticks))
    )

    assert (found, is_whole) == ({}, False)


async def test_a_place_that_a_repl_made_up_does_not_verify_a_quote() -> None:
    source = TextContext.of(BOOK)
    claims = [Citation("ten ships", 0, 4, 13), Citation("nine ships", 7, 1, 11)]

    checked = await check_citations(source, claims, "")

    assert [(one.verified, one.document) for one in checked] == [(False, None), (True, 0)]


def test_quotations_are_those_between_marks_that_are_long_enough() -> None:
    answer = (
        'He said "short", then "this one is long enough, is it not" and “so is this one, as well”.'
        "\n> a block of quoted words\n> over two lines\n«voilà une citation assez longue»"
    )

    assert quotations(answer) == [
        "this one is long enough, is it not",
        "so is this one, as well",
        "a block of quoted words\nover two lines",
        "voilà une citation assez longue",
    ]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("42", ("42", ())),
        ("42, citations=['a', \"b\"]", ("42", ("a", "b"))),
        ("a, b, citations = ('x',)", ("a, b", ("x",))),
        ("'x', citations='one'", ("'x'", ("one",))),
        ("see citations=[1]", ("see citations=[1]", ())),
        ("x, citations=[{'quote': 'a', 'page': 3}, 7]", ("x", ("a", "7"))),
        ("x, citations={'text': 'a'}", ("x", ("a",))),
        ("x, citations=[not python]", ("x, citations=[not python]", ())),
    ],
)
def test_citations_are_split_from_what_a_final_was_given(
    argument: str, expected: tuple[str, tuple[str, ...]]
) -> None:
    assert split_citations(argument) == expected


def test_citations_of_a_final_that_computes_go_into_its_code() -> None:
    parsed = parse_reply("FINAL(str(len(x)), citations=['a b'])")

    assert [block.code for block in parsed.blocks] == ["FINAL(str(len(x)), citations=['a b'])"]
