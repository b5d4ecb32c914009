"""The kinds of runs that are recorded: what is asked, what the model replies, the right answer.

The replies are looked up by the number of the last step that the model itself wrote, so that a
run is answered the same way by any version of the prompts. A kind that was recorded is never
changed: its logs are resumed with these replies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.serving import cell

TEXT = "The harbour light is green.\n" * 60
PARTS = 40
LONG_TEXT = "The harbour light is green, and the keeper's cat is asleep.\n" * 2_000
ANSWER_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string"}, "lines": {"type": "integer"}},
    "required": ["colour", "lines"],
}


@dataclass(frozen=True)
class Kind:
    """One kind of run.

    Args:
        replies: of the root model, by step.
        answer: a pattern of the right answer.
        text: what the question is asked over.
        arguments: of `rlm_query`, besides the question and the text.
        room: the budget that an exhausted run needs to go on.
    """

    replies: tuple[str, ...]
    answer: str
    text: str = TEXT
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    room: Mapping[str, Any] = field(default_factory=dict[str, Any])


def _batches(kind: str) -> Kind:
    """Forty sub-calls at once, four from threads, one that fails: each kind has its own prompts."""
    replies = (
        cell(f"parts = [f'{kind} part {{n}}' for n in range({PARTS})]\nprint(len(parts))"),
        cell("replies = llm_query_batch(parts)\nprint(replies[-1])"),
        cell(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor() as pool:\n"
            f"    more = list(pool.map(llm_query, [f'{kind} thread {{n}}' for n in range(4)]))\n"
            "print(len(more))"
        ),
        cell(f"lost = llm_query('{kind} empty')\nprint(lost)"),
        cell("print(len(set(replies)), len(more))\nFINAL(f'{len(set(replies))} {replies[3]}')"),
    )
    return Kind(replies, f"{PARTS} {kind.upper()} PART 3")


KINDS: Mapping[str, Kind] = {
    "plain": Kind(
        (
            "Two blocks.\n"
            + cell("import random\nfirst = random.random()\nprint(first)")
            + "\n"
            + cell("calls = 0\ndef count():\n    global calls\n    calls += 1"),
            cell("count()\nprint(1 / 0)"),
            "FINAL_VAR(nothing)",
            cell("count()\nfound = f'green {calls} {first}'\nprint(found)") + "\nFINAL_VAR(found)",
        ),
        r"green 2 0\.\d+",
    ),
    "batches": _batches("batches"),
    "depth 2": Kind(
        (
            cell("colour = rlm_query('history inner: which colour?', 'The light is red')"),
            cell("again = rlm_query('history inner: which colour?', 'The other light is blue')"),
            cell("print(colour, again)\nFINAL(f'{colour} {again}')"),
        ),
        "red: COLOUR OF RED blue: COLOUR OF BLUE",
        arguments={"budget": {"max_depth": 2}},
    ),
    "inner": Kind(
        (
            cell("word = context.split()[-1]\nprint(word)"),
            cell("told = llm_query(f'colour of {word}')\nprint(told)"),
            cell("FINAL(f'{word}: {told}')"),
        ),
        "",
    ),
    "schema": Kind(
        (
            cell("line_count = context.count('\\n')\nprint(line_count)"),
            "FINAL(no object)",
            cell("FINAL({'colour': 'green', 'lines': line_count})"),
        ),
        r'\{"colour": "green", "lines": 60\}',
        arguments={"answer_schema": ANSWER_SCHEMA},
    ),
    "long text": Kind(
        (
            cell("line_count = context.count('\\n')\nprint(line_count)"),
            cell("FINAL(line_count)"),
        ),
        "2000",
        text=LONG_TEXT,
        arguments={"options": {"direct_max_chars": 150_000, "root_context_tokens": 100_000}},
    ),
    "compacted": Kind(
        (
            *(cell(f"v{n} = {n}\nprint('{n + 1} ' * 900)") for n in range(5)),
            cell("FINAL(v0 + v1 + v2 + v3 + v4)"),
        ),
        "10",
        arguments={"options": {"root_context_tokens": 2600, "root_max_tokens": 500}},
    ),
    "small model": Kind(
        (
            cell(
                "seen = [line for line in context.split('\\n') if 'light' in line]\nprint(seen[:2])"
            ),
            "Nothing but words, which a small model writes too.",
            cell("print(len(seen))"),
            cell("FINAL(len(seen))"),
        ),
        "60",
        arguments={"options": {"prompt_variant": "small_context"}},
    ),
    "exhausted": Kind(
        (
            cell("seen = 1\nprint(seen)"),
            "FINAL(perhaps)",
            cell("seen += 1\nprint(seen)"),
            cell("FINAL(seen)"),
        ),
        # Cut off before its last turn, and with room for more, the guess of that turn is final.
        "2|perhaps",
        arguments={"budget": {"max_iterations": 2}},
        room={"max_iterations": 8},
    ),
    "failed": Kind((cell("kept = [7]\nprint(kept)"), cell("FINAL(kept[0])")), "7"),
    "cancelled": _batches("cancelled"),
    "stopped": _batches("stopped"),
    "killed": _batches("killed"),
    "resumed": _batches("resumed"),
    "continued": Kind((cell("print(kept)"), cell("FINAL(kept + 1)")), "42"),
}


def question(kind: str) -> str:
    """The question of a kind, by which the model knows it."""
    return f"history {kind}: what is found?"


def reply_to(request: ChatRequestView) -> Answer:
    """Answer a root model by kind and step; shout what a sub-call asks."""
    kind = kind_of(request)
    if kind is None:
        is_empty = "empty" in request.text
        return Reply("", finish_reason="stop") if is_empty else request.text.upper()
    replies = KINDS[kind].replies
    step = next_step(request)
    return f"step {step}\n{replies[min(step, len(replies) - 1)]}"


def kind_of(request: ChatRequestView) -> str | None:
    """Which kind of run asks; None for a sub-call."""
    found = re.findall(r"history ([\w ]+): (?:what|which)", str(request.messages))
    return found[0] if found else None


def next_step(request: ChatRequestView) -> int:
    """The step after the last one that the model wrote."""
    written = [str(one["content"]) for one in request.messages if one["role"] == "assistant"]
    steps = re.findall(r"^step (\d+)$", "\n".join(written), re.MULTILINE)
    return int(steps[-1]) + 1 if steps else 0
