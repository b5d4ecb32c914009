"""What further providers send, by kind of oddity, over real HTTP.

Each table holds cases of one kind that the next provider is likely to add to; the provider is named
beside each. What is asserted is what the kind means: make room, wait, leave out, ask again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.engine.models.addresses import base_of, other_bases
from rlm_mcp.engine.models.chat import ChatRequest
from rlm_mcp.engine.models.retry import RetryPolicy
from rlm_mcp.engine.parsing.reasoning import without_reasoning
from rlm_mcp.errors import (
    ContextLengthError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelRateLimitError,
    ModelReplyError,
    ModelRequestError,
)
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Fault, Reply
from tests.provider_asking import (
    Clock,
    answer,
    asked,
    chunk,
    completion,
    hear,
    open_asked,
    streamed,
    words,
)
from tests.serving import cell, open_served, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

QWEN_RANGE = "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 9000]"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(answer(words(QWEN_RANGE, code="invalid_parameter_error"), 400), id="Qwen"),
        pytest.param(
            answer(words("Your request exceeded model token limit: 262144 (requested: 269030)",
                         type="invalid_request_error"), 400), id="Moonshot"),
        pytest.param(answer(words("Prompt exceeds max length", code="1261"), 400), id="Zhipu"),
        pytest.param(answer(words("Prompt 超长", code="1261"), 400), id="Zhipu in Chinese"),
        pytest.param(
            answer({"base_resp": {"status_code": 2013, "status_msg":
                    "invalid params, context window exceeds limit"}, "choices": None}),
            id="MiniMax in a 200"),
        pytest.param(
            answer(words("prompt tokens (400007) exceed model maximum (278528) for m",
                         code="validation_error"), 400), id="Bedrock"),
        pytest.param(
            answer({"code": "Client specified an invalid argument", "error":
                    "This model's maximum prompt length is 131072 but the request contains 537812 "
                    "tokens."}, 400), id="xAI"),
        pytest.param(
            answer(words("The input (9000 tokens) is longer than the model's context length "
                         "(8192 tokens)."), 400), id="SGLang"),
        pytest.param(
            answer(words("The total length of all messages is too long."), 400), id="Perplexity"),
        pytest.param(
            answer(words("Provider returned error", code=400, metadata={"raw": json.dumps(
                {"message": "Input length 150000 exceeds the maximum allowed input length of "
                 "131072 tokens."})}), 400), id="Poolside inside OpenRouter"),
        pytest.param(
            answer({"error": "The number of tokens to keep from the initial prompt is greater than "
                    "the context length."}, 400), id="LM Studio"),
        pytest.param(
            answer({"error": "prompt too long; exceeded max context length by 3 tokens"}, 400),
            id="Ollama"),
        pytest.param(
            answer(words("The sum of prompt length (9000.0), query length (0) should not exceed "
                         "max_num_tokens (8192)"), 400), id="TensorRT-LLM"),
        pytest.param(
            answer({"message": "too many tokens: size limit exceeded by 3000 tokens."}, 400),
            id="Cohere"),
        pytest.param(
            answer({"error_code": "BAD_REQUEST", "message": "Bad request: rpc error: code = "
                    "InvalidArgument desc = prompt token count (9000) cannot exceed 8192."}, 400),
            id="Databricks"),
        pytest.param(
            answer({"errors": [{"code": "invalid_input_argument", "message": "the number of input "
                    "tokens 9000 cannot exceed the total tokens limit 8192 for this model"}]}, 400),
            id="watsonx"),
        pytest.param(
            answer(words("The provided prompt is 9000 tokens long, but the maximum supported "
                         "sequence length is just 8192!"), 400), id="SambaNova"),
        pytest.param(
            answer({"error": {"code": "invalid_messages", "message": "prompt tokens too long"}},
                   400), id="Baidu"),
        pytest.param(answer("", 413), id="Cerebras without a body"),
    ],
)  # fmt: skip
async def test_a_prompt_that_is_too_long_is_known_at_once(fault: Fault) -> None:
    received = 0

    def refuse(_: ChatRequestView) -> Fault:
        nonlocal received
        received += 1
        return fault

    with pytest.raises(ContextLengthError):
        async with asked(refuse):
            pass
    assert received == 1


CUT_AT_ONCE = {"prompt_tokens": 8192, "completion_tokens": 0, "total_tokens": 8192}


@pytest.mark.parametrize(
    ("chars", "is_too_long"),
    [pytest.param(32_000, True, id="LMDeploy, MiMo"), pytest.param(400, False, id="a short one")],
)
async def test_a_reply_of_nothing_that_was_cut_means_that_a_long_prompt_fills_the_window(
    chars: int, is_too_long: bool
) -> None:
    given = answer(completion("length", CUT_AT_ONCE, content=""))
    message = {"role": "user", "content": "x" * chars}
    if is_too_long:
        with pytest.raises(ContextLengthError, match="fills the window"):
            async with asked([given], messages=(message,)):
                pass
        return
    async with asked([given], messages=(message,)) as (_, reply):
        assert (reply.text, reply.finish_reason) == ("", "length")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(answer("", 400), id="Cerebras without a body"),
        pytest.param(answer({"success": False, "errors": [{"code": 1}]}, 400), id="no word of it"),
    ],
)
async def test_a_run_tries_less_where_nothing_says_why_a_long_prompt_is_refused(
    fault: Fault, tmp_path: Path
) -> None:
    def reply(request: ChatRequestView) -> Answer:
        if sum(len(str(message["content"])) for message in request.messages) > 16_000:
            return fault
        number = request.number
        return cell(f"x{number} = {number}\nprint('y' * 900)") if number < 18 else "FINAL(done)"

    async with open_served(tmp_path, reply, direct_max_chars=0) as served:
        begun = await served.call("rlm_query", question="What?", text="some text")
        assert (await served.ended(begun["run_id"]))["answer"] == "done"


@pytest.mark.parametrize(
    ("body", "part"),
    [
        pytest.param(
            {"object": "error", "message": {"detail": [{"loc": ["body", "seed"],
             "msg": "no purple elephants"}]}}, "no purple elephants", id="Mistral"),
        pytest.param(
            {"success": False, "errors": [{"code": 7003, "message": "no purple elephants"}],
             "messages": [], "result": None}, "no purple elephants", id="Cloudflare"),
        pytest.param(
            {"type": "about:blank", "title": "Bad Request", "detail": "no purple elephants"},
            "no purple elephants", id="NVIDIA, RFC 9457"),
        pytest.param(
            {"fault": {"faultstring": "no purple elephants", "detail": {"errorcode": "x.y"}}},
            "no purple elephants", id="Apigee"),
        pytest.param(
            {"error_code": "BAD_REQUEST", "message":
             json.dumps({"external_model_message": words("no purple elephants")})},
            "no purple elephants", id="Databricks, of another provider"),
        pytest.param(
            words("litellm.BadRequestError: VertexAIException - b'{\"error\": {\"message\": "
                  "\"no purple elephants\"}}'"), "no purple elephants", id="LiteLLM"),
    ],
)  # fmt: skip
async def test_the_reason_of_a_refusal_is_told_from_each_shape(body: object, part: str) -> None:
    with pytest.raises(ModelRequestError, match=part):
        async with asked([answer(body, 400)]):
            pass


@pytest.mark.parametrize(
    ("body", "kind", "is_patient"),
    [
        pytest.param(
            {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
            ModelError, False, id="MiniMax, no credit"),
        pytest.param(
            {"base_resp": {"status_code": 1002, "status_msg": "rate limit exceeded(RPM)"},
             "choices": None}, ModelRateLimitError, True, id="MiniMax, a wait"),
        pytest.param(
            {"error_code": 18, "error_msg": "Open api qps request limit reached"},
            ModelRateLimitError, True, id="Baidu"),
        pytest.param(
            {"object": "error", "message": "no such model", "type": "NotFoundError", "code": 404},
            ModelRequestError, False, id="vLLM"),
        pytest.param(
            {"code": 500, "msg": "404 NOT_FOUND", "success": False}, ModelError, True, id="Zhipu"),
        pytest.param(
            {"detail": {"error": "Incorrect API key provided", "code": 401}},
            ModelAuthenticationError, False, id="DeepInfra"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_an_error_in_an_answer_that_says_it_is_fine_is_an_error(
    body: object, kind: type[ModelError], is_patient: bool, is_streamed: bool
) -> None:
    first = streamed(json.dumps(body)) if is_streamed else answer(body)
    script = [first, "ok"]
    if not is_patient:
        with pytest.raises(kind):
            async with asked(script, on_delta=hear if is_streamed else None):
                pass
        return
    async with asked(script, on_delta=hear if is_streamed else None) as (server, reply):
        assert (reply.text, server.received) == ("ok", 2)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(completion("abort", content="half"), id="SGLang"),
        pytest.param(completion({"type": "abort"}, content="half"), id="SGLang, an object"),
        pytest.param(completion("insufficient_system_resource", content="half"), id="DeepSeek"),
        pytest.param(completion("USER_CANCEL", content="half"), id="Cohere"),
        pytest.param(
            completion("function_call_filter: UNEXPECTED_TOOL_CALL", content=None), id="Google"),
        pytest.param(completion("FinishReason.MALFORMED_FUNCTION_CALL"), id="a gateway to Google"),
    ],
)  # fmt: skip
async def test_a_reply_that_broke_off_is_asked_for_again(body: object) -> None:
    async with asked([answer(body), "whole"]) as (_, reply):
        assert reply.text == "whole"


@pytest.mark.parametrize(
    ("finish", "is_whole", "kept"),
    [
        pytest.param("FINISH_REASON_STOP", True, "FINISH_REASON_STOP", id="Google, as a protocol"),
        pytest.param("FinishReason.STOP", True, "FinishReason.STOP", id="Google, by a gateway"),
        pytest.param("COMPLETE", True, "COMPLETE", id="Cohere"),
        pytest.param("normal", True, "normal", id="Baidu"),
        pytest.param("endoftext", True, "endoftext", id="AI21"),
        pytest.param({"type": "stop", "matched": 2}, True, "stop", id="SGLang, an object"),
        pytest.param("FINISH_REASON_MAX_TOKENS", False, "length", id="Google, cut"),
        pytest.param({"type": "length", "length": 9}, False, "length", id="SGLang, cut"),
        pytest.param("time_limit", False, "length", id="watsonx, cut"),
        pytest.param("maximum_tokens", False, "length", id="Aleph Alpha, cut"),
        pytest.param("content_filtered", False, "content_filtered", id="Bedrock, filtered"),
        pytest.param("guardrail_intervened", False, "guardrail_intervened", id="Bedrock, stopped"),
        pytest.param("sensitive", False, "sensitive", id="Zhipu, filtered"),
        pytest.param("content_filter: RECITATION", False, "content_filter: RECITATION",
                     id="Google, filtered"),
        pytest.param("ERROR_TOXIC", False, "ERROR_TOXIC", id="Cohere, filtered"),
    ],
)  # fmt: skip
async def test_the_end_of_a_reply_is_known_however_it_is_spelled(
    finish: object, is_whole: bool, kept: str
) -> None:
    async with asked([answer(completion(finish, content="text"))]) as (_, reply):
        assert (reply.text, reply.is_whole, reply.finish_reason) == ("text", is_whole, kept)


@pytest.mark.parametrize("finish", ["content_filtered", "time_limit"])
async def test_a_reply_that_is_not_whole_is_given_to_no_other_run(
    finish: str, tmp_path: Path
) -> None:
    asks = cell("print(llm_query('list all'))\nFINAL('done')")
    halves = turns(asks, sub=lambda _: Reply("1. one 2. tw", finish_reason=finish))
    async with open_served(tmp_path, halves, direct_max_chars=0) as served:
        for question in ("What?", "And what else?"):
            begun = await served.call("rlm_query", question=question, text="some text")
            assert (await served.ended(begun["run_id"]))["answer"] == "done"
        subs = [request for request in served.model.requests if request.model == "sub"]
        assert len(subs) == 2


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"content": [{"type": "refusal", "refusal": "I cannot."}]}, id="in parts"),
        pytest.param({"content": "", "refusal": "I cannot."}, id="beside an empty text"),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_refusal_is_kept_as_one(message: dict[str, Any], is_streamed: bool) -> None:
    given = answer(completion(**message))
    if is_streamed:
        given = streamed(chunk(None, **message), chunk(None, "stop"))
    async with asked([given], on_delta=hear if is_streamed else None) as (_, reply):
        assert (reply.text, reply.finish_reason, reply.is_whole) == ("I cannot.", "refusal", False)


THOUGHT = [{"type": "text", "text": "It is 42."}]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param(
            {"content": [{"type": "thinking", "thinking": THOUGHT},
                         {"type": "text", "text": "42"}]}, "42", id="Mistral"),
        pytest.param(
            {"content": [{"type": "reasoning", "summary": [{"type": "summary_text",
             "text": "It is 42."}]}, {"type": "text", "text": "42"}]}, "42", id="Databricks"),
        pytest.param(
            {"content": [{"type": "thinking", "thinking": "It is 42."}]}, "", id="Cohere, alone"),
        pytest.param(
            {"content": None, "reasoning_details": [
                {"type": "reasoning.summary", "summary": "It is 42."},
                {"type": "reasoning.encrypted", "data": "x"}]}, "", id="OpenRouter, alone"),
        pytest.param({"content": "", "thinking": "It is 42."}, "", id="Ollama, alone"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_thinking_that_stands_apart_is_read_from_each_place(
    message: dict[str, Any], text: str, is_streamed: bool
) -> None:
    given = answer(completion(**message))
    if is_streamed:
        given = streamed(chunk(None, **message), chunk(None, "stop"))
    async with asked([given], on_delta=hear if is_streamed else None) as (_, reply):
        assert (reply.text, reply.reasoning) == (text, "It is 42.")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        pytest.param("<thought>\nIs it A?\n</thought>\nB", "B", id="Google"),
        pytest.param("[THINK]Is it A?[/THINK]B", "B", id="Mistral, on one's own server"),
        pytest.param("<seed:think>Is it A?</seed:think>B", "B", id="Seed-OSS"),
        pytest.param("◁think▷Is it A?◁/think▷B", "B", id="Kimi-VL"),
        pytest.param("Is it A?◁/think▷B", "B", id="Kimi-VL, opened by the prompt"),
        pytest.param(
            "<|begin_of_thought|>A?<|end_of_thought|>\n<|begin_of_solution|>B<|end_of_solution|>",
            "B", id="OpenThinker"),
        pytest.param("The tag [THINK] opens a thought.", "The tag [THINK] opens a thought.",
                     id="one that speaks of it"),
        pytest.param("see `[THINK]` and `[/THINK]`", "see `[THINK]` and `[/THINK]`", id="quoted"),
    ],
)  # fmt: skip
def test_thinking_in_a_reply_is_left_out_in_each_tag(reply: str, said: str) -> None:
    assert without_reasoning(reply) == said


def call_of(name: str, number: str = "", index: int | None = None, **arguments: Any) -> Any:
    call: dict[str, Any] = {"function": {"name": name, "arguments": json.dumps(arguments)}}
    call |= {"id": number} if number else {}
    return call | ({} if index is None else {"index": index})


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([call_of("a", "1", 0, x=1), call_of("b", "2", 0, y=2)], id="Ollama, all 0"),
        pytest.param([call_of("a", "1", x=1), call_of("b", "2", y=2)], id="Google, none"),
        pytest.param([call_of("a", "1", 0, x=1), call_of("b", "2", 1, y=2)], id="OpenAI"),
    ],
)
async def test_calls_of_tools_in_a_stream_are_kept_apart_whatever_their_index(calls: Any) -> None:
    given = streamed(*(chunk(None, tool_calls=[call]) for call in calls), chunk(None, "tool_calls"))
    async with asked([given], on_delta=hear) as (_, reply):
        rows = [json.loads(line[11:-12]) for line in reply.text.split("\n")]
    assert [(row["name"], json.loads(row["arguments"])) for row in rows] == [
        ("a", {"x": 1}),
        ("b", {"y": 2}),
    ]


SSE = {"content-type": "text/event-stream"}


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            Fault(body=f": OPENROUTER PROCESSING\n\ndata: {chunk('FINAL(do')}\n\n"
                  f"data: {chunk('ne)', 'stop')}\n\ndata: [DONE]\n\n", headers=SSE),
            id="a stream nobody asked for, a comment first"),
        pytest.param(
            Fault(body=f"id: 1\nevent: message\ndata: {chunk('FINAL(done)', 'stop')}\n\n",
                  headers=SSE), id="a stream nobody asked for, an id first"),
        pytest.param(
            answer({"choices": [{"delta": {"content": "FINAL(done)"}, "finish_reason": "stop"}]}),
            id="a delta in a whole reply"),
        pytest.param(
            answer({"choices": [{"text": "FINAL(done)", "finish_reason": "stop"}]}),
            id="a completion without a chat"),
        pytest.param(
            answer([{"choices": [{"message": {"content": "FINAL(done)"},
                                  "finish_reason": "stop"}]}]), id="a reply in a list"),
        pytest.param(
            answer("\n\n  \n" + json.dumps(completion(content="FINAL(done)"))),
            id="white space first, which keeps proxies awake"),
    ],
)  # fmt: skip
async def test_a_whole_reply_is_read_from_each_shape(given: Fault) -> None:
    async with asked([given]) as (_, reply):
        assert (reply.text, reply.is_whole) == ("FINAL(done)", True)


TURNS = (
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one"},
)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            answer(words("Unsupported value: 'messages[0].role' does not support 'system' with "
                         "this model.", param="messages[0].role", code="unsupported_value"), 400),
            id="OpenAI o1"),
        pytest.param(
            answer({"message": "This model doesn't support system prompts. Try again without a "
                    "system prompt or use a model that supports system prompts."}, 400),
            id="Bedrock"),
        pytest.param(
            answer(words("Only user and assistant roles are supported!"), 500), id="llama.cpp"),
        pytest.param(
            answer({"detail": [{"type": "literal_error", "loc": ["body", "messages", 0, "role"],
                    "msg": "Input should be 'user' or 'assistant'"}]}, 422), id="FastAPI"),
        pytest.param(
            answer(words('messages: Unexpected role "system". The Messages API accepts a top-level '
                         '`system` parameter.'), 400), id="a gateway to Anthropic"),
        pytest.param(
            answer(words("System message must be at the beginning."), 400), id="Qwen's template"),
        pytest.param(
            answer({"object": "error", "message": "System role not supported", "code": 400}),
            id="vLLM in a 200"),
    ],
)  # fmt: skip
async def test_a_system_message_that_is_refused_in_other_words_is_folded(fault: Fault) -> None:
    def reply(request: ChatRequestView) -> Answer:
        roles = [message["role"] for message in request.messages]
        return "ok" if roles == ["user"] else fault

    async with asked(reply, messages=TURNS) as (server, got):
        assert (got.text, server.received) == ("ok", 2)


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        pytest.param(
            {"object": "error", "message": {"detail": [{"type": "extra_forbidden",
             "loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}]}},
            {"temperature": 0.5}, id="Mistral"),
        pytest.param(
            words("Unable to submit request because it has a maxOutputTokens value of 99 but the "
                  "supported range is from 1 to 9."), {"max_tokens": 99}, id="Google Vertex"),
        pytest.param(
            words("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
            {"max_tokens": 9000}, id="DeepSeek"),
        pytest.param(
            words("json_schema is not supported with this model"),
            {"reply_schema": {"type": "object"}}, id="structured outputs by another name"),
        pytest.param(
            words("Invalid", param="response_format.json_schema.schema"),
            {"reply_schema": {"type": "object"}}, id="a place inside the parameter"),
    ],
)  # fmt: skip
async def test_a_parameter_that_is_refused_in_other_words_is_left_out(
    body: object, sent: dict[str, Any]
) -> None:
    names = {"max_tokens", "max_completion_tokens", "temperature", "response_format"}

    def reply(request: ChatRequestView) -> Answer:
        return answer(body, 400) if names & request.params.keys() else "ok"

    async with open_asked(reply) as (_, endpoint):
        endpoint.takes_schemas = True
        request = ChatRequest(({"role": "user", "content": "hi"},), **sent)
        assert (await endpoint.model("root").complete(request)).text == "ok"


async def test_a_provider_that_names_what_is_left_out_already_is_not_asked_for_ever() -> None:
    refused = answer(words("max_tokens and max_completion_tokens are wrong"), 400)
    received = 0

    def refuse(_: ChatRequestView) -> Fault:
        nonlocal received
        received += 1
        return refused

    with pytest.raises(ModelRequestError, match="are wrong"):
        async with asked(refuse, max_tokens=99, temperature=0.5):
            pass
    assert received <= 3


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        pytest.param(
            answer(words("Too many"), 429, x_ratelimit_remaining_tokens_minute="0",
                   x_ratelimit_reset_tokens_minute="18.5", x_ratelimit_remaining_requests_day="9",
                   x_ratelimit_reset_requests_day="33011.4"), 18.5, id="Cerebras"),
        pytest.param(
            answer({"object": "error", "message": "Rate limit exceeded", "code": "1300"}, 429,
                   ratelimitbysize_remaining="0", ratelimitbysize_reset="18"), 18, id="Mistral"),
        pytest.param(
            answer(words("Rate limit"), 429, ratelimit='"default";r=0;t=18'), 18,
            id="Cloudflare, a draft of the IETF"),
        pytest.param(
            answer(words("Rate limit"), 429, ratelimit="limit=100, remaining=0, reset=18"), 18,
            id="an earlier draft"),
        pytest.param(
            answer(words("Rate limit"), 429, x_rate_limit_reset="18"), 18, id="another spelling"),
        pytest.param(
            answer(words("Rate limit exceeded: free-models-per-min", metadata={"headers":
                   {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "18"}}), 429), 18,
            id="OpenRouter, headers in the body"),
        pytest.param(
            answer({"statusCode": 429, "message": "Rate limit is exceeded. Try again in 18 "
                    "seconds."}, 429), 18, id="Azure API Management"),
        pytest.param(
            answer(words("Rate limit of 10 per 60s exceeded for UserByModelByMinute. Please wait "
                         "18 seconds before retrying."), 429), 18, id="GitHub Models"),
        pytest.param(
            answer(words("请在 18 秒后重试", code="1302"), 429), 18, id="Zhipu"),
        pytest.param(answer({"retry_after_ms": 1800}, 429), 1.8, id="milliseconds in a field"),
        pytest.param(answer("", 503, retry_after="18"), 18, id="a proxy without a body"),
    ],
)  # fmt: skip
async def test_a_wait_is_kept_wherever_it_is_told(fault: Fault, seconds: float) -> None:
    clock = Clock()
    async with asked(lambda _: fault if clock.now < seconds else "ok", clock) as (server, reply):
        assert (reply.text, server.received) == ("ok", 2)
    assert clock.now == pytest.approx(seconds, abs=0.1)


async def test_a_wait_until_a_moment_far_away_is_told_and_not_slept_through() -> None:
    clock = Clock()
    fault = answer(words("Usage limit reached. It resets at 2999-08-25T07:41:44Z."), 429)
    with pytest.raises(ModelRateLimitError, match="a call waits 300 s at most"):
        async with asked(lambda _: fault, clock):
            pass
    assert clock.now == 0.0


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            answer({"error": "Model m/m is currently loading", "estimated_time": 20.0}, 503),
            id="Hugging Face"),
        pytest.param(answer({"error": "llm server loading model"}, 500), id="Ollama"),
        pytest.param(answer({"error": "Model m is not ready"}, 503), id="KServe"),
        pytest.param(answer({"error": "Model unloaded."}, 400), id="LM Studio"),
        pytest.param(
            answer({"message": "The endpoint is scaling up from zero, try again later"}, 503),
            id="an endpoint that sleeps"),
    ],
)  # fmt: skip
async def test_a_model_that_gets_ready_is_waited_for(fault: Fault) -> None:
    clock = Clock()
    async with asked(lambda _: fault if clock.now < 100 else "ok", clock) as (_, reply):
        assert reply.text == "ok"


@pytest.mark.parametrize(
    ("address", "base"),
    [
        pytest.param("https://h/serving-endpoints/m/invocations", "https://h/serving-endpoints",
                     id="Databricks"),
        pytest.param("https://x.services.ai.azure.com/models", "https://x.services.ai.azure.com/"
                     "models", id="Azure, models of all makers"),
        pytest.param("https://x.services.ai.azure.com/models/chat/completions?api-version=1",
                     "https://x.services.ai.azure.com/models?api-version=1", id="the same, whole"),
        pytest.param("https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
                     "https://generativelanguage.googleapis.com/v1beta", id="Google's own"),
        pytest.param("http://h:8080/completion", "http://h:8080", id="llama.cpp's own"),
        pytest.param("http://h//v1//", "http://h/v1", id="slashes of two joined parts"),
        pytest.param("https://h/api/paas/v4/chat/completions", "https://h/api/paas/v4", id="Zhipu"),
    ],
)  # fmt: skip
def test_an_address_is_cut_down_to_its_base(address: str, base: str) -> None:
    assert base_of(address) == base


@pytest.mark.parametrize(
    ("base", "other"),
    [
        pytest.param("https://api.groq.com", "https://api.groq.com/openai/v1", id="Groq"),
        pytest.param("https://x.openai.azure.com", "https://x.openai.azure.com/openai/v1",
                     id="Azure"),
        pytest.param("https://generativelanguage.googleapis.com",
                     "https://generativelanguage.googleapis.com/v1beta/openai", id="Google"),
    ],
)  # fmt: skip
def test_the_rest_of_an_address_is_looked_for(base: str, other: str) -> None:
    assert other in other_bases(base)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(403, {"code": 30001, "message": "Sorry, your account balance is insufficient"},
                     id="SiliconFlow"),
        pytest.param(429, words("余额不足或无可用资源包,请充值。", code="1113"), id="Zhipu"),
        pytest.param(429, words("Insufficient balance or no resource package. Please recharge.",
                                code="1113"), id="Z.ai"),
        pytest.param(429, words("You exceeded your current token quota, please check your account "
                                "balance", type="exceeded_current_quota_error"), id="Moonshot"),
        pytest.param(400, {"code": "Arrearage", "message": "Access denied, please make sure your "
                     "account is in good standing."}, id="Qwen"),
        pytest.param(412, {"error": "Account x is suspended, possibly due to reaching the monthly "
                     "spending limit or failure to pay past invoices."}, id="Fireworks"),
        pytest.param(403, {"code": "x", "error": "Your newly created team doesn't have any credits "
                     "yet."}, id="xAI"),
        pytest.param(403, words("The request failed because your account has an overdue balance.",
                                code="AccountOverdueError"), id="Volcengine"),
        pytest.param(402, {"error": "You have exceeded your monthly included credits"}, id="HF"),
    ],
)  # fmt: skip
async def test_lack_of_credit_is_known_in_many_words(status: int, body: object) -> None:
    received = 0

    def refuse(_: ChatRequestView) -> Fault:
        nonlocal received
        received += 1
        return answer(body, status)

    with pytest.raises(ModelError) as caught:
        async with asked(refuse):
            pass
    assert "Add credit" in caught.value.fix
    assert received == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(400, [words("API key not valid. Please pass a valid API key.", code=400,
                                 status="INVALID_ARGUMENT")], id="Google"),
        pytest.param(400, {"code": "Client specified an invalid argument", "error": "Incorrect API "
                     "key provided: x***."}, id="xAI"),
    ],
)  # fmt: skip
async def test_a_key_that_is_rejected_with_another_status_is_told_as_one(
    status: int, body: object
) -> None:
    with pytest.raises(ModelAuthenticationError) as caught:
        async with asked([answer(body, status)]):
            pass
    assert "RLM_MCP_API_KEY" in caught.value.fix


@pytest.mark.parametrize(
    ("usage", "figures"),
    [
        pytest.param({"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 553},
                     (20, 533, False), id="Google, thinking in the total alone"),
        pytest.param({"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81},
                     (21, 60, False), id="thinking and no text"),
        pytest.param({"prompt_tokens": 21, "total_tokens": 81}, (21, 60, False), id="no count"),
        pytest.param({"prompt_tokens": -1, "completion_tokens": -1}, (2, 1, True), id="minus"),
        pytest.param({"prompt_tokens": "7", "completion_tokens": None}, (2, 1, True), id="a text"),
        pytest.param({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
                     (7, 3, False), id="OpenAI"),
    ],
)  # fmt: skip
async def test_tokens_are_counted_from_each_kind_of_usage(usage: Any, figures: Any) -> None:
    async with asked([answer(completion(usage=usage, content="text"))]) as (_, reply):
        found = (reply.input_tokens, reply.output_tokens, reply.usage_estimated)
    assert found == figures


END: Any = {"delta": {}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


@pytest.mark.parametrize(
    "last",
    [
        pytest.param({"choices": [{**END, "usage": USAGE}]}, id="Moonshot"),
        pytest.param({"choices": [END], "x_groq": {"usage": USAGE}}, id="Groq"),
        pytest.param({"choices": [END], "usage": USAGE}, id="with the end"),
    ],
)
async def test_usage_of_a_stream_is_found_in_each_place(last: Any) -> None:
    given = streamed(chunk("text"), json.dumps(last))
    async with asked([given], on_delta=hear) as (_, reply):
        assert (reply.input_tokens, reply.output_tokens) == (7, 3)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_prompt_that_was_cut_is_noticed_in_each_kind_of_reply(is_streamed: bool) -> None:
    usage = {"prompt_tokens": 4096, "completion_tokens": 5}
    given = answer(completion(usage=usage, content="text"))
    if is_streamed:
        given = streamed(chunk("text", "stop"), json.dumps({"choices": [], "usage": usage}))
    message = {"role": "user", "content": "x" * 40_000}
    more: Any = {"on_delta": hear} if is_streamed else {}
    async with asked([given], messages=(message,), **more) as (_, reply):
        assert reply.is_prompt_cut


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f"data:{chunk('FINAL(do')}\n\ndata:{chunk('ne)', 'stop')}\n\ndata:[DONE]\n\n",
                     id="no space behind the colon"),
        pytest.param(f"data: {chunk('FINAL(do')}\ndata: {chunk('ne)', 'stop')}\ndata: [DONE]\n\n",
                     id="no empty line between events"),
        pytest.param(f": ping\n\nevent: ping\ndata: {{}}\n\ndata: {chunk('FINAL(do')}\n\n: ping\n\n"
                     f"data: {chunk('ne)', 'stop')}\n\ndata: [DONE]\n\n", id="signs of life"),
        pytest.param(f"data: {chunk('FINAL(do', 'null')}\n\ndata: {chunk('ne)', 'stop')}\n\n",
                     id="Qwen, 'null' for a reply that goes on"),
        pytest.param(f"data: [{chunk('FINAL(do')}]\n\ndata: [{chunk('ne)', 'stop')}]\n\n"
                     "data: [DONE]\n\n", id="each event in a list"),
        pytest.param('data: {"choices": [], "prompt_filter_results": []}\n\n'
                     f"data: {chunk('FINAL(do')}\n\ndata: {chunk('ne)', 'stop')}\n\n", id="Azure"),
        pytest.param(f"{chunk('FINAL(do')}\n{chunk('ne)', 'stop')}\n", id="lines of JSON alone"),
        pytest.param(json.dumps(completion(content="FINAL(done)"), indent=2), id="JSON whole"),
        pytest.param(f"data: ping\n\ndata: {chunk('FINAL(do')}\n\ndata: keep-alive\n\n"
                     f"data: {chunk('ne)')}\n\ndata: [done]\n\n", id="words as signs of life"),
        pytest.param(f"data: data: {chunk('FINAL(done)', 'stop')}\n\n", id="the prefix twice"),
        pytest.param(f"data: {chunk('FINAL(done)')}\n\nevent: done\ndata: {{}}\n\n",
                     id="an end by its name"),
        pytest.param('data: {"choices": [{"delta": null, "message": {"content": "FINAL(done)"}, '
                     '"finish_reason": "stop"}]}\n\ndata: [DONE]\n\n', id="a message, no delta"),
    ],
)  # fmt: skip
async def test_a_stream_is_read_as_each_server_writes_it(body: str) -> None:
    async with asked([Fault(body=body, headers=SSE)], on_delta=hear) as (server, reply):
        assert (reply.text, reply.is_whole, server.received) == ("FINAL(done)", True, 1)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f"data: {chunk('FINAL(do')}\n\n"
                     'error: {"code": 500, "message": "no"}\n\n',
                     id="llama.cpp"),
        pytest.param(f"data: {chunk('FINAL(do')}\n\n"
                     'event: error\ndata: {"message": "no"}\n\n',
                     id="an event of its own"),
        pytest.param(f"data: {chunk('FINAL(do')}\n\n"
                     'data: {"object": "error", "message": "no", "code": 500}\n\ndata: [DONE]\n\n',
                     id="vLLM"),
        pytest.param(f"data: {chunk('FINAL(do', 'null')}\n\n", id="Qwen, broken off"),
        pytest.param(f"data: {chunk('FINAL(do')}\n\n"
                     'data: {"choices": [], "error": {"code": 502, "message": "no"}}\n\n',
                     id="OpenRouter"),
    ],
)  # fmt: skip
async def test_a_stream_that_fails_on_the_way_is_asked_for_again(body: str) -> None:
    async with asked([Fault(body=body, headers=SSE), "whole"], on_delta=hear) as (server, reply):
        assert (reply.text, server.received) == ("whole", 2)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_reply_that_calls_itself_a_web_page_is_read(is_streamed: bool) -> None:
    given = answer(completion(content="text"), content_type="text/html; charset=utf-8")
    async with asked([given], on_delta=hear if is_streamed else None) as (_, reply):
        assert reply.text == "text"


async def test_an_answer_without_any_choice_is_not_asked_for_many_times() -> None:
    blocked = answer({"object": "chat.completion", "model": "m", "usage": {"prompt_tokens": 9}})
    received = 0

    def block(_: ChatRequestView) -> Fault:
        nonlocal received
        received += 1
        return blocked

    with pytest.raises(ModelReplyError, match="no choices"):
        async with asked(block):
            pass
    assert received == RetryPolicy().brief_attempts


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            answer({"message": "Too many tokens, please wait before trying again."}, 429,
                   x_amzn_errortype="ThrottlingException"), id="Bedrock"),
        pytest.param(
            answer(words("Rate limit reached on tokens per day (TPD): Limit 100000, Used 99000, "
                         "Requested 2000. Please try again in 18s."), 429), id="Groq"),
        pytest.param(
            answer([words("You exceeded your current quota, please check your plan and billing "
                          "details. Please retry in 18s.", code=429)], 429), id="Google"),
    ],
)  # fmt: skip
async def test_a_wait_is_neither_a_long_prompt_nor_lack_of_credit(fault: Fault) -> None:
    async with asked([fault, "ok"]) as (server, reply):
        assert (reply.text, server.received) == ("ok", 2)


async def test_a_server_that_is_away_for_long_is_given_up() -> None:
    with pytest.raises(ModelConnectionError):
        async with asked(lambda _: answer("", 502)):
            pass
