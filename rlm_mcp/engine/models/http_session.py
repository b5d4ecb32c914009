"""How requests leave this machine: connections, certificates, proxies, time limits."""

from __future__ import annotations

import ssl
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rlm_mcp.errors import ConfigurationError
from rlm_mcp.text import without_credentials

if TYPE_CHECKING:
    from aiohttp import ClientSession


CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class HttpOptions:
    """How requests are sent: their headers, and how long to wait for the server, in seconds.

    Args:
        headers: sent with each request, in place of those that a key alone makes.
        connect_seconds: until there is a connection; None: the limit of the attempt alone.
        read_seconds: until the next piece of an answer, in the same way.
    """

    headers: Mapping[str, str] | None = None
    connect_seconds: float | None = CONNECT_SECONDS
    read_seconds: float | None = None


@dataclass(frozen=True)
class HttpRoute:
    """All that a session is made of; `tls` is None where nothing is encrypted."""

    options: HttpOptions
    tls: ssl.SSLContext | None
    proxy: str | None


def find_route(base_url: str, options: HttpOptions) -> HttpRoute:
    """Find out how an address is reached; loads the HTTP library and blocks, so call in a thread.

    Raises:
        ConfigurationError: the proxy on the way is of a kind that cannot be used.
    """
    import aiohttp  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]  # see above

    tls = _make_tls() if base_url.startswith("https:") else None  # which takes its time
    return HttpRoute(options, tls, _find_proxy(base_url))


def open_session(route: HttpRoute) -> ClientSession:
    """Open a session; the caller closes it."""
    import aiohttp  # noqa: PLC0415  # loaded by now

    options = route.options
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=route.tls or True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=options.headers,
        timeout=aiohttp.ClientTimeout(
            total=None, connect=options.connect_seconds, sock_read=options.read_seconds
        ),
        proxy=route.proxy,
    )


def _make_tls() -> ssl.SSLContext:
    """Trust what the system trusts; on Linux OpenSSL knows that."""
    if sys.platform == "linux":
        return ssl.create_default_context()
    import truststore  # noqa: PLC0415  # only there

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _find_proxy(base_url: str) -> str | None:
    """Return the proxy that the environment or the system names for an address.

    By hand, where aiohttp has `trust_env`: that looks again for each request, which takes 1.1 ms
    (a whole request takes 0.2), knows neither ALL_PROXY nor a proxy at https://, and sends what
    ~/.netrc holds.

    Raises:
        ConfigurationError: it is of a kind that cannot be used.
    """
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    if not address.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"The proxy {without_credentials(address)!r} cannot be used.",
            fix="Set HTTPS_PROXY and HTTP_PROXY to a proxy that speaks HTTP, or NO_PROXY.",
        )
    return address
