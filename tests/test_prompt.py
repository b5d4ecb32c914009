"""What is said to a model: facts that must be in it, whatever the wording."""

from __future__ import annotations

import ast
import builtins
import itertools
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import get_args

import anyio
import pytest

from rlm_mcp.engine.config import PromptVariant, RLMConfig
from rlm_mcp.engine.parsing.reply import Directive, Problem, parse_reply
from rlm_mcp.engine.prompts import (
    Glimpse,
    Message,
    NudgeReason,
    TurnInfo,
    answer_from_output,
    best_answer_request,
    confirm_final,
    context_replaced,
    doubt_empty,
    doubt_unseen,
    feedback,
    first_message,
    missing_variable,
    nudge,
    schema_instructions,
    schema_repair,
    show_outputs,
    system_prompt,
    went_in_circles,
    worked_example,
)
from rlm_mcp.engine.prompts.display import show_cell
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CallReply, CellResult, Repl, ReplCall, ReplOptions

VARIANTS: tuple[PromptVariant, ...] = get_args(PromptVariant)
REASONS: tuple[NudgeReason, ...] = (*get_args(Problem), "syntax", "repeated")
REPL_NAMES = frozenset({"llm_query", "llm_query_batch", "rlm_query", "FINAL", "FINAL_VAR"}) | {
    "search",
    "lines",
    "budget",
    "SHOW_VARS",
}
SUB_CALLS = re.compile(r"llm_query|rlm_query|sub-call|language model|weaker model", re.IGNORECASE)
QUESTION = "Which of the whales is white?"
SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}}
TURN = TurnInfo(3, 25, sub_calls_left=498, seconds_left=120.4, usd_left=1.234, tokens_left=5000)


def config_of(variant: PromptVariant, *, sub_calls: bool = True) -> RLMConfig:
    return RLMConfig(prompt_variant=variant, enable_sub_calls=sub_calls)


