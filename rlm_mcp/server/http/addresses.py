"""The paths that are served beside `/mcp`, and which of them need no token."""

from __future__ import annotations

CONTEXTS = "/contexts/"
UPLOADS = "/uploads/"
HEALTH = "/healthz"
METRICS = "/metrics"
PAGE = "/"
PAGE_FILES = "/page/"
# Served only where an authorization server is named (RFC 9728).
RESOURCE_METADATA = "/.well-known/oauth-protected-resource"
# Seconds between comments in an event stream: proxies close a stream that stays silent.
PING_SECONDS = 10.0


def is_open(path: str) -> bool:
    """Whether a path needs no token.

    The URLs of uploads hold a secret of their own; the page is the same for everybody.
    """
    return path in (HEALTH, PAGE) or path.startswith((PAGE_FILES, UPLOADS, RESOURCE_METADATA))
