"""Values made fit to be sent; needs none of the protocol's library, which takes long to load."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel


def structured(value: BaseModel) -> dict[str, Any]:
    """Give a result as the JSON that clients get."""
    return sendable(value.model_dump(mode="json", exclude_unset=True))


def cut(text: str, limit: int) -> str:
    """Keep the start of a text that is too long, and say how much is left out."""
    if len(text) <= limit:
        return text
    note = f"\n[{len(text) - limit + 60} more characters]"
    return text[: limit - 60] + note


def sendable(value: Any) -> Any:
    """Copy JSON without lone surrogates, which no transport can send: each becomes a `?`."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {sendable(key): sendable(item) for key, item in fields.items()}
    if isinstance(value, list):
        return [sendable(item) for item in cast("list[Any]", value)]
    return value
