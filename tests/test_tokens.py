"""Estimates of tokens: by script, and beside what real tokenizers count.

The counts in `token_counts.json` are those of `gpt-tokenizer` 4.0.0 from npm, for the vocabularies
`o200k_base` and `cl100k_base` of OpenAI's models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.engine.budget import Budget
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.conversation.conversation import Conversation, Window
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.completions import ReplyParts
from rlm_mcp.engine.models.metering import with_estimate
from rlm_mcp.errors import BudgetExceededError
from rlm_mcp.text import estimated_tokens, width, width_of

COUNTED: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("token_counts.json").read_text()
)
# Digits and punctuation take a token each, or nearly: an estimate by script does not see that.
OF_SIGNS = ("JSON", "log")
CHINESE: str = COUNTED["Chinese"]["text"]


@pytest.mark.parametrize("name", COUNTED)
def test_an_estimate_is_near_what_tokenizers_count(name: str) -> None:
    one = COUNTED[name]
    least, most = sorted((one["o200k_base"], one["cl100k_base"]))
    text: str = one["text"]

    estimate = estimated_tokens(len(text), len(text.encode()))

    assert (0.5 if name in OF_SIGNS else 0.9) * least <= estimate <= 1.2 * most
    assert abs(width(text) - width_of(len(text), len(text.encode()))) < 4
    assert abs(width(text) / 4 - estimate) <= 1


def test_width_is_the_length_of_plain_text_and_counts_wide_characters_by_their_tokens() -> None:
    assert (width(""), width("plain"), width_of(0, 0)) == (0, 5, 0)
    assert width("half of a pair: \ud83d") > 0
    assert width(CHINESE) > 3 * len(CHINESE)


async def test_a_budget_has_no_room_for_a_chinese_prompt_of_more_tokens_than_it() -> None:
    request = ChatRequest(messages=({"role": "user", "content": CHINESE * 100},))
    budget = Budget(RLMConfig(max_tokens=5_000))

    with pytest.raises(BudgetExceededError):
        async with budget.root_turn(request.width):
            raise AssertionError("it counted four characters as one token")


def test_a_reply_without_counts_is_estimated_by_script() -> None:
    request = ChatRequest(messages=({"role": "user", "content": CHINESE},))
    parts = ReplyParts(request.chars)
    parts.add_choice({"message": {"content": CHINESE}, "finish_reason": "stop"}, "message")

    reply = with_estimate(parts.reply(), request)

    assert reply.usage_estimated
    assert reply.input_tokens == reply.output_tokens >= COUNTED["Chinese"]["o200k_base"]
    counted = ChatReply("x", input_tokens=7)
    assert with_estimate(counted, request) is counted


def test_a_window_is_full_of_chinese_before_any_reply_has_shown_how_wide_it_is() -> None:
    window = Window.of(RLMConfig(root_context_tokens=8_000))
    message: Any = {"role": "user", "content": CHINESE * 100}
    conversation = Conversation((message,))

    assert not window.is_full(conversation.chars)
    assert window.is_full(conversation.width)
