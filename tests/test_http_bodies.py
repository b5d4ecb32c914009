"""Bodies over HTTP, sent in pieces of any size: each text is stored whole, and no further."""

from __future__ import annotations

import gc
import hashlib
import itertools
import re
import socket
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import anyio
import pytest

from tests.http_serving import ANN, Site, open_site
from tests.serving import turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

TEXT = "".join(f"{number} é 漢 😀\n" for number in range(120_000)).encode()
HEAD = f"host: localhost\r\nauthorization: Bearer {ANN}\r\n"
LAST = f"GET /contexts/ctx_1 HTTP/1.1\r\n{HEAD}connection: close\r\n\r\n".encode()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with open_site(tmp_path, turns("never")) as site:
        yield site


def put(data: bytes, more: str = "") -> bytes:
    head = f"PUT /contexts/name HTTP/1.1\r\n{HEAD}{more}content-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def split(data: bytes, sizes: tuple[int, ...]) -> Iterator[bytes]:
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


async def exchanged(site: Site, pieces: Iterator[bytes]) -> str:
    """Send pieces, and give all that comes until the server closes."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    found = b""
    with anyio.fail_after(120):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            for piece in pieces:
                await stream.send(piece)
            while True:
                try:
                    found += await stream.receive()
                except anyio.EndOfStream:
                    return found.decode()


def statuses(answers: str) -> list[str]:
    return re.findall(r"HTTP/1\.1 (\d{3}) ", answers)


@pytest.mark.parametrize(
    "sizes", [(1 << 30,), (300, 70_001), (65_536,), (1, 1, 1, 400_000), (262_144, 3)]
)
async def test_texts_sent_one_after_another_are_each_stored_whole(
    site: Site, sizes: tuple[int, ...]
) -> None:
    texts = [TEXT, b"a short one", TEXT[:-9], TEXT[:1_000_000]]
    sent = b"".join(map(put, texts)) + LAST

    answers = await exchanged(site, split(sent, sizes))

    assert statuses(answers) == ["201"] * len(texts) + ["404"]
    found = re.findall(r'"sha256": ?"(\w+)"', answers)
    assert found == [hashlib.sha256(stored(text)).hexdigest() for text in texts]


def stored(text: bytes) -> bytes:
    return text.decode("utf-8", "replace").encode()


async def test_a_client_that_waits_to_be_asked_is_asked_and_its_text_stored(site: Site) -> None:
    waiting = put(TEXT, "expect: 100-continue\r\n") + LAST

    answers = await exchanged(site, split(waiting, (200, 100_000)))

    assert statuses(answers) == ["100", "201", "404"]
    assert hashlib.sha256(TEXT).hexdigest() in answers


async def test_what_follows_a_refused_text_in_its_body_is_no_request(site: Site) -> None:
    inner = put(b"inner") + LAST
    body = b"\0\1\2" * 40_000 + inner * 4000

    answers = await exchanged(site, split(put(body) + LAST, (100_000,)))

    assert statuses(answers)[0] == "400"
    assert "201" not in statuses(answers)


async def test_the_body_of_an_answer_does_not_wait_until_its_head_was_received(site: Site) -> None:
    port = int(site.url.rpartition(":")[2])
    async with site.open_http() as client:
        assert (await client.get("/healthz")).status_code == 200
        found = [one for one in gc.get_objects() if isinstance(one, socket.socket)]
        ours = [one for one in found if one.fileno() >= 0 and is_at(one, port)]
        assert len(ours) >= 2  # it listens, and is connected
        for one in ours:
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def is_at(one: socket.socket, port: int) -> bool:
    return one.family == socket.AF_INET and one.getsockname()[1] == port
