"""Anthropic's Messages API, OpenAI's Responses API, and runs over each kind of provider."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.named import Catalogue, open_models
from rlm_mcp.engine.models.retry import RetryPolicy
from rlm_mcp.engine.models.tables import ModelTable
from rlm_mcp.errors import (
    ContextLengthError,
    ModelAuthenticationError,
    ModelError,
    ModelReplyError,
)
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_native import NativeReply
from rlm_mcp.testing.scripted_replies import Fault, Reply
from tests.serving import cell, open_served, turns

KEY = "sk-ant-of-the-table-0123456789"
KINDS = ("anthropic", "responses")
SYSTEM = {"role": "system", "content": "be brief"}
USER = {"role": "user", "content": "hi"}


async def ask(
    kind: str, server: ScriptedModel, *messages: Any, attempts: int = 1, **more: Any
) -> ChatReply:
    fields: dict[str, Any] = {
        "provider": kind,
        "model": "its-name",
        "base_url": server.base_url,
        "api_key_env": "KEY_OF_IT",
    }
    table = ModelTable.model_validate(fields | more.pop("table", {}))
    catalogue = Catalogue(Provider(), {"it": table}, {"KEY_OF_IT": KEY})
    policy = RetryPolicy(attempts=attempts, first_pause_seconds=0.01)
    limiter = anyio.CapacityLimiter(4)
    with anyio.fail_after(60):
        async with open_models(catalogue, limiter=limiter, policy=policy) as models:
            request = ChatRequest(messages or (USER,), max_tokens=99, **more)
            return await models.model("it").complete(request)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_messages_are_sent_and_read_in_anthropics_words(is_streamed: bool) -> None:
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    reply = NativeReply("the answer, in pieces", usage=(10, 7), cached=90, written=5)
    async with open_scripted_model(lambda _: reply) as server:
        more: dict[str, Any] = {"on_delta": hear} if is_streamed else {}
        table = {"reasoning_effort": "low", "extra_body": {"top_k": 3}, "headers": {"x-team": "a"}}
        said = await ask("anthropic", server, SYSTEM, USER, temperature=1.4, table=table, **more)
    request = server.requests[0]
    assert (request.path, request.authorization) == ("/v1/messages", f"Bearer {KEY}")
    assert (request.model, request.params["max_tokens"]) == ("its-name", 99)
    assert request.params["system"] == [{"type": "text", "text": "be brief"}]
    assert request.params["output_config"] == {"effort": "low"}
    assert (request.params["temperature"], request.params["top_k"]) == (1.0, 3)
    assert request.headers["x-team"] == "a"
    assert (said.text, said.finish_reason, said.is_whole) == (reply.text, "end_turn", True)
    assert (said.input_tokens, said.output_tokens) == (105, 7)
    assert (said.cached_input_tokens, said.cache_written_tokens) == (90, 5)
    assert "".join(heard) == (reply.text if is_streamed else "")
    assert len(heard) > 1 or not is_streamed


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_responses_are_sent_and_read_in_openais_words(is_streamed: bool) -> None:
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    reply = NativeReply("the answer, in pieces", usage=(10, 7), cached=90)
    async with open_scripted_model(lambda _: reply) as server:
        more: dict[str, Any] = {"on_delta": hear} if is_streamed else {}
        table = {"reasoning_effort": "low"}
        said = await ask("responses", server, SYSTEM, USER, table=table, **more)
    request = server.requests[0]
    assert (request.path, request.authorization) == ("/v1/responses", f"Bearer {KEY}")
    assert request.messages == (SYSTEM, USER)
    assert (request.params["max_output_tokens"], request.params["store"]) == (99, False)
    assert request.params["reasoning"] == {"effort": "low"}
    assert (said.text, said.finish_reason) == (reply.text, "stop")
    assert (said.input_tokens, said.output_tokens, said.cached_input_tokens) == (100, 7, 90)
    assert "".join(heard) == (reply.text if is_streamed else "")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reply_that_was_cut_is_known_by_it(kind: str) -> None:
    async with open_scripted_model(lambda _: Reply("half", "length")) as server:
        assert (await ask(kind, server)).finish_reason == "length"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (401, "invalid x-api-key", ModelAuthenticationError),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", ContextLengthError),
        (200, "", ModelReplyError),
    ],
)
async def test_failures_are_understood_and_hold_no_key(
    kind: str, status: int, message: str, expected: type[ModelError]
) -> None:
    error = {"type": "error", "error": {"type": "x", "message": f"{message} {KEY}"}}
    body = error if message else {"nothing": "of use"}
    async with open_scripted_model(lambda _: Fault(status, body)) as server:
        with pytest.raises(expected) as caught:
            await ask(kind, server)
    assert KEY not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_refused_is_left_out_and_what_is_crowded_is_asked_again(kind: str) -> None:
    name = "output_config" if kind == "anthropic" else "reasoning"

    def answer(request: Any) -> Any:
        if request.number == 1:
            return Fault(529 if kind == "anthropic" else 503, {"error": {"message": "Overloaded"}})
        if name in request.params:
            return Fault(400, {"error": {"message": f"{name}: not supported by this model"}})
        return "ok"

    async with open_scripted_model(answer) as server:
        table = {"reasoning_effort": "low"}
        assert (await ask(kind, server, attempts=3, table=table)).text == "ok"
    assert server.received == 3


SHIP: dict[str, Any] = {
    "type": "object",
    "properties": {"of": {"type": "array", "items": {"type": "object", "properties": {}}}},
    "required": ["of"],
}


async def test_a_schema_is_sent_in_anthropics_words_with_objects_closed() -> None:
    async with open_scripted_model("{}") as server:
        await ask("anthropic", server, reply_schema=SHIP, table={"reasoning_effort": "low"})
        [request] = server.requests
    item: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    of: dict[str, Any] = {"type": "array", "items": item}
    closed: dict[str, Any] = {**SHIP, "properties": {"of": of}, "additionalProperties": False}
    assert request.params["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": closed},
    }


async def test_a_schema_is_sent_in_the_words_of_the_responses_api() -> None:
    async with open_scripted_model("{}") as server:
        await ask("responses", server, reply_schema=SHIP)
        [request] = server.requests
    form = {"type": "json_schema", "name": "reply", "schema": SHIP}
    assert request.params["text"] == {"format": form}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_schema_that_a_provider_refuses_is_left_out(kind: str) -> None:
    name = "output_config" if kind == "anthropic" else "text"

    def answer(request: Any) -> Any:
        if name in request.params:
            return Fault(400, {"error": {"message": f"{name}.format: not supported"}})
        return "ok"

    async with open_scripted_model(answer) as server:
        assert (await ask(kind, server, reply_schema=SHIP)).text == "ok"
    assert server.received == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_breaks_off_is_no_reply(kind: str) -> None:
    async def hear(_: str) -> None:
        pass

    begun = 'event: x\ndata: {"type": "x"}\n\n'
    fault = Fault(200, begun, {"content-type": "text/event-stream"})
    async with open_scripted_model(lambda _: fault) as server:
        with pytest.raises(ModelReplyError, match="ended before the reply did"):
            await ask(kind, server, on_delta=hear)


def prefix_of(request: Any, *, until: int) -> str:
    """What is sent before a mark, as bytes, up to the message with this number."""
    messages = [
        {**one, "content": [{**block, "cache_control": None} for block in one["content"]]}
        for one in request.messages[: until + 1]
    ]
    return json.dumps([request.params.get("system"), messages])


def marked(request: Any) -> list[int]:
    """The numbers of the messages whose end is marked."""
    numbered = enumerate(request.messages)
    return [n for n, one in numbered if "cache_control" in one["content"][-1]]


async def test_marks_stand_where_a_turns_prefix_ends_and_nothing_before_them_changes(
    tmp_path: Path,
) -> None:
    cells = [cell(f"x{n} = {n}\nprint(x{n}, llm_query('what?'))") for n in range(4)]
    async with open_scripted_model(turns(*cells, "FINAL(x)")) as server:
        fields: dict[str, Any] = {"provider": "anthropic", "base_url": server.base_url}
        models = {"root": ModelTable(**fields), "sub": ModelTable(**fields)}
        async with open_served(tmp_path, "unused", models=models, direct_max_chars=0) as served:
            begun = await served.call("rlm_query", question="What?", text="some text")
            assert (await served.ended(begun["run_id"]))["answer"] == "x"
    roots = [request for request in server.requests if request.model == "root"]
    assert len(roots) == 5
    for before, after in pairwise(roots):
        end = marked(before)[-1]
        assert end == len(before.messages) - 1  # the whole prompt is put into the cache
        assert end in marked(after)  # and is read from there by the next
        assert prefix_of(before, until=end) == prefix_of(after, until=end)
        assert len(marked(after)) <= 4
    subs = [request for request in server.requests if request.model == "sub"]
    assert subs
    assert [marked(request) for request in subs] == [[]] * len(subs)


COMMAND = """
import json, sys
code = "```repl\\nr = llm_query('say it')\\nFINAL(r)\\n```"
usage = {"input_tokens": 500, "output_tokens": 500}
print(json.dumps({"result": code, "usage": usage, "total_cost_usd": 0.07}))
"""


@pytest.mark.parametrize("kind", ["openai", "responses", "anthropic", "command"])
async def test_a_whole_run_over_each_kind_of_provider_costs_what_it_should_by_model(
    kind: str, tmp_path: Path
) -> None:
    code = cell("r = llm_query('say it')\nFINAL(r)")
    root_reply = NativeReply(code, usage=(100_000, 10_000), cached=200_000, written=40_000)
    sub_reply = Reply("from the second endpoint", usage=(50_000, 2_000))
    program = tmp_path / "program.py"
    program.write_text(COMMAND)
    async with (
        open_scripted_model(lambda _: root_reply) as first,
        open_scripted_model(lambda _: sub_reply) as second,
    ):
        fields: dict[str, Any] = {"provider": kind, "base_url": first.base_url}
        fields |= {"input_price": 2.0, "cached_input_price": 0.2, "output_price": 10.0}
        if kind == "command":
            fields = {"provider": kind, "command": (sys.executable, str(program))}
        models = {
            "big": ModelTable.model_validate(fields),
            "small": ModelTable(base_url=second.base_url, input_price=0.5, output_price=2.0),
        }
        names = {"root_model": "big", "sub_model": "small"}
        more: dict[str, Any] = {"models": models, "direct_max_chars": 0, "max_usd": 5.0, **names}
        if kind == "command":
            models["big"] = models["big"].model_copy(update={"input_price": 0.0})
        async with open_served(tmp_path, "unused", **more) as served:
            begun = await served.call("rlm_query", question="What?", text="some text")
            run = await served.ended(begun["run_id"])
            status = await served.call("rlm_status")
    assert run["answer"] == "from the second endpoint", run["error"]
    rows = {row["model"]: row for row in run["usage_by_model"]}
    cost = {
        "command": 0.07,  # as it told
        "anthropic": 0.2 + 0.04 + 0.1 + 0.1,  # 40,000 written at a quarter more than $2
        "responses": 0.2 + 0.04 + 0.1,
        "openai": 0.2 + 0.1,  # its usage tells of no cache
    }[kind]
    assert rows["big"]["cost_usd"] == pytest.approx(cost)
    assert rows["big"]["cost_is"] == ("told" if kind == "command" else "computed")
    assert rows["small"]["cost_usd"] == pytest.approx(0.025 + 0.004)
    assert run["cost_usd"] == pytest.approx(cost + 0.029)
    assert [row["calls"] for row in rows.values()] == [1, 1]
    allowed = {one["name"]: one for one in status["model"]["models"]}
    assert allowed.keys() == {"big", "small"}
    assert (allowed["small"]["input_price"], allowed["small"]["output_price"]) == (0.5, 2.0)
    assert allowed["small"]["context_tokens"] is None
