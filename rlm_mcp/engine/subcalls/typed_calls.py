"""Sub-calls whose reply must fit a JSON Schema: what is asked, and how the reply is read. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rlm_mcp.engine.parsing.typed_answer import check_schema, read_typed_answer
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

MAX_REPLY_CHARS = 4_000  # of a reply that is shown again to be corrected
Messages = Sequence[Mapping[str, object]]


def read_schema(documents: Sequence[str]) -> Mapping[str, Any]:
    """Read the schema that a call brings.

    Raises:
        InvalidInputError: it is no JSON Schema.
    """
    try:
        schema = json.loads(documents[0] if documents else "")
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise InvalidInputError(f"schema is not an object: {documents[0][:100]!r}")
    try:
        check_schema(cast("Mapping[str, Any]", schema))
    except InvalidInputError as error:
        raise InvalidInputError(error.message.replace("answer_schema", "schema")) from error
    return cast("Mapping[str, Any]", schema)


def typed_messages(prompt: str, schema: str) -> Messages:
    """Ask for JSON that fits the schema."""
    asked = f"{prompt}\n\nReply with JSON alone that fits this schema:\n{schema}"
    return ({"role": "user", "content": asked},)


def read_typed_reply(reply: str, schema: Mapping[str, Any]) -> Any:  # any JSON
    """Read a reply as JSON that fits the schema.

    Raises:
        InvalidInputError: it does not; the message says where.
    """
    try:
        return read_typed_answer(Final(reply, "str", None), schema)
    except InvalidInputError as error:
        raise InvalidInputError(f"The reply does not fit the schema: {error.message}") from error


def corrected(messages: Messages, reply: str, problem: str) -> Messages:
    """Show the model its reply and what is wrong with it."""
    return (
        *messages,
        {"role": "assistant", "content": reply[:MAX_REPLY_CHARS]},
        {"role": "user", "content": f"{problem}\nReply with the corrected JSON alone."},
    )
