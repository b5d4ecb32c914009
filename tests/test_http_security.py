"""What somebody at the other end of a socket may try: each is refused, ended, or of no effect."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import anyio.to_thread
import httpx2
import pytest
from anyio.abc import SocketStream

from rlm_mcp.server.http.serving import Place
from rlm_mcp.server.http.timeouts import Patience
from tests.http_serving import ANN, BOB, Site, open_site
from tests.serving import turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

HURRIED = Patience(headers=1.0, body=1.0, body_bytes=100_000, reader=1.0)
BEARER = f"authorization: Bearer {ANN}\r\n"
ROUTES = (
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
    ("PUT", "/contexts/name"),
    ("GET", "/contexts/ctx_0123456789abcdef"),
    ("GET", "/runs/run_1/events"),
    ("GET", "/runs/run_1/export"),
    ("GET", "/events"),
    ("GET", "/nothing"),
    ("GET", "/healthz/"),
)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with open_site(tmp_path, turns("never"), max_upload_bytes=100_000) as site:
        yield site


async def connect(site: Site) -> SocketStream:
    host, _, port = site.url.removeprefix("http://").partition(":")
    return await anyio.connect_tcp(host, int(port))


async def exchanged(site: Site, request: str | bytes) -> bytes:
    """Send bytes, and give all that comes until the server closes."""
    async with await connect(site) as stream:
        await stream.send(request.encode() if isinstance(request, str) else request)
        return await rest_of(stream)


async def rest_of(stream: SocketStream) -> bytes:
    found = b""
    with anyio.fail_after(60):
        while True:
            try:
                found += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return found


def statuses(answer: bytes) -> list[str]:
    return re.findall(r"HTTP/1\.1 (\d{3}) ", answer.decode("latin-1"))


async def stored(site: Site) -> list[dict[str, Any]]:
    async with site.open_client() as served:
        return (await served.call("rlm_context_list"))["contexts"]


async def test_who_has_no_token_gets_the_page_and_the_sign_of_life_alone(site: Site) -> None:
    wrong: list[list[tuple[str, str]]] = [
        [],
        [("authorization", "Bearer wrong-token-wrong-token")],
        [("authorization", "Bearer x")],
        [("authorization", f"Bearer {ANN}x")],
        [("authorization", f"Bearer {ANN[:-1]}")],
        [("authorization", f"Basic {ANN}")],
        [("authorization", ANN)],
        [("authorization", f"Bearer {ANN}"), ("authorization", f"Bearer {BOB}")],
        [("cookie", f"authorization={ANN}"), ("x-authorization", f"Bearer {ANN}")],
    ]
    async with httpx2.AsyncClient(base_url=site.url) as client:
        for method, path in ROUTES:
            for headers in wrong:
                answer = await client.request(method, f"{path}?token={ANN}", headers=headers)
                assert answer.status_code == 401, (method, path, headers)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert ANN not in answer.text
        alive = await client.get("/healthz")
        right = await client.get("/contexts/ctx_1", headers={"authorization": f"bearer {ANN}"})

    assert (alive.status_code, set(alive.json())) == (200, {"status", "version"})
    assert right.status_code == 404


async def test_a_session_of_the_older_protocol_is_used_by_nobody_else(site: Site) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    accept = {"accept": "application/json, text/event-stream"}
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    async with site.open_http(ANN) as ann, site.open_http(BOB) as bob:
        session = (await ann.post("/mcp", json=hello, headers=accept)).headers["mcp-session-id"]
        hers = accept | {"mcp-session-id": session}
        taken = await bob.post("/mcp", json=ping, headers=hers)
        ended = await bob.delete("/mcp", headers=hers)
        still = await ann.post("/mcp", json=ping, headers=hers)

    assert [one.status_code for one in (taken, ended, still)] == [404, 404, 200]


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
async def test_requests_under_another_name_or_from_another_page_are_refused_on_every_route(
    tmp_path: Path, bound: str
) -> None:
    place = Place(bound, 0, ("rlm.example", "proxy.example:444"), ("https://page.example",))
    refused = [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost:80@evil.example"},
        {"host": "proxy.example:443"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "http://rlm.example.evil.example"},
        {"origin": "null"},
        {"origin": "file://"},
    ]
    allowed = [
        {"host": "rlm.example:1234"},
        {"host": "RLM.example."},
        {"host": "proxy.example:444"},
        {"host": "localhost"},
        {"host": "rlm.example", "origin": "http://rlm.example"},
        {"origin": "https://page.example"},
    ]
    async with open_site(tmp_path, turns("never"), place) as site:
        url = site.url.replace("0.0.0.0", "127.0.0.1")
        bearer = {"authorization": f"Bearer {ANN}"}
        async with httpx2.AsyncClient(base_url=url, headers=bearer) as client:
            routes = (*ROUTES, ("GET", "/healthz"), ("PUT", "/uploads/x"))
            attempts = [
                (route, headers) for route in routes for headers in (refused[0], refused[-3])
            ]
            attempts += [(routes[0], headers) for headers in refused]
            for (method, path), headers in attempts:
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == (403 if "origin" in headers else 421), headers
                assert "access-control-allow-origin" not in answer.headers
            for headers in allowed:
                answer = await client.get("/contexts/ctx_1", headers=headers)
                assert answer.status_code == 404, headers
            address = await client.get("/healthz", headers={"host": "192.0.2.7:8000"})
            preflight = await client.options(
                "/mcp",
                headers={
                    "origin": "https://page.example",
                    "access-control-request-method": "POST",
                    "access-control-request-headers": "authorization, mcp-session-id",
                },
            )

    # Nobody can point an address at this machine, so any will do where any is listened on.
    assert address.status_code == (200 if bound == "0.0.0.0" else 421)
    assert preflight.headers["access-control-allow-origin"] == "https://page.example"


async def test_without_an_allowed_page_no_page_is_told_anything(site: Site) -> None:
    async with site.open_http() as client:
        own = await client.get("/contexts/ctx_1", headers={"origin": site.url})
        preflight = await client.options(
            "/mcp",
            headers={
                "origin": "https://page.example",
                "access-control-request-method": "POST",
            },
        )

    assert own.status_code == 404
    assert preflight.status_code == 403
    assert not [name for one in (own, preflight) for name in one.headers if "access" in name]


def files_in(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if "data" not in path.parts}


async def test_a_name_is_a_label_whatever_it_looks_like(site: Site, tmp_path: Path) -> None:
    names = {
        "..%2f..%2fescape": 201,
        "%2e%2e/%2e%2e/escape": 201,
        "%2Fetc%2Fpasswd": 201,
        "..%5c..%5cescape": 201,
        quote("名前 ẞ 😀"): 201,
        "a%00b": 400,
        "a%0d%0ax-injected:%201": 405,  # no path of ours has a line break in it
        "a%0ab": 405,
        "%ff%fe": 400,
        "%E2%80%A8": 400,
        "": 400,
        "x" * 10_000: 400,
        quote("é" * 200): 201,
        quote("é" * 201): 400,
    }
    before = await anyio.to_thread.run_sync(files_in, tmp_path)
    for number, (name, expected) in enumerate(names.items()):
        text = f"text {number}"
        request = (
            f"PUT /contexts/{name} HTTP/1.1\r\nhost: localhost\r\n{BEARER}connection: close\r\n"
            f"content-length: {len(text)}\r\n\r\n{text}"
        )
        answer = await exchanged(site, request)
        assert statuses(answer) == [str(expected)], name
        assert b"\r\nx-injected" not in answer.lower()
        assert len(answer) < 2000
    after = await anyio.to_thread.run_sync(files_in, tmp_path)

    assert after == before
    assert len(await stored(site)) == list(names.values()).count(201)


async def test_a_body_that_is_too_large_is_refused_whether_its_length_is_told_or_not(
    site: Site,
) -> None:
    async def pieces(count: int) -> AsyncGenerator[bytes]:
        for _ in range(count):
            yield b"x" * 50_000

    async with site.open_http() as client:
        answers = [
            await client.put("/contexts/a", content=b"x" * 100_001),
            await client.put("/contexts/a", content=pieces(50)),
            await client.post("/mcp", content=b"x" * (5 << 20)),
            await client.post("/mcp", content=pieces(100)),
        ]
        fits = await client.put("/contexts/a", content=b"x" * 100_000)
        ignored = await client.request("GET", "/healthz", content=b"x" * 10_000_000)

    assert [answer.status_code for answer in answers] == [413] * 4
    assert answers[0].json()["error"]["code"] == "too_large"
    assert (fits.status_code, ignored.status_code) == (201, 200)
    assert len(await stored(site)) == 1


async def test_who_sends_or_reads_too_slowly_is_let_go_and_the_server_goes_on(
    tmp_path: Path,
) -> None:
    async with open_site(tmp_path, turns("never"), patience=HURRIED) as site:
        async with site.open_http() as client:
            big = await client.put("/contexts/big", content=b"0123456789abcdef" * 2_000_000)
        handle = big.json()["handle"]
        put = f"PUT /contexts/a HTTP/1.1\r\nhost: localhost\r\n{BEARER}content-length: 100\r\n\r\n"
        post = put.replace("PUT /contexts/a", "POST /mcp")
        read = f"GET /contexts/{handle} HTTP/1.1\r\nhost: localhost\r\n{BEARER}\r\n"
        answers: dict[str, bytes] = {}

        async def drip(name: str, start: str) -> None:
            async with await connect(site) as stream:
                await stream.send(start.encode())
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_drip_on, stream)
                    answers[name] = await rest_of(stream)
                    tasks.cancel_scope.cancel()

        async def read_nothing() -> None:
            async with await connect(site) as stream:
                await stream.send(read.encode())
                await anyio.sleep(3)  # nothing but time passes where nobody reads
                answers["unread"] = await rest_of(stream)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(drip, "upload", put)
                tasks.start_soon(drip, "call", post)
                tasks.start_soon(drip, "headers", "GET /healthz HTTP/1.1\r\nx: ")
                tasks.start_soon(drip, "nothing", "")
                tasks.start_soon(read_nothing)
        async with site.open_http() as client:
            alive = await client.get("/healthz")
        kept = [one["name"] for one in await stored(site)]

    assert {name: statuses(answer) for name, answer in answers.items()} == {
        "upload": ["408"],
        "call": ["408"],
        "headers": [],
        "nothing": [],
        "unread": ["200"],
    }
    assert len(answers["unread"]) < 32_000_000
    assert (alive.status_code, kept) == (200, ["big"])


async def _drip_on(stream: SocketStream) -> None:
    """Send a byte now and then, for as long as somebody takes it."""
    try:
        while True:
            await anyio.sleep(0.2)
            await stream.send(b"x")
    except anyio.BrokenResourceError:
        return


async def test_a_request_inside_another_is_not_heard(site: Site) -> None:
    inner = (
        f"PUT /contexts/inner HTTP/1.1\r\nhost: localhost\r\n{BEARER}content-length: 5\r\n\r\ninner"
    )
    outer = "PUT /contexts/outer HTTP/1.1\r\nhost: localhost\r\n"
    requests = {
        "in the body of one that has no token": f"{outer}content-length: {len(inner)}\r\n\r\n",
        "after two lengths": f"{outer}{BEARER}content-length: 0\r\ncontent-length: 5\r\n\r\n",
        "after a length and a coding": (
            f"{outer}{BEARER}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        "after an odd coding": f"{outer}{BEARER}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "after a folded header": f"{outer}x: 1\r\n {BEARER}content-length: 0 \r\n 5\r\n\r\n",
        "after two hosts": f"{outer}host: evil.example\r\n{BEARER}content-length: 0\r\n\r\n",
    }
    for name, request in requests.items():
        answer = await exchanged(site, request + inner)
        assert [status[0] for status in statuses(answer)] in (["4"], ["5"]), (name, answer)

    assert await stored(site) == []


async def test_a_pipelined_request_needs_a_token_of_its_own(site: Site) -> None:
    first = f"GET /contexts/ctx_1 HTTP/1.1\r\nhost: localhost\r\n{BEARER}\r\n"
    second = "GET /contexts/ctx_1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"

    assert statuses(await exchanged(site, first + second)) == ["404", "401"]


async def test_a_thousand_connections_at_once_leave_the_server_answering(site: Site) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(1000):
            stream = await stack.enter_async_context(await connect(site))
            await stream.send(b"GET /contexts/")
        async with site.open_http() as client:
            with anyio.fail_after(60):
                alive = await client.get("/healthz")
                added = await client.put("/contexts/a", content=b"some text")
    assert (alive.status_code, added.status_code) == (200, 201)
    assert len(await stored(site)) == 1


@pytest.mark.parametrize("size", [400_000, 3_000_000])
async def test_headers_that_are_too_large_are_named(site: Site, size: int) -> None:
    request = f"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx: {'y' * size}\r\n\r\n"
    answer = b""
    async with await connect(site) as stream, anyio.create_task_group() as tasks:

        async def send() -> None:
            with suppress(anyio.BrokenResourceError):
                await stream.send(request.encode())

        tasks.start_soon(send)
        answer = await rest_of(stream)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"larger than 64 KiB" in answer


async def test_headers_of_many_small_lines_are_bounded_too(site: Site) -> None:
    lines = "".join(f"x-{number}: y\r\n" for number in range(40_000))
    answer = await exchanged(site, f"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n{lines}\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_what_is_no_request_is_refused_as_such(site: Site) -> None:
    assert (await exchanged(site, "what is this\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
