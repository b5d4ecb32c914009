"""Providers as they are: the words, fields, waits, ends and addresses that each has of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from rlm_mcp.engine.models.addresses import base_of, is_azure, other_bases
from rlm_mcp.engine.models.chat import ChatRequest
from rlm_mcp.engine.models.completions import ErrorInReplyError, ReplyParts, read_completion
from rlm_mcp.engine.models.event_stream import EventStream
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.openai_client import open_endpoint
from rlm_mcp.engine.models.problems import Problem
from rlm_mcp.engine.models.refusals import SYSTEM_ROLE, Refused
from rlm_mcp.engine.models.retry import Diagnosis, RetryPolicy
from rlm_mcp.engine.models.waits import told_in_headers, told_in_words
from rlm_mcp.engine.parsing.reasoning import without_reasoning
from rlm_mcp.errors import (
    ContextLengthError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelRateLimitError,
    ModelRequestError,
)
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import ChatRequestView, Fault, Reply, rejected
from tests import provider_asking
from tests.provider_asking import Clock, asked, chunk, hear, streamed, words

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


def diagnosed(
    status: int, body: object, headers: Mapping[str, str] | None = None, *sent: str
) -> Diagnosis:
    return Refused(status, body, headers or {}, sent).diagnose()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, [words("The input token count (9) exceeds the maximum number of tokens (8).")]),
        (400, words("prompt is too long: 210000 tokens > 200000 maximum")),
        (400, words("x", code="context_length_exceeded")),
        (400, words("prompt token count of 140000 exceeds the limit of 128000")),
        (400, {"message": "Input is too long for requested model."}),
        (422, {"error": "Input validation error: `inputs` tokens must be <= 4096. Given: 5000"}),
        (500, {"error": "the request exceeds the available context size, try increasing it"}),
        (400, words("Returned error", metadata={"raw": '{"message": "too many tokens"}'})),
        (400, {"detail": "This model's maximum context length is 8192 tokens."}),
        (413, "<html><head><title>413 Request Entity Too Large</title></head></html>"),
        (413, words("Request too large on TPM: Limit 6000, Requested 9000", type="tokens")),
        (429, words("Request too large for m on TPM: Limit 10000, Requested 12000.")),
        (200, {"message": "context window exceeded", "code": 400}),
        (400, {"object": "error", "message": "Prompt contains 70000 tokens, too large for model"}),
        (400, words("The decoder prompt (length 9) is longer than the maximum model length of 8.")),
        (422, {"error": "Input validation error: `inputs` must have less than 8 tokens. Given: 9"}),
        (400, words("the input token count is 9 but model only supports up to 8.")),
        (400, {"message": "Malformed input request: expected maxLength: 8, actual: 9"}),
        (400, words("Your prompt has 9 tokens; the limit is 8.")),
        (400, words("Prompt too long: 9 tokens")),
        (400, words("x", code="ContextWindowExceeded")),
        (500, {"error": "llama runner process: input exceeds context"}),
        (400, words("请求文本长度超过模型限制")),
    ],
)  # fmt: skip
def test_a_prompt_too_long_is_known_in_many_words(status: int, body: object) -> None:
    assert isinstance(diagnosed(status, body).error, ContextLengthError)


@pytest.mark.parametrize(
    "message",
    [
        "Too many tokens per minute, please wait before trying again.",
        "Rate limit reached on tokens per min (TPM): Limit 30000, Used 28000, Requested 6000.",
        "Maximum number of requests exceeds the limit of your tier",
    ],
)
def test_too_much_at_once_is_a_wait_and_no_prompt_too_long(message: str) -> None:
    diagnosis = diagnosed(429, words(message))
    assert isinstance(diagnosis.error, ModelRateLimitError)
    assert (diagnosis.retry, diagnosis.is_crowded) == ("patiently", True)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (words("Provider returned error", metadata={"raw": "no purple"}), "error: no purple"),
        ({"detail": [{"loc": ["body", "top_k"], "msg": "extra fields"}]}, "extra fields"),
        ({"error": {"message": json.dumps(words("inner words"))}}, "inner words"),
        ("<html><body><h1>Bad   gateway</h1></body></html>", "Bad gateway"),
        ({"errors": [{"message": "first"}, {"message": "second"}]}, "first: second"),
    ],
)
def test_the_reason_is_told_wherever_it_stands(body: object, part: str) -> None:
    assert part in Problem.of(body).message


@pytest.mark.parametrize(
    ("status", "body", "kind", "retry"),
    [
        (200, {"code": 429, "message": "slow down"}, ModelRateLimitError, "patiently"),
        (200, {"type": "overloaded_error", "message": "Overloaded"}, ModelError, "yes"),
        (200, {"code": "invalid_api_key", "message": "no"}, ModelAuthenticationError, "no"),
        (200, {"message": "upstream failed"}, ModelError, "yes"),
        (402, words("Insufficient Balance"), ModelRequestError, "no"),
        (400, words("Your credit balance is too low"), ModelRateLimitError, "no"),
        (503, words("Loading model"), ModelConnectionError, "patiently"),
        (500, {"error": "model qwen is currently loading"}, ModelConnectionError, "patiently"),
        (404, words("model is warming up"), ModelConnectionError, "patiently"),
        (424, words("Model m is not loaded yet"), ModelConnectionError, "patiently"),
        (403, words("You have exceeded your monthly quota"), ModelRateLimitError, "no"),
        (403, words("You have exceeded a secondary rate limit"), ModelRateLimitError, "patiently"),
        (403, words("Invalid API key"), ModelAuthenticationError, "no"),
        (499, "", ModelConnectionError, "yes"),
    ],
)
def test_an_error_means_the_same_whatever_it_comes_in(
    status: int, body: object, kind: type[ModelError], retry: str
) -> None:
    diagnosis = diagnosed(status, body)
    assert isinstance(diagnosis.error, kind)
    assert diagnosis.retry == retry


def test_lack_of_credit_says_what_to_do() -> None:
    assert "Add credit" in diagnosed(402, words("Insufficient Balance")).error.fix
    assert "Add credit" in diagnosed(429, words("x", code="insufficient_quota")).error.fix


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (400, words("temperature is not supported", param="temperature"), "temperature"),
        (200, {"message": "temperature is not supported", "code": 400}, "temperature"),
        (422, {"detail": [{"loc": ["body", "temperature"], "msg": "forbidden"}]}, "temperature"),
        (400, {"message": "System role not supported"}, SYSTEM_ROLE),
        (500, {"error": "Conversation roles must alternate user/assistant/…"}, SYSTEM_ROLE),
        (400, words("Developer instruction is not enabled for models/gemma"), SYSTEM_ROLE),
        (400, words("messages[0].role: invalid role 'system'"), SYSTEM_ROLE),
        (400, words("'system' is not one of ['user'] - 'messages.0.role'"), SYSTEM_ROLE),
        (400, words("Conversation must start with a user message"), SYSTEM_ROLE),
        (400, words("First message must be from user"), SYSTEM_ROLE),
        (400, words("messages[0]: role 'system' is not allowed"), SYSTEM_ROLE),
        (400, words("Role must be one of user, assistant"), SYSTEM_ROLE),
        (400, words("Sampling parameters are not supported by this model"), "temperature"),
        (400, words("Streaming is not supported for this model"), "stream"),
        (400, words("This model does not support JSON schema output"), "response_format"),
        (500, {"error": "guided decoding is not available"}, "response_format"),
        (400, words("purple elephants are not allowed"), None),
    ],
)
def test_what_of_a_request_is_refused_is_named(
    status: int, body: object, refused: str | None
) -> None:
    sent = ("temperature", "stream", "response_format", SYSTEM_ROLE)
    diagnosis = diagnosed(status, body, None, *sent)
    assert diagnosis.refused_parameter == refused


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m30s"}, 90.0),
        ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "1m30s"}, None),
        ({"x-ratelimit-reset": str(int(NOW.timestamp() + 12) * 1000)}, 12.0),
        ({"anthropic-ratelimit-requests-remaining": "0",
          "anthropic-ratelimit-requests-reset": "2026-11-23T10:00:20Z"}, 20.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "5"}, 5.0),
        ({"retry-after": "30s"}, 30.0),
        ({"retry-after": "PT30S"}, 30.0),
        ({"retry-after": "2026-11-23T10:00:20Z"}, 20.0),
        ({"retry-after": str(int(NOW.timestamp()) + 20)}, 20.0),
        ({"x-retry-after": "9"}, 9.0),
        ({"x-ratelimit-reset": "Mon, 23 Nov 2026 10:00:20 GMT"}, 20.0),
        ({}, None),
    ],
)  # fmt: skip
def test_a_wait_is_read_from_headers_of_every_kind(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    assert told_in_headers(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please retry in 18.4s.", 18.4),
        ("Please try again in 6m0s.", 360.0),
        ("Try again in 500ms", 0.5),
        ("your quota resets in 5 hours", 18_000.0),
        ("please wait 2 minutes", 120.0),
        ("please wait before trying again", None),
        ("retry in 2 minutes and 5 seconds", 125.0),
        ("Please wait 1 minute, 5 seconds", 65.0),
        ("Please try again after one minute", 60.0),
        ("next request available in 00:01:30", 90.0),
        ("Retry after: 30", 30.0),
        ("cooldown: 12s", 12.0),
        ("available in 2 days", 172_800.0),
        ("1分30秒後に再試行してください", 90.0),
        ("Retry after 3 attempts", None),
    ],
)
def test_a_wait_is_read_from_words(text: str, seconds: float | None) -> None:
    assert told_in_words(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Try again at 2024-99-99 10:00 UTC.", None),
        ("retry at 0000-00-00 10:00:00 UTC", None),
        ("Please retry in 0.30000000000000004s.", 0.30000000000000004),
        # As a quoted prompt may hold it: each of these took minutes.
        ("try again in " + "1" * 50_000, None),
        ("1" * 50_000 + " of them, try again in 5 s", 5.0),
        ("retry in " + "1.1" * 20_000, None),
    ],
    ids=["month 99", "year 0", "long fraction", "digits", "digits before it", "dots"],
)
def test_a_wait_that_is_none_is_passed_over_at_once(text: str, seconds: float | None) -> None:
    assert told_in_words(text) == seconds


def test_a_wait_is_read_from_fields() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "18s"}
    assert diagnosed(429, [words("quota", details=[info])]).retry_after_seconds == 18.0
    for told in ({"retry_after": "18"}, {"retryAfter": 18}, {"detail": {"retryAfterMs": 18_000}}):
        assert diagnosed(429, told).retry_after_seconds == 18.0
    loading = {"error": "Model m is currently loading", "estimated_time": 20.5}
    assert diagnosed(503, loading).retry_after_seconds == 20.5


async def test_patience_is_the_time_that_was_promised_and_not_six_tries() -> None:
    clock = Clock()

    def answer(_: ChatRequestView) -> Fault | str:
        return rejected(429, "Please retry in 5s.") if clock.now < 60 else "ok"

    async with asked(answer, clock) as (server, reply):
        assert reply.text == "ok"
        assert server.received > RetryPolicy().attempts


async def test_patience_ends_where_it_was_promised_to() -> None:
    clock = Clock()
    with pytest.raises(ModelRateLimitError, match="a call waits 300 s at most"):
        async with asked(lambda _: rejected(429, "Please retry in 50s."), clock):
            pass
    assert clock.now <= RetryPolicy().total_seconds


async def test_a_model_that_loads_is_waited_for() -> None:
    clock = Clock()
    loads = Fault(503, {"error": {"message": "Loading model"}})
    async with asked(lambda _: loads if clock.now < 120 else "ok", clock) as (_, reply):
        assert reply.text == "ok"


TURNS = (
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one"},
    {"role": "user", "content": "two"},
)


async def test_a_system_message_that_is_refused_goes_into_the_first_of_the_user() -> None:
    def answer(request: ChatRequestView) -> Fault | str:
        roles = [message["role"] for message in request.messages]
        return "ok" if roles == ["user"] else rejected(400, "System role not supported")

    async with asked(answer, messages=TURNS) as (server, reply):
        assert reply.text == "ok"
        assert server.requests[-1].text == "be brief\n\none\n\ntwo"


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("http://h/v1/", "http://h/v1"),
        ("https://h/api/v1/models/", "https://h/api/v1"),
        ("http://h:11434/api/chat", "http://h:11434"),
        (" http://h/v1?api-version=1 ", "http://h/v1?api-version=1"),
        ("HTTP://h/v1", "http://h/v1"),
        ('"https://h/v1"', "https://h/v1"),
        ("<https://h/v1>;", "https://h/v1"),
        ("https://h/v1/chat", "https://h/v1"),
        ("https://h/v1/Chat/Completions", "https://h/v1"),
        ("https://h/v1/engines/m/completions", "https://h/v1"),
        ("https://h/openai/deployments/d/chat/completions?api-version=1",
         "https://h/openai/deployments/d?api-version=1"),
    ],
)  # fmt: skip
def test_an_address_is_taken_in_every_shape_that_people_paste(address: str, base: str) -> None:
    assert base_of(address) == base


@pytest.mark.parametrize(
    ("base", "others"),
    [
        ("http://h/v1", ()),
        ("http://h", ("http://h/v1", "http://h/api/v1", "http://h/openai/v1")),
        ("http://h/api", ("http://h/api/v1", "http://h/v1")),
        ("https://generativelanguage.googleapis.com/v1beta",
         ("https://generativelanguage.googleapis.com/v1beta/openai",)),
        ("https://x.openai.azure.com/openai/deployments/d", ()),
    ],
)  # fmt: skip
def test_where_a_version_is_missing_it_is_looked_for(base: str, others: tuple[str, ...]) -> None:
    assert other_bases(base) == others


async def test_an_address_without_its_version_is_completed_once() -> None:
    async with open_scripted_model("ok") as server:
        provider = Provider(server.base_url.removesuffix("/v1"), "k")
        async with open_endpoint(provider) as endpoint:
            for _ in range(2):
                request = ChatRequest(({"role": "user", "content": "hi"},))
                assert (await endpoint.model("root").complete(request)).text == "ok"
        assert server.received == 2


async def test_an_address_that_is_none_says_what_most_end_with() -> None:
    with pytest.raises(ModelRequestError) as caught:
        async with asked("ok", address="/v1?x=1"):
            pass
    assert "/v1" in caught.value.fix


@pytest.mark.parametrize(
    ("path", "key", "header"),
    [
        ("/openai/deployments/gpt?api-version=1", "k", "api-key"),
        ("/openai/deployments/gpt?api-version=1", "eyJ.a.b", "authorization"),
        ("/v1", "k", "authorization"),
    ],
)
async def test_azure_gets_its_key_in_a_header_of_its_own(path: str, key: str, header: str) -> None:
    heads: list[bytes] = []

    async def answer(stream: ByteStream) -> None:
        async with stream:
            heads.append(await stream.receive())
            await stream.send(b"HTTP/1.1 400 X\r\ncontent-length: 2\r\n\r\n{}")

    with anyio.fail_after(60):
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, answer)
            port = listener.extra(SocketAttribute.local_port)
            provider = Provider(f"http://127.0.0.1:{port}{path}", key)
            async with open_endpoint(provider) as endpoint:
                request = ChatRequest(({"role": "user", "content": ""},))
                with pytest.raises(ModelRequestError):
                    await endpoint.model("root").complete(request)
            tasks.cancel_scope.cancel()
    names = {"api-key", "authorization"}
    sent = {line.partition(b":")[0].decode().lower() for line in heads[0].split(b"\r\n")}
    assert sent & names == {header}


def test_addresses_of_azure_are_known() -> None:
    assert is_azure("https://x.openai.azure.com/openai/v1")
    assert not is_azure("https://azure.example.org/v1")


def completion(finish: str | None = "stop", usage: Any = None, **message: Any) -> str:
    return json.dumps(provider_asking.completion(finish, usage, **message))


@pytest.mark.parametrize(
    ("finish", "is_whole", "kept"),
    [
        ("stop", True, "stop"),
        ("STOP", True, "STOP"),
        ("end_turn", True, "end_turn"),
        ("eos", True, "eos"),
        (None, True, "stop"),
        ("length", False, "length"),
        ("max_tokens", False, "length"),
        ("MAX_TOKENS", False, "length"),
        ("model_length", False, "length"),
        ("content_filter", False, "content_filter"),
        ("SAFETY", False, "SAFETY"),
        ("something_new", False, "something_new"),
        ("stop-sequence", True, "stop-sequence"),
        ("endTurn", True, "endTurn"),
        ("<|im_end|>", True, "<|im_end|>"),
        ("maxTokens", False, "length"),
        ("max tokens", False, "length"),
        ("length_limit", False, "length"),
        ("context_window_exceeded", False, "length"),
    ],
)
def test_a_reply_is_whole_only_where_its_model_ended_it(
    finish: str | None, is_whole: bool, kept: str
) -> None:
    reply = read_completion(completion(finish, content="text"), 0)
    assert (reply.is_whole, reply.finish_reason) == (is_whole, kept)


@pytest.mark.parametrize("finish", ["error", "network_error", "abort", "cancelled"])
def test_a_reply_that_broke_off_is_an_error(finish: str) -> None:
    with pytest.raises(ErrorInReplyError, match=finish):
        read_completion(completion(finish, content="half"), 0)


CHOICE = {"message": {"content": "text"}, "finish_reason": "stop"}
CALLED = {"name": "python", "arguments": {"code": "1"}}


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": ["te", "xt"]}}]},
        {"choices": [{"message": {"content": {"type": "text", "text": "text"}}}]},
        {"choices": [{"message": {"content": [{"text": {"value": "text"}}]}}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": ""}}, CHOICE]},
        {"code": 0, "message": "success", "data": {"choices": [CHOICE]}},
        {"success": True, "errors": [], "result": {"choices": [CHOICE]}},
        {"statusCode": 200, "body": json.dumps({"choices": [CHOICE]})},
        {"choices": [CHOICE], "error": {"code": 0, "message": ""}},
    ],
)
def test_a_text_is_found_in_each_shape_of_a_reply(body: object) -> None:
    assert read_completion(json.dumps(body), 0).text == "text"


@pytest.mark.parametrize(
    "call", [CALLED, {"function": CALLED}, {"custom": {"name": "python", "input": {"code": "1"}}}]
)
def test_a_call_of_a_tool_is_found_in_each_shape(call: object) -> None:
    body = {"choices": [{"message": {"content": None, "tool_calls": [call]}}]}
    text = read_completion(json.dumps(body), 0).text
    said = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert json.loads(said["arguments"]) == {"code": "1"}


def test_a_reason_to_stop_by_another_name_is_one() -> None:
    body = {"choices": [{"message": {"content": "half"}, "stop_reason": "max_tokens"}]}
    assert read_completion(json.dumps(body), 0).finish_reason == "length"


async def test_a_reply_that_its_upstream_broke_off_is_asked_for_again() -> None:
    choice = {"message": {"content": "half"}, "error": {"code": 502, "message": "idle"}}
    broken = Fault(body={"choices": [choice]})
    async with asked([broken, "whole"]) as (_, reply):
        assert reply.text == "whole"


def test_a_refusal_and_an_old_call_of_a_function_are_read() -> None:
    reply = read_completion(completion(content=None, refusal="I cannot."), 0)
    assert (reply.text, reply.is_whole) == ("I cannot.", False)
    call = {"name": "python", "arguments": "{}"}
    text = read_completion(completion("function_call", content=None, function_call=call), 0).text
    assert text == f"<tool_call>{json.dumps(call)}</tool_call>"


@pytest.mark.parametrize(
    ("usage", "figures"),
    [
        (None, (25, 1, True)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (25, 1, True)),
        ({"prompt_tokens": 7, "completion_tokens": 0}, (7, 1, True)),
        ({"input_tokens": 7, "output_tokens": 2}, (7, 2, False)),
    ],
)
def test_usage_of_zeros_is_none(usage: Any, figures: tuple[int, int, bool]) -> None:
    reply = read_completion(completion(usage=usage, content="text"), 100)
    assert (reply.input_tokens, reply.output_tokens, reply.usage_estimated) == figures


@pytest.mark.parametrize(
    ("counted", "chars", "is_cut"),
    [(2048, 32_000, True), (8000, 32_000, False), (10, 400, False), (4096, 40_000, True)],
)
def test_a_prompt_that_was_read_in_part_is_noticed(counted: int, chars: int, is_cut: bool) -> None:
    usage = {"prompt_tokens": counted, "completion_tokens": 5}
    assert read_completion(completion(usage=usage, content="x"), chars).is_prompt_cut == is_cut


def test_what_came_out_of_a_cache_and_what_it_cost_is_read() -> None:
    usage = {
        "prompt_tokens": 90,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 64},
        "cost": 0.0125,
    }
    reply = read_completion(completion(usage=usage, content="x"), 400)
    assert (reply.cached_input_tokens, reply.told_usd) == (64, 0.0125)
    usage = {"prompt_tokens": 90, "completion_tokens": 5, "prompt_cache_hit_tokens": 32}
    assert read_completion(completion(usage=usage, content="x"), 400).cached_input_tokens == 32


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("piece_bytes", [1, 7, 10_000])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_stream_is_read_by_the_letter_of_its_standard(
    end: str, piece_bytes: int, mark: str
) -> None:
    lines = (f"data: {chunk('FINAL(dö')}", ": a comment", f"data:{chunk('ne)', 'stop')}")
    body = (mark + "".join(line + end * 2 for line in lines)).encode()
    events, parts = EventStream(), ReplyParts(0)
    for start in range(0, len(body), piece_bytes):
        list(parts.add_events(events.feed(body[start : start + piece_bytes])))
    list(parts.add_events(events.end()))
    assert parts.ended_reply(is_done=events.is_done).text == "FINAL(döne)"


@pytest.mark.parametrize("is_asked_for", [True, False])
async def test_a_stream_with_an_end_mark_and_no_reason_is_whole(is_asked_for: bool) -> None:
    answer = streamed(chunk("FINAL(do"), chunk("ne)"))
    async with asked([answer], on_delta=hear if is_asked_for else None) as (_, reply):
        assert reply.text == "FINAL(done)"


async def test_calls_of_tools_are_put_together_from_a_stream() -> None:
    first = {"index": 0, "function": {"name": "FINAL", "arguments": '{"answer": '}}
    then = {"index": 0, "function": {"arguments": '"42"}'}}
    answer = streamed(chunk(None, tool_calls=[first]), chunk(None, "tool_calls", tool_calls=[then]))
    async with asked([answer], on_delta=hear) as (_, reply):
        assert json.loads(reply.text[11:-12])["arguments"] == '{"answer": "42"}'


async def test_an_error_in_a_stream_means_what_it_means_with_a_status() -> None:
    too_long = json.dumps(words("too many tokens", code=400))
    with pytest.raises(ContextLengthError):
        async with asked([streamed(too_long)], on_delta=hear):
            pass


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("<think>A?</think>\n\nB", "B"),
        ("thoughts</think>B", "B"),
        ("Sure.\n<reasoning>no</reasoning>\nB", "Sure.\nB"),
        ("<think>never ends", ""),
        ("B<|im_end|>", "B"),
        ("The tag `<think>` opens a thought.", "The tag `<think>` opens a thought."),
        ("say <think> and </think> aloud", "say <think> and </think> aloud"),
        ("  plain  ", "  plain  "),
    ],
)
def test_thinking_is_taken_out_of_a_reply_without_code(reply: str, said: str) -> None:
    assert without_reasoning(reply) == said


async def test_an_answer_in_the_reasoning_alone_is_not_asked_for_twice() -> None:
    async with asked([Reply(None, reasoning="42")]) as (server, reply):
        assert (reply.text, reply.reasoning, server.received) == ("", "42", 1)
