"""Endpoints that are broken, hostile or out of the way: each ends in bounded time and is named."""

from __future__ import annotations

import base64
import socket
import ssl
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import anyio
import httpx2
import openai
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from rlm_mcp.engine.models.addresses import is_same_host
from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.openai_client import open_endpoint
from rlm_mcp.engine.models.retry import RetryPolicy, Timing
from rlm_mcp.errors import (
    ConfigurationError,
    ModelConnectionError,
    ModelError,
    ModelReplyError,
    ModelRequestError,
)
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Fault

KEY = "sk-very-secret-0123456789"
SELF_SIGNED = Path(__file__).with_name("self_signed.pem")
FINE = b'{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}'
GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, ssl.SSLError)

Behave = Callable[[ByteStream], Awaitable[None]]
Way = Callable[[str], Provider | openai.AsyncOpenAI]


def a_provider(base_url: str) -> Provider:
    return Provider(base_url, KEY)


def a_client(base_url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key=KEY)


BOTH_WAYS = pytest.mark.parametrize("way", [a_provider, a_client])


@asynccontextmanager
async def an_endpoint(
    behave: Behave, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncGenerator[str]:
    """Let `behave` answer each request, whose head and body it does not see; gives the base URL."""

    async def serve(stream: ByteStream) -> None:
        with suppress(*GONE):
            async with stream:
                while True:
                    await read_request(stream)
                    await behave(stream)

    with anyio.fail_after(60):
        async with (
            await anyio.create_tcp_listener(local_host=host) as listener,
            anyio.create_task_group() as tasks,
        ):
            port = listener.extra(SocketAttribute.local_port)
            serving = TLSListener(listener, tls) if tls is not None else listener
            tasks.start_soon(serving.serve, serve)
            at = f"[{host}]" if ":" in host else host
            yield f"{'http' if tls is None else 'https'}://{at}:{port}/v1"
            tasks.cancel_scope.cancel()


async def read_request(stream: ByteStream) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive()
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0].partition(b":")[2]) - len(body) if lengths else 0
    while missing > 0:
        missing -= len(await stream.receive())


def sends(*pieces: bytes, then_closes: bool = True) -> Behave:
    async def behave(stream: ByteStream) -> None:
        for piece in pieces:
            await stream.send(piece)
        if then_closes:
            await stream.aclose()

    return behave


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    length = b"content-length: %d" % len(body)
    return b"\r\n".join((b"HTTP/1.1 " + status, length, *headers, b"", body))


JSON = b"content-type: application/json"


async def ask(
    source: Provider | openai.AsyncOpenAI, policy: RetryPolicy, *, streams: bool = False
) -> ChatReply:
    async def hear(_: str) -> None:
        await anyio.lowlevel.checkpoint()

    async def sleep(_: float) -> None:
        await anyio.lowlevel.checkpoint()

    async with open_endpoint(source, policy=policy, timing=Timing(sleep)) as endpoint:
        request = ChatRequest(
            ({"role": "user", "content": "hi"},), on_delta=hear if streams else None
        )
        try:
            return await endpoint.model("root").complete(request)
        finally:
            if isinstance(source, openai.AsyncOpenAI):
                await source.close()


ONCE = RetryPolicy(attempts=1, brief_attempts=1)


@BOTH_WAYS
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + FINE,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a length\r\n",
        whole(b"\x1f\x8b not zipped", b"content-encoding: gzip"),
        whole(b"\xff\xfe", JSON),
    ],
    ids=lambda answer: repr(answer[:30]),
)
async def test_what_is_no_answer_ends_in_an_error_of_ours(
    answer: bytes, streams: bool, way: Way
) -> None:
    async with an_endpoint(sends(answer)) as base_url:
        with pytest.raises(ModelError) as caught:
            await ask(way(base_url), ONCE, streams=streams)
    said = str(caught.value)
    assert base_url in said
    assert KEY not in said
    assert len(said) < 1500


@pytest.mark.parametrize(
    "headers", [[b"x-long: " + b"x" * 100_000], [b"x-%d: x" % number for number in range(5000)]]
)
async def test_headers_without_measure_are_refused(headers: list[bytes]) -> None:
    async with an_endpoint(sends(whole(FINE, JSON, *headers))) as base_url:
        with pytest.raises(ModelReplyError) as caught:
            await ask(a_provider(base_url), ONCE)
    assert len(str(caught.value)) < 1500


