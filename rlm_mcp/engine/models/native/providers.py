"""The providers that are asked in their own words."""

from __future__ import annotations

from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.native import messages_api, responses_api
from rlm_mcp.engine.models.native.wire import NativeWire

_KINDS = {
    "anthropic": (messages_api.MESSAGES, messages_api.load),
    "responses": (responses_api.RESPONSES, responses_api.load),
}


def make_wire(kind: str, provider: Provider, attempt_seconds: float) -> NativeWire:
    """Make what reaches a provider; nothing is loaded before its first request."""
    dialect, load = _KINDS[kind]
    return NativeWire(provider, dialect, load, attempt_seconds)
