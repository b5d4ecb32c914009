"""The scripted model, asked over HTTP as any provider is."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import (
    Fault,
    Reply,
    Script,
    by_model,
    context_too_long,
    cut_connection,
    empty_choices,
    malformed,
    no_answer,
    rate_limited,
    rejected_parameter,
    server_error,
    unauthorized,
)


def a_request(text: str = "hello", model: str = "root", **params: object) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **params}


async def ask(
    base_url: str, text: str = "hello", model: str = "root", **params: object
) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        body = a_request(text, model, **params)
        return await client.post(f"{base_url}/chat/completions", json=body)


async def ask_once(script: Script, text: str = "hello", **params: object) -> httpx2.Response:
    with anyio.fail_after(60):
        async with open_scripted_model(script) as model:
            return await ask(model.base_url, text, "root", **params)


async def test_a_text_is_answered_as_a_chat_completion_with_usage() -> None:
    response = await ask_once("four tokens here", text="eight chars " * 4)
    assert response.json() == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "root",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "four tokens here"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16},
    }


async def test_what_was_asked_is_recorded() -> None:
    with anyio.fail_after(60):
        async with open_scripted_model("ok") as model, httpx2.AsyncClient() as client:
            body = a_request("hello", "root", temperature=0.5)
            headers = {"authorization": "Bearer key"}
            for _ in range(2):  # on one kept connection
                await client.post(f"{model.base_url}/chat/completions", json=body, headers=headers)
            [first, second] = model.requests
    assert (first.text, first.model, dict(first.params)) == ("hello", "root", {"temperature": 0.5})
    assert (first.authorization, first.number, second.number) == ("Bearer key", 1, 2)
    assert first.at <= second.at


async def test_only_the_latest_requests_are_kept() -> None:
    with anyio.fail_after(60):
        async with open_scripted_model("ok", keep=1) as model:
            for text in ("one", "two"):
                await ask(model.base_url, text=text)
            assert [request.text for request in model.requests] == ["two"]
            assert model.received == 2


async def test_replies_are_used_in_order_and_then_the_request_is_refused() -> None:
    with anyio.fail_after(60):
        async with open_scripted_model(["one", Reply("two")]) as model:
            replies = [(await ask(model.base_url)) for _ in range(3)]
    texts = [reply.json()["choices"][0]["message"]["content"] for reply in replies[:2]]
    assert texts == ["one", "two"]
    assert replies[2].status_code == 400
    assert "no reply left for request 3" in replies[2].text


async def test_each_model_name_has_a_script_of_its_own() -> None:
    script = by_model(root=["plan"], sub=lambda request: request.text.upper())
    with anyio.fail_after(60):
        async with open_scripted_model(script) as model:
            sub = await ask(model.base_url, text="piece", model="sub")
            root = await ask(model.base_url, model="root")
            other = await ask(model.base_url, model="other")
    assert sub.json()["choices"][0]["message"]["content"] == "PIECE"
    assert root.json()["choices"][0]["message"]["content"] == "plan"
    assert other.status_code == 404


@pytest.mark.parametrize(
    ("fault", "status", "part"),
    [
        (rate_limited("7"), 429, "Rate limit"),
        (server_error(500), 500, "overloaded"),
        (rejected_parameter("temperature"), 400, "'temperature'"),
        (context_too_long(), 400, "context_length_exceeded"),
        (unauthorized("sk-1"), 401, "sk-1"),
        (malformed(), 200, '{"choices"'),
        (empty_choices(), 200, '"choices": []'),
        (Fault(418, "short and stout"), 418, "short and stout"),
    ],
)
async def test_a_fault_is_answered_with_its_status_and_body(
    fault: Fault, status: int, part: str
) -> None:
    response = await ask_once([fault])
    assert response.status_code == status
    assert part in response.text


async def test_a_rate_limit_says_how_long_to_wait() -> None:
    assert (await ask_once([rate_limited("7")])).headers["retry-after"] == "7"
    assert "retry-after" not in (await ask_once([rate_limited()])).headers


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("in_body", [False, True])
async def test_a_cut_connection_is_an_error_at_the_client(streamed: bool, in_body: bool) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        await ask_once([cut_connection(in_body=in_body)], stream=streamed)


async def test_odd_completions_are_sent_as_told() -> None:
    reply = Reply(None, finish_reason="length", reasoning="hm", usage=None)
    body = (await ask_once([reply])).json()
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
    }
    assert body["choices"][0]["finish_reason"] == "length"
    assert "usage" not in body


async def test_a_streamed_reply_comes_in_pieces_with_usage_where_it_was_asked_for() -> None:
    reply = Reply("a text of several pieces", reasoning="thought", usage=(3, 4))
    response = await ask_once([reply], stream=True, stream_options={"include_usage": True})
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    *chunks, finish, usage = [json.loads(event) for event in events[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert len(deltas) > 4
    assert "".join(delta.get("content", "") for delta in deltas) == "a text of several pieces"
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "thought"
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 7)
    plain = await ask_once(["x"], stream=True)
    assert "usage" not in plain.text


async def test_requests_at_once_are_counted_and_wait_at_their_gate() -> None:
    gate = anyio.Event()
    with anyio.fail_after(60):
        async with open_scripted_model(lambda _: Reply("ok", gate=gate)) as model:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(ask, model.base_url)
                await model.until(lambda: model.in_flight == 3)
                gate.set()
            await model.until(lambda: model.in_flight == 0)
            assert (model.most_in_flight, model.hung_up) == (3, 0)


async def test_a_client_that_hangs_up_is_noticed() -> None:
    with anyio.fail_after(60):
        async with open_scripted_model([no_answer()]) as model:
            async with anyio.create_task_group() as group:
                group.start_soon(ask, model.base_url)
                await model.until(lambda: model.in_flight == 1)
                group.cancel_scope.cancel()
            await model.until(lambda: model.hung_up == 1)
            assert model.in_flight == 0


async def test_leaving_the_block_ends_requests_that_still_hang() -> None:
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:

            async def ask_and_lose(base_url: str) -> None:
                with pytest.raises(httpx2.TransportError):
                    await ask(base_url)

            async with open_scripted_model([no_answer()]) as model:
                group.start_soon(ask_and_lose, model.base_url)
                await model.until(lambda: model.in_flight == 1)


async def test_other_paths_are_answered_too() -> None:
    with anyio.fail_after(60):
        async with open_scripted_model("ok") as model, httpx2.AsyncClient() as client:
            models = await client.get(f"{model.base_url}/models")
            other = await client.get(f"{model.base_url}/nothing")
            not_json = await client.post(f"{model.base_url}/chat/completions", content=b"{")
    assert models.json() == {"object": "list", "data": []}
    assert (other.status_code, not_json.status_code) == (404, 400)
