"""Redirects of model endpoints: followed on the same host; a prompt goes to no other one."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}


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
