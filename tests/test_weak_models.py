"""What is made for weak models: verbs for items and numbers, a look at lines, fitting examples."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import redirect_stdout

import pytest

from rlm_mcp.engine.prompts.asked import lacks_number, take_number, tell_apart
from rlm_mcp.engine.prompts.first_look import (
    SAMPLE_CODE,
    TextSample,
    TextShape,
    describe_lines,
    describe_parts,
    shape_of,
)
from rlm_mcp.sandbox.child.items import number_near
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import ReplOptions
from rlm_mcp.sandbox.wire import Frame
from rlm_mcp.testing.scripted_replies import ChatRequestView
from tests.test_orchestrator import a_bench, code
from tests.test_sandbox_cells import Here, process_as_it_was

__all__ = ["process_as_it_was"]  # a fixture for all tests of this file

NOTES = "\n".join(["The kettle leaks.", "", "All is fine.", "It never came."])
TABLE = "\n".join(f"{number};{name};open" for number in range(40) for name in ("Lena", "Omar"))
LOG = "\n".join(f"2026-03-05 INFO request {n} finished in {n + 7} ms, Lena" for n in range(99))


@pytest.fixture(scope="module")
async def sandbox() -> AsyncGenerator[ProcessSandbox]:
    async with ProcessSandbox(min_isolation="process") as sandbox:
        yield sandbox


def grumbler(frame: Frame) -> str:
    """A sub-model that finds what is broken or lost."""
    return "Yes, it is." if "leaks" in frame.text(0) or "never" in frame.text(0) else "No."


# --- what a question asks for


def test_an_answer_that_goes_on_and_on_is_no_bare_number_and_takes_no_time() -> None:
    endless = f"7{'.' * 200_000} etcetera"

    assert lacks_number(endless, "Which floor is it? Answer with the number only.")
    assert take_number("floor " * 100_000, "Which floor is it?") == ""
    assert tell_apart("word " * 100_000).startswith("These match by chance.")


# --- ask_each


def test_every_line_of_a_text_is_asked_about_with_the_question_last() -> None:
    here = Here(NOTES, grumbler)

    printed = here.output("found = ask_each(context, 'Is it a complaint?')\nprint(found)")

    assert printed == "ask_each: yes for 2 of 3\n['The kettle leaks.', 'It never came.']\n"
    assert [call.text(0) for call in here.calls] == [
        f"Text: {line}\n\nIs it a complaint? Answer only yes or no."
        for line in NOTES.splitlines()
        if line
    ]
    assert {call.fields["size"] for call in here.calls} == {3}


def test_items_of_a_list_are_asked_about_and_come_back_as_they_are() -> None:
    here = Here(answer=grumbler)

    assert here.output("ask_each([{'says': 'leaks'}, 5], 'Is it? Answer yes or no.')") == (
        "ask_each: yes for 1 of 2\n[{'says': 'leaks'}]\n"
    )
    assert here.calls[0].text(0) == "Text: {'says': 'leaks'}\n\nIs it? Answer yes or no."
    assert here.output("ask_each('Is it?', ['never'])") == "ask_each: yes for 1 of 1\n['never']\n"
    assert here.output("ask_each([], 'Is it?')") == "ask_each: yes for 0 of 0\n[]\n"


def test_items_that_could_not_be_asked_about_are_counted_and_all_of_them_raise() -> None:
    def half(frame: Frame) -> str:
        if "fine" in frame.text(0):
            raise LookupError("the budget is used up")
        return "yes"

    here = Here(NOTES, half)

    assert here.output("n = len(ask_each(context, 'Is it?'))") == (
        "ask_each: yes for 2 of 3; 1 could not be asked: the budget is used up\n"
    )
    assert "the budget is used up" in here.error("ask_each(['fine', 'fine too'], 'Is it?')")


def test_what_code_assigns_to_these_names_stays_and_is_listed() -> None:
    here = Here(NOTES)

    assert here.output("SHOW_VARS()") == "no variables so far\n"
    assert here.output("ask_each = [1]\nnumber_near = 2") == ""
    assert here.output("print(ask_each, number_near)") == "[1] 2\n"
    assert here.output("SHOW_VARS()").splitlines() == [
        "number_near: int, 1, 2",
        "ask_each: list, 1, [1]",
    ]


def test_our_functions_are_not_kept_as_functions_of_the_model() -> None:
    here = Here(NOTES)
    here.run("def mine(): return 1")

    assert list(here.kept()) == ["mine"]


def test_without_sub_calls_nothing_can_be_asked() -> None:
    here = Here(NOTES, options=ReplOptions(sub_calls=False))

    assert "ask_each" in here.error("ask_each(context, 'Is it?')")
    assert here.output("number_near('in 5 ms', 'ms')") == "5\n"


@pytest.mark.parametrize(
    "imported",
    [
        "from llm_query import llm_query\nprint(llm_query('hi'))",
        "import llm_query\nprint(llm_query('hi'))",
        "import llm_query\nprint(llm_query.llm_query_batch(['hi'])[0])",
        "from llm_query import llm_query, llm_query_batch\nprint(llm_query_batch(['hi'])[0])",
    ],
)
def test_helpers_can_be_imported_as_some_models_write_it(imported: str) -> None:
    here = Here()

    assert here.output(imported) == "HI\n"
    assert here.output("print(llm_query('ho'))") == "HO\n"
    assert "nothing" in here.error("import llm_query\nllm_query.nothing")


# --- number_near


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("2026-03-05 ERROR worker-3 handled request 1234 in 456 ms", "ms", 456),
        ("2026-03-05 ERROR worker-3 handled request 1234 in 456 ms", "request", 1234),
        ("host=3 temp=19.3 hum=40", "temp", 19.3),
        ("host=3 temp=19.3 hum=40", "temp=", 19.3),
        ('{"id": 5, "ms": 12}', "ms", 12),
        ("Order 18 paid 1,250 euro", "EURO", 1250),
        ("7,5,250,paid", "paid", 250),
        ("it was -3 degrees", "degrees", -3),
        ("a; b; 45 EUR; paid", "EUR", 45),
        ("12ms", "ms", 12),
        ({"ms": 7, "id": 3}, "ms", 7),
    ],
)
def test_the_number_beside_a_word_is_found(line: object, word: str, expected: float) -> None:
    assert number_near(line, word) == expected


def test_a_line_without_the_word_or_a_number_is_quoted() -> None:
    with pytest.raises(ValueError, match="'euro' is not in this line: 'Order 17'"):
        number_near("Order 17", "euro")
    with pytest.raises(ValueError, match="no number in this line: 'many euro'"):
        number_near("many euro", "euro")


# --- the first look


def looked_at(text: str | list[str]) -> TextSample | None:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(SAMPLE_CODE, {"context": text})  # as it runs in the REPL
    return TextSample.read(printed.getvalue())


def described(text: str) -> str:
    sample = looked_at(text)
    assert sample is not None
    return describe_lines(len(text), sample)


def test_a_text_is_described_by_its_first_two_lines_one_of_the_middle_and_the_last() -> None:
    text = "\n".join(f"the line{' x' * (n % 3)} no {n}" for n in range(100))

    assert described(text).splitlines() == [
        f"`context` is a str of {len(text)} characters, 100 lines.",
        "first line: the line no 0",
        "second line: the line x no 1",
        "middle line: the line x x no 50",
        "last line: the line no 99",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{n}; Lena; 7 EUR", "line.split('; '): parts[0] is '1', parts[1] is 'Lena', parts[2] is"),
        ("{n};Lena;open", "3 parts. With parts = line.split(';'): parts[0] is '1', parts[1] is 'L"),
        ("{n}\tLena\topen", "line.split('\\t')"),
        ("{n} Lena came home", "line.split(): parts[0] is '1', parts[1] is 'Lena'"),
        ('{{"id": {n}, "ms": 5}}', "json.loads(line) gives a dict such as {'id': 0, 'ms': 5}"),
    ],
)
def test_parts_of_lines_are_shown_as_split_gives_them(line: str, said: str) -> None:
    assert said in described("\n".join(line.format(n=n) for n in range(90)))


def test_a_header_is_named() -> None:
    said = described("id,name,age\n" + "\n".join(f"{n},Lena,{n + 20}" for n in range(90)))

    assert "The first line is a header: begin with context.splitlines()[1:]" in said
    assert "parts[0] is '0', parts[1] is 'Lena', parts[2] is '20'" in said


@pytest.mark.parametrize(
    "text",
    [
        "\n".join("word " * (n % 5 + 1) for n in range(90)),
        "\n".join(f'{n},"Lena, or so",7' for n in range(90)),
        LOG,
        "{not json\n" * 50,
    ],
)
def test_lines_that_differ_or_are_quoted_or_long_have_no_parts(text: str) -> None:
    sample = looked_at(text)

    assert sample is not None
    assert describe_parts(sample) == ()


def test_a_very_long_text_is_looked_at_in_places() -> None:
    sample = looked_at("".join(f"this is line {n}\n" for n in range(60_000)))

    assert sample is not None
    assert sample.lines == 60_001
    assert sample.picked[:2] == ("this is line 0", "this is line 1")
    assert 10 <= len(sample.picked) <= 12
    assert int(sample.picked[-1].split()[-1]) > 59_000


@pytest.mark.parametrize("printed", ["", "[]", "{}", '{"lines": "many", "picked": []}', "no JSON"])
def test_what_is_no_sample_is_none(printed: str) -> None:
    assert TextSample.read(printed) is None


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (NOTES, "items"),
        (["short", "items"], "items"),
        (LOG, "lines"),
        ("one line alone", "lines"),
        ("\n".join(["a very long line " * 100] * 50), "lines"),
        (["two\nlines", "here"], "documents"),
        (["a long one " * 9_000, "b"], "documents"),
        (["many"] * 61, "documents"),
    ],
)
def test_the_shape_of_a_text_says_how_to_work_on_it(
    text: str | list[str], shape: TextShape
) -> None:
    assert shape_of(TextContext.of(text), looked_at(text)) == shape


# --- in a run


@pytest.mark.parametrize(
    ("text", "shown", "example"),
    [
        (NOTES, "second line: All is fine.", "found = ask_each(context"),
        (NOTES.split("\n\n"), "`context` is a list of 2 str", "print(doc.splitlines()[0])"),
        (TABLE, "parts = line.split(';'): parts[0] is '0', parts[1] is 'Omar'", "number_near("),
        (["It leaks.", "It is fine."], "second item: It is fine.", "found = ask_each(context"),
    ],
)
async def test_a_weak_model_is_shown_real_lines_and_examples_that_fit(
    sandbox: ProcessSandbox, text: str | Sequence[str], shown: str, example: str
) -> None:
    replies = [code("print(1)"), code("FINAL(len(context))")]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        await bench.ask(text)
        messages = bench.root_requests[0].messages
    assert shown in messages[-1]["content"]
    assert any(example in m["content"] for m in messages if m["role"] == "assistant")


async def test_a_weak_model_counts_by_meaning_in_two_turns(sandbox: ProcessSandbox) -> None:
    def sub(request: ChatRequestView) -> str:
        return "Yes." if request.text.startswith("Text: The kettle leaks.") else "No."

    replies = [
        code("found = ask_each(context, 'Broken?')", "print(len(found))"),
        "FINAL_VAR(found)",
    ]
    async with a_bench(sandbox, replies, sub, prompt_variant="small_context") as bench:
        response = await bench.ask(NOTES, "Which note is about something broken?")
        assert "ask_each: yes for 1 of 3\n1" in bench.root_requests[1].text
    assert (response.answer, response.sub_calls) == (json.dumps(["The kettle leaks."]), 3)


async def test_code_that_finds_nothing_in_few_items_is_told_to_let_a_model_judge(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("print(context.count('refund'))"), code("FINAL(0)"), code("FINAL(0)")]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        await bench.ask(NOTES)
        _, told, doubted = bench.root_requests
    for request in (told, doubted):
        assert "found = ask_each(context" in request.messages[-1]["content"]


@pytest.mark.parametrize("failing", ["print(0)", "print(nope)"])
async def test_code_that_finds_nothing_or_fails_in_a_table_is_shown_its_parts_again(
    sandbox: ProcessSandbox, failing: str
) -> None:
    replies = [code(failing), code("FINAL(len(context))")]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        await bench.ask(TABLE)
        said = bench.root_requests[1].messages[-1]["content"]
    assert "Each line has 3 parts. With parts = line.split(';')" in said
    assert ("The code failed and gave nothing. Write it again" in said) == ("nope" in failing)


async def test_a_question_for_yes_or_no_is_repeated_with_the_form_of_its_answer(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("print('green' in context)"), code("FINAL('yes')")]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        response = await bench.ask(LOG, "Is it green? Answer yes or no.")
        assert bench.root_requests[1].text.endswith("The answer is yes or no.")
    assert response.answer == "yes"


async def test_a_search_of_a_weak_model_shows_the_lines_around(sandbox: ProcessSandbox) -> None:
    text = "\n".join([*["nothing"] * 50, "[cache]", "name = a", "size = 7", *["nothing"] * 50])
    for variant, is_shown in (("small_context", True), ("default", False)):
        replies = [code("search('cache')"), code("FINAL(len(context))")]
        async with a_bench(sandbox, replies, prompt_variant=variant) as bench:
            await bench.ask(text)
            said = bench.root_requests[1].messages[-1]["content"]
        assert ("size = 7" in said) == is_shown


async def test_a_short_question_beside_a_text_is_put_after_it(sandbox: ProcessSandbox) -> None:
    replies = [code("print(llm_query('Great stuff', 'Positive?'))"), code("FINAL(len(context))")]
    async with a_bench(sandbox, replies) as bench:
        await bench.ask(LOG)
        assert bench.sub_prompts == ["Great stuff\n\nPositive?"]


@pytest.mark.parametrize(
    ("found", "answer", "turns"), [("0 []", "email", 3), ("0", "yes", 2), ("7", "email", 2)]
)
async def test_after_nothing_was_found_a_word_of_the_question_is_asked_back_once(
    sandbox: ProcessSandbox, found: str, answer: str, turns: int
) -> None:
    final = code(f'FINAL("{answer}")')
    replies = [code(f"print('{found}')"), final, final]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        response = await bench.ask(LOG, "Is there an email? Answer yes or name the email.")
    assert (response.answer, response.iterations) == (answer, turns)


@pytest.mark.parametrize(
    ("question", "answer", "turns"),
    [
        ("Which request is named? Answer with the number only.", "Lena", 3),
        ("Which request is named? Answer with the number of the request only.", "Lena 99", 3),
        ("How many requests are there?", "many", 3),
        ("How many are there? Reply with the number alone, or say: many.", "many", 2),
        ("How many requests are there?", "99", 2),
        ("Who is named?", "Lena", 2),
    ],
)
async def test_an_answer_without_a_digit_is_asked_back_once_where_a_number_is_asked_for(
    sandbox: ProcessSandbox, question: str, answer: str, turns: int
) -> None:
    final = code(f'FINAL("{answer}")')
    replies = [code("print(99, 'many', 'Lena')"), final, final]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        response = await bench.ask(TABLE, question)
        said = bench.root_requests[-1].messages[-1]["content"]
    assert (response.answer, response.iterations) == (answer, turns)
    asked_back = "asks for a number" in said and "parts[1] is 'Omar'" in said
    assert asked_back == (turns == 3)


@pytest.mark.parametrize(
    ("printed", "question", "is_told"),
    [
        ("'Lena'", "Which request? Answer with its number only.", True),
        ("'Lena', 7", "Which request? Answer with its number only.", False),
        ("['Lena', 'Omar']", "How many names? Answer with the number only.", False),
    ],
)
async def test_an_output_without_a_digit_is_no_number_where_one_is_asked_for(
    sandbox: ProcessSandbox, printed: str, question: str, is_told: bool
) -> None:
    replies = [code(f"print({printed})"), code("FINAL(len(context))")]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        await bench.ask(TABLE, question)
        said = bench.root_requests[1].messages[-1]["content"]
    assert ("This has no number" in said) == is_told


@pytest.mark.parametrize("is_copied", [True, False])
async def test_a_line_for_a_number_is_answered_with_code_that_takes_the_number(
    sandbox: ProcessSandbox, is_copied: bool
) -> None:
    proposed = (
        "FINAL(number_near('2026-03-05 INFO request 98 finished in 105 ms, Lena', 'request'))"
    )
    second = proposed if is_copied else "FINAL(98)"  # nothing printed it, the line has it
    replies = [code("search('INFO', k=1)"), code("FINAL(context.splitlines()[-1])"), code(second)]
    question = "Which request was last? Answer with the number of the request only."
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        response = await bench.ask(LOG, question)
        assert proposed in bench.root_requests[2].messages[-1]["content"]
    assert (response.answer, response.iterations) == ("98", 3)


@pytest.mark.parametrize(
    ("look", "answer", "turns"),
    [
        ("search('krypton')", "yes", 3),
        ("print('krypton' in context)", "Yes.", 3),
        ("search('krypton')", "no", 2),
        ("search('Lena')", "yes", 2),
    ],
)
async def test_a_yes_after_nothing_was_found_is_asked_back_once(
    sandbox: ProcessSandbox, look: str, answer: str, turns: int
) -> None:
    final = code(f'FINAL("{answer}")')
    async with a_bench(sandbox, [code(look), final, final], prompt_variant="small_context") as b:
        response = await b.ask(LOG, "Is it named anywhere? Answer yes or no.")
    assert (response.answer, response.iterations) == (answer, turns)


@pytest.mark.parametrize("look", ["search('email')", "print('email' in context)"])
@pytest.mark.parametrize("as_list", [False, True])
async def test_what_has_a_form_is_looked_for_by_its_form_after_its_name_was_not_found(
    sandbox: ProcessSandbox, look: str, as_list: bool
) -> None:
    text = "\n".join([LOG, "Write to lena@post.example or omar.b@desk.example.", LOG])
    replies = [code(look), code("FINAL(len(context))")]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        await bench.ask([text] * 2 if as_list else text, "Which email addresses are there?")
        said = bench.root_requests[1].messages[-1]["content"]
    (proposed,) = [line for line in said.splitlines() if line.startswith("print(sorted(")]
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(f"import re\n{proposed}", {"context": [text] * 2 if as_list else text})
    assert printed.getvalue() == "['lena@post.example', 'omar.b@desk.example']\n"


SIZES = "\n".join(f"10:{n} size={n} day={n} ok" for n in range(10, 60))
GROWING = "\n".join("the line" + " x" * n for n in range(70))


@pytest.mark.parametrize(
    ("question", "text", "proposed"),
    [
        ("Which took the most time?", LOG, "print(max({lines}, {key}, 'ms')))"),
        ("Which request was fastest?", LOG, "print(min({lines}, {key}, 'ms')))"),
        ("When was size largest?", SIZES, "print(max({lines}, {key}, 'size')))"),
        ("Which is longest?", GROWING, "Go through all lines with code."),
        ("It is a log. Who? Answer with the name.", LOG, 'tell them apart:\nsearch("Who", k=3)'),
        ("Name the one.", LOG, 'search("Name the one", k=3)'),
    ],
)
async def test_one_of_many_lines_is_not_taken_from_a_search_with_many_ties(
    sandbox: ProcessSandbox, question: str, text: str, proposed: str
) -> None:
    lines, key = "context.splitlines()", "key=lambda line: number_near(line"
    expected = proposed.format(lines=lines, key=key).replace("'", '"')
    replies = [
        code("search('INFO the ok', k=1)"),
        code('FINAL("Lena")'),
        code("FINAL(len(context))"),
    ]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        await bench.ask(text, question)
        told, doubted = (each.messages[-1]["content"] for each in bench.root_requests[1:3])
    assert expected in told
    assert expected in doubted
