"""What is said of turns that were left out of a conversation."""

from __future__ import annotations

import pytest

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.conversation.compaction import summarize
from rlm_mcp.engine.conversation.conversation import Conversation, Window
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.types import HistoryEntry
from rlm_mcp.events import Message

HEAD: tuple[Message, ...] = (
    {"role": "system", "content": "s"},
    {"role": "user", "content": "What?"},
)
TRACE = (
    HistoryEntry("root", "Let me see.\n```repl\nx = 1\nprint(x)\n```", "", 1),
    HistoryEntry("repl_output", "1\n", "1", 1),
    HistoryEntry("sub_call", "a reply", "", 1),
    HistoryEntry("root", "I will go on.", "", 2),
    HistoryEntry("root", "```repl\nnope\n```", "", 3),
    HistoryEntry(
        "repl_output", "", "Traceback (most recent call last):\n  line 1\nNameError: nope", 3
    ),
    HistoryEntry("root", "FINAL(x)", "", 4),
)


def of_turns(*sizes: int) -> Conversation:
    conversation = Conversation(HEAD)
    for size in sizes:
        conversation = conversation.replied("r" * size).told("o" * size)
    return conversation


def test_a_summary_says_what_each_turn_did_what_came_of_it_and_what_is_held() -> None:
    assert summarize(TRACE, 3, {"x": "1", "names": "['a', 'b']"}, 10_000) == (
        "[Turns 1 to 3 are left out here to save room. What they did:\n"
        "1: x = 1 print(x) → 1\n"
        "2: I will go on.\n"
        "3: nope → NameError: nope\n"
        "Variables that are there:\n"
        "x = 1\n"
        "names = ['a', 'b']\n"
        "Print a variable to see it again.]"
    )


def test_a_summary_keeps_the_newest_within_its_limit() -> None:
    trace = [HistoryEntry("root", f"turn {n} " + "x" * 300, "", n) for n in range(1, 301)]
    variables = {f"v{n}": "y" * 500 for n in range(300)}
    said = summarize(trace, 300, variables, 2_000)
    assert len(said) < 2_500
    assert "300: turn 300" in said
    assert "1: turn 1 " not in said
    assert "v299 = " in said
    assert "SHOW_VARS()" in said


def test_a_summary_without_variables_says_so() -> None:
    assert "No variables are there." in summarize(TRACE, 1, {}, 100)


@pytest.mark.parametrize(
    ("sizes", "room", "kept"),
    [
        ((), 100, None),
        ((10,), 0, None),
        ((10, 10), 0, 1),
        ((10, 10, 10), 0, 2),
        ((10, 10, 10, 10), 60, 3),
        ((10, 10, 10, 10), 80, None),
        ((1, 1, 1, 500), 60, 2),
    ],
)
def test_the_newest_turns_that_fit_are_kept(
    sizes: tuple[int, ...], room: int, kept: int | None
) -> None:
    assert of_turns(*sizes).turns_within(room) == kept


def test_a_summary_stands_behind_the_question_and_roles_alternate() -> None:
    short = of_turns(1, 2, 3).without_oldest(2, "[summary]")
    assert [message["content"] for message in short.messages] == [
        "s",
        "What?\n\n[summary]",
        *("rr", "oo", "rrr", "ooo"),
    ]
    assert short.replied("next").told("more").messages[:6] == short.messages
    again = short.without_oldest(1, "[newer]")
    assert again.messages[1]["content"] == "What?\n\n[newer]"


def test_a_window_learns_what_a_character_takes_and_keeps_room_for_the_reply() -> None:
    window = Window.of(RLMConfig(root_context_tokens=8_000, root_max_tokens=16_000))
    assert (window.reply_tokens, window.chars) == (2_000, 24_000)
    window.learn(1_000, ChatReply("x", input_tokens=500))
    assert window.chars == 12_000
    assert window.is_full(12_001)
    window.learn(1_000, ChatReply("x", input_tokens=900, usage_estimated=True))
    window.learn(0, ChatReply("x", input_tokens=900))
    assert window.chars == 12_000
    window.learn(1_000, ChatReply("x", input_tokens=1))
    assert window.chars == 24_000


def test_a_window_that_is_not_known_is_never_full() -> None:
    window = Window.of(RLMConfig(root_max_tokens=77))
    assert (window.reply_tokens, window.is_full(10**9)) == (77, False)
