"""The loop: questions answered over HTTP models and a real REPL."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anyio
import pytest

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.cache import MemoryCache, SubCallCache
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.loop.orchestrator import answer
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.openai_client import open_endpoint
from rlm_mcp.engine.models.retry import RetryPolicy
from rlm_mcp.engine.run_context import Engine, RLMEvent, repl_options
from rlm_mcp.engine.types import HistoryEntry, RLMResponse
from rlm_mcp.errors import (
    BudgetExceededError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelReplyError,
    StoreError,
)
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import (
    Answer,
    ChatRequestView,
    Reply,
    Script,
    by_model,
    context_too_long,
    no_answer,
    server_error,
    unauthorized,
)

TEXT = "The harbour light is green.\n" * 40


@pytest.fixture(scope="module")
async def sandbox() -> AsyncGenerator[ProcessSandbox]:
    async with ProcessSandbox(min_isolation="process") as sandbox:
        yield sandbox


def code(*lines: str) -> str:
    return "\n".join(["Let me see.", "```repl", *lines, "```"])


@dataclass
class Bench:
    """One question at a time, with what was told and asked."""

    engine: Engine
    server: ScriptedModel
    events: list[RLMEvent] = field(default_factory=list[RLMEvent])
    kept: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    async def ask(self, text: str | Sequence[str] = TEXT, question: str = "What?") -> RLMResponse:
        source = TextContext.of(text)
        options = repl_options(self.engine.config)
        async with self.engine.sandbox.open_repl(source, options) as repl:
            return await answer(question, source, repl, self.engine)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def told(self, type_: str) -> list[RLMEvent]:
        return [event for event in self.events if event.type == type_]

    @property
    def root_requests(self) -> list[Any]:
        return [request for request in self.server.requests if request.model == "root"]

    @property
    def sub_prompts(self) -> list[str]:
        return [request.text for request in self.server.requests if request.model == "sub"]


@asynccontextmanager
async def a_bench(
    sandbox: ProcessSandbox,
    root: Script,
    sub: Script = "sub reply",
    *,
    cache: SubCallCache | None = None,
    answer_schema: dict[str, Any] | None = None,
    **config: Any,  # fields of RLMConfig, which checks them
) -> AsyncGenerator[Bench]:
    events: list[RLMEvent] = []
    kept: list[tuple[str, ...]] = []

    async def emit(*told: RLMEvent) -> None:
        events.extend(told)
        kept.append(tuple(event.type for event in told))
        await anyio.lowlevel.checkpoint()

    with anyio.fail_after(60):
        async with (
            open_scripted_model(by_model(root=root, sub=sub)) as server,
            open_endpoint(
                Provider(server.base_url), policy=RetryPolicy(first_pause_seconds=0)
            ) as endpoint,
        ):
            settings = RLMConfig.model_validate(config)
            engine = Engine(
                root=endpoint.model("root"),
                sub=endpoint.model("sub"),
                sandbox=sandbox,
                config=settings,
                budget=Budget(settings),
                emit=emit,
                cache=cache,
                model_names=("root", "sub"),
                answer_schema=answer_schema,
            )
            yield Bench(engine, server, events, kept)


async def outcome_of(
    sandbox: ProcessSandbox,
    root: Script,
    sub: Script = "sub reply",
    **config: Any,  # likewise
) -> RLMResponse:
    async with a_bench(sandbox, root, sub, **config) as bench:
        return await bench.ask()


async def test_the_line_of_a_turns_last_cell_is_kept_with_that_of_the_next_turn(
    sandbox: ProcessSandbox,
) -> None:
    two = code("x = 1") + "\n" + code("print(x)")
    async with a_bench(sandbox, [two, "FINAL(x is 1)"]) as bench:
        await bench.ask()

    assert bench.kept == [
        ("iteration_start",),
        ("code_generated",),
        ("code_executed",),
        ("code_executed", "iteration_start"),
        ("code_generated",),
        ("final_answer",),
    ]


async def test_the_line_of_the_last_cell_is_kept_also_where_no_turn_follows(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("x = 1"), code("x = 2")]
    async with a_bench(sandbox, replies, max_iterations=2) as bench:
        response = await bench.ask()

    assert (response.status, response.answer) == ("exhausted", None)
    assert bench.kept[-3:] == [
        ("code_executed", "iteration_start"),
        ("code_generated",),
        ("code_executed",),
    ]


# --- how answers are taken


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        (["FINAL(green)"], "green"),
        ([code("x = len(context)"), "FINAL_VAR(x)"], str(len(TEXT))),
        ([code("x = 'a' * 3", "FINAL(x)")], "aaa"),
        ([code("x = [1, 2]", "FINAL_VAR('x')")], "[1, 2]"),
        ([code("Final = 'kept'")], "kept"),
        ([code("x = 7") + "\nFINAL_VAR(x)"], "7"),
        ([code("d = {'k': 'v'}"), 'FINAL_VAR(d["k"])'], "v"),
    ],
)
async def test_an_answer_is_taken(
    sandbox: ProcessSandbox, replies: list[Answer], expected: str
) -> None:
    response = await outcome_of(sandbox, replies)
    assert (response.answer, response.status, response.error) == (expected, "completed", None)
    assert response.iterations == len(replies)


async def test_a_text_written_beside_code_is_a_guess_to_confirm_once(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("print('blue')") + "\nFINAL(green)", "FINAL(blue)"]
    async with a_bench(sandbox, replies) as bench:
        response = await bench.ask()
        asked = bench.root_requests[1].text
    assert (response.answer, response.iterations) == ("blue", 2)
    assert "green" in asked
    assert "blue" in asked


async def test_a_guess_that_is_given_again_is_confirmed(sandbox: ProcessSandbox) -> None:
    guess = code("print(1)") + "\nFINAL(green)"
    response = await outcome_of(sandbox, [guess, guess])
    assert (response.answer, response.iterations) == ("green", 2)


async def test_a_final_after_failing_code_is_not_taken(sandbox: ProcessSandbox) -> None:
    replies = [code("x = 1 / 0") + "\nFINAL(done)", "FINAL(really)"]
    async with a_bench(sandbox, replies) as bench:
        response = await bench.ask()
        assert "ZeroDivisionError" in bench.root_requests[1].text
    assert response.answer == "really"


async def test_a_missing_variable_is_told_with_those_that_exist(sandbox: ProcessSandbox) -> None:
    replies = [code("total = 5"), "FINAL_VAR(totle)", "FINAL_VAR(total)"]
    async with a_bench(sandbox, replies) as bench:
        response = await bench.ask()
        told = bench.root_requests[2].text
    assert "totle" in told
    assert "total" in told.replace("totle", "")
    assert response.answer == "5"


async def test_a_bare_name_of_a_variable_gives_its_value(sandbox: ProcessSandbox) -> None:
    for replies in (
        [code("total = 40 + 2"), "FINAL(total)"],
        [code("total = 42") + "\nFINAL(total)"],
    ):
        async with a_bench(sandbox, replies) as bench:
            response = await bench.ask()
            [final] = bench.told("final_answer")
        assert (response.answer, response.data, final.detail["origin"]) == ("42", 42, "variable")


async def test_a_word_that_names_no_variable_is_the_answer(sandbox: ProcessSandbox) -> None:
    for final in ("FINAL(green)", 'FINAL("total")'):
        async with a_bench(sandbox, [code("total = 42"), final]) as bench:
            response = await bench.ask()
            assert bench.told("final_answer")[0].detail["origin"] == "text"
        assert response.answer == final[6:-1].strip('"')


async def test_a_last_reply_may_name_a_variable_too(sandbox: ProcessSandbox) -> None:
    replies = [code("total = 42"), "FINAL(total)"]
    response = await outcome_of(sandbox, replies, max_iterations=2)
    assert (response.answer, response.status) == ("42", "exhausted")


async def test_the_context_itself_is_no_answer(sandbox: ProcessSandbox) -> None:
    response = await outcome_of(sandbox, ["FINAL_VAR(context)", "FINAL(no)"])
    assert response.answer == "no"


async def test_json_like_values_come_as_data_too(sandbox: ProcessSandbox) -> None:
    response = await outcome_of(sandbox, [code("FINAL({'n': [1, None]})")])
    assert response.data == {"n": [1, None]}
    assert (await outcome_of(sandbox, ["FINAL(5)"])).data is None


# --- how the loop goes on


async def test_blocks_run_in_order_and_stop_at_the_first_that_fails(
    sandbox: ProcessSandbox,
) -> None:
    replies = [
        "\n".join([code("a = 1"), code("b = a + nope"), code("c = 3")]),
        code("FINAL(str('c' in globals()) + str(a))"),
    ]
    async with a_bench(sandbox, replies) as bench:
        response = await bench.ask()
        assert "did not run" in bench.root_requests[1].text
    assert response.answer == "False1"


async def test_small_models_have_one_block_run_at_a_time(sandbox: ProcessSandbox) -> None:
    replies = ["\n".join([code("a = 1"), code("b = 2")]), code("FINAL(str('b' in globals()))")]
    response = await outcome_of(sandbox, replies, prompt_variant="small_context")
    assert response.answer == "False"


async def test_prose_gets_a_nudge_and_not_an_end(sandbox: ProcessSandbox) -> None:
    async with a_bench(sandbox, ["I will look at it soon.", "FINAL(x)"]) as bench:
        response = await bench.ask()
        [first, second] = bench.root_requests
    assert (response.answer, response.status) == ("x", "completed")
    assert first.messages[-1] != second.messages[-1]


async def test_output_and_nudge_are_told_together_and_what_is_left_once(
    sandbox: ProcessSandbox,
) -> None:
    same = code("print('seen')")
    async with a_bench(sandbox, [same, same, "FINAL(x)"]) as bench:
        await bench.ask()
        said = bench.root_requests[2].text
    assert said.count("Turn 3 of 25") == 1
    assert "Question:" not in said
    assert said.index("seen") < said.index("same code as before")


async def test_a_small_model_that_goes_in_circles_begins_again_with_what_it_found(
    sandbox: ProcessSandbox,
) -> None:
    one, two = code("print('seen')"), code("print('also')")
    replies = [one, two, one, code("print(3)"), one, code("FINAL(context[:3])")]
    async with a_bench(sandbox, replies, prompt_variant="small_context", temperature=0.2) as bench:
        response = await bench.ask()
        first, *_, again, later, last = bench.root_requests
    assert (response.status, response.answer) == ("completed", TEXT[:3])
    for request in (again, last):
        assert len(request.messages) == len(first.messages)
        assert request.text.startswith(first.text)
        assert request.text.count("Earlier code printed:\n") == 1
        assert "seen" in request.text.rpartition("Earlier code printed:\n")[2]
        assert request.text.count("Turn 4 of 25") + request.text.count("Turn 6 of 25") == 1
    assert len(later.messages) == len(first.messages) + 2
    warmth = [request.params["temperature"] for request in (first, again, later, last)]
    assert warmth == [0.2, 0.5, 0.5, 0.8]


# --- what the first message shows


async def test_a_small_model_is_shown_where_the_text_matches_the_question(
    sandbox: ProcessSandbox,
) -> None:
    text = "\n".join([*["nothing here"] * 500, "The lantern is amber.", *["nor here"] * 500])
    async with a_bench(sandbox, ["```repl\nFINAL(SHOW_VARS())\n```"] * 2) as bench:
        await bench.ask(text, "What colour is the lantern?")
        assert "amber" not in bench.root_requests[0].text
    async with a_bench(
        sandbox, [code("print(1)"), "FINAL(amber)"], prompt_variant="small_context"
    ) as bench:
        response = await bench.ask(text, "What colour is the lantern?")
        assert "The lantern is amber." in bench.root_requests[0].text
        assert bench.told("code_executed")[0].iteration == 1
    assert (response.answer, response.repl_variables) == ("amber", {})


@pytest.mark.parametrize("variant", ["default", "small_context"])
async def test_a_short_text_is_read_directly_and_the_answer_says_so(
    sandbox: ProcessSandbox, variant: str
) -> None:
    async with a_bench(
        sandbox, ["FINAL(green)"], prompt_variant=variant, direct_max_chars=len(TEXT)
    ) as bench:
        response = await bench.ask()
        [asked] = bench.root_requests
        told = bench.told("iteration_start") + bench.told("final_answer")
    assert TEXT in asked.text
    assert (response.answer, response.direct, response.iterations) == ("green", True, 1)
    assert [event.detail["direct"] for event in told] == [True, True]


async def test_short_documents_are_read_directly_each_under_its_name(
    sandbox: ProcessSandbox,
) -> None:
    async with a_bench(sandbox, ["FINAL(x)"], direct_max_chars=100) as bench:
        await bench.ask(["öne", "twö\ud800"])
        asked = bench.root_requests[0].text
    assert "[context[0], 'document 0']\nöne\n" in asked
    assert "[context[1], 'document 1']\ntwö?\n" in asked


async def test_a_text_that_is_too_long_or_empty_is_not_read_directly(
    sandbox: ProcessSandbox,
) -> None:
    async with a_bench(sandbox, ["FINAL(x)"] * 2, direct_max_chars=len(TEXT) - 1) as bench:
        assert not (await bench.ask(TEXT)).direct
        assert not (await bench.ask("")).direct
        assert TEXT not in bench.root_requests[0].text


async def test_a_text_that_was_shown_whole_and_does_not_fit_is_left_to_the_code(
    sandbox: ProcessSandbox,
) -> None:
    def root(request: ChatRequestView) -> Answer:
        if TEXT in request.messages[-1]["content"] + request.messages[1]["content"]:
            return code("seen = len(context)") if request.number == 1 else context_too_long()
        return "FINAL_VAR(seen)"

    async with a_bench(sandbox, root, direct_max_chars=len(TEXT)) as bench:
        response = await bench.ask()
        [warning] = bench.told("warning")
        assert warning.detail["direct"] is False
        assert TEXT not in str(warning.detail["change"])
        first, refused, last = bench.root_requests
    assert (response.answer, response.direct) == (str(len(TEXT)), False)
    assert TEXT in first.text
    assert [len(each.messages) for each in (first, refused, last)] == [2, 4, 4]


async def test_many_documents_count_with_their_headings(sandbox: ProcessSandbox) -> None:
    async with a_bench(sandbox, ["FINAL(x)"], direct_max_chars=1000) as bench:
        assert not (await bench.ask(["x"] * 100)).direct


async def test_a_few_fruitless_turns_in_a_row_end_with_the_best_answer(
    sandbox: ProcessSandbox,
) -> None:
    response = await outcome_of(sandbox, [*["Hmm."] * 3, "It is probably green."], max_iterations=9)
    assert (response.status, response.answer) == ("exhausted", "It is probably green.")
    assert response.iterations == 4
    assert "neither new code nor an answer" in str(response.error)


async def test_a_variable_that_never_exists_is_fruitless(sandbox: ProcessSandbox) -> None:
    response = await outcome_of(sandbox, [*["FINAL_VAR(nope)"] * 3, "FINAL(x)"], max_iterations=9)
    assert (response.iterations, response.answer) == (4, "x")


async def test_a_small_model_must_look_before_it_answers(sandbox: ProcessSandbox) -> None:
    replies = ["FINAL(guessed)", code("print(context[:5])"), f"FINAL({TEXT[:5].strip()})"]
    response = await outcome_of(sandbox, replies, prompt_variant="small_context")
    assert (response.answer, response.iterations) == (TEXT[:5].strip(), 3)


@pytest.mark.parametrize("final", ["FINAL(Lisbon)", code('FINAL("Lisbon")')])
async def test_a_small_model_is_asked_once_where_it_found_its_answer(
    sandbox: ProcessSandbox, final: str
) -> None:
    seen = [code("print(1)"), final]
    async with a_bench(sandbox, [*seen, final], prompt_variant="small_context") as bench:
        doubted = await bench.ask()
        assert "'Lisbon' was not accepted yet" in bench.root_requests[2].text
    assert (doubted.answer, doubted.iterations) == ("Lisbon", 3)
    for found in (
        await outcome_of(sandbox, seen),
        await outcome_of(
            sandbox, [code("print('to lisbon')"), final], prompt_variant="small_context"
        ),
    ):
        assert (found.answer, found.iterations) == ("Lisbon", 2)


@pytest.mark.parametrize("final", ["FINAL(0)", "FINAL_VAR(n)", code("FINAL(n)")])
async def test_a_small_model_is_asked_once_whether_nothing_is_the_answer(
    sandbox: ProcessSandbox, final: str
) -> None:
    replies = [code("n = 0", "print(n)"), final, final]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        response = await bench.ask(TEXT * 2)
        first, told, begun = bench.root_requests
    assert (response.answer, response.iterations) == ("0", 3)
    assert "An empty or zero result often means" in told.text
    assert "'0' was not accepted yet" in begun.text
    assert len(begun.messages) == len(first.messages)
    assert (await outcome_of(sandbox, replies)).iterations == 2


async def test_a_small_model_that_counts_no_replies_is_told_to_look_at_them(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("print(llm_query('Is it?') == 'yes')"), code("FINAL(context[:3])")]
    async with a_bench(sandbox, replies, "Yes.", prompt_variant="small_context") as bench:
        assert (await bench.ask()).answer == TEXT[:3]
        assert '"Yes." is not "yes"' in bench.root_requests[1].text


async def test_a_small_model_that_looks_for_a_number_as_text_is_told_how_to_compare(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("print('more than 500' in context)"), code("FINAL(context[:3])")]
    async with a_bench(sandbox, replies, prompt_variant="small_context") as bench:
        assert (await bench.ask()).answer == TEXT[:3]
        said = bench.root_requests[1].text
        assert "the exact text 'more than 500'" in said
        assert r'"more than (\d+)"' in said


async def test_a_small_model_that_runs_out_of_turns_is_shown_what_it_printed_and_no_more(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("print('amber')"), code("1 / 0"), "Amber."]
    async with a_bench(sandbox, replies, prompt_variant="small_context", max_iterations=3) as bench:
        response = await bench.ask(question="Which colour?")
        [asked] = bench.root_requests[2].messages
    assert (response.status, response.answer) == ("exhausted", "Amber.")
    assert asked["role"] == "user"
    assert "Which colour?" in asked["content"]
    assert "amber" in asked["content"]


async def test_code_that_makes_up_a_text_is_told_that_it_was_put_back(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("context = 'made up'"), code("FINAL(len(context))")]
    async with a_bench(sandbox, replies) as bench:
        response = await bench.ask()
        assert "Your code assigned `context`" in bench.root_requests[1].text
    assert response.answer == str(len(TEXT))


async def test_the_same_reply_over_and_over_is_fruitless(sandbox: ProcessSandbox) -> None:
    response = await outcome_of(sandbox, [*[code("print(1)")] * 4, "FINAL(x)"], max_iterations=20)
    assert (response.iterations, response.answer) == (5, "x")


async def test_at_the_last_turn_the_best_answer_is_asked_for_and_marked(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("x = 1"), code("x = 2"), "FINAL(so far: two)"]
    async with a_bench(sandbox, replies, max_iterations=3) as bench:
        response = await bench.ask()
        assert bench.root_requests[2].text != bench.root_requests[1].text
    assert (response.status, response.answer) == ("exhausted", "so far: two")
    assert isinstance(response.error, BudgetExceededError)
    assert response.error.limit == "iterations"


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("Green, I think.", "Green, I think."),
        (code("FINAL(x + 1)"), "2"),
        ("FINAL_VAR(x)", "1"),
        ("FINAL_VAR(nothing)", None),
        ("Now I will count them.\n" + code("y = 1"), None),
        ("I will now count the lines.", None),
        ("", None),
    ],
)
async def test_whatever_the_last_reply_holds_is_taken(
    sandbox: ProcessSandbox, last: str, expected: str | None
) -> None:
    response = await outcome_of(
        sandbox, lambda request: code("x = 1") if request.number == 1 else last, max_iterations=2
    )
    assert (response.status, response.answer) == ("exhausted", expected)


async def test_an_earlier_guess_is_better_than_nothing(sandbox: ProcessSandbox) -> None:
    replies = [code("print(1)") + "\nFINAL(green)", "FINAL_VAR(nothing)"]
    response = await outcome_of(sandbox, replies, max_iterations=2)
    assert (response.status, response.answer) == ("exhausted", "green")


async def test_a_single_turn_can_answer(sandbox: ProcessSandbox) -> None:
    assert (await outcome_of(sandbox, ["FINAL(x)"], max_iterations=1)).status == "completed"
    response = await outcome_of(sandbox, [code("x = 1")], max_iterations=1)
    assert (response.status, response.answer) == ("exhausted", None)


async def test_a_reply_cut_by_length_is_told_and_goes_on(sandbox: ProcessSandbox) -> None:
    cut = Reply("```repl\nx = [1, 2,\n", finish_reason="length")
    async with a_bench(sandbox, [cut, "FINAL(x)"]) as bench:
        response = await bench.ask()
        assert bench.told("code_executed") == []
        assert bench.told("code_generated")[0].detail["finish_reason"] == "length"
    assert response.answer == "x"


async def test_roles_alternate_and_what_was_sent_stays_as_it_was(sandbox: ProcessSandbox) -> None:
    replies = [code("x = 1"), "Hmm.", "FINAL_VAR(nope)", code("x = 1 / 0"), "FINAL(done)"]
    async with a_bench(sandbox, replies) as bench:
        await bench.ask()
        requests = bench.root_requests
    assert len(requests) == len(replies)
    for request in requests:
        roles = [message["role"] for message in request.messages]
        assert roles[0] == "system"
        assert roles[1:] == (["user", "assistant"] * len(roles))[: len(roles) - 1]
        assert roles[-1] == "user"
    for earlier, later in pairwise(requests):
        assert later.messages[: len(earlier.messages)] == earlier.messages


async def test_output_is_shown_cut_and_kept_whole(sandbox: ProcessSandbox) -> None:
    replies = [code("print('a' * 5000)"), "FINAL(x)"]
    async with a_bench(sandbox, replies, metadata_prefix_chars=300) as bench:
        response = await bench.ask()
        shown = bench.root_requests[1].text
        [executed] = bench.told("code_executed")
    assert 200 < shown.count("a") < 700
    assert executed.detail["output_chars"] == 5001
    [output] = [entry for entry in response.history if entry.role == "repl_output"]
    assert output.content.count("a") == 5000
    assert output.truncated_content == executed.detail["output"]


async def test_a_conversation_that_outgrows_the_window_loses_its_oldest_turns(
    sandbox: ProcessSandbox,
) -> None:
    turns = [code(f"x{number} = {number}") for number in range(8)]
    async with a_bench(sandbox, [*turns, context_too_long(), "FINAL_VAR(x0)"]) as bench:
        response = await bench.ask()
        long, short = bench.root_requests[-2:]
    assert (response.status, response.answer) == ("completed", "0")
    assert len(short.messages) < len(long.messages)
    assert short.messages[0] == long.messages[0]
    assert short.messages[1]["content"].startswith(long.messages[1]["content"])
    assert "x0 = 0" in short.messages[1]["content"]
    assert [event.detail["summed_up"] for event in bench.told("warning")] != []


async def test_two_hundred_turns_fit_into_a_window_of_eight_thousand_tokens(
    sandbox: ProcessSandbox,
) -> None:
    def root(request: Any) -> Answer:
        prompt = sum(len(message["content"]) for message in request.messages) // 3
        if prompt + request.params["max_tokens"] > 8_000:
            return context_too_long()
        if request.number == 200:
            return "FINAL_VAR(found_3)"
        line = f"found_{request.number} = 'treasure {request.number}'"
        return Reply(
            code(line, f"print({request.number} * 'an output line\\n')"), usage=(prompt, 9)
        )

    async with a_bench(
        sandbox, root, root_context_tokens=8_000, root_max_tokens=2_000, max_iterations=201
    ) as bench:
        response = await bench.ask()
        requests = bench.root_requests
        warned = bench.told("warning")
    assert (response.status, response.answer, response.iterations) == (
        "completed",
        "treasure 3",
        200,
    )
    assert len(requests) == 200  # none was too long
    assert 0 < len(warned) < 30
    anew = 0
    for earlier, later in pairwise(requests):
        roles = [message["role"] for message in later.messages]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]
        assert later.messages[0] == earlier.messages[0]
        anew += later.messages[: len(earlier.messages)] != earlier.messages
    assert anew == len(warned)
    last = requests[-1].messages[1]["content"]
    assert last.startswith(requests[0].messages[1]["content"])
    left_out = warned[-1].detail["summed_up"]
    assert f"\n{left_out}: found_{left_out} = 'treasure {left_out}'" in last
    assert f"found_{left_out} = 'treasure {left_out}'\n" in last.partition("Variables that")[2]


async def test_a_first_prompt_that_does_not_fit_ends_the_run(sandbox: ProcessSandbox) -> None:
    response = await outcome_of(sandbox, lambda _: context_too_long())
    assert (response.status, type(response.error).__name__) == ("failed", "ContextLengthError")


# --- whatever ends a run


async def test_a_root_that_fails_leaves_everything_known(sandbox: ProcessSandbox) -> None:
    def root(request: Any) -> Answer:
        return code("found = 'green'", "print(found)") if request.number == 1 else server_error()

    async with a_bench(sandbox, root) as bench:
        response = await bench.ask()
    assert (response.status, response.answer, response.iterations) == ("failed", None, 2)
    assert isinstance(response.error, ModelConnectionError)
    assert response.repl_variables == {"found": "'green'"}
    assert [entry.role for entry in response.history] == ["root", "repl_output"]
    assert response.total_input_tokens > 0


async def test_a_rejected_key_fails_the_run(sandbox: ProcessSandbox) -> None:
    response = await outcome_of(sandbox, lambda _: unauthorized())
    assert response.status == "failed"
    assert isinstance(response.error, ModelAuthenticationError)


async def test_the_time_limit_stops_a_cell_and_asks_for_the_best_answer(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("seen = 1", "while True: pass"), "FINAL(in time)"]
    response = await outcome_of(sandbox, replies, max_seconds=5)
    assert (response.status, response.answer) == ("exhausted", "in time")


async def test_the_time_limit_holds_when_the_model_hangs(sandbox: ProcessSandbox) -> None:
    response = await outcome_of(sandbox, lambda _: no_answer(), max_seconds=1)
    assert (response.status, response.answer) == ("exhausted", None)
    assert isinstance(response.error, BudgetExceededError)
    assert response.error.limit == "seconds"


async def test_a_token_budget_is_not_overshot_and_ends_with_an_answer(
    sandbox: ProcessSandbox,
) -> None:
    replies = [Reply(code("x = 1"), usage=(2000, 100)), Reply("FINAL(short)", usage=(2100, 10))]
    response = await outcome_of(sandbox, replies, max_tokens=5200)
    assert (response.status, response.answer) == ("exhausted", "short")
    assert response.total_input_tokens + response.total_output_tokens == 4210


async def test_a_cell_over_its_time_is_told_and_the_run_goes_on(sandbox: ProcessSandbox) -> None:
    replies = [code("x = 1", "while True: pass"), code("FINAL(x)")]
    async with a_bench(sandbox, replies, sandbox_timeout=0.5) as bench:
        response = await bench.ask()
        assert bench.told("code_executed")[0].detail["timed_out"]
    assert response.answer == "1"


async def test_a_lost_repl_is_told_and_the_run_goes_on(sandbox: ProcessSandbox) -> None:
    replies = [code("x = 1", "import os", "os._exit(3)"), code("FINAL(str('x' in globals()))")]
    async with a_bench(sandbox, replies) as bench:
        response = await bench.ask()
        assert bench.told("code_executed")[0].detail["lost_variables"]
        assert len(bench.told("warning")) == 1
    assert response.answer == "False"


async def test_cancelling_ends_the_model_call_and_starts_no_other(sandbox: ProcessSandbox) -> None:
    async with a_bench(
        sandbox, [code("llm_query_batch(['p'] * 100)")], sub=lambda _: no_answer()
    ) as bench:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.ask)
            await bench.server.until(lambda: bench.server.in_flight >= 10)
            group.cancel_scope.cancel()
        await bench.server.until(lambda: bench.server.in_flight == 0)
        received = bench.server.received
        await anyio.wait_all_tasks_blocked()
        assert bench.server.received == received
        assert "final_answer" not in bench.types


# --- what is told


async def test_events_tell_the_run_in_order_with_its_figures(sandbox: ProcessSandbox) -> None:
    replies = [
        Reply(code("r = llm_query('ask')", "print(r)"), usage=(100, 10)),
        Reply("FINAL_VAR(r)", usage=(200, 5)),
    ]
    prices: dict[str, Any] = {"cost_per_input_token": 0.01, "cost_per_output_token": 0.1}
    async with a_bench(
        sandbox, replies, sub=lambda _: Reply("heard", usage=(7, 3)), **prices
    ) as bench:
        response = await bench.ask()
    assert [(event.type, event.iteration) for event in bench.events] == [
        ("iteration_start", 1),
        ("code_generated", 1),
        ("sub_calls_started", 1),
        ("sub_calls_finished", 1),
        ("code_executed", 1),
        ("iteration_start", 2),
        ("code_generated", 2),
        ("code_executed", 2),
        ("final_answer", 2),
    ]
    usage = bench.events[-1].usage
    assert (usage.iterations, usage.sub_calls) == (2, 1)
    assert (usage.input_tokens, usage.output_tokens) == (307, 18)
    assert usage.cost_usd == pytest.approx(3.07 + 1.8)
    assert response.cost == usage.cost_usd
    assert bench.told("final_answer")[0].detail["answer"] == "heard"
    generated = bench.told("code_generated")[0].detail
    assert (generated["input_tokens"], generated["code"]) == (100, "r = llm_query('ask')\nprint(r)")
    [finished] = bench.told("sub_calls_finished")
    [item] = finished.detail["items"]
    assert (item["prompt"], item["reply"], item["error"]) == ("ask", "heard", None)
    assert finished.detail["cost_usd"] == pytest.approx(0.07 + 0.3)


async def test_the_history_is_the_whole_trace(sandbox: ProcessSandbox) -> None:
    first = code("r = llm_query('ask')", "print(r)")
    response = await outcome_of(sandbox, [first, "FINAL(x)"], sub="heard")
    assert response.history == (
        HistoryEntry("root", first, first, 1),
        HistoryEntry("repl_output", "heard\n", "heard", 1),
        HistoryEntry("sub_call", "heard", "", 1),
        HistoryEntry("root", "FINAL(x)", "FINAL(x)", 2),
    )


# --- sub-calls


async def test_parameters_of_root_and_sub_calls_are_their_own(sandbox: ProcessSandbox) -> None:
    settings: dict[str, Any] = {
        "temperature": 0.1,
        "sub_temperature": None,
        "root_max_tokens": 111,
        "sub_max_tokens": 222,
    }
    async with a_bench(sandbox, [code("llm_query('p')"), "FINAL(x)"], **settings) as bench:
        await bench.ask()
        sent = {request.model: dict(request.params) for request in bench.server.requests}
    assert sent == {
        "root": {"temperature": 0.1, "max_tokens": 111},
        "sub": {"max_tokens": 222},
    }


async def test_a_batch_is_asked_at_once_and_answered_in_order(sandbox: ProcessSandbox) -> None:
    gate = anyio.Event()
    replies = [code("FINAL(llm_query_batch([f'p{i}' for i in range(20)]))")]
    async with a_bench(sandbox, replies, sub=lambda r: Reply(r.text.upper(), gate=gate)) as bench:
        responses: list[RLMResponse] = []
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                responses.append(await bench.ask())

            group.start_soon(ask)
            await bench.server.until(lambda: bench.server.in_flight == 20)
            gate.set()
        assert responses[0].data == [f"P{i}" for i in range(20)]
        assert len(bench.told("sub_calls_started")) == 1
        assert bench.told("sub_calls_started")[0].detail["calls"] == 20


async def test_one_failure_in_a_batch_loses_nothing_else(sandbox: ProcessSandbox) -> None:
    def sub(request: Any) -> Answer:
        return unauthorized() if request.text == "p1" else request.text.upper()

    replies = [
        code(
            "r = llm_query_batch(['p0', 'p1', 'p2'])",
            "FINAL([r[0], bool(r[1]), 'answered 401' in str(r[1]), r[2]])",
        )
    ]
    async with a_bench(sandbox, replies, sub=sub) as bench:
        response = await bench.ask()
        [finished] = bench.told("sub_calls_finished")
    assert response.data == ["P0", False, True, "P2"]
    assert (finished.detail["calls"], finished.detail["failed"]) == (3, 1)


async def test_a_batch_larger_than_the_budget_makes_exactly_what_fits(
    sandbox: ProcessSandbox,
) -> None:
    replies = [
        code("r = llm_query_batch(['p'] * 1000)", "FINAL([len(r), sum(map(bool, r))])"),
    ]
    async with a_bench(sandbox, replies, max_sub_calls=10) as bench:
        began = anyio.current_time()
        response = await bench.ask()
        half_seconds = (
            int(2 * (anyio.current_time() - began)) + 1
        )  # at each of which calls are told
        assert len(bench.sub_prompts) == 10
        assert len(bench.told("sub_calls_finished")) <= 1000 // 32 + 1 + half_seconds
        assert sum(e.detail["calls"] for e in bench.told("sub_calls_finished")) == 1000
        assert len(bench.told("warning")) == 1
    assert (response.data, response.sub_calls) == ([1000, 10], 10)
    assert response.status == "completed"


async def test_a_batch_overshoots_a_budget_in_usd_by_one_call_at_most(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("r = llm_query_batch([str(n) for n in range(200)])"), "FINAL(done)"]
    sub = by_model(sub=lambda _: Reply("long", usage=(100, 900), latency_seconds=0.01))
    prices = {"cost_per_input_token": 1e-5, "cost_per_output_token": 1e-5}
    config: dict[str, Any] = {**prices, "max_usd": 1.0, "sub_max_tokens": 1000}
    async with a_bench(sandbox, replies, sub, **config) as bench:
        response = await bench.ask()
        [finished, *_] = bench.told("sub_calls_finished")
    assert response.cost is not None
    assert 0.9 < response.cost <= 1.01
    assert response.sub_calls >= 70
    assert finished.detail["failed"] == 0


@pytest.mark.parametrize(
    ("limits", "told_at", "what"),
    [
        ({"max_iterations": 10}, 9, "8 of 10 iterations"),
        ({"max_sub_calls": 5}, 5, "4 of 5 sub-calls"),
        ({"max_tokens": 500_000}, None, ""),
    ],
)
async def test_the_model_is_told_once_that_a_limit_is_nearly_used_up(
    sandbox: ProcessSandbox, limits: dict[str, Any], told_at: int | None, what: str
) -> None:
    replies = [code(f"print(llm_query('p{n}'))") for n in range(1, 9)] + ["FINAL(done)"]
    async with a_bench(sandbox, replies, **limits) as bench:
        assert (await bench.ask()).answer == "done"
        told = [
            turn
            for turn, request in enumerate(bench.root_requests, start=1)
            if "Finish now" in str(request.messages[-1]["content"])
        ]
        last = str(bench.root_requests[-1].messages)
    assert told == ([] if told_at is None else [told_at])
    assert last.count("Finish now") == len(told)
    assert what in last


async def test_the_code_is_told_why_there_are_no_more_sub_calls(sandbox: ProcessSandbox) -> None:
    replies = [code("llm_query('a')", "llm_query('b')"), "FINAL(x)"]
    async with a_bench(sandbox, replies, max_sub_calls=1) as bench:
        await bench.ask()
        assert "1 of 1 sub-calls are made" in bench.root_requests[1].text


async def test_a_prompt_too_long_is_told_with_its_length_and_the_limit(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("llm_query('x' * 1001)"), "FINAL(x)"]
    async with a_bench(sandbox, replies, sub_call_max_input_chars=1000) as bench:
        response = await bench.ask()
        told = bench.root_requests[1].text
        assert bench.sub_prompts == []
    assert "1,001" in told
    assert "1,000" in told
    assert response.sub_calls == 0


async def test_an_empty_reply_is_that_calls_error(sandbox: ProcessSandbox) -> None:
    async with a_bench(
        sandbox, [code("llm_query('p')"), "FINAL(x)"], sub=lambda _: Reply("")
    ) as bench:
        await bench.ask()
        assert "empty reply" in bench.root_requests[1].text


async def test_only_known_models_may_be_asked(sandbox: ProcessSandbox) -> None:
    replies = [code("FINAL([llm_query('p', model='root')])"), "FINAL(x)"]
    async with a_bench(sandbox, lambda r: "as root" if r.text == "p" else replies[0]) as bench:
        assert (await bench.ask()).data == ["as root"]
    async with a_bench(sandbox, [code("llm_query('p', model='dear')"), "FINAL(x)"]) as bench:
        await bench.ask()
        assert "no model 'dear'" in bench.root_requests[1].text
        assert bench.server.received == 2


async def test_prompts_and_replies_in_events_are_cut(sandbox: ProcessSandbox) -> None:
    replies = [code("llm_query('p' * 9000)"), "FINAL(x)"]
    async with a_bench(sandbox, replies, sub="r" * 9000) as bench:
        await bench.ask()
        [item] = bench.told("sub_calls_finished")[0].detail["items"]
    assert (len(item["prompt"]), item["prompt_chars"]) == (2000, 9000)
    assert (len(item["reply"]), item["reply_chars"]) == (4000, 9000)


async def test_the_code_can_ask_for_its_budget(sandbox: ProcessSandbox) -> None:
    replies = [code("llm_query('p')", "FINAL(budget())")]
    response = await outcome_of(sandbox, replies, max_sub_calls=5, max_iterations=4)
    assert response.data == {"iterations": 3, "sub_calls": 4}
    deep = await outcome_of(sandbox, [code("FINAL(budget()['depth'])")], max_recursion_depth=3)
    assert deep.data == 2


async def test_cached_replies_cost_nothing(sandbox: ProcessSandbox) -> None:
    cache = MemoryCache()
    replies = [code("llm_query('p')", "llm_query('p')", "llm_query('q')", "FINAL('x')")]
    async with a_bench(sandbox, replies, cache=cache) as bench:
        response = await bench.ask()
        assert bench.sub_prompts == ["p", "q"]
    assert (response.sub_calls, response.cached_sub_calls) == (2, 1)
    async with a_bench(sandbox, replies, cache=cache, sub_temperature=1.0) as bench:
        await bench.ask()
        assert bench.sub_prompts == ["p", "q"]


async def test_a_cache_that_fails_loses_no_reply(sandbox: ProcessSandbox) -> None:
    class FullDisk:
        async def get_many(self, keys: list[str]) -> dict[str, str]:
            raise OSError(f"cannot read {keys!r}")

        async def put_many(self, texts: Mapping[str, str]) -> None:
            raise StoreError(f"no room for {len(texts)}")

    replies = [code("FINAL(llm_query('p'))")]
    async with a_bench(sandbox, replies, cache=FullDisk()) as bench:
        response = await bench.ask()
        assert [event.detail["code"] for event in bench.told("warning")] == ["store_error"] * 2
    assert response.answer == "sub reply"


async def test_a_cache_forgets_the_least_recently_used() -> None:
    cache = MemoryCache(max_chars=10)
    await cache.put_many({"a": "12345", "b": "12345"})
    assert await cache.get_many(["a"]) == {"a": "12345"}
    await cache.put_many({"c": "123"})
    assert await cache.get_many(["a", "b", "c"]) == {"a": "12345", "c": "123"}
    await cache.put_many({"c": "12345"})
    assert await cache.get_many(["a"]) == {"a": "12345"}


async def test_without_sub_calls_there_is_no_word_of_them(sandbox: ProcessSandbox) -> None:
    replies = [code("FINAL(str('llm_query' in globals()))")]
    async with a_bench(sandbox, replies, enable_sub_calls=False) as bench:
        response = await bench.ask()
        assert "llm_query" not in str(bench.root_requests[0].messages)
    assert response.answer == "False"


# --- runs inside a run


async def test_at_depth_two_a_run_answers_in_a_repl_of_its_own(sandbox: ProcessSandbox) -> None:
    def sub(request: Any) -> Answer:
        if request.messages[0]["role"] != "system":
            return f"leaf: {request.text}"
        if len(request.messages) == 2:
            return code("mine = llm_query('leaf ' + context[0])", "rlm_query('deeper', 'abc')")
        return "FINAL_VAR(mine)"

    replies = [code("r = rlm_query('inner?', ['one', 'two'])", "FINAL([r, 'mine' in globals()])")]
    async with a_bench(sandbox, replies, sub=sub, max_recursion_depth=2) as bench:
        response = await bench.ask()
        prompts = bench.sub_prompts
        inner = [event for event in bench.events if event.depth == 1]
    assert response.data == ["leaf: leaf one", False]
    assert response.iterations == 1
    # Two turns of the inner run, its sub-call, and `rlm_query` at the last level as a sub-call.
    assert response.sub_calls == 4
    assert "deeper\n\nabc" in prompts
    assert [event.type for event in inner][:2] == ["run_started", "iteration_start"]
    assert {event.usage.iterations for event in inner} == {1}


async def test_at_depth_three_a_run_inside_a_run_has_runs_of_its_own(
    sandbox: ProcessSandbox,
) -> None:
    def sub(request: Any) -> Answer:
        if request.messages[0]["role"] != "system":
            return "leaf"
        return code("FINAL(context + ' > ' + rlm_query('deeper?', context + '.'))")

    replies = [code("FINAL(rlm_query('inner?', 'piece'))")]
    async with a_bench(sandbox, replies, sub=sub, max_recursion_depth=3) as bench:
        response = await bench.ask()
        depths = [event.depth for event in bench.told("iteration_start")]
    assert response.answer == "piece > piece. > leaf"
    assert depths == [0, 1, 2]
    assert response.sub_calls == 3


async def test_an_inner_run_spends_the_budget_of_the_whole_tree(sandbox: ProcessSandbox) -> None:
    def sub(request: Any) -> Answer:
        return code(f"x = {request.number}")

    replies = [code("rlm_query('inner?', 'text')"), "FINAL(x)"]
    async with a_bench(sandbox, replies, sub=sub, max_recursion_depth=2, max_sub_calls=3) as bench:
        response = await bench.ask()
        assert len(bench.sub_prompts) == 3
        assert "ended as exhausted" in bench.root_requests[1].text
    assert (response.sub_calls, response.answer) == (3, "x")


# --- typed answers

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string"}},
    "required": ["colour"],
}


async def test_an_answer_that_fits_the_schema_comes_as_data(sandbox: ProcessSandbox) -> None:
    for reply in (code("FINAL({'colour': 'green'})"), 'FINAL({"colour": "green"})'):
        async with a_bench(sandbox, [reply], answer_schema=SCHEMA) as bench:
            response = await bench.ask()
            assert "colour" in bench.root_requests[0].text
        assert (response.status, response.data) == ("completed", {"colour": "green"})


async def test_an_answer_that_does_not_fit_is_repaired_with_the_validators_words(
    sandbox: ProcessSandbox,
) -> None:
    replies = ["FINAL(green)", 'FINAL({"color": "green"})', 'FINAL({"colour": "green"})']
    async with a_bench(sandbox, replies, answer_schema=SCHEMA) as bench:
        response = await bench.ask()
        assert "'green' is not of type 'object'" in bench.root_requests[1].text
        assert "'colour' is a required property" in bench.root_requests[2].text
    assert response.data == {"colour": "green"}


async def test_an_answer_that_never_fits_fails_and_is_kept(sandbox: ProcessSandbox) -> None:
    async with a_bench(sandbox, lambda _: "FINAL(green)", answer_schema=SCHEMA) as bench:
        response = await bench.ask()
        assert len(bench.root_requests) == 4
    assert (response.status, response.answer, response.data) == ("failed", "green", None)
    assert isinstance(response.error, ModelReplyError)


@pytest.mark.parametrize(
    ("last", "data"), [('FINAL({"colour": "green"})', {"colour": "green"}), ("FINAL(green)", None)]
)
async def test_a_last_answer_is_kept_whether_it_fits_or_not(
    sandbox: ProcessSandbox, last: str, data: object
) -> None:
    replies = [code("x = 1"), last]
    async with a_bench(sandbox, replies, answer_schema=SCHEMA, max_iterations=2) as bench:
        response = await bench.ask()
    assert (response.status, response.data) == ("exhausted", data)
    assert response.answer is not None


async def test_text_in_a_fence_and_plain_strings_can_be_typed_answers(
    sandbox: ProcessSandbox,
) -> None:
    fenced = code("FINAL('~~~json\\n[1, 2]\\n~~~')")
    async with a_bench(sandbox, [fenced], answer_schema={"type": "array"}) as bench:
        assert (await bench.ask()).data == [1, 2]
    async with a_bench(sandbox, ["FINAL(green)"], answer_schema={"type": "string"}) as bench:
        assert (await bench.ask()).data == "green"


# --- answers whose meaning is not plain


@pytest.mark.parametrize(
    ("reply", "question", "again", "expected"),
    [
        ("FINAL(a (b) c) d) e", "where your answer ends", "FINAL(a (b) c) d) e", "a (b) c"),
        ("FINAL(It is {total}.)", "names in braces", "FINAL(It is 42.)", "It is 42."),
    ],
)
async def test_an_answer_that_is_not_plain_is_asked_back_once(
    sandbox: ProcessSandbox, reply: str, question: str, again: str, expected: str
) -> None:
    async with a_bench(sandbox, [code("total = 42"), reply, again]) as bench:
        response = await bench.ask()
        assert question in bench.root_requests[2].text
    assert (response.answer, response.status, response.iterations) == (expected, "completed", 3)


async def test_braces_that_name_no_variable_are_part_of_an_answer(sandbox: ProcessSandbox) -> None:
    replies = [code("total = 42"), "FINAL(Use ${total} and {name} in the template.)"]
    response = await outcome_of(sandbox, replies)
    assert response.answer == "Use ${total} and {name} in the template."
    assert response.iterations == 2


async def test_a_second_text_of_a_sub_call_is_put_before_the_question(
    sandbox: ProcessSandbox,
) -> None:
    replies = [code("x = llm_query('What is this?', 'a long text ' * 20)"), "FINAL_VAR(x)"]
    async with a_bench(sandbox, replies, sub="seen") as bench:
        response = await bench.ask()
        [prompt] = bench.sub_prompts
    assert response.answer == "seen"
    assert prompt == "a long text " * 20 + "\n\nWhat is this?"


TYPED = {"type": "object", "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}}}


@pytest.mark.parametrize(
    "reply",
    [
        "FINAL({'n': 3, 'ok': True})",
        'FINAL(Here is the JSON: {"n": 3, "ok": true})',
        'FINAL({"n": 3, "ok": true,})',
        code('FINAL({"n": 3, "ok": true})'),
        code('FINAL("""Here:\n{"n": 3, "ok": true}\nThat is all.""")'),
    ],
)
async def test_a_typed_answer_is_read_in_the_forms_that_models_give_it(
    sandbox: ProcessSandbox, reply: str
) -> None:
    async with a_bench(sandbox, [reply], answer_schema=TYPED) as bench:
        response = await bench.ask()
    assert (response.status, response.data) == ("completed", {"n": 3, "ok": True})


@pytest.mark.parametrize(
    "reply", ['{"n": 3, "ok": true}', '```json\n{"n": 3, "ok": true}\n```', "{'n': 3, 'ok': True}"]
)
async def test_json_alone_is_the_answer_where_json_is_asked_for(
    sandbox: ProcessSandbox, reply: str
) -> None:
    async with a_bench(sandbox, [code("x = 1"), reply], answer_schema=TYPED) as bench:
        response = await bench.ask()
    assert (response.status, response.data) == ("completed", {"n": 3, "ok": True})


async def test_json_alone_that_does_not_fit_is_repaired(sandbox: ProcessSandbox) -> None:
    replies = [code("x = 1"), '{"answer": "three"}', '{"n": 3, "ok": true}']
    schema = {**TYPED, "required": ["n", "ok"]}
    async with a_bench(sandbox, replies, answer_schema=schema) as bench:
        response = await bench.ask()
        assert "repair 1 of 3" in bench.root_requests[2].text
    assert response.data == {"n": 3, "ok": True}


@pytest.mark.parametrize(
    "reply",
    ["FINAL({total})", 'FINAL(found["k"])', "FINAL(found['k'] + 0)", "FINAL(answer=total)"],
)
async def test_a_final_that_reads_variables_gives_their_value(
    sandbox: ProcessSandbox, reply: str
) -> None:
    first = code("total = 42", "found = {'k': total}")
    response = await outcome_of(sandbox, [first, reply])
    assert (response.answer, response.iterations) == ("42", 2)


async def test_the_name_of_the_context_in_a_final_is_not_the_answer(
    sandbox: ProcessSandbox,
) -> None:
    response = await outcome_of(sandbox, ["FINAL(context)", "FINAL(green)"])
    assert (response.answer, response.iterations) == ("green", 2)


async def test_a_word_of_examples_is_asked_back_once(sandbox: ProcessSandbox) -> None:
    async with a_bench(sandbox, ["FINAL(answer)", "FINAL(answer)"]) as bench:
        response = await bench.ask()
        assert "no variable has that name" in bench.root_requests[1].text
    assert (response.answer, response.status) == ("answer", "completed")


async def test_a_repair_shows_the_first_errors_with_their_paths(sandbox: ProcessSandbox) -> None:
    replies = ['FINAL({"n": "3", "ok": 1})', 'FINAL({"n": 3, "ok": true})']
    async with a_bench(sandbox, replies, answer_schema=TYPED) as bench:
        response = await bench.ask()
        told = bench.root_requests[1].text
    assert "at $.n" in told
    assert "at $.ok" in told
    assert response.data == {"n": 3, "ok": True}


SHIP = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "year": {"type": "integer"}},
    "required": ["name", "year"],
}


def typed_reply(request: ChatRequestView) -> Answer:
    """A sub-model that gets a ship right at once, corrects a boat when told, and never a raft."""
    if "raft" in str(request.messages):
        return "There is no such thing."
    if "boat" in request.text and len(request.messages) == 1:
        return '{"name": "boat", "year": "unknown"}'
    name = "boat" if "boat" in str(request.messages) else "ship"
    return f'Here it is:\n```json\n{{"name": "{name}", "year": 1900}}\n```'


async def test_typed_sub_calls_give_checked_values_and_failures_say_why(
    sandbox: ProcessSandbox,
) -> None:
    ask = code(
        f"schema = {SHIP!r}",
        "one = llm_query('a ship', schema=schema)",
        "ship, boat, raft = llm_query_batch(['a ship', 'a boat', 'a raft'], schema=schema)",
        "assert one == ship == {'name': 'ship', 'year': 1900}",
        "assert boat == {'name': 'boat', 'year': 1900}",
        "assert not raft",
        "FINAL(str(raft))",
    )
    cache = MemoryCache()
    async with a_bench(sandbox, [ask], sub=typed_reply, cache=cache) as bench:
        response = await bench.ask()
        prompts = bench.sub_prompts
    assert response.answer is not None, response.error
    assert response.answer.startswith("The reply does not fit the schema: ")
    # The second ship is the kept reply; boat and raft were each asked for a correction.
    assert len(prompts) == 1 + 2 + 2
    assert '"required": ["name", "year"]' in prompts[0]
    assert (response.sub_calls, response.cached_sub_calls) == (5, 1)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("'text'", "schema is a dict"),
        ("{'type': 'no such'}", "schema is not a JSON Schema"),
    ],
)
async def test_a_schema_that_is_none_is_refused_before_a_model_is_asked(
    sandbox: ProcessSandbox, schema: str, reason: str
) -> None:
    asked = f"    llm_query('?', schema={schema})"
    ask = code("try:", asked, "except Exception as error:", "    FINAL(str(error))")
    async with a_bench(sandbox, [ask]) as bench:
        response = await bench.ask()
        assert bench.sub_prompts == []
    assert reason in str(response.answer)
