"""Frames: what is accepted, and that nothing else is."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from rlm_mcp.errors import WireError
from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.host.channel import Channel
from rlm_mcp.sandbox.wire import Frame

DONE: dict[str, Any] = {
    "cell": 1,
    "chars": 0,
    "error": False,
    "line": None,
    "final": False,
    "json": False,
    "known": False,
    "restored": False,
    "cited": [],
}
FOUND = {"found": True, "json": False}


def through(kind: str, fields: dict[str, Any], *blobs: bytes) -> Frame:
    data = wire.encode(kind, fields, *blobs)
    head, body = wire.sizes(data[: wire.HEADER.size])
    rest = data[wire.HEADER.size :]
    assert len(rest) == head + body
    shapes = wire.TO_HOST if kind in wire.TO_HOST else wire.TO_CHILD
    return wire.decode(rest[:head], rest[head:], shapes)


def test_a_frame_arrives_as_it_was_sent() -> None:
    blobs = ("ü".encode(), b"\x80\x00")
    assert through("done", DONE, *blobs) == Frame("done", DONE, blobs)


@pytest.mark.parametrize(
    ("kind", "fields", "count"),
    [
        ("done", DONE, 2),
        ("done", {**DONE, "error": True}, 5),
        ("done", {**DONE, "final": True}, 4),
        ("done", {**DONE, "error": True, "final": True}, 7),
        ("variables", {"ticket": 1, "sizes": [0, 7]}, 6),
        ("slice", dict.fromkeys(("ticket", "size", "start", "total"), 1) | FOUND, 2),
    ],
)
def test_a_frame_holds_as_many_texts_as_its_fields_call_for(
    kind: str, fields: dict[str, Any], count: int
) -> None:
    assert len(through(kind, fields, *[b"x"] * count).blobs) == count
    for other in (count - 1, count + 1):
        with pytest.raises(WireError, match=f"'{kind}' frame with {other} blobs"):
            through(kind, fields, *[b"x"] * other)


def test_text_that_is_not_utf8_is_replaced() -> None:
    assert through("failed", {}, b"a\xffb").text(0) == "a\N{REPLACEMENT CHARACTER}b"
    assert wire.utf8("a\ud800b") == b"a?b"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"", b""),
        (b"[]", b""),
        (b"null", b""),
        (b"{", b""),
        (b"\xff\xfe", b""),
        (b"[" * 100_000, b""),
        (b"1" * 100_000, b""),
        (b'{"kind": "exec", "lengths": [1]}', b"x"),
        (b'{"kind": ["ready"], "lengths": []}', b""),
        (b'{"lengths": []}', b""),
        (b'{"kind": "ready"}', b""),
        (b'{"kind": "ready", "lengths": null}', b""),
        (b'{"kind": "ready", "lengths": {}}', b""),
        (b'{"kind": "ready", "lengths": [1]}', b"x"),
        (b'{"kind": "failed", "lengths": [-1]}', b""),
        (b'{"kind": "failed", "lengths": [2]}', b"x"),
        (b'{"kind": "failed", "lengths": [true]}', b"x"),
        (b'{"kind": "failed", "lengths": [1.0]}', b"x"),
        (b'{"kind": "ready", "lengths": [], "extra": 1}', b""),
        (b'{"kind": "variables", "lengths": [], "ticket": 1, "sizes": [NaN]}', b""),
        (b'{"kind": "variables", "lengths": [], "ticket": 1, "sizes": {"0": 1}}', b""),
        (b'{"kind": "variables", "lengths": [], "ticket": -1, "sizes": []}', b""),
        (b'{"kind": "variables", "lengths": [], "ticket": 1e400, "sizes": []}', b""),
    ],
)
def test_a_frame_that_is_none_is_refused(head: bytes, body: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(head, body, wire.TO_HOST)


@pytest.mark.parametrize("field", DONE)
@pytest.mark.parametrize("value", ["1", [1], {}, -1, 1 << 60, 1.5])
def test_each_field_must_be_of_its_type(field: str, value: object) -> None:
    head = json.dumps({**DONE, field: value, "kind": "done", "lengths": [0] * 2}).encode()
    with pytest.raises(WireError, match=field):
        wire.decode(head, b"", wire.TO_HOST)


@pytest.mark.parametrize(("head", "body"), [(0, 0), (1 << 31, 0), (2, (64 << 20) + 1)])
def test_an_announced_size_is_bounded(head: int, body: int) -> None:
    with pytest.raises(WireError, match=str(body)):
        wire.sizes(wire.HEADER.pack(head, body))


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(ValueError, match="too large"):
        wire.encode("failed", {}, bytes(wire.MAX_BLOB_BYTES + 1))
    with pytest.raises(ValueError, match="too large"):
        wire.encode("restored", {}, *[b""] * (wire.MAX_BLOBS + 1))


@pytest.fixture
async def ends() -> AsyncGenerator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with theirs:
        yield channel, theirs
        channel.close()


async def test_a_frame_in_pieces_survives_a_cancelled_receive(
    ends: tuple[Channel, socket.socket],
) -> None:
    channel, theirs = ends
    data = wire.encode("failed", {}, b"why") + wire.encode("ready", {})
    with anyio.fail_after(60):
        for at in range(len(data) - 1):
            theirs.send(data[at : at + 1])
            if at in (3, 20):
                with anyio.move_on_after(0):
                    await channel.receive()
        assert (await channel.receive()).kind == "failed"
        theirs.send(data[-1:])
        assert (await channel.receive()).kind == "ready"


async def test_after_a_violation_nothing_is_read_any_more(
    ends: tuple[Channel, socket.socket],
) -> None:
    channel, theirs = ends
    theirs.send(wire.HEADER.pack(2, 0) + b"[]" + wire.encode("ready", {}))
    with anyio.fail_after(60):
        with pytest.raises(WireError):
            await channel.receive()
        with pytest.raises(EOFError):
            await channel.receive()


async def test_half_a_frame_and_an_end_is_an_end(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.send(wire.encode("failed", {}, b"why")[:-1])
    theirs.shutdown(socket.SHUT_WR)
    with anyio.fail_after(60), pytest.raises(EOFError, match="closed its end"):
        await channel.receive()


async def test_sending_to_somebody_who_reads_no_more_ends(
    ends: tuple[Channel, socket.socket],
) -> None:
    channel, _ = ends
    with anyio.fail_after(60):
        with pytest.raises(EOFError, match="does not read"):
            await channel.send("restore", {}, bytes(8 << 20), patience_seconds=0.05)
        with pytest.raises(EOFError):
            await channel.receive()


async def test_sending_to_somebody_who_is_gone_ends(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.close()
    with anyio.fail_after(60), pytest.raises(EOFError):
        await channel.send("list", {"ticket": 1})