def everything_said(config: RLMConfig) -> list[str]:
    said = [system_prompt(config, recursion=True, has_sub_model=True)]
    said += [message["content"] for message in worked_example(config)]
    said += [nudge(reason, QUESTION, TURN, config, detail="why") for reason in REASONS]
    said += [
        first_message(QUESTION, "`context` is a str.", config, turn=TURN, schema=SCHEMA),
        feedback(QUESTION, ["out"], TURN, config),
        feedback(QUESTION, ["out"], TurnInfo(25, 25, sub_calls_left=0), config),
        best_answer_request(QUESTION, "the last turn is over", config, shown_cells=["out"]),
        confirm_final("42", "41"),
        doubt_empty("0"),
        doubt_unseen("42"),
        answer_from_output(QUESTION, "41"),
        context_replaced(),
        went_in_circles("41", TURN, config),
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
    blocks = parse_reply(system_prompt(config_of("default", sub_calls=sub_calls))).blocks
    assert len(blocks) == 2
    async with a_sandbox() as sandbox:
        for text in ("a complaint\nand more\n" * 50, ["a complaint", "thanks"]):
            options = ReplOptions(sub_calls=sub_calls)
            async with sandbox.open_repl(TextContext.of(text), options) as repl:
                assert all([(await run(repl, block.code)).output for block in blocks])


WORKED_TEXTS: tuple[tuple[str | list[str], str], ...] = (
    ("It never came.\n\nIt broke.\n", "2"),
    (["One", "House\nkitchen: 2 windows\ncellar: 0 windows\npantry: 0 windows"], "cellar, pantry"),
    ("Order 18 from FR paid 31 euro by card\nOrder 17 from DE paid 22 euro by card\n", "1"),
    ("Anna laughed.\nAnna moved to the city of Lisbon.\nThe city slept.\n", "Lisbon"),
)


async def test_each_worked_session_works_in_a_real_repl_and_looks_like_it() -> None:
    said = [message["content"] for message in worked_example(config_of("small_context"))]
    async with a_sandbox() as sandbox:
        for number, (text, expected) in enumerate(WORKED_TEXTS):
            look, told, answer = said[4 * number + 1 : 4 * number + 4]
            async with sandbox.open_repl(TextContext.of(text), ReplOptions()) as repl:
                printed = (await run(repl, parse_reply(look).blocks[0].code)).output
                final = (await run(repl, parse_reply(answer).blocks[0].code)).final
            assert final is not None
            assert final.text == expected
            assert first_words(told.splitlines()[1]) == first_words(printed)


def first_words(output: str) -> list[str]:
    """The form of an output: its first two words, numbers aside."""
    return re.sub(r"\d+", "0", output).split()[:2]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sub_calls", [True, False])
def test_every_function_named_exists_in_the_repl(variant: PromptVariant, sub_calls: bool) -> None:
    for said in everything_said(config_of(variant, sub_calls=sub_calls)):
        called = re.findall(r"`(\w+)\(", said)
        assert set(called) <= REPL_NAMES | set(vars(builtins))


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_sub_calls_nothing_speaks_of_them(variant: PromptVariant) -> None:
    for said in everything_said(config_of(variant, sub_calls=False)):
        assert not SUB_CALLS.search(said)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_calls_of_the_repl_are_told(variant: PromptVariant) -> None:
    said = system_prompt(config_of(variant))
    for name in ("context", "search(", "llm_query(", "llm_query_batch(", "FINAL("):
        assert name in said


@pytest.mark.parametrize("variant", VARIANTS)
def test_recursion_is_told_only_where_it_exists(variant: PromptVariant) -> None:
    config = config_of(variant)
    assert "rlm_query" in system_prompt(config, recursion=True)
    assert "rlm_query" not in system_prompt(config)


def test_a_sub_model_other_than_the_root_is_told() -> None:
    config = config_of("default")
    assert system_prompt(config, has_sub_model=True) != system_prompt(config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_prefix_is_the_same_bytes_every_time(variant: PromptVariant) -> None:
    first = config_of(variant)
    again = config_of(variant)
    assert system_prompt(first, recursion=True) == system_prompt(again, recursion=True)
    assert worked_example(first) == worked_example(again)


def test_the_limits_of_the_run_are_told() -> None:
    config = RLMConfig(
        metadata_prefix_chars=777, sub_call_max_input_chars=54_321, sandbox_timeout=33
    )
    said = system_prompt(config)
    assert "777 characters" in said
    assert "54321 characters" in said
    assert "33 seconds" in said


@pytest.mark.parametrize("limit", [1, 10, 5_000, 100_000, 500_000])
def test_pieces_in_the_example_fit_a_sub_call(limit: int) -> None:
    said = system_prompt(RLMConfig(sub_call_max_input_chars=limit))
    sizes = [int(size) for size in re.findall(r"i:i \+ (\d+)\]", said)]
    assert sizes
    assert all(0 < size <= limit for size in sizes)


@pytest.mark.parametrize("limit", [100, 500_000])
def test_a_weak_model_is_told_of_small_pieces_that_fit(limit: int) -> None:
    config = RLMConfig(prompt_variant="small_context", sub_call_max_input_chars=limit)
    (size,) = re.findall(r"at most (\d+) characters", system_prompt(config))
    assert int(size) <= min(limit, 6_000)


def test_the_economy_of_sub_calls_is_told_in_its_variant_alone() -> None:
    default, warned = (system_prompt(config_of(v)) for v in ("default", "cost_warning"))
    assert len(warned) > len(default)
    assert "costs" in warned
    off = system_prompt(config_of("cost_warning", sub_calls=False))
    assert off == system_prompt(config_of("default", sub_calls=False))


@pytest.mark.parametrize(
    ("variant", "most_tokens"),
    [("default", 1300), ("cost_warning", 1500), ("small_context", 230)],
)
def test_a_system_prompt_stays_short(variant: PromptVariant, most_tokens: int) -> None:
    said = system_prompt(config_of(variant), recursion=True, has_sub_model=True)
    assert len(said) / 4 < most_tokens


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sub_calls", [True, False])
def test_every_variant_tells_of_search(variant: PromptVariant, sub_calls: bool) -> None:
    assert "`search(words, k=5)`" in system_prompt(config_of(variant, sub_calls=sub_calls))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sub_calls", [True, False])
def test_the_code_shown_is_code_that_the_parser_takes(
    variant: PromptVariant, sub_calls: bool
) -> None:
    parsed = parse_reply(system_prompt(config_of(variant, sub_calls=sub_calls)))
    assert parsed.syntax is None
    assert parsed.final is None
    for block in parsed.blocks:
        assert called_names(block.code) <= REPL_NAMES | set(vars(builtins))


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_echo_of_what_was_said_is_never_an_answer(variant: PromptVariant) -> None:
    config = config_of(variant)
    examples = [m["content"] for m in worked_example(config) if m["role"] == "assistant"]
    for echo in everything_said(config):
        assert echo in examples or parse_reply(echo).final is None


def test_only_the_weak_models_variant_shows_worked_turns() -> None:
    assert worked_example(config_of("default")) == ()
    assert worked_example(config_of("cost_warning")) == ()
    assert len(worked_example(config_of("small_context"))) >= 8


@pytest.mark.parametrize("sub_calls", [True, False])
def test_worked_turns_alternate_and_end_with_the_assistant(sub_calls: bool) -> None:
    turns = worked_example(config_of("small_context", sub_calls=sub_calls))
    roles = [message["role"] for message in turns]
    assert roles == ["user", "assistant"] * (len(turns) // 2)
    head: list[Message] = [{"role": "system", "content": "s"}, *turns]
    pairs = itertools.pairwise(message["role"] for message in head)
    assert all(one != other for one, other in pairs)


def test_each_worked_turn_is_one_block_and_each_session_ends_with_a_final() -> None:
    turns = worked_example(config_of("small_context"))
    written = [parse_reply(m["content"]) for m in turns if m["role"] == "assistant"]
    assert all(len(reply.blocks) == 1 and not reply.syntax for reply in written)
    assert ["FINAL(" in reply.blocks[0].code for reply in written] == [False, True] * 4


def test_worked_turns_are_made_as_the_real_ones_are() -> None:
    config = config_of("small_context")
    turns = worked_example(config)
    real = first_message(QUESTION, "`context` is a str.", config, turn=TurnInfo(1, 8))
    assert turns[0]["content"].splitlines()[0] == real.splitlines()[0]
    assert turns[0]["content"].splitlines()[-1].endswith(real.splitlines()[-1].split("] ")[1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_message_asks_describes_and_tells_what_is_left(variant: PromptVariant) -> None:
    said = first_message(
        QUESTION,
        "`context` is a str of 9 characters.",
        config_of(variant),
        turn=TurnInfo(1, 25, sub_calls_left=500),
        schema=SCHEMA,
        glimpse=Glimpse(matches="[line 7] a white whale"),
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
def test_what_is_not_given_leaves_no_empty_heading(variant: PromptVariant) -> None:
    said = first_message(
        QUESTION, "`context` is a str.", config_of(variant), glimpse=Glimpse(matches=" \n")
    )
    assert "match the question" not in said
    assert "Schema" not in said
    assert "Turn " not in said


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_output_tells_turns_and_budget_left(variant: PromptVariant) -> None:
    said = feedback(QUESTION, ["out"], TURN, config_of(variant))
    for left in ("Turn 3 of 25", "498 sub-calls", "120 s", "$1.23", "5000 tokens"):
        assert left in said


def test_limits_that_do_not_exist_are_not_told() -> None:
    said = feedback(QUESTION, ["out"], TurnInfo(3, 25), config_of("default"))
    assert "[Turn 3 of 25]" in said
    assert "left" not in said


def test_an_overdrawn_budget_is_told_as_nothing_left() -> None:
    overdrawn = TurnInfo(3, 25, seconds_left=-4.0, usd_left=-0.5)
    said = feedback(QUESTION, ["out"], overdrawn, config_of("default"))
    assert "0 s left" in said
    assert "$0.00 left" in said


def test_outputs_of_several_blocks_are_told_apart_in_order() -> None:
    said = feedback(QUESTION, ["first out", "second out"], TURN, config_of("default"))
    assert said.index("block 1") < said.index("first out") < said.index("block 2")
    assert said.index("block 2") < said.index("second out")
    assert "block 1" not in show_outputs(["alone"])


def test_a_weak_model_is_asked_the_question_again_and_reminded_of_the_form() -> None:
    config = config_of("small_context")
    for said in (
        feedback(QUESTION, ["out"], TURN, config),
        nudge("no_code", QUESTION, TURN, config),
        best_answer_request(QUESTION, "no turns", config),
    ):
        assert QUESTION in said
        assert "FINAL" in said.splitlines()[-1]
    assert "```python" in feedback(QUESTION, ["out"], TURN, config).splitlines()[-1]
    assert QUESTION not in feedback(QUESTION, ["out"], TURN, config_of("default"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_turn_is_announced(variant: PromptVariant) -> None:
    config = config_of(variant)
    last = feedback(QUESTION, ["out"], TurnInfo(25, 25), config)
    before = feedback(QUESTION, ["out"], TurnInfo(24, 25), config)
    assert "last turn" in last
    assert "FINAL" in last
    assert "last turn" not in before


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reason", REASONS)
def test_each_nudge_names_its_fault_and_shows_the_form(
    variant: PromptVariant, reason: NudgeReason
) -> None:
    config = config_of(variant)
    said = nudge(reason, QUESTION, TURN, config, detail="SyntaxError: line 7")
    others = {nudge(other, QUESTION, TURN, config) for other in REASONS if other != reason}
    assert said not in others
    assert "```" in said
    assert "FINAL" in said
    assert "SyntaxError: line 7" in said
    assert "Turn 3 of 25" in said


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_nudge_on_the_last_turn_asks_for_the_answer(variant: PromptVariant) -> None:
    said = nudge("no_code", QUESTION, TurnInfo(25, 25), config_of(variant))
    assert "last turn" in said
    assert "FINAL" in said.splitlines()[-1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_nudge_shows_what_ran_all_the_same_and_what_is_left_once(variant: PromptVariant) -> None:
    config = config_of(variant)
    said = nudge("unclosed_fence", QUESTION, TURN, config, shown_cells=["first out", "second"])
    assert said.index("first out") < said.index("second") < said.index("no end")
    assert said.count("Turn 3 of 25") == 1


def test_a_huge_detail_is_cut() -> None:
    assert len(nudge("syntax", QUESTION, TURN, config_of("default"), detail="x" * 99_999)) < 3000


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
def test_the_best_answer_is_asked_for_with_the_reason(variant: PromptVariant) -> None:
    said = best_answer_request(
        QUESTION, "The last of 25 turns was reached.", config_of(variant), shown_cells=["seen"]
    )
    assert "The last of 25 turns was reached." in said
    assert ".." not in said.replace("...", "")
    assert QUESTION in said
    assert "seen" in said
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
