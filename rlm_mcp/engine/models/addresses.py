"""Base addresses in every shape that people paste, and where redirects from them may lead."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urljoin, urlsplit, urlunsplit

from rlm_mcp.errors import ConfigurationError
from rlm_mcp.text import without_credentials

_ENDPOINTS = re.compile(
    r"/(chat/completions|engines/[^/]+/completions|chat|completions?|responses|messages|models|embeddings|api/(chat|generate)"
    r"|models/[^/]+:\w+|[^/]+/invocations)/*$",  # Google's own; Databricks'
    re.IGNORECASE,
)
_VERSION = re.compile(r"/v\d+[a-z0-9]*(/|$)")
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_LOCAL_ENDINGS = (".local", ".internal", ".localhost", ".lan")
_GOOGLE_HOST = "generativelanguage.googleapis.com"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}


def cleaned(address: str) -> str:
    """Return an address without what is around it where it was copied, its scheme in lower case."""
    bare = address.strip().strip("\"'<>`;,").strip()
    scheme, colon, rest = bare.partition(":")
    return f"{scheme.lower()}{colon}{rest}" if scheme.lower() in {"http", "https"} else bare


def base_of(address: str) -> str:
    """Return what endpoints are added to: the address without one, without a slash at its end."""
    try:
        parts = urlsplit(cleaned(address))
    except ValueError:  # no address; whoever sends to it says so
        return cleaned(address)
    path = re.sub("//+", "/", parts.path)
    if not _is_models_of_azure(parts.hostname, path):
        path = _ENDPOINTS.sub("", path)
    path = path.rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def refuse_unusable(base_url: str, api_key: str) -> None:
    """Refuse what no request can be made of.

    Raises:
        ConfigurationError: the address or the key is none.
    """
    if not is_header_text(api_key):
        # Refused here, since an error of the HTTP library would quote the header it cannot send.
        raise ConfigurationError(
            "The API key contains invalid characters.", fix="Copy it again from the provider."
        )
    if not base_url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"The base URL {without_credentials(base_url)!r} is not a web address.",
            fix="Set RLM_MCP_BASE_URL to one that begins with http:// or https://.",
        )
    try:
        _ = urlsplit(base_url).port
    except ValueError:
        raise unusable(base_url) from None  # whose text quotes the address


def unusable(base_url: str) -> ConfigurationError:
    """Say that an address cannot be used, without its password."""
    return ConfigurationError(
        f"The base URL {without_credentials(base_url)!r} cannot be used.",
        fix="Check host and port; in a name and a password write / ? # @ as %2F %3F %23 %40.",
    )


def _is_models_of_azure(host: str | None, path: str) -> bool:
    """Whether a path is where Azure has the models of all makers, and not a list of them."""
    return (host or "").endswith(_AZURE_HOSTS) and path.rstrip("/") == "/models"


def is_header_text(key: str) -> bool:
    """Whether a key can be sent in a header."""
    return all("!" <= character <= "~" for character in key)


def problem_with(address: str) -> str:
    """Say why no request can be sent to an address; empty where one can."""
    address = cleaned(address)
    if not address.startswith(("http://", "https://")):
        return "it must begin with http:// or https://"
    try:
        parts = urlsplit(address)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if is_whole:
        return ""
    return (
        "its host or port cannot be used; in a name and a password write / ? # @ as %2F %3F %23 %40"
    )


def other_bases(base: str) -> tuple[str, ...]:
    """Return where the endpoints may be if they are not at `base`, which lacks a version."""
    parts = urlsplit(base)
    paths: list[str] = []
    if parts.hostname == _GOOGLE_HOST and not parts.path.endswith("/openai"):
        paths = [f"{parts.path or '/v1beta'}/openai"]
    elif is_azure(base):
        paths = ["/openai/v1"] if parts.path in {"", "/openai"} else []
    elif not _VERSION.search(parts.path):
        paths = [f"{parts.path}/v1"]
        if not parts.path:
            paths += ["/api/v1", "/openai/v1"]
        elif parts.path.endswith("/api"):
            paths.append(f"{parts.path.removesuffix('/api')}/v1")
    return tuple(urlunsplit(parts._replace(path=path)) for path in paths)


def is_azure(base: str) -> bool:
    """Whether an address is one of Azure, where the key goes into a header of its own."""
    parts = urlsplit(base)
    return "/openai/deployments/" in f"{parts.path}/" or (parts.hostname or "").endswith(
        _AZURE_HOSTS
    )


def join(base: str, path: str) -> str:
    """Add an endpoint to a base address; a query stays at its end."""
    before, question, query = base.partition("?")
    return f"{before}/{path}{question}{query}"


def place_of(address: str, headers: Mapping[str, str]) -> str:
    """Return the address that a redirect from `address` names; empty if it names none."""
    location = headers.get("location", "")
    return urljoin(address, location) if location else ""


def is_same_host(before: str, after: str) -> bool:
    """Whether a redirect stays on its host: at its port, or from HTTP to HTTPS at their own."""
    try:
        old, new = urlsplit(before), urlsplit(after)
        ports = (old.port or _PORTS.get(old.scheme), new.port or _PORTS.get(new.scheme))
    except ValueError:  # a port that is none
        return False
    if old.hostname != new.hostname or new.username or new.password:
        return False
    if old.scheme == new.scheme:
        return ports[0] == ports[1]
    return (old.scheme, new.scheme, *ports) == ("http", "https", 80, 443)


def host_of(address: str) -> str:
    """Return the host of an address; empty where it has none, or is not a valid URL."""
    with suppress(ValueError):
        return urlsplit(address).hostname or ""
    return ""


def is_local(address: str) -> bool:
    """Whether an address is one of this machine or its network, as far as its name tells."""
    host = host_of(address)
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return "." not in host or host.endswith(_LOCAL_ENDINGS)
