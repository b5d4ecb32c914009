"""Access tokens that an OAuth 2.1 authorization server issues for this server: JWTs (RFC 9068)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import anyio
import httpx2
import jwt
from mcp.server.auth.provider import AccessToken, TokenVerifier

from rlm_mcp.engine.models.diagnosis import passwords_in
from rlm_mcp.server.http.auth import token_of
from rlm_mcp.text import without_credentials

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA")
MAX_SUBJECT_CHARS = 255
KEY_SECONDS = 600.0
# An unknown key may be new or invented, so keys are not fetched more often than this.
COOLDOWN_SECONDS = 30.0
_FETCH_SECONDS = 10.0
_LEEWAY_SECONDS = 30.0

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


class OAuthBearers(TokenVerifier):
    """Verifies access tokens; the caller's name is their `sub`."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._fetching = anyio.Lock()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Accept a token that the issuer issued for this server."""
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            if key is None:
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
        except jwt.PyJWTError:
            return None
        subject: str = claims["sub"]
        if not 0 < len(subject) <= MAX_SUBJECT_CHARS or not subject.isprintable():
            return None
        # Names that operators give have no colon, so the two kinds cannot collide.
        return token_of(f"oauth:{subject}")

    async def _key(self, key_id: str | None) -> jwt.PyJWK | None:
        async with self._fetching:
            age = anyio.current_time() - self._fetched_at
            if age > KEY_SECONDS or (key_id not in self._keys and age > COOLDOWN_SECONDS):
                self._fetched_at = anyio.current_time()
                await self._fetch()
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        """Fetch the keys; if that fails, keep the known ones."""
        try:
            async with httpx2.AsyncClient(timeout=_FETCH_SECONDS) as client:
                answer = await client.get(self._issuer.jwks_url)
                answer.raise_for_status()
            found = jwt.PyJWKSet.from_dict(answer.json())
        except (httpx2.HTTPError, ValueError, jwt.PyJWTError) as error:
            address = self._issuer.jwks_url
            told = str(error)
            for secret in passwords_in(address):
                told = told.replace(secret, "***")
            log.warning("fetching the keys of %s failed: %s", without_credentials(address), told)
        else:
            self._keys = {key.key_id: key for key in found.keys}
