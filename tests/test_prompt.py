"""What is said to a model: facts that must be in it, whatever the wording."""

from __future__ import annotations

import ast
import builtins
import itertools
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import get_args

import anyio
import pytest

from rlm_mcp.engine.config import PromptVariantName, RLMConfig
from rlm_mcp.engine.parsing.problems import ReplyProblem
from rlm_mcp.engine.parsing.reply import Directive, parse_reply
from rlm_mcp.engine.prompts.cell_output import CONTEXT_RESTORED, show_cell
from rlm_mcp.engine.prompts.examples import WORKED_SESSIONS
from rlm_mcp.engine.prompts.first_look import TextShape
from rlm_mcp.engine.prompts.messages import (
    answer_from_output,
    confirm_final,
    doubt_empty,
    doubt_unseen,
    missing_variable,
    schema_instructions,
    schema_repair,
    show_outputs,
)
from rlm_mcp.engine.prompts.nudges import NudgeReason
from rlm_mcp.engine.prompts.opening import ContextPreview, TurnInfo
from rlm_mcp.engine.prompts.variant import PromptVariant, variant_of
from rlm_mcp.events import Message
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall, ReplOptions

SHAPES: tuple[TextShape, ...] = get_args(TextShape)
VARIANTS: tuple[PromptVariantName, ...] = get_args(PromptVariantName)
REASONS: tuple[NudgeReason, ...] = (*get_args(ReplyProblem), "repeated")
REPL_NAMES = frozenset({"llm_query", "llm_query_batch", "rlm_query", "FINAL", "FINAL_VAR"}) | {
    "search",
    "lines",
    "budget",
    "SHOW_VARS",
    "cite",
    "ask_each",
    "number_near",
}
SUB_CALLS = re.compile(
    r"llm_query|ask_each|rlm_query|sub-call|language model|weaker model", re.IGNORECASE
)
QUESTION = "Which of the whales is white?"
SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}}
TURN = TurnInfo(3, 25, sub_calls_left=498, seconds_left=120.4, usd_left=1.234, tokens_left=5000)


def prompts_of(variant: PromptVariantName, *, sub_calls: bool = True) -> PromptVariant:
    return variant_of(RLMConfig(prompt_variant=variant, enable_sub_calls=sub_calls))


def everything_said(prompts: PromptVariant) -> list[str]:
    left = TURN if prompts.config.enable_sub_calls else replace(TURN, sub_calls_left=None)
    said = [prompts.system_prompt(recursion=True, has_sub_model=True)]
    said += [m["content"] for shape in SHAPES for m in prompts.worked_example(shape)]
    said += [prompts.nudge(reason, QUESTION, left, detail="why") for reason in REASONS]
    said += [
        prompts.first_message(QUESTION, "`context` is a str.", turn=left, schema=SCHEMA),
        prompts.feedback(QUESTION, ["out"], left),
        prompts.feedback(QUESTION, ["out"], TurnInfo(25, 25)),
        prompts.best_answer_request(QUESTION, "the last turn is over"),
        confirm_final("42", "41"),
        doubt_empty("0"),
        doubt_unseen("42"),
        answer_from_output(QUESTION, "41"),
        CONTEXT_RESTORED,
        prompts.went_in_circles("41", left),
        missing_variable("x", ["y"]),
        schema_repair("wrong", 1, 3),
    ]
    return said


