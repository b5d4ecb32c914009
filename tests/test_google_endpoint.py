"""Google through its OpenAI-compatible address, with what its documents and its users tell of it.

https://ai.google.dev/gemini-api/docs/openai: errors come in a list, waits as `RetryInfo`, names
with `models/`, calls of tools without an index and with a signature, thinking in the total alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.engine.models.chat import ChatRequest
from rlm_mcp.engine.models.kept_prices import look_up
from rlm_mcp.engine.models.tables import ModelTable
from rlm_mcp.errors import (
    ContextLengthError,
    ModelAuthenticationError,
    ModelError,
    ModelRateLimitError,
    ModelRequestError,
)
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Fault
from tests.provider_asking import KEY, Clock, answer, asked, completion, hear, open_asked, streamed
from tests.serving import open_served

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

ADDRESS = "/v1beta/openai"
ERRORS = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
TYPE = "type.googleapis.com/google.rpc"


def refusal(message: str, status: int = 400, *details: Any) -> Fault:
    """An error as Google has it: in a list."""
    error = {"code": status, "message": message, "status": ERRORS.get(status, "INTERNAL")}
    return answer([{"error": {**error, **({"details": details} if details else {})}}], status)


def unknown(*names: str) -> Fault:
    """What Google says of parameters that it does not know."""
    said = [
        f'Invalid JSON payload received. Unknown name "{one}": Cannot find field.' for one in names
    ]
    violations = [{"description": one} for one in said]
    return refusal(
        "\n".join(said), 400, {"@type": f"{TYPE}.BadRequest", "fieldViolations": violations}
    )


def taking(*names: str) -> Any:
    """A model that takes these parameters alone, and names all others at once."""

    def reply(request: ChatRequestView) -> Answer:
        others = sorted(request.params.keys() - set(names))
        return unknown(*others) if others else "ok"

    return reply


async def test_parameters_that_google_does_not_know_are_left_out_one_by_one() -> None:
    async with open_asked(taking("temperature"), address=ADDRESS) as (server, endpoint):
        endpoint.extras = {"seed": 1, "frequency_penalty": 0.5, "presence_penalty": 0.5}
        request = ChatRequest(({"role": "user", "content": "hi"},), temperature=0.5)
        for _ in range(2):
            assert (await endpoint.model("gemini").complete(request)).text == "ok"
    assert server.received == 5  # three are left out once, and from then on
    assert dict(server.requests[-1].params) == {"temperature": 0.5}
    assert server.requests[-1].path == f"{ADDRESS}/chat/completions"
    assert server.requests[-1].authorization == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "message",
    [
        "Expected one of either `reasoning_effort` or custom `thinking_config`; found both.",
        "Thinking level minimal is not supported for this model.",
        "Budget 0 is invalid. This model only works in thinking mode.",
    ],
)
async def test_an_effort_that_a_model_of_google_does_not_have_is_left_out(message: str) -> None:
    def reply(request: ChatRequestView) -> Answer:
        return refusal(message) if "reasoning_effort" in request.params else "ok"

    thinking = {"google": {"thinking_config": {"include_thoughts": True}}}
    async with open_asked(reply, address=ADDRESS) as (server, endpoint):
        endpoint.extras = {"reasoning_effort": "minimal", "extra_body": thinking}
        request = ChatRequest(({"role": "user", "content": "hi"},))
        assert (await endpoint.model("gemini").complete(request)).text == "ok"
    assert server.requests[0].params["reasoning_effort"] == "minimal"
    assert dict(server.requests[-1].params) == {"extra_body": thinking}


async def test_a_schema_that_google_cannot_keep_to_is_left_out() -> None:
    said = (
        'Invalid JSON payload received. Unknown name "additionalProperties" at '
        "'generation_config.response_schema': Cannot find field."
    )

    def reply(request: ChatRequestView) -> Answer:
        return refusal(said) if "response_format" in request.params else "{}"

    async with open_asked(reply, address=ADDRESS) as (_, endpoint):
        endpoint.takes_schemas = True
        schema = {"type": "object", "additionalProperties": False}
        request = ChatRequest(({"role": "user", "content": "hi"},), reply_schema=schema)
        assert (await endpoint.model("gemini").complete(request)).text == "{}"


async def test_a_model_of_google_without_system_messages_gets_them_from_the_user() -> None:
    def reply(request: ChatRequestView) -> Answer:
        roles = [message["role"] for message in request.messages]
        said = "Developer instruction is not enabled for models/gemma-3-27b-it"
        return "ok" if roles == ["user"] else refusal(said)

    system = {"role": "system", "content": "be brief"}
    turns = (system, {"role": "user", "content": "hi"})
    async with asked(reply, address=ADDRESS, messages=turns) as (server, got):
        assert (got.text, server.requests[-1].text) == ("ok", "be brief\n\nhi")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (refusal("The input token count (9) exceeds the maximum number of tokens allowed (8)."),
         ContextLengthError),
        (refusal("Request payload size exceeds the limit: 20971520 bytes."), ContextLengthError),
        (refusal("API key not valid. Please pass a valid API key."), ModelAuthenticationError),
        (refusal("models/gemini-9 is not found for API version v1main, or is not supported for "
                 "generateContent.", 404), ModelRequestError),
        (refusal("User location is not supported for the API use."), ModelRequestError),
    ],
)  # fmt: skip
async def test_what_google_refuses_for_good_is_told_at_once(
    fault: Fault, kind: type[ModelError]
) -> None:
    received = 0

    def refuse(_: ChatRequestView) -> Fault:
        nonlocal received
        received += 1
        return fault

    said = json.loads(str(fault.body))[0]["error"]["message"]
    with pytest.raises(kind) as caught:
        async with asked(refuse, address=ADDRESS):
            pass
    assert said in str(caught.value)
    assert received == 1


async def test_the_wait_that_google_tells_is_kept() -> None:
    clock = Clock()
    quota = {"@type": f"{TYPE}.QuotaFailure", "violations": [{"quotaId": "PerMinute-FreeTier"}]}
    retry = {"@type": f"{TYPE}.RetryInfo", "retryDelay": "38s"}
    said = "You exceeded your current quota, please check your plan and billing details."
    fault = refusal(said, 429, quota, retry)
    async with asked(lambda _: fault if clock.now < 38 else "ok", clock, ADDRESS) as (server, got):
        assert (got.text, server.received) == ("ok", 2)


async def test_a_quota_of_google_that_no_wait_renews_is_told() -> None:
    retry = {"@type": f"{TYPE}.RetryInfo", "retryDelay": "34074.8s"}
    with pytest.raises(ModelRateLimitError, match="a call waits 300 s at most"):
        async with asked([refusal("You exceeded your current quota.", 429, retry)], None, ADDRESS):
            pass


@pytest.mark.parametrize(
    "first",
    [
        refusal("The model is overloaded. Please try again later.", 503),
        refusal("An internal error has occurred.", 500),
        answer(completion("function_call_filter: MALFORMED_FUNCTION_CALL", content=None)),
        answer(completion("MALFORMED_RESPONSE", content="half")),
    ],
)
async def test_what_fails_at_google_for_a_moment_is_asked_again(first: Fault) -> None:
    async with asked([first, "ok"], None, ADDRESS) as (_, reply):
        assert reply.text == "ok"


@pytest.mark.parametrize(
    ("message", "finish", "usage", "expected"),
    [
        # Thinking is billed, and is in the total alone.
        ({"content": "42"}, "stop", (10, 5, 400), ("42", "stop", 10, 390)),
        # It can use up the limit, so that there is no content at all.
        ({}, "length", (10, None, 74), ("", "length", 10, 64)),
        ({"content": None}, "content_filter", (10, None, 10), ("", "content_filter", 10, 0)),
        ({"content": "half"}, "content_filter: RECITATION", (10, 5, 15),
         ("half", "content_filter: RECITATION", 10, 5)),
    ],
)  # fmt: skip
async def test_a_reply_of_google_is_read_with_its_end_and_its_tokens(
    message: Any, finish: str, usage: tuple[Any, ...], expected: tuple[Any, ...]
) -> None:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    told = {name: count for name, count in zip(names, usage, strict=True) if count is not None}
    async with asked([answer(completion(finish, told, **message))], None, ADDRESS) as (_, reply):
        found = (reply.text, reply.finish_reason, reply.input_tokens, reply.output_tokens)
    assert found == expected


async def test_a_stream_of_google_is_read_with_its_thoughts_and_its_tokens() -> None:
    def event(finish: str | None, made: int, **delta: Any) -> str:
        choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}
        usage = {"prompt_tokens": 10, "completion_tokens": made, "total_tokens": 10 + made + 60}
        return json.dumps({"choices": [choice], "model": "gemini", "usage": usage})

    given = streamed(
        event(None, 0, content="<thought>Is it A?\n"),
        event(None, 0, content="</thought>\n"),
        event(None, 4, content="It is "),
        event("stop", 6, content="B."),
    )
    async with asked([given], None, ADDRESS, on_delta=hear) as (_, reply):
        assert reply.text == "<thought>Is it A?\n</thought>\nIt is B."
        assert (reply.input_tokens, reply.output_tokens, reply.is_whole) == (10, 66, True)


CODE = "x = 6 * 7\nprint(llm_query('say it'))\nFINAL(x)"
SIGNATURE = {"google": {"thought_signature": "AY89a18"}}


async def test_a_call_of_a_tool_needs_no_signature_in_the_next_turn(tmp_path: Path) -> None:
    """Calls are read as text and sent back as text, so that there is nothing to sign."""

    def reply(request: ChatRequestView) -> Answer:
        if any("tool_calls" in message for message in request.messages):
            return refusal("Function call is missing a thought_signature in functionCall parts.")
        if request.model != "models/root":
            return "said"
        turn = sum(message["role"] == "assistant" for message in request.messages)
        code = "y = 1\nprint('first')" if turn == 0 else CODE
        function = {"name": "python", "arguments": json.dumps({"code": code})}
        call = {"id": "c1", "type": "function", "function": function, "extra_content": SIGNATURE}
        usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1600}
        return answer(completion("tool_calls", usage, content=None, tool_calls=[call]))

    prices: dict[str, Any] = {"input_price": 2.0, "output_price": 10.0}
    async with open_served(
        tmp_path,
        reply,
        direct_max_chars=0,
        root_model="big",
        models={"big": ModelTable(model="models/root", **prices), "sub": ModelTable(**prices)},
    ) as served:
        begun = await served.call("rlm_query", question="What?", text="some text")
        run = await served.ended(begun["run_id"])
    assert run["answer"] == "42", run["error"]
    rows = {row["model"]: row for row in run["usage_by_model"]}
    assert rows["big"]["output_tokens"] == 2 * 600  # thinking too
    assert rows["big"]["cost_usd"] == pytest.approx(2 * (0.002 + 0.006))


async def test_names_of_google_are_listed_without_their_prefix() -> None:
    async with open_asked("ok", address=ADDRESS) as (server, endpoint):
        server.model_names = ["models/gemini-2.5-flash", "models/gemini-2.5-pro"]
        assert await endpoint.check() == ["gemini-2.5-flash", "gemini-2.5-pro"]


def test_names_of_google_are_priced_with_their_prefix_and_without() -> None:
    address = "https://generativelanguage.googleapis.com/v1beta/openai"
    with_prefix, without = (look_up(f"{one}gemini-2.5-flash", address) for one in ("models/", ""))
    assert with_prefix == without
    assert without is not None
