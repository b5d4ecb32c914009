"""Sub-calls whose reply must fit a JSON Schema: what is asked, and how the reply is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import anyio
from anyio import to_thread

from rlm_mcp.engine.parsing.guarded_answer import read_answer
from rlm_mcp.engine.parsing.typed_answer import check_schema
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

MAX_SCHEMAS = 16
MAX_REPLY_CHARS = 4_000  # of a reply that is shown again to be corrected
Messages = Sequence[Mapping[str, object]]


class Schemas:
    """The schemas that the calls of a run bring, each read once: those of a batch are the same."""

    def __init__(self) -> None:
        self._read: dict[str, Mapping[str, Any]] = {}
        self._lock = anyio.Lock()

    async def read(self, document: str) -> Mapping[str, Any]:
        """Read a schema, or find it read.

        Raises:
            InvalidInputError: it is no JSON Schema.
        """
        async with self._lock:
            if document not in self._read:
                if len(self._read) >= MAX_SCHEMAS:
                    self._read.clear()
                # In a thread, since it loads the validator.
                self._read[document] = await to_thread.run_sync(read_schema, document)
            return self._read[document]


def read_schema(document: str) -> Mapping[str, Any]:
    """Read the schema that a call brings.

    Raises:
        InvalidInputError: it is no JSON Schema.
    """
    try:
        schema = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise InvalidInputError(f"schema is not an object: {document[:100]!r}")
    try:
        check_schema(cast("Mapping[str, Any]", schema))
    except InvalidInputError as error:
        raise InvalidInputError(error.message.replace("answer_schema", "schema")) from error
    return cast("Mapping[str, Any]", schema)


def typed_messages(prompt: str, schema: str) -> Messages:
    """Ask for JSON that fits the schema."""
    asked = f"{prompt}\n\nReply with JSON alone that fits this schema:\n{schema}"
    return ({"role": "user", "content": asked},)


async def read_typed_reply(reply: str, schema: Mapping[str, Any]) -> Any:  # any JSON
    """Read a reply as JSON that fits the schema.

    Raises:
        InvalidInputError: it does not; the message says where.
    """
    try:
        return await read_answer(Final(reply, "str", None), schema)
    except InvalidInputError as error:
        raise InvalidInputError(f"The reply does not fit the schema: {error.message}") from error


def corrected(messages: Messages, reply: str, problem: str) -> Messages:
    """Show the model its reply and what is wrong with it."""
    return (
        *messages,
        {"role": "assistant", "content": reply[:MAX_REPLY_CHARS]},
        {"role": "user", "content": f"{problem}\nReply with the corrected JSON alone."},
    )
