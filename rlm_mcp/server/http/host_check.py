"""Checks by which name a request addresses the server, and from which page it comes.

A page of another site can make a browser call this server: under the server's own name, which an
`Origin` header tells, or under a name of the site's that it points at this machine once the page
is loaded (DNS rebinding), which the `Host` header tells.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rlm_mcp.server.http.answers import refusal

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(?::\d{1,5})?")
_WEB = ("http://", "https://")


@dataclass(frozen=True)
class KnownHosts:
    """The host names that requests may use, and the origins that may call.

    Args:
        names: in lower case; one with a port stands for that port, one without for every port.
        origins: such as `https://example.org`; pages of the server itself need not be named.
        any_address: whether every IP address will do. A name can be pointed at this machine by
            somebody else, an address cannot.
    """

    names: frozenset[str]
    origins: frozenset[str] = frozenset()
    any_address: bool = False

    @classmethod
    def of(cls, bound: str, names: Sequence[str] = (), origins: Sequence[str] = ()) -> KnownHosts:
        """Return those of a server that listens on the address or name `bound`."""
        known = [*LOOPBACK_NAMES, *names, f"[{bound}]" if ":" in bound else bound]
        return cls(
            frozenset(name.lower() for name in known),
            frozenset(origin.lower().rstrip("/") for origin in origins),
            any_address=bound in ("", "0.0.0.0", "::"),  # noqa: S104  # asked for, not chosen
        )

    def allows_host(self, host: str) -> bool:
        """Whether this `Host` is allowed."""
        host = host.lower()
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].rstrip(".")
        return bool({host, name} & self.names) or (self.any_address and _is_address(name))

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether this `Origin` is allowed: the server's own, or one that the operator named."""
        origin = origin.lower()
        is_own = origin.startswith(_WEB) and origin.partition("://")[2] == host.lower()
        return is_own or origin in self.origins


class HostCheck:
    """Refuses requests with another `Host`, or from pages of other sites."""

    def __init__(self, app: ASGIApp, known: KnownHosts) -> None:
        self._app = app
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await (self._refusal(Headers(scope=scope)) or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._known.allows_host(host):
            return refusal(
                421,
                f"Host {host[:200]!r} is not allowed.",
                fix="Use the server's own address, or start the server with --allowed-host.",
            )
        if origin is not None and not self._known.allows_origin(origin, host):
            return refusal(
                403,
                f"Origin {origin[:200]!r} is not allowed.",
                fix="Start the server with --allowed-origin to let pages of that site call it.",
            )
        return None


def is_loopback(host: str) -> bool:
    """Whether a server that listens there can be reached from this machine alone."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