def called_names(code: str) -> set[str]:
    calls = (node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


async def yes(_: ReplCall) -> CallReply:
    return CallReply("Yes: it is one")


@asynccontextmanager
async def a_sandbox() -> AsyncGenerator[ProcessSandbox]:
    with anyio.fail_after(60):
        async with ProcessSandbox(min_isolation="process") as sandbox:
            yield sandbox


async def run(repl: Repl, code: str) -> CellResult:
    result = await repl.execute(code, timeout_seconds=10, on_call=yes)
    assert result.error is None, show_cell(result, 2000)
    return result


async def test_every_name_that_the_prompts_rest_on_exists_in_a_real_repl() -> None:
    names = sorted(REPL_NAMES | {"context", "context_names"})
    options = ReplOptions(recursion=True)
    async with a_sandbox() as box, box.open_repl(TextContext.of("text"), options) as repl:
        await run(repl, "\n".join(names))


@pytest.mark.parametrize("sub_calls", [True, False])
async def test_the_code_in_the_system_prompt_runs_in_a_real_repl(sub_calls: bool) -> None:
    blocks = parse_reply(prompts_of("default", sub_calls=sub_calls).system_prompt()).blocks
    assert len(blocks) == 2
    async with a_sandbox() as sandbox:
        for text in ("a complaint\nand more\n" * 50, ["a complaint", "thanks"]):
            options = ReplOptions(sub_calls=sub_calls)
            async with sandbox.open_repl(TextContext.of(text), options) as repl:
                assert all([(await run(repl, block.code)).output for block in blocks])


WORKED_TEXTS: Mapping[TextShape, Sequence[tuple[str | list[str], str]]] = {
    "items": [("It never came.\n\nIt broke.\n", "2"), (["Message 9: The roses."], "9")],
    "lines": [
        ("13;Lena;open;printer\n14;Omar;open;door\n15;Lena;open;key\n", "2"),
        ("Order 18 from FR paid 31 euro by card\nOrder 17 from DE paid 22 euro by card\n", "1"),
        ("Anna laughed.\nAnna moved to the city of Lisbon.\nThe city slept.\n", "Lisbon"),
    ],
    "documents": [
        (
            ["One", "House\nkitchen: 2 windows\ncellar: 0 windows\npantry: 0 windows"],
            "cellar, pantry",
        ),
        (["Letter 9\nGood day.", "Letter 14\nThe old mill burned down."], "Letter 14"),
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_each_worked_session_works_in_a_real_repl_and_looks_like_it(shape: TextShape) -> None:
    sessions = zip(WORKED_SESSIONS[shape], WORKED_TEXTS[shape], strict=True)
    options = ReplOptions(search_around=1)
    async with a_sandbox() as sandbox:
        for session, (text, expected) in sessions:
            async with sandbox.open_repl(TextContext.of(text), options) as repl:
                printed = (await run(repl, session.code)).output
                final = (await run(repl, session.answer)).final
            assert final is not None
            assert final.text == expected
            assert first_words(session.output) == first_words(printed)


def first_words(output: str) -> list[str]:
    """The form of an output: its first two words, numbers aside."""
    return re.sub(r"\d+", "0", output).split()[:2]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sub_calls", [True, False])
def test_every_function_named_exists_in_the_repl(
    variant: PromptVariantName, sub_calls: bool
) -> None:
    for said in everything_said(prompts_of(variant, sub_calls=sub_calls)):
        called = re.findall(r"`(\w+)\(", said)
        assert set(called) <= REPL_NAMES | set(vars(builtins))


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_sub_calls_nothing_speaks_of_them(variant: PromptVariantName) -> None:
    for said in everything_said(prompts_of(variant, sub_calls=False)):
        assert not SUB_CALLS.search(said)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_calls_of_the_repl_are_told(variant: PromptVariantName) -> None:
    said = prompts_of(variant).system_prompt()
    for name in ("context", "search(", "llm_query(", "llm_query_batch(", "FINAL("):
        assert name in said


@pytest.mark.parametrize("variant", VARIANTS)
def test_recursion_is_told_only_where_it_exists(variant: PromptVariantName) -> None:
    prompts = prompts_of(variant)
    assert "rlm_query" in prompts.system_prompt(recursion=True)
    assert "rlm_query" not in prompts.system_prompt()


def test_a_sub_model_other_than_the_root_is_told() -> None:
    prompts = prompts_of("default")
    assert prompts.system_prompt(has_sub_model=True) != prompts.system_prompt()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_prefix_is_the_same_bytes_every_time(variant: PromptVariantName) -> None:
    first = prompts_of(variant)
    again = prompts_of(variant)
    assert first.system_prompt(recursion=True) == again.system_prompt(recursion=True)
    for shape in SHAPES:
        assert first.worked_example(shape) == again.worked_example(shape)


def test_the_limits_of_the_run_are_told() -> None:
    config = RLMConfig(
        metadata_prefix_chars=777, sub_call_max_input_chars=54_321, sandbox_timeout=33
    )
    said = variant_of(config).system_prompt()
    assert "777 characters" in said
    assert "54321 characters" in said
    assert "33 seconds" in said


@pytest.mark.parametrize("limit", [1, 10, 5_000, 100_000, 500_000])
def test_pieces_in_the_example_fit_a_sub_call(limit: int) -> None:
    said = variant_of(RLMConfig(sub_call_max_input_chars=limit)).system_prompt()
    sizes = [int(size) for size in re.findall(r"i:i \+ (\d+)\]", said)]
    assert sizes
    assert all(0 < size <= limit for size in sizes)


@pytest.mark.parametrize("limit", [100, 500_000])
def test_a_weak_model_is_told_of_small_pieces_that_fit(limit: int) -> None:
    config = RLMConfig(prompt_variant="small_context", sub_call_max_input_chars=limit)
    (size,) = re.findall(r"at most (\d+) characters", variant_of(config).system_prompt())
    assert int(size) <= min(limit, 6_000)


def test_the_economy_of_sub_calls_is_told_in_its_variant_alone() -> None:
    default, warned = (prompts_of(v).system_prompt() for v in ("default", "cost_warning"))
    assert len(warned) > len(default)
    assert "costs" in warned
    off = prompts_of("cost_warning", sub_calls=False).system_prompt()
    assert off == prompts_of("default", sub_calls=False).system_prompt()


@pytest.mark.parametrize(
    ("variant", "most_tokens"),
    [("default", 1300), ("cost_warning", 1500), ("small_context", 230)],
)
def test_a_system_prompt_stays_short(variant: PromptVariantName, most_tokens: int) -> None:
    said = prompts_of(variant).system_prompt(recursion=True, has_sub_model=True)
    assert len(said) / 4 < most_tokens


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sub_calls", [True, False])
def test_every_variant_tells_of_search(variant: PromptVariantName, sub_calls: bool) -> None:
    assert "`search(words, k=5)`" in prompts_of(variant, sub_calls=sub_calls).system_prompt()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sub_calls", [True, False])
def test_the_code_shown_is_code_that_the_parser_takes(
    variant: PromptVariantName, sub_calls: bool
) -> None:
    parsed = parse_reply(prompts_of(variant, sub_calls=sub_calls).system_prompt())
    assert parsed.syntax is None
    assert parsed.final is None
    for block in parsed.blocks:
        assert called_names(block.code) <= REPL_NAMES | set(vars(builtins))


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_echo_of_what_was_said_is_never_an_answer(variant: PromptVariantName) -> None:
    prompts = prompts_of(variant)
    turns = [m for shape in SHAPES for m in prompts.worked_example(shape)]
    examples = [m["content"] for m in turns if m["role"] == "assistant"]
    for echo in everything_said(prompts):
        assert echo in examples or parse_reply(echo).final is None


def test_only_the_weak_models_variant_shows_worked_turns() -> None:
    assert prompts_of("default").worked_example() == ()
    assert prompts_of("cost_warning").worked_example() == ()
    assert len(prompts_of("small_context").worked_example()) >= 8


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sub_calls", [True, False])
def test_worked_turns_alternate_and_end_with_the_assistant(
    sub_calls: bool, shape: TextShape
) -> None:
    turns = prompts_of("small_context", sub_calls=sub_calls).worked_example(shape)
    roles = [message["role"] for message in turns]
    assert roles == ["user", "assistant"] * (len(turns) // 2)
    head: list[Message] = [{"role": "system", "content": "s"}, *turns]
    pairs = itertools.pairwise(message["role"] for message in head)
    assert all(one != other for one, other in pairs)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_worked_turn_is_one_block_and_each_session_ends_with_a_final(
    shape: TextShape,
) -> None:
    turns = prompts_of("small_context").worked_example(shape)
    written = [parse_reply(m["content"]) for m in turns if m["role"] == "assistant"]
    assert all(len(reply.blocks) == 1 and not reply.syntax for reply in written)
    are_final = ["FINAL(" in reply.blocks[0].code for reply in written]
    assert are_final == [False, True] * (len(turns) // 4)


def test_worked_turns_are_made_as_the_real_ones_are() -> None:
    prompts = prompts_of("small_context")
    turns = prompts.worked_example()
    real = prompts.first_message(QUESTION, "`context` is a str.", turn=TurnInfo(1, 8))
    assert turns[0]["content"].splitlines()[0] == real.splitlines()[0]
    assert turns[0]["content"].splitlines()[-1].endswith(real.splitlines()[-1].split("] ")[1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_message_asks_describes_and_tells_what_is_left(
    variant: PromptVariantName,
) -> None:
    said = prompts_of(variant).first_message(
        QUESTION,
        "`context` is a str of 9 characters.",
        turn=TurnInfo(1, 25, sub_calls_left=500),
        schema=SCHEMA,
        preview=ContextPreview(matches="[line 7] a white whale"),
    )
    for part in (
        QUESTION,
        "str of 9 characters",
        "[line 7] a white whale",
        "Turn 1 of 25",
        "500 sub-calls left",
        '"größe"',
    ):
        assert part in said


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_not_given_leaves_no_empty_heading(variant: PromptVariantName) -> None:
    said = prompts_of(variant).first_message(
        QUESTION, "`context` is a str.", preview=ContextPreview(matches=" \n")
    )
    assert "match the question" not in said
    assert "Schema" not in said
    assert "Turn " not in said


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_output_tells_turns_and_budget_left(variant: PromptVariantName) -> None:
    said = prompts_of(variant).feedback(QUESTION, ["out"], TURN)
    for left in ("Turn 3 of 25", "498 sub-calls", "120 s", "$1.23", "5000 tokens"):
        assert left in said


def test_limits_that_do_not_exist_are_not_told() -> None:
    said = prompts_of("default").feedback(QUESTION, ["out"], TurnInfo(3, 25))
    assert "[Turn 3 of 25]" in said
    assert "left" not in said


def test_an_overdrawn_budget_is_told_as_nothing_left() -> None:
    overdrawn = TurnInfo(3, 25, seconds_left=-4.0, usd_left=-0.5)
    said = prompts_of("default").feedback(QUESTION, ["out"], overdrawn)
    assert "0 s left" in said
    assert "$0.00 left" in said


def test_outputs_of_several_blocks_are_told_apart_in_order() -> None:
    said = prompts_of("default").feedback(QUESTION, ["first out", "second out"], TURN)
    assert said.index("block 1") < said.index("first out") < said.index("block 2")
    assert said.index("block 2") < said.index("second out")
    assert "block 1" not in show_outputs(["alone"])


def test_a_weak_model_is_asked_the_question_again_and_reminded_of_the_form() -> None:
    prompts = prompts_of("small_context")
    for said in (
        prompts.feedback(QUESTION, ["out"], TURN),
        prompts.nudge("no_code", QUESTION, TURN),
        prompts.best_answer_request(QUESTION, "no turns"),
    ):
        assert QUESTION in said
        assert "FINAL" in said.splitlines()[-1]
    assert "```python" in prompts.feedback(QUESTION, ["out"], TURN).splitlines()[-1]
    assert QUESTION not in prompts_of("default").feedback(QUESTION, ["out"], TURN)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_turn_is_announced(variant: PromptVariantName) -> None:
    prompts = prompts_of(variant)
    last = prompts.feedback(QUESTION, ["out"], TurnInfo(25, 25))
    before = prompts.feedback(QUESTION, ["out"], TurnInfo(24, 25))
    assert "last turn" in last
    assert "FINAL" in last
    assert "last turn" not in before


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reason", REASONS)
def test_each_nudge_names_its_fault_and_shows_the_form(
    variant: PromptVariantName, reason: NudgeReason
) -> None:
    prompts = prompts_of(variant)
    said = prompts.nudge(reason, QUESTION, TURN, detail="SyntaxError: line 7")
    others = {prompts.nudge(other, QUESTION, TURN) for other in REASONS if other != reason}
    assert said not in others
    assert "```" in said
    assert "FINAL" in said
    assert "SyntaxError: line 7" in said
    assert "Turn 3 of 25" in said


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_nudge_on_the_last_turn_asks_for_the_answer(variant: PromptVariantName) -> None:
    said = prompts_of(variant).nudge("no_code", QUESTION, TurnInfo(25, 25))
    assert "last turn" in said
    assert "FINAL" in said.splitlines()[-1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_nudge_shows_what_ran_all_the_same_and_what_is_left_once(
    variant: PromptVariantName,
) -> None:
    prompts = prompts_of(variant)
    said = prompts.nudge("unclosed_fence", QUESTION, TURN, shown_cells=["first out", "second"])
    assert said.index("first out") < said.index("second") < said.index("no end")
    assert said.count("Turn 3 of 25") == 1


def test_a_huge_detail_is_cut() -> None:
    assert len(prompts_of("default").nudge("not_code", QUESTION, TURN, detail="x" * 99_999)) < 3000


def test_a_guess_is_shown_beside_the_output_it_was_written_without() -> None:
    said = confirm_final("g" * 50_000, "it printed 41")
    assert "it printed 41" in said
    assert "g" * 500 in said
    assert len(said) < 2000


def test_a_doubted_answer_is_quoted() -> None:
    assert "'[]'" in doubt_empty("[]")


def test_a_missing_variable_is_named_with_those_that_exist_and_the_nearest() -> None:
    said = missing_variable("anser", ["lines_found", "answer"])
    assert "`anser`" in said
    assert "Did you mean `answer`?" in said
    assert "lines_found, answer" in said


def test_a_missing_variable_among_none_says_that_there_are_none() -> None:
    said = missing_variable("x", [])
    assert "not assigned any" in said
    assert "Did you mean" not in said


def test_many_variables_are_not_all_listed() -> None:
    said = missing_variable("x" * 9000, [f"name_{number}" for number in range(1000)])
    assert "name_999" in said
    assert "970 more" in said
    assert len(said) < 1000


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_best_answer_is_asked_for_with_the_reason(variant: PromptVariantName) -> None:
    said = prompts_of(variant).best_answer_request(QUESTION, "The last of 25 turns was reached.")
    assert "The last of 25 turns was reached." in said
    assert ".." not in said.replace("...", "")
    assert QUESTION in said
    assert "FINAL(" in said


def test_the_schema_is_told_whole_and_readable() -> None:
    told = schema_instructions(SCHEMA).splitlines()
    assert json.loads(told[1]) == SCHEMA
    assert "größe" in told[1]


def test_a_repair_tells_the_validators_words_and_the_attempt() -> None:
    said = schema_repair("'size' is a required property", 2, 3)
    assert "'size' is a required property" in said
    assert "2 of 3" in said
    assert len(schema_repair("x" * 99_999, 1, 3)) < 3000


def test_an_answer_in_the_form_that_is_asked_for_is_read_as_one() -> None:
    assert parse_reply("FINAL(Moby Dick.)").final == Directive("text", "Moby Dick.")
