"""Values made fit to be sent; needs none of the protocol's library, which takes long to load."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel

from rlm_mcp.text import without_surrogates


def structured(value: BaseModel) -> dict[str, Any]:
    """Give a result as the JSON that clients get."""
    return sendable(value.model_dump(mode="json", exclude_unset=True))


def sendable(value: Any) -> Any:
    """Copy JSON without lone surrogates, which no transport can send: each becomes a `?`."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {sendable(key): sendable(item) for key, item in fields.items()}
    if isinstance(value, list):
        return [sendable(item) for item in cast("list[Any]", value)]
    return value
