"""The parts of the HTTP server that are functions of their arguments, by tables."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from starlette.datastructures import Headers

from rlm_mcp.errors import InvalidInputError, NotFoundError
from rlm_mcp.server.http.auth import StaticBearers
from rlm_mcp.server.http.host_check import KnownHosts, is_loopback
from rlm_mcp.server.http.ranges import Part, asked_part, is_known
from rlm_mcp.service.contexts.tickets import MAX_OPEN_TICKETS, TICKET_SECONDS, Tickets

ETAG = '"tag"'


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("", 0, 100),
        ("bytes=0-0", 0, 1),
        ("bytes=10-", 10, 100),
        ("bytes=10-1000", 10, 100),
        ("bytes=-10", 90, 100),
        ("bytes=-1000", 0, 100),
        ("bytes=-0", 100, 100),
        ("bytes=100-", 100, 100),
        ("bytes=5-4", 0, 100),
        ("bytes=-", 0, 100),
        ("bytes=0-1,5-6", 0, 100),
        ("lines=0-1", 0, 100),
        ("bytes=٣-٤", 0, 100),
        ("bytes=" + "9" * 5000 + "-", 0, 100),
    ],
)
def test_one_range_of_bytes_is_given_and_anything_else_means_the_whole(
    asked: str, start: int, end: int
) -> None:
    headers = Headers(raw=[(b"range", asked.encode())])

    assert asked_part(headers, 100, ETAG) == Part(start, end, 100)


def test_a_range_of_what_has_changed_since_means_the_whole() -> None:
    for tag, end in ((ETAG, 2), ('"other"', 100), ("Tue, 24 Nov 2026 05:36:07 GMT", 100)):
        headers = Headers({"range": "bytes=0-1", "if-range": tag})
        assert asked_part(headers, 100, ETAG).end == end


@pytest.mark.parametrize(
    ("tags", "known"), [("", False), ('"a", W/"tag"', True), ("*", True), ("tag", False)]
)
def test_what_somebody_has_is_told_by_its_tag(tags: str, known: bool) -> None:
    assert is_known(Headers({"if-none-match": tags}), ETAG) is known


@pytest.mark.parametrize(
    ("bound", "host", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "127.0.0.1:port", False),
        ("127.0.0.1", "127.0.0.1:", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "evil.example#localhost", False),
        ("::1", "[::1]", True),
        ("192.168.1.5", "192.168.1.5:80", True),
        ("192.168.1.5", "10.0.0.1", False),
        ("rlm.example", "rlm.example", True),
        ("0.0.0.0", "10.0.0.1", True),
        ("::", "[fe80::1]:8000", True),
        ("0.0.0.0", "[evil]", False),
        ("0.0.0.0", "evil.example", False),
    ],
)
def test_a_server_knows_its_names(bound: str, host: str, allowed: bool) -> None:
    assert KnownHosts.of(bound).allows_host(host) is allowed


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("localhost.evil.example", False),
        ("192.168.1.5", False),
    ],
)
def test_what_others_can_reach_is_no_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


async def test_a_token_is_its_holders_alone() -> None:
    bearers = StaticBearers({"": "single-token", "ann": "token-of-ann"})

    tokens = ("single-token", "token-of-ann", "", "é")
    found = [await bearers.verify_token(token) for token in tokens]

    assert [one and one.client_id for one in found] == ["", "ann", None, None]


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_ticket_is_taken_once_and_in_time() -> None:
    clock = Clock()
    tickets = Tickets(clock=clock)
    first, ticket = tickets.issue("ann", "name", "")
    second, _ = tickets.issue("ann", "name", "")

    assert (ticket.caller, ticket.name, ticket.expires_at) == ("ann", "name", 1000 + TICKET_SECONDS)
    assert tickets.redeem(first) == ticket
    clock.now += TICKET_SECONDS
    for secret in (first, second, "", "\ud800"):
        with pytest.raises(NotFoundError):
            tickets.redeem(secret)


def test_nobody_has_more_open_tickets_than_fit_and_nobody_takes_those_of_others() -> None:
    clock = Clock()
    tickets = Tickets(clock=clock)
    for _ in range(MAX_OPEN_TICKETS):
        tickets.issue("ann", "", "")

    with pytest.raises(InvalidInputError, match="1,000"):
        tickets.issue("ann", "", "")
    tickets.issue("bob", "", "")
    clock.now += TICKET_SECONDS
    tickets.issue("ann", "", "")
