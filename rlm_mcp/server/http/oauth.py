"""Access tokens that an OAuth 2.1 authorization server issues for this server: JWTs (RFC 9068)."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread
import httpx2
import jwt
from mcp.server.auth.provider import AccessToken, TokenVerifier
from starlette.authentication import AuthenticationError

from rlm_mcp.engine.models.diagnosis import passwords_in
from rlm_mcp.server.http.auth import token_of
from rlm_mcp.text import without_credentials

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA")
MAX_SUBJECT_CHARS = 255
_LEEWAY_SECONDS = 30.0
# Large sets of keys have some ten kilobytes.
_MAX_KEYS_BYTES = 1 << 20
# The answer of a server that is not a key server can have any shape.
_BAD_ANSWERS = (ValueError, TypeError, AttributeError, LookupError, RecursionError, jwt.PyJWTError)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Issuer:
    """Who issues access tokens, and for what.

    Args:
        url: the authorization server, as `iss` names it.
        resource: this server's own URL, as `aud` must name it.
        jwks_url: where its public keys are.
    """

    url: str
    resource: str
    jwks_url: str


@dataclass(frozen=True)
class Pace:
    """How often keys are fetched, in seconds.

    Args:
        renewal: from one fetch to the next.
        cooldown: the same, when a token names an unknown key, which may be new or invented.
        fetch: what one fetch may take in all.
    """

    renewal: float = 600.0
    cooldown: float = 30.0
    fetch: float = 10.0


class SigningKeys:
    """The public keys of an authorization server, fetched in the background.

    Whoever asks for a known key waits for nothing. Those who ask for an unknown one wait together
    for one fetch.
    """

    def __init__(self, url: str, pace: Pace) -> None:
        self._url = url
        self._pace = pace
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._ended_at = 0.0
        self._ended = anyio.Event()  # set while no fetch is at work
        self._wanted = anyio.Event()
        self.is_current = False

    async def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return a key, if there is one; `is_current` says whether the last fetch succeeded."""
        if key_id not in self._keys:
            await self._ask()
        return self._keys.get(key_id)

    async def renew_forever(self) -> None:
        """Fetch the keys at once, then again and again; if that fails, keep the known ones."""
        while True:
            await self._fetch()
            self._ended_at, self._wanted = anyio.current_time(), anyio.Event()
            self._ended.set()
            with anyio.move_on_after(self._pace.renewal):
                await self._wanted.wait()
            self._begin()

    async def _ask(self) -> None:
        """Wait for the fetch at work, or for a new one if the last was long enough ago."""
        if self._ended.is_set():
            if anyio.current_time() - self._ended_at < self._pace.cooldown:
                return
            self._begin()
            self._wanted.set()
        await self._ended.wait()

    def _begin(self) -> None:
        if self._ended.is_set():
            self._ended = anyio.Event()

    async def _fetch(self) -> None:
        self.is_current = False
        try:
            with anyio.fail_after(self._pace.fetch):
                self._keys = await _keys_at(self._url, self._pace.fetch)
            self.is_current = True
        except TimeoutError:
            self._warn(f"it did not answer in {self._pace.fetch:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, *_BAD_ANSWERS) as error:
            self._warn(str(error) or type(error).__name__)

    def _warn(self, reason: str) -> None:
        for secret in passwords_in(self._url):
            reason = reason.replace(secret, "***")
        log.warning("fetching the keys of %s failed: %s", without_credentials(self._url), reason)


async def _keys_at(url: str, timeout_seconds: float) -> dict[str | None, jwt.PyJWK]:
    """Fetch keys, by their id."""
    body = b""
    # Making a client reads files.
    client = await anyio.to_thread.run_sync(partial(httpx2.AsyncClient, timeout=timeout_seconds))
    async with client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > _MAX_KEYS_BYTES:
                raise ValueError(f"the answer has more than {_MAX_KEYS_BYTES:,} bytes")
    found = jwt.PyJWKSet.from_dict(json.loads(body))
    return {key.key_id: key for key in found.keys}


class OAuthBearers(TokenVerifier):
    """Verifies access tokens; the caller's name is their `sub`."""

    def __init__(self, issuer: Issuer, keys: SigningKeys) -> None:
        self._issuer = issuer
        self._keys = keys

    async def verify_token(self, token: str) -> AccessToken | None:
        """Accept a token that the issuer issued for this server.

        Raises:
            AuthenticationError: its key is unknown, and the keys cannot be fetched.
        """
        try:
            key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                self._require_keys()
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._issuer.resource,
                issuer=self._issuer.url,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, OverflowError):  # a time may be an infinite number
            return None
        subject: str = claims["sub"]
        if not 0 < len(subject) <= MAX_SUBJECT_CHARS or not subject.isprintable():
            return None
        # Names that operators give have no colon, so the two kinds cannot collide.
        return token_of(f"oauth:{subject}")

    def _require_keys(self) -> None:
        if not self._keys.is_current:
            raise AuthenticationError(
                "This access token cannot be checked: the keys of the authorization server "
                f"{self._issuer.url!r} could not be fetched."
            )


@asynccontextmanager
async def open_bearers(issuer: Issuer, pace: Pace = Pace()) -> AsyncGenerator[OAuthBearers]:
    """Verify access tokens; the keys are fetched while the block lasts."""
    keys = SigningKeys(issuer.jwks_url, pace)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.renew_forever)
        try:
            yield OAuthBearers(issuer, keys)
        finally:
            tasks.cancel_scope.cancel()