@BOTH_WAYS
async def test_bytes_that_come_one_by_one_do_not_hold_a_call_for_ever(way: Way) -> None:
    async def behave(stream: ByteStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")
        for _ in count():
            await stream.send(b" ")
            await anyio.sleep(0.02)

    async with an_endpoint(behave) as base_url:
        with pytest.raises(ModelConnectionError, match="No answer in time"):
            await ask(way(base_url), RetryPolicy(attempts=1, attempt_seconds=0.3))


@pytest.mark.parametrize("streams", [False, True])
async def test_a_reply_without_end_is_cut_off(streams: bool) -> None:
    async def behave(stream: ByteStream) -> None:
        kind = b"text/event-stream" if streams else b"application/json"
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\n\r\ndata: ")
        while True:
            await stream.send(b"x" * (1 << 20))

    async with an_endpoint(behave) as base_url:
        with pytest.raises(ModelReplyError, match="longer than 33,554,432 bytes"):
            await ask(a_provider(base_url), ONCE, streams=streams)


@pytest.mark.parametrize("streams", [False, True])
async def test_a_web_page_is_told_as_one_and_asked_for_briefly(streams: bool) -> None:
    page = Fault(body="<html>Sign in</html>", headers={"content-type": "text/html; charset=utf-8"})
    with anyio.fail_after(60):
        async with open_scripted_model(lambda _: page) as server:
            said = "is a web page, not a model: '<html>Sign"
            with pytest.raises(ModelReplyError, match=said) as raised:
                await ask(a_provider(server.base_url), RetryPolicy(), streams=streams)
            assert "RLM_MCP_BASE_URL" in raised.value.fix
            assert server.received == RetryPolicy().brief_attempts


@BOTH_WAYS
async def test_connections_that_are_closed_between_requests_cost_no_call(way: Way) -> None:
    async def never(seconds: float) -> None:
        assert not seconds
        await anyio.lowlevel.checkpoint()

    async with (
        an_endpoint(sends(whole(FINE, JSON))) as base_url,
        open_endpoint(source := way(base_url), timing=Timing(never)) as endpoint,
    ):
        for _ in range(5):
            request = ChatRequest(({"role": "user", "content": "hi"},))
            assert (await endpoint.model("root").complete(request)).text == "fine"
        if isinstance(source, openai.AsyncOpenAI):
            await source.close()


@BOTH_WAYS
@pytest.mark.parametrize("status", [b"302 Found", b"307 Temporary Redirect", b"308 Moved"])
async def test_a_redirect_takes_neither_prompt_nor_key_to_another_host(
    status: bytes, way: Way
) -> None:
    with anyio.fail_after(60):
        async with open_scripted_model("fine") as other:
            place = other.base_url.replace("http://", "http://ann:secret-word@")
            to = f"{place}/chat/completions?key=secret-word"
            moved = whole(b"", b"location: " + to.encode(), status=status)
            async with an_endpoint(sends(moved)) as base_url:
                with pytest.raises(ModelRequestError) as refused:
                    await ask(way(base_url), ONCE)
    assert f"{other.base_url}/chat/completions" in str(refused.value)
    assert "secret-word" not in str(refused.value)
    assert not other.requests


@pytest.mark.parametrize("status", [b"301 Moved", b"307 Temporary Redirect"])
async def test_a_redirect_on_the_same_host_is_followed_with_the_prompt(status: bytes) -> None:
    async def behave(stream: ByteStream) -> None:
        nonlocal answers
        answers += 1
        moved = whole(b"", b"location: /v2/chat/completions", status=status)
        await stream.send(moved if answers == 1 else whole(FINE, JSON))

    answers = 0
    async with an_endpoint(behave) as base_url:
        assert (await ask(a_provider(base_url), ONCE)).text == "fine"


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ("https://models.example/v1", "https://models.example/v2", True),
        ("https://models.example:8443/v1", "https://models.example:8443/v2", True),
        ("http://models.example/v1", "https://models.example/v1", True),
        (
            "https://models.example/v1",
            "http://models.example/v1",
            False,
        ),
        ("http://models.example/v1", "https://models.example:8443/v1", False),
        ("http://models.example:8080/v1", "https://models.example/v1", False),
        ("https://models.example/v1", "https://models.example:8443/v1", False),
        ("https://models.example/v1", "https://me@models.example/v1", False),
        ("https://models.example/v1", "https://other.example/v1", False),
        ("https://models.example/v1", "https://models.example:x/v1", False),
    ],
)
def test_a_redirect_stays_on_its_host_and_never_loses_encryption(
    before: str, after: str, is_same: bool
) -> None:
    assert is_same_host(before, after) is is_same


async def test_redirects_in_circles_end() -> None:
    moved = whole(b"", b"location: /v1/chat/completions", status=b"307 Temporary Redirect")
    async with an_endpoint(sends(moved, then_closes=False)) as base_url:
        with pytest.raises(ModelRequestError, match="in circles"):
            await ask(a_provider(base_url), ONCE)


PASSWORD = "pass-word-0123"


