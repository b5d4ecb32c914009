"""What a log holds of a run: changes of its conversation, and what is played again."""

from __future__ import annotations

import json

import pytest

from rlm_mcp.engine.conversation.conversation import Conversation, change_between, changed
from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.recording import PendingTurn, RecordedCell, RecordedTurn, Recording
from rlm_mcp.engine.subcalls.nested_runs import InnerParts
from rlm_mcp.events import Change, FinalAnswer, LoopState
from rlm_mcp.sandbox.types import CellResult

OPENED = Conversation(
    ({"role": "system", "content": "s"}, {"role": "user", "content": "What? " + "text " * 9})
)
LONG = OPENED.replied("a").told("1").replied("a").told("2").replied("b").told("3")


AFTERWARDS = (
    LONG,
    LONG.told("more"),
    LONG.replied("r").told("t"),
    LONG.without_oldest(1, "[summary]"),
    LONG.without_oldest(2, "[a]").replied("r").told("t").without_oldest(1, "[b]"),
    OPENED.told("again"),
    Conversation(({"role": "user", "content": "alone"},)),
)


@pytest.mark.parametrize("after", AFTERWARDS)
def test_a_conversation_is_the_same_after_its_changes_were_written_and_read(
    after: Conversation,
) -> None:
    written = json.dumps(change_between(LONG, after).to_detail())
    assert changed(LONG, Change.from_detail(json.loads(written)), OPENED) == after
    assert len(written) < 300


def test_a_head_that_is_too_long_is_had_from_the_text_again() -> None:
    base = Conversation(OPENED.head[:-1])
    change = change_between(base, OPENED, without_head=True)
    assert change.to_detail() == {"head": None}
    assert changed(base, change, OPENED) == OPENED


def a_cell(code: str) -> RecordedCell:
    return RecordedCell(code, f"shown of {code}", CellResult("", 0, 0.0))


def a_turn(*codes: str, is_last_word: bool = False) -> RecordedTurn:
    turn = RecordedTurn(
        1, "digest", is_direct=False, is_last_word=is_last_word, standing=LoopState()
    )
    turn.reply = ChatReply("reply")
    turn.cells.extend(map(a_cell, codes))
    return turn


def test_the_turn_that_a_log_ends_in_is_played_once() -> None:
    pending = PendingTurn(Recording((a_turn("before"), a_turn("x = 1", "y = 2"))))
    assert pending.is_mid_turn
    assert pending.take_reply() == ChatReply("reply")
    assert (pending.is_playing, pending.is_mid_turn) == (True, False)
    assert [pending.take_cell("x = 1"), pending.take_cell("y = 2")] == [
        a_cell("x = 1"),
        a_cell("y = 2"),
    ]
    assert pending.take_cell("z = 3") is None
    assert pending.take_reply() is None
    assert not pending.is_playing


def test_a_cell_that_is_not_the_recorded_one_ends_the_playing() -> None:
    pending = PendingTurn(Recording((a_turn("x = 1", "y = 2"),)))
    pending.take_reply()
    assert [pending.take_cell("y = 2"), pending.take_cell("x = 1")] == [None, None]


def test_a_turn_that_was_judged_is_not_played_again() -> None:
    judged = Recording((a_turn("x = 1"),), ended_as="exhausted")
    assert PendingTurn(judged).take_reply() is None
    assert PendingTurn(Recording()).take_reply() is None
    last = PendingTurn(Recording((a_turn(is_last_word=True),)))
    assert (last.is_mid_turn, last.is_last_word) == (False, True)


def test_of_equal_inner_runs_the_one_that_broke_off_goes_on() -> None:
    broken, answered = Recording((a_turn(),)), Recording(final=FinalAnswer(status="completed"))
    parts = InnerParts({"0abc.1": broken, "0abc.2": answered}, ["0abc"])
    taken = [parts.take("0abc"), parts.take("0abc"), parts.take("0def")]
    assert [part.name for part in taken] == ["0abc.1", "0abc.3", "0def.1"]
    assert [part.recording for part in taken] == [broken, Recording(), Recording()]
