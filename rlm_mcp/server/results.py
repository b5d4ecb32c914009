"""How results and errors leave the server: typed content with a short text beside it."""

from __future__ import annotations

from typing import Any

from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel, ValidationError

from rlm_mcp.errors import InvalidInputError, RLMError
from rlm_mcp.server.schemas import ErrorInfo

MAX_TEXT_CHARS = 20_000
ERROR_META_KEY = "rlm-mcp/error"
_SHOWN_INPUT_CHARS = 200


def result(value: BaseModel, text: str) -> CallToolResult:
    """Give a model as structured content and `text`, cut if long, for whoever reads text alone."""
    return CallToolResult(
        content=[TextContent(text=cut(text, MAX_TEXT_CHARS))],
        structured_content=value.model_dump(mode="json"),
    )


def error_info(error: RLMError) -> ErrorInfo:
    """The four fields of a typed error."""
    return ErrorInfo(
        code=error.code, message=error.message, retryable=error.retryable, fix=error.fix
    )


def error_result(error: RLMError) -> CallToolResult:
    """Give an error as text for the model and as fields in `_meta`.

    Not as structured content: some clients check that against the schema of a success.
    """
    info = error_info(error)
    return CallToolResult(
        content=[TextContent(text=cut(f"{info.code}: {error}", MAX_TEXT_CHARS))],
        is_error=True,
        _meta={ERROR_META_KEY: info.model_dump()},
    )


def invalid_arguments(tool: str, error: ValidationError) -> InvalidInputError:
    """Say which arguments do not fit, each with its value and what is wanted."""
    problems = [
        f"{'.'.join(str(part) for part in detail['loc'])}={_shown(detail['input'])}: "
        f"{detail['msg'][:1].lower()}{detail['msg'][1:]}"
        for detail in error.errors(include_url=False)
    ]
    return InvalidInputError(
        f"Arguments of {tool} that cannot be used: {'; '.join(problems)}.",
        fix="Call it again with these corrected; nothing was changed.",
    )


def cut(text: str, limit: int) -> str:
    """Keep the start of a text that is too long, and say how much is left out."""
    if len(text) <= limit:
        return text
    note = f"\n[{len(text) - limit + 60} more characters]"
    return text[: limit - 60] + note


def more(cursor: str | None) -> str:
    """A last line that tells how to get the next page; empty where there is none."""
    return f"\n[more: cursor={cursor!r}]" if cursor else ""


def beside(text: str, note: str) -> str:
    """Put a note below a text, which is cut before the note is."""
    return f"{cut(text, MAX_TEXT_CHARS - len(note) - 1)}\n{note}"


def _shown(value: Any) -> str:
    return cut(repr(value), _SHOWN_INPUT_CHARS)
