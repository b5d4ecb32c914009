"""Access tokens of an authorization server: taken if they are for this server, else not."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import jwt
import pytest
from anyio.abc import SocketAttribute, SocketStream
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from starlette.authentication import AuthenticationError

from rlm_mcp.errors import ConfigurationError
from rlm_mcp.server.http.oauth import Issuer, OAuthBearers, Pace, open_bearers
from tests.http_serving import ANN, Site, open_site
from tests.serving import turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

ISSUER, RESOURCE = "https://issuer.example", "https://rlm.example/mcp"
METADATA = "/.well-known/oauth-protected-resource/mcp"
KEY, OTHER = generate_private_key(65537, 2048), generate_private_key(65537, 2048)


@dataclass
class KeyServer:
    """A server of keys.

    Attributes:
        names: those of the keys that it has; all of them are the same key.
        body: what it answers instead.
        asked: how often it was asked.
        is_asked: is set as soon as it is asked.
        answers: while it is not set, questions stay open.
    """

    names: tuple[str, ...]
    body: bytes = b""
    url: str = ""
    asked: int = 0
    is_asked: anyio.Event = field(default_factory=anyio.Event)
    answers: anyio.Event = field(default_factory=anyio.Event)

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            is_there = b"GET /keys " in await stream.receive()
            self.asked += 1
            self.is_asked.set()
            await self.answers.wait()
            body = self.body or self._keys()
            status = "200 OK" if is_there else "404 Not Found"
            head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            with suppress(anyio.BrokenResourceError):  # whoever asked waits no more
                await stream.send(head.encode() + body)

    def hang(self) -> None:
        """Answer no more."""
        self.answers, self.is_asked = anyio.Event(), anyio.Event()

    def _keys(self) -> bytes:
        public = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(KEY.public_key()))
        keys = [{**public, "kid": name, "alg": "RS256"} for name in self.names]
        return json.dumps({"keys": keys}).encode()


@asynccontextmanager
async def open_key_server(*names: str) -> AsyncGenerator[KeyServer]:
    """Serve the public half of a key under each name."""
    server = KeyServer(names)
    server.answers.set()
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, server.serve)
        server.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/keys"
        yield server
        tasks.cancel_scope.cancel()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with (
        open_key_server("one") as keys,
        open_site(tmp_path, turns("never"), **named(keys.url)) as site,
    ):
        yield site


def named(url: str) -> dict[str, Any]:
    return {"oauth_issuer": ISSUER, "oauth_resource": RESOURCE, "oauth_jwks_url": url}


async def token(key: RSAPrivateKey = KEY, kid: str = "one", **changes: Any) -> str:
    claims = {"iss": ISSUER, "aud": RESOURCE, "sub": "carla", "exp": time.time() + 600} | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return await anyio.to_thread.run_sync(
        lambda: jwt.encode(claims, key, "RS256", headers={"kid": kid})
    )


async def test_a_token_for_this_server_makes_its_subject_a_user_beside_the_others(
    site: Site,
) -> None:
    async with site.open_client(await token()) as served:
        handle = (await served.call("rlm_context_add", text="hers", name="a"))["handle"]
        read = await served.call("rlm_context_read", handle=handle)
    for other in (ANN, await token(sub="ann")):
        async with site.open_http(other) as client:
            assert (await client.get(f"/contexts/{handle}")).status_code == 404

    assert read["text"] == "hers"


async def test_a_token_that_is_not_for_this_server_or_not_of_its_issuer_is_refused(
    site: Site,
) -> None:
    forged = jwt.encode({"iss": ISSUER, "aud": RESOURCE, "sub": "carla"}, key="", algorithm="none")
    refused = {
        "another audience": await token(aud="https://other.example"),
        "no audience": await token(aud=None),
        "another issuer": await token(iss="https://other.example"),
        "expired": await token(exp=time.time() - 600),
        "no end": await token(exp=None),
        "not yet": await token(nbf=time.time() + 600),
        "no subject": await token(sub=None),
        "a subject that is no name": await token(sub="a\ud800\n"),
        "an empty subject": await token(sub=""),
        "another key": await token(OTHER),
        "an unknown key": await token(kid="two"),
        "no signature": forged,
        "no token": "a.b.c",
    }
    async with site.open_http("") as client:
        found = {
            name: await client.get("/contexts/x", headers={"authorization": f"Bearer {text}"})
            for name, text in refused.items()
        }
        metadata = await client.get(METADATA)

    assert {name: answer.status_code for name, answer in found.items()} == dict.fromkeys(
        refused, 401
    )
    assert ISSUER not in found["expired"].text
    assert METADATA in found["expired"].json()["error"]["fix"]
    challenge = found["expired"].headers["www-authenticate"]
    assert challenge == f'Bearer resource_metadata="https://rlm.example{METADATA}"'
    assert metadata.json()["resource"] == RESOURCE
    assert [one.rstrip("/") for one in metadata.json()["authorization_servers"]] == [ISSUER]


async def test_an_authorization_server_that_is_half_named_is_refused_at_start(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigurationError, match="OAUTH_JWKS_URL"):
        async with open_site(tmp_path, turns("never"), oauth_issuer=ISSUER):
            pass


async def test_keys_are_fetched_with_the_password_of_their_address_which_no_log_shows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    password = "pass-word-0123"
    async with open_key_server("one") as keys:
        with_password = keys.url.replace("http://", f"http://ann:{password}@")
        for address in (with_password, with_password.replace("/keys", "/missing")):
            directory = tmp_path / address.rpartition("/")[2]
            async with (
                open_site(directory, turns("never"), **named(address)) as site,
                site.open_http(await token()) as client,
            ):
                answer = await client.get("/contexts/ctx_0000000000000000")
            assert answer.status_code == (404 if address is with_password else 503)
    assert "fetching the keys of http://127.0.0.1" in caplog.text
    assert password not in caplog.text


async def caller(bearers: OAuthBearers, text: str) -> str:
    """Who sends a token; empty if it is refused."""
    found = await bearers.verify_token(text)
    return found.client_id if found else ""


async def test_while_the_key_server_hangs_known_keys_wait_for_nothing() -> None:
    async with open_key_server("one") as keys:
        issuer, pace = Issuer(ISSUER, RESOURCE, keys.url), Pace(cooldown=0, fetch=600)
        async with open_bearers(issuer, pace) as bearers:
            assert await caller(bearers, await token()) == "oauth:carla"
            keys.hang()
            found: list[str] = []
            known: list[str] = []
            still: list[str] = []

            async def ask(text: str) -> None:
                found.append(await caller(bearers, text))

            new, invented = await token(kid="new"), await token(OTHER, kid="invented")
            with anyio.fail_after(60):
                async with anyio.create_task_group() as asking:
                    for text in [new] * 50 + [invented] * 50:
                        asking.start_soon(ask, text)
                    await keys.is_asked.wait()
                    known += [await caller(bearers, await token()) for _ in range(20)]
                    still += found
                    keys.names = ("one", "new")
                    keys.answers.set()

    assert known == ["oauth:carla"] * 20
    assert still == []
    assert sorted(found) == [""] * 50 + ["oauth:carla"] * 50
    assert keys.asked == 2


async def test_invented_keys_do_not_make_the_server_ask_the_key_server_again_and_again() -> None:
    async with open_key_server("one") as keys:
        issuer = Issuer(ISSUER, RESOURCE, keys.url)
        async with open_bearers(issuer, Pace(cooldown=3600)) as bearers:
            for number in range(100):
                assert await caller(bearers, await token(OTHER, kid=f"invented {number}")) == ""
            assert await caller(bearers, await token()) == "oauth:carla"

    assert keys.asked == 1


async def test_keys_are_renewed_by_themselves_and_those_that_the_issuer_withdrew_are_gone() -> None:
    async with open_key_server("one") as keys:
        issuer, pace = Issuer(ISSUER, RESOURCE, keys.url), Pace(renewal=0.01, cooldown=0)
        async with open_bearers(issuer, pace) as bearers:
            assert await caller(bearers, await token()) == "oauth:carla"
            keys.hang()
            keys.names = ("two",)
            with anyio.fail_after(60):
                await keys.is_asked.wait()
                keys.answers.set()
                assert await caller(bearers, await token(kid="two")) == "oauth:carla"
            assert await caller(bearers, await token()) == ""


async def test_a_fetch_that_never_ends_is_given_up_and_is_not_taken_for_a_wrong_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_key_server("one") as keys:
        keys.hang()
        issuer, pace = Issuer(ISSUER, RESOURCE, keys.url), Pace(cooldown=0, fetch=0.2)
        async with open_bearers(issuer, pace) as bearers:
            for _ in range(2):
                with pytest.raises(AuthenticationError, match=ISSUER):
                    await caller(bearers, await token())

    assert "did not answer in 0.2 s" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b'{"keys": 1}',
        b'{"keys": [1]}',
        b'{"keys": [{"kty": "RSA", "kid": [], "n": 1, "e": 2}]}',
        b'{"keys": ' + b"[" * 100_000,
        b"\xff",
        b"{" + b" " * (2 << 20),
    ],
    ids=["null", "list", "number", "numbers", "key", "nested", "bytes", "large"],
)
async def test_whatever_is_no_set_of_keys_is_a_warning_and_the_known_keys_stay(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_key_server("one") as keys:
        issuer = Issuer(ISSUER, RESOURCE, keys.url)
        async with open_bearers(issuer, Pace(cooldown=0)) as bearers:
            assert await caller(bearers, await token()) == "oauth:carla"
            keys.body = body
            with pytest.raises(AuthenticationError):
                await caller(bearers, await token(kid="two"))
            assert await caller(bearers, await token()) == "oauth:carla"

    assert f"fetching the keys of {keys.url} failed" in caplog.text


async def test_a_key_server_that_hangs_holds_no_other_request_and_the_answer_says_what_to_do(
    tmp_path: Path,
) -> None:
    async with open_key_server() as keys:
        keys.body = b"not here"
        async with open_site(tmp_path, turns("never"), **named(keys.url)) as site:
            async with site.open_http(await token()) as client:
                refused = await client.get("/contexts/ctx_0000000000000000")
            keys.hang()
            async with site.open_http() as client:
                other = await client.get("/contexts/ctx_0000000000000000")

    assert refused.status_code == 503
    error = refused.json()["error"]
    assert (error["code"], error["retryable"]) == ("keys_unavailable", True)
    assert ISSUER in error["message"]
    assert "log" in error["fix"]
    assert other.status_code == 404
