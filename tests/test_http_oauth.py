"""Access tokens of an authorization server: taken if they are for this server, else not."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import jwt
import pytest
from anyio.abc import SocketAttribute, SocketStream
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from rlm_mcp.errors import ConfigurationError
from tests.http_serving import ANN, Site, open_site
from tests.serving import turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

ISSUER, RESOURCE = "https://issuer.example", "https://rlm.example/mcp"
METADATA = "/.well-known/oauth-protected-resource/mcp"
KEY, OTHER = generate_private_key(65537, 2048), generate_private_key(65537, 2048)


@asynccontextmanager
async def open_key_server(*names: str) -> AsyncGenerator[str]:
    """Serve the public half of a key under each name; gives the URL."""
    public = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(KEY.public_key()))
    body = json.dumps({"keys": [{**public, "kid": name, "alg": "RS256"} for name in names]})
    rest = f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}"

    async def serve(stream: SocketStream) -> None:
        async with stream:
            is_there = b"GET /keys " in await stream.receive()
            status = "200 OK" if is_there else "404 Not Found"
            await stream.send(f"HTTP/1.1 {status}\r\n{rest}".encode())

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/keys"
        tasks.cancel_scope.cancel()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    async with open_key_server("one") as url:
        given: dict[str, Any] = {
            "oauth_issuer": ISSUER,
            "oauth_resource": RESOURCE,
            "oauth_jwks_url": url,
        }
        async with open_site(tmp_path, turns("never"), **given) as site:
            yield site


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
    async with open_key_server("one") as url:
        with_password = url.replace("http://", f"http://ann:{password}@")
        for address in (with_password, with_password.replace("/keys", "/missing")):
            given: dict[str, Any] = {
                "oauth_issuer": ISSUER,
                "oauth_resource": RESOURCE,
                "oauth_jwks_url": address,
            }
            directory = tmp_path / address.rpartition("/")[2]
            async with (
                open_site(directory, turns("never"), **given) as site,
                site.open_http(await token()) as client,
            ):
                answer = await client.get("/contexts/ctx_0000000000000000")
            assert answer.status_code == (404 if address is with_password else 401)
    assert "fetching the keys of http://127.0.0.1" in caplog.text
    assert password not in caplog.text
