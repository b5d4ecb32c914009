"""Messages over HTTP that are none, or too large: each is answered with what to do instead."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from tests.http_serving import Site, open_site
from tests.serving import turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "raw", "version": "1"},
}
HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with open_site(tmp_path, turns("never")) as site:
        yield site


async def greet(client: httpx2.AsyncClient) -> dict[str, str]:
    """Begin a session; gives the headers of its requests."""
    greeting = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}
    answer = await client.post("/mcp", json=greeting, headers=HEADERS)
    headers = HEADERS | {"mcp-session-id": answer.headers["mcp-session-id"]}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await client.post("/mcp", json=ready, headers=headers)
    return headers


def sent(answer: httpx2.Response) -> Any:
    """The message in a stream of events."""
    [line] = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return json.loads(line.removeprefix("data: "))


async def test_half_a_character_in_a_text_becomes_a_question_mark_and_the_caller_is_told(
    site: Site,
) -> None:
    call = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"rlm_context_add",'
        b'"arguments":{"text":"cut \\ud83d here \\\\ud83d, whole \\ud83d\\ude00"}}}'
    )
    async with site.open_http() as client:
        headers = await greet(client)
        result = sent(await client.post("/mcp", content=call, headers=headers))["result"]
        handle = result["structuredContent"]["handle"]
        text = await client.get(f"/contexts/{handle}")

    assert text.text == "cut ? here \\ud83d, whole \N{GRINNING FACE}"
    assert "Half a character" in result["structuredContent"]["note"]


@pytest.mark.parametrize(
    ("body", "number", "told"),
    [
        (b"", None, "The message '' is not JSON"),
        (b"{nope", None, "The message '{nope' is not JSON"),
        (b"[" * 100_000, None, "maximum recursion depth"),
        (b'[{"jsonrpc":"2.0","id":5,"method":"ping"}]', None, "is a batch of messages"),
        (b'{"id":5,"method":"ping"}', 5, "is none of JSON-RPC 2.0"),
        (b'{"jsonrpc":"2.0","id":"\\ud800"}', "?", "is none of JSON-RPC 2.0"),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, "neither a text nor a whole number"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None, "neither a text nor a whole number"),
        (b'{"jsonrpc":"2.0","id":5,"method":"\xff"}', None, "invalid unicode"),
    ],
    ids=["empty", "cut", "nested", "batch", "version", "half", "null", "fraction", "bytes"],
)
async def test_a_body_that_is_no_message_is_quoted_with_what_is_wrong(
    site: Site, body: bytes, number: Any, told: str
) -> None:
    async with site.open_http() as client:
        headers = await greet(client)
        answer = await client.post("/mcp", content=body, headers=headers)
        ping = {"jsonrpc": "2.0", "id": 9, "method": "ping"}
        after = sent(await client.post("/mcp", json=ping, headers=headers))

    assert answer.status_code == 400
    assert answer.json()["id"] == number
    assert told in answer.json()["error"]["message"]
    assert after["result"] == {}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_message_that_is_too_large_is_refused_with_the_limit_and_other_ways(
    site: Site, mode: str
) -> None:
    async with site.open_client(mode=mode) as served:
        with pytest.raises(MCPError, match="more than 4,194,304 bytes") as refused:
            await served.call("rlm_context_add", text="x" * 5_000_000)
        listed = await served.call("rlm_context_list")

    assert "rlm_context_upload_url" in str(refused.value)
    assert listed["contexts"] == []


async def test_a_message_of_unknown_length_that_is_too_large_is_refused_with_its_id(
    site: Site,
) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        yield b'{"jsonrpc":"2.0","id":"mine","method":"tools/call","params":{"text":"'
        for _ in range(5):
            yield b"x" * (1 << 20)

    async with site.open_http() as client:
        answer = await client.post("/mcp", content=pieces(), headers=HEADERS)

    assert answer.status_code == 413
    assert answer.json()["id"] == "mine"
    assert "4,194,304 bytes" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/nothing", 404, "There is no path '/nothing'."),
        ("GET", "/page/a/b", 404, "There is no path '/page/a/b'."),
        ("POST", "/contexts/x", 405, "The path '/contexts/x' takes no 'POST'."),
        ("GET", "/uploads/x", 405, "The path '/uploads/x' takes no 'GET'."),
    ],
)
async def test_a_path_or_method_that_does_not_exist_is_quoted_with_those_that_do(
    site: Site, method: str, path: str, status: int, told: str
) -> None:
    async with site.open_http() as client:
        answer = await client.request(method, path)

    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["message"] == told
    assert "PUT /contexts/NAME" in error["fix"]
    assert ("allow" in answer.headers) == (status == 405)
