"""Bearer tokens: who may call, and under which name.

The SDK reads the header and asks a verifier; the verifiers are ours. So is the refusal: the SDK's
own `RequireAuthMiddleware` has no paths that are open to all, and its body has no `fix`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend
from mcp.server.auth.provider import AccessToken, TokenVerifier
from starlette.authentication import AuthenticationError
from starlette.datastructures import Headers
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rlm_mcp.server.http.answers import refusal


def token_of(caller: str) -> AccessToken:
    """The verified token of a caller, without its text, which nothing needs after the check."""
    return AccessToken(token="", client_id=caller, scopes=[])


class StaticBearers(TokenVerifier):
    """Verifies tokens that an operator gave out.

    Args:
        tokens: by name; the holder under the empty name shares what is this machine's own.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._digests = [(name, _digest(token)) for name, token in tokens.items()]

    async def verify_token(self, token: str) -> AccessToken | None:
        """Compare with every token in constant time, so that the duration reveals nothing."""
        given, found = _digest(token), None
        for name, digest in self._digests:
            if hmac.compare_digest(given, digest):
                found = token_of(name)
        return found


class FirstVerifier(TokenVerifier):
    """Asks several verifiers in turn; the first that knows a token decides."""

    def __init__(self, verifiers: Sequence[TokenVerifier]) -> None:
        self._verifiers = verifiers

    async def verify_token(self, token: str) -> AccessToken | None:
        """Verify a token."""
        for verifier in self._verifiers:
            found = await verifier.verify_token(token.strip())
            if found is not None:
                return found
        return None


class BearerCheck:
    """Lets requests with a valid token pass.

    `request.state.caller` is the holder's name; the SDK binds its sessions to `scope["user"]`.

    Args:
        verifiers: without any, every request is the machine owner's.
        is_open: whether a path needs no token.
        metadata_url: where a client learns which server issues access tokens, if any.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifiers: Sequence[TokenVerifier],
        *,
        is_open: Callable[[str], bool],
        metadata_url: str | None = None,
    ) -> None:
        self._app = app
        self._is_open = is_open
        self._unauthorized = _unauthorized(metadata_url)
        backend = BearerAuthBackend(FirstVerifier(verifiers))
        self._checked = (
            AuthenticationMiddleware(self._admit, backend, _unchecked)
            if verifiers
            else self._as_owner
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._is_open(scope["path"]):
            await self._app(scope, receive, send)
        elif len(Headers(scope=scope).getlist("authorization")) > 1:
            # A proxy in front may have used the other header.
            await self._unauthorized(scope, receive, send)
        else:
            await self._checked(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = scope["user"]
        if isinstance(user, AuthenticatedUser):
            scope.setdefault("state", {})["caller"] = user.access_token.client_id
            await self._app(scope, receive, send)
        else:
            await self._unauthorized(scope, receive, send)

    async def _as_owner(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = AuthenticatedUser(token_of(""))
        await self._admit(scope, receive, send)


def _unauthorized(metadata_url: str | None) -> ASGIApp:
    challenge, also = "Bearer", ""
    if metadata_url:
        challenge = f'Bearer resource_metadata="{metadata_url}"'
        also = f", or an access token of the authorization server that {metadata_url} names"
    return refusal(
        401,
        "This request needs a valid bearer token.",
        fix="Send the header 'Authorization: Bearer TOKEN', with a token of RLM_MCP_HTTP_TOKEN or "
        f"RLM_MCP_HTTP_TOKENS{also}.",
        headers={"www-authenticate": challenge},
    )


def _unchecked(request: HTTPConnection, error: AuthenticationError) -> Response:
    """Answer where a token could not be checked, so that clients do not ask for another one."""
    del request
    return refusal(
        503,
        str(error),
        code="keys_unavailable",
        fix="Try again in a minute; the server's log says what is wrong with the key server.",
        headers={"retry-after": "60"},
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
