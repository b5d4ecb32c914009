"""Clients of the `openai` package that a user hands in: what they are is what is used."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import Any, cast

import anyio
import httpx2
import openai
import pytest
from openai.resources.chat.completions import AsyncCompletions

from rlm_mcp import RLMWrapper
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.openai_client import open_endpoint
from rlm_mcp.engine.models.retry import RetryPolicy
from rlm_mcp.errors import ConfigurationError, ContextLengthError, ModelRequestError
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Script, context_too_long, no_answer, rate_limited

KEY = "sk-very-secret-0123456789"
AnyClient = openai.OpenAI | openai.AsyncOpenAI
BOTH_KINDS = pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
SOON = RetryPolicy(first_pause_seconds=0.001)


@asynccontextmanager
async def a_server(script: Script = "ok") -> AsyncGenerator[ScriptedModel]:
    with anyio.fail_after(60):
        async with open_scripted_model(script) as server:
            yield server


async def ask(client: AnyClient, *, direct: bool = False, **request: Any) -> ChatReply:
    asked = ChatRequest(({"role": "user", "content": "hello"},), max_tokens=9, **request)
    async with open_endpoint(client, policy=SOON, direct=direct) as endpoint:
        return await endpoint.model("root").complete(asked)


async def close(client: AnyClient) -> None:
    if isinstance(client, openai.AsyncOpenAI):
        await client.close()
    else:
        client.close()


@BOTH_KINDS
async def test_a_client_sends_its_own_requests_with_its_own_settings(
    kind: type[AnyClient],
) -> None:
    async with a_server() as server:
        client = kind(api_key=KEY, base_url=server.base_url, default_headers={"x-team": "a"})
        reply = await ask(client)
        assert not client.is_closed()
        await close(client)
    [request] = server.requests
    assert (reply.text, request.authorization) == ("ok", f"Bearer {KEY}")
    assert request.headers["x-team"] == "a"
    assert "x-stainless-retry-count" in request.headers  # which the package alone sends


async def test_the_connections_that_a_synchronous_client_was_given_are_used() -> None:
    seen: list[str] = []

    def note(request: httpx2.Request) -> None:
        seen.append(threading.current_thread().name)

    async with a_server() as server:
        pool = httpx2.Client(event_hooks={"request": [note]})
        with openai.OpenAI(api_key=KEY, base_url=server.base_url, http_client=pool) as client:
            await ask(client)
    assert len(seen) == 1
    assert seen != [threading.current_thread().name]


async def test_the_proxy_that_a_client_was_given_is_used() -> None:
    async with a_server("by way of a proxy") as proxy:
        pool = httpx2.Client(proxy=proxy.base_url.removesuffix("/v1"))
        address = "http://nowhere.invalid/v1"
        with openai.OpenAI(api_key=KEY, base_url=address, http_client=pool) as client:
            assert (await ask(client)).text == "by way of a proxy"


async def test_the_certificates_that_a_client_was_given_are_used() -> None:
    trusting = ssl.create_default_context()
    async with a_server() as server:
        seen: list[object] = []

        class Transport(httpx2.AsyncHTTPTransport):
            async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
                seen.append(request)
                return await super().handle_async_request(request)

        pool = httpx2.AsyncClient(transport=Transport(verify=trusting))
        async with openai.AsyncOpenAI(
            api_key=KEY, base_url=server.base_url, http_client=pool
        ) as client:
            await ask(client)
    assert len(seen) == 1


def count_calls(create: Callable[..., Awaitable[Any]], seen: list[Any]) -> Callable[..., Any]:
    @wraps(create)
    async def counted(*args: Any, **options: Any) -> Any:
        answer = await create(*args, **options)
        seen.append(answer)
        return answer

    return counted


@pytest.mark.parametrize("streams", [False, True])
async def test_what_is_patched_onto_one_client_is_called(streams: bool) -> None:
    seen: list[Any] = []
    pieces: list[str] = []

    async def hear(text: str) -> None:
        pieces.append(text)

    async with (
        a_server("a reply") as server,
        openai.AsyncOpenAI(api_key=KEY, base_url=server.base_url) as client,
    ):
        own = client.chat.completions
        own.create = count_calls(own.create, seen)
        reply = await ask(client, on_delta=hear if streams else None)
    assert (reply.text, reply.output_tokens, len(seen)) == ("a reply", 1, 1)
    assert "".join(pieces) == ("a reply" if streams else "")


async def test_what_is_patched_onto_the_class_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    patched = cast("Any", count_calls(AsyncCompletions.create, seen))
    async with (
        a_server("a reply") as server,
        openai.AsyncOpenAI(api_key=KEY, base_url=server.base_url) as client,
    ):
        monkeypatch.setattr(AsyncCompletions, "create", patched)
        assert (await ask(client)).text == "a reply"
    assert [type(answer).__name__ for answer in seen] == ["ChatCompletion"]


@pytest.mark.parametrize("streams", [False, True])
async def test_a_synchronous_client_that_was_patched_is_called(streams: bool) -> None:
    seen: list[object] = []
    pieces: list[str] = []

    async def hear(text: str) -> None:
        pieces.append(text)

    async with a_server("a reply") as server:
        with openai.OpenAI(api_key=KEY, base_url=server.base_url) as client:
            own = client.chat.completions
            create = cast("Any", own.create)

            def counted(**options: Any) -> Any:
                seen.append(options["model"])
                return create(**options)

            own.create = cast("Any", counted)
            reply = await ask(client, on_delta=hear if streams else None)
    assert (reply.text, seen) == ("a reply", ["root"])
    assert "".join(pieces) == ("a reply" if streams else "")


async def test_a_synchronous_client_streams_too() -> None:
    pieces: list[str] = []

    async def hear(text: str) -> None:
        pieces.append(text)

    async with a_server("a longer reply") as server:
        with openai.OpenAI(api_key=KEY, base_url=server.base_url) as client:
            assert (await ask(client, on_delta=hear)).text == "a longer reply"
    assert "".join(pieces) == "a longer reply"
    assert len(pieces) > 1


@BOTH_KINDS
async def test_retries_are_the_endpoints_and_not_the_clients_as_well(
    kind: type[AnyClient],
) -> None:
    async with a_server([rate_limited("0.01"), "ok"]) as server:
        client = kind(api_key=KEY, base_url=server.base_url, max_retries=2)
        assert (await ask(client)).text == "ok"
        await close(client)
    assert [request.headers["x-stainless-retry-count"] for request in server.requests] == ["0", "0"]


async def test_an_error_through_a_patched_client_means_the_same() -> None:
    async with (
        a_server([context_too_long()]) as server,
        openai.AsyncOpenAI(api_key=KEY, base_url=server.base_url) as client,
    ):
        own = client.chat.completions
        own.create = count_calls(own.create, [])
        with pytest.raises(ContextLengthError):
            await ask(client)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_key_that_is_made_on_demand_is_used(is_async: bool) -> None:
    async def make() -> str:
        await anyio.lowlevel.checkpoint()
        return "made"

    async with a_server() as server:
        client: AnyClient
        if is_async:
            client = openai.AsyncOpenAI(api_key=make, base_url=server.base_url)
        else:
            client = openai.OpenAI(api_key=lambda: "made", base_url=server.base_url)
        await ask(client)
        await close(client)
    assert server.requests[0].authorization == "Bearer made"


async def test_a_synchronous_client_of_azure_is_used() -> None:
    async with a_server() as server:
        azure = openai.AzureOpenAI(api_key=KEY, base_url=server.base_url, api_version="1")
        with pytest.raises(ModelRequestError, match="/v1/deployments/root/chat/completions"):
            await ask(azure)  # where the scripted model is not
        azure.close()


async def test_a_caller_that_is_cancelled_does_not_wait_for_a_thread() -> None:
    async with a_server(lambda _: no_answer()) as server:
        with openai.OpenAI(api_key=KEY, base_url=server.base_url, timeout=2) as client:
            with anyio.move_on_after(0.2) as scope:
                await ask(client)
    assert scope.cancelled_caught


@BOTH_KINDS
async def test_requests_go_past_a_client_only_where_that_was_asked_for(
    kind: type[AnyClient],
) -> None:
    async with a_server() as server:
        client = kind(api_key=KEY, base_url=server.base_url, default_headers={"x-team": "a"})
        assert (await ask(client, direct=True)).text == "ok"
        await close(client)
    [request] = server.requests
    assert (request.authorization, request.headers["x-team"]) == (f"Bearer {KEY}", "a")
    assert "x-stainless-retry-count" not in request.headers


class Subclass(openai.AsyncOpenAI):
    pass


def patched() -> openai.AsyncOpenAI:
    client = openai.AsyncOpenAI(api_key=KEY)
    client.chat.completions.create = count_calls(client.chat.completions.create, [])
    return client


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (patched, "methods patched onto it"),
        (partial(Subclass, api_key=KEY), "its own class, 'Subclass'"),
        (partial(openai.OpenAI, api_key=lambda: KEY), "made on demand"),
        (partial(openai.OpenAI, api_key=KEY, default_query={"a": "b"}), "default_query"),
    ],
)
async def test_a_client_of_which_more_is_needed_is_not_gone_past(
    make: Callable[[], AnyClient], part: str
) -> None:
    client = make()
    with pytest.raises(ConfigurationError, match=part):
        await ask(client, direct=True)
    await close(client)


@pytest.mark.parametrize("direct", [False, True])
async def test_the_library_hands_the_choice_on(direct: bool) -> None:
    async with (
        a_server("FINAL(done)") as server,
        ProcessSandbox(min_isolation="process") as sandbox,
        openai.AsyncOpenAI(api_key=KEY, base_url=server.base_url) as client,
    ):
        wrapper = RLMWrapper(client, "root", sandbox=sandbox, direct_http=direct)
        assert (await wrapper.agenerate("What?", "text")).answer == "done"
    assert ("x-stainless-retry-count" in server.requests[0].headers) is not direct


def test_a_patched_client_of_another_event_loop_is_refused_and_not_copied() -> None:
    client = patched()
    wrapper = RLMWrapper(client, "root", sandbox=ProcessSandbox(min_isolation="process"))
    response = wrapper.generate("What?", "text")
    assert response.error is not None
    assert "agenerate()" in response.error.fix
    anyio.run(client.close)
