"""Who asks: bearer tokens, and the names of those who hold them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rlm_mcp.server.http.answers import refusal


class Bearers(Protocol):
    """Those who may call."""

    async def caller(self, token: str) -> str | None:
        """Return the name of the token's holder, or None if it is nobody's."""
        ...


class StaticBearers:
    """Holders of tokens that an operator gave out.

    Args:
        tokens: by name; the holder under the empty name shares what is this machine's own.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._digests = [(name, _digest(token)) for name, token in tokens.items()]

    async def caller(self, token: str) -> str | None:
        """Compare with every token in constant time, so that how long it takes tells nothing."""
        given, found = _digest(token), None
        for name, digest in self._digests:
            if hmac.compare_digest(given, digest):
                found = name
        return found


class BearerCheck:
    """Lets through those who hold a token, and notes who they are.

    `request.state.caller` is the name; the SDK binds its sessions to `scope["user"]`.

    Args:
        bearers: none of them, and everybody is whoever shares the machine.
        is_open: says of a path whether it needs no token.
        metadata_url: where a client learns who gives out access tokens, if anybody does.
    """

    def __init__(
        self,
        app: ASGIApp,
        bearers: Sequence[Bearers],
        *,
        is_open: Callable[[str], bool],
        metadata_url: str | None = None,
    ) -> None:
        self._app = app
        self._bearers = bearers
        self._is_open = is_open
        self._challenge = f'Bearer resource_metadata="{metadata_url}"' if metadata_url else "Bearer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not self._is_open(scope["path"]):
            caller = await self._caller(Headers(scope=scope)) if self._bearers else ""
            if caller is None:
                await _unauthorized(self._challenge)(scope, receive, send)
                return
            _note(scope, caller)
        await self._app(scope, receive, send)

    async def _caller(self, headers: Headers) -> str | None:
        given = headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            return None
        for bearers in self._bearers:
            caller = await bearers.caller(token.strip())
            if caller is not None:
                return caller
        return None


def _note(scope: Scope, caller: str) -> None:
    scope.setdefault("state", {})["caller"] = caller
    # Without the token itself: nothing behind this needs it, and so nothing can tell it.
    known = AccessToken(token="", client_id=caller, scopes=[])
    scope["user"] = AuthenticatedUser(known)


def _unauthorized(challenge: str) -> ASGIApp:
    return refusal(
        401,
        "This needs a bearer token that the server knows.",
        fix="Send the header 'Authorization: Bearer TOKEN', with a token of RLM_MCP_HTTP_TOKEN or "
        "RLM_MCP_HTTP_TOKENS.",
        headers={"www-authenticate": challenge},
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