@BOTH_WAYS
@pytest.mark.parametrize(
    "address",
    [
        f"http://ann:{PASSWORD}@127.0.0.1:1/v1",  # nobody listens
        f"http://ann:{PASSWORD}@127.0.0.1:no-port/v1",
        f"http://ann:{PASSWORD}@[::/v1",
        f"http://ann:{PASSWORD}?x@127.0.0.1:1/v1",
        f"http://ann:{PASSWORD}/x@127.0.0.1:1/v1",
        f"ftp://ann:{PASSWORD}@127.0.0.1/v1",
        f"ann:{PASSWORD}@127.0.0.1/v1",
    ],
)
async def test_no_error_quotes_the_password_of_an_address(address: str, way: Way) -> None:
    with anyio.fail_after(60):
        try:
            await ask(way(address), ONCE)
        except (ConfigurationError, ModelError) as error:
            told = "".join(traceback.format_exception(error))
            assert PASSWORD not in told.replace(f"_ask(way({address!r}))", "")
        except (ValueError, httpx2.InvalidURL):  # of the package itself, as the client was made
            assert way is a_client


async def test_name_and_password_of_an_address_are_sent_as_http_says() -> None:
    async with open_scripted_model("fine") as model:
        address = model.base_url.replace("http://", f"http://ann:{PASSWORD}%40@")
        assert (await ask(Provider(address), ONCE)).text == "fine"
    expected = base64.b64encode(f"ann:{PASSWORD}@".encode()).decode()
    assert model.requests[0].authorization == f"Basic {expected}"


async def test_an_endpoint_that_repeats_the_password_has_it_left_out() -> None:
    body = f'{{"error": {{"message": "no {PASSWORD} here"}}}}'.encode()
    async with an_endpoint(sends(whole(body, JSON, status=b"400 Bad Request"))) as base_url:
        address = base_url.replace("http://", f"http://ann:{PASSWORD}@")
        with pytest.raises(ModelRequestError) as refused:
            await ask(Provider(address), ONCE)
    assert "no *** here" in str(refused.value)


async def test_a_redirect_that_loses_the_request_names_the_address_to_set() -> None:
    async def behave(stream: ByteStream) -> None:
        nonlocal answers
        answers += 1
        if answers == 1:
            await stream.send(whole(b"", b"location: /v2/chat/completions", status=b"301 Moved"))
        else:
            await stream.send(whole(b"{}", JSON, status=b"405 Method Not Allowed"))

    answers = 0
    async with an_endpoint(behave) as base_url:
        with pytest.raises(ModelRequestError, match=r"redirected to '.*/v2/chat/completions'"):
            await ask(a_provider(base_url), ONCE)


@BOTH_WAYS
async def test_a_certificate_that_nobody_vouches_for_is_told_at_once(way: Way) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await anyio.to_thread.run_sync(tls.load_cert_chain, SELF_SIGNED)
    async with an_endpoint(sends(whole(FINE, JSON)), tls=tls) as base_url:
        with pytest.raises(ModelConnectionError, match="is not trusted: self-signed") as caught:
            await ask(way(base_url), RetryPolicy())
    assert "SSL_CERT_FILE" in caught.value.fix


async def test_a_certificate_that_the_system_trusts_will_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await anyio.to_thread.run_sync(tls.load_cert_chain, SELF_SIGNED)
    monkeypatch.setenv("SSL_CERT_FILE", str(SELF_SIGNED))
    async with an_endpoint(sends(whole(FINE, JSON)), tls=tls) as base_url:
        assert (await ask(a_provider(base_url), ONCE)).text == "fine"


async def test_an_address_of_ipv6_will_do() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with an_endpoint(sends(whole(FINE, JSON)), host="::1") as base_url:
        assert (await ask(a_provider(f"{base_url}/"), ONCE)).text == "fine"


@pytest.mark.parametrize(
    ("variables", "is_reached"),
    [
        ({"http_proxy": "127.0.0.1:{port}"}, True),
        ({"all_proxy": "http://user:pass@127.0.0.1:{port}"}, True),
        ({"https_proxy": "http://127.0.0.1:{port}"}, False),
        ({"http_proxy": "http://127.0.0.1:{port}", "no_proxy": "nowhere.invalid"}, False),
    ],
)
async def test_proxies_are_those_of_the_environment(
    variables: dict[str, str], is_reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with anyio.fail_after(60):
        async with open_scripted_model("by way of a proxy") as proxy:
            port = proxy.base_url.removesuffix("/v1").rpartition(":")[2]
            for name, value in variables.items():
                monkeypatch.setenv(name, value.format(port=port))
            with suppress(ModelConnectionError):
                await ask(a_provider("http://nowhere.invalid/v1"), ONCE)
    assert (proxy.received == 1) == is_reached


@pytest.mark.parametrize(
    ("proxy", "error", "part"),
    [
        ("socks5://user:pass@127.0.0.1:9", ConfigurationError, "'socks5://127.0.0.1:9'"),
        ("http://user:pass@127.0.0.1:9", ModelConnectionError, "No connection.*NO_PROXY"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    proxy: str, error: type[Exception], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with anyio.fail_after(60), pytest.raises(error, match=part) as caught:
        await ask(a_provider("http://nowhere.invalid/v1"), ONCE)
    assert "pass@" not in f"{caught.value} {caught.value.__cause__}"
