"""How results and errors leave the server: typed content with a short text beside it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent
from mcp_types.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import BaseModel, ValidationError

from rlm_mcp.errors import InvalidInputError, NotFoundError, RLMError
from rlm_mcp.server.schemas import ErrorInfo
from rlm_mcp.server.sendable import sendable, structured
from rlm_mcp.text import cut

MAX_TEXT_CHARS = 20_000
MAX_ERROR_CHARS = 2_000
ERROR_META_KEY = "rlm-mcp/error"
_SHOWN_INPUT_CHARS = 200


def result(value: BaseModel, text: str) -> CallToolResult:
    """Give a model as structured content and `text`, cut if long, for whoever reads text alone."""
    return CallToolResult(
        content=[TextContent(text=sendable(cut(text, MAX_TEXT_CHARS)))],
        structured_content=structured(value),
    )


def error_info(error: RLMError) -> ErrorInfo:
    """The four fields of a typed error; a value that it quotes may be long, and is cut."""
    return ErrorInfo(
        code=error.code,
        message=sendable(cut(error.message, MAX_ERROR_CHARS)),
        retryable=error.retryable,
        fix=sendable(cut(error.fix, MAX_ERROR_CHARS)),
    )


def error_result(error: RLMError) -> CallToolResult:
    """Give an error as text for the model and as fields in `_meta`.

    Not as structured content: some clients check that against the schema of a success.
    """
    info = error_info(error)
    return CallToolResult(
        content=[TextContent(text=f"{info.code}: {info.message} {info.fix}".rstrip())],
        is_error=True,
        _meta={ERROR_META_KEY: info.model_dump()},
    )


def protocol_error(error: RLMError) -> MCPError:
    """Give an error where there is no tool that could tell it, with the fields as its data."""
    info = error_info(error)
    is_callers = isinstance(error, InvalidInputError | NotFoundError)
    code = INVALID_PARAMS if is_callers else INTERNAL_ERROR
    return MCPError(code, f"{info.message} {info.fix}".rstrip(), info.model_dump())


@contextmanager
def protocol_errors() -> Generator[None]:
    """Give our errors as the protocol's.

    Raises:
        MCPError: in place of any `RLMError`.
    """
    try:
        yield
    except RLMError as error:
        raise protocol_error(error) from error


def invalid_arguments(tool: str, error: ValidationError) -> InvalidInputError:
    """Say which arguments do not fit, each with its value and what is wanted."""
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'])}={_shown(problem['input'])}: "
        f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
        for problem in error.errors(include_url=False)
    ]
    return InvalidInputError(
        f"Arguments of {tool} that cannot be used: {'; '.join(problems)}.",
        fix="Call it again with these corrected; nothing was changed.",
    )


def more(cursor: str | None) -> str:
    """A last line that tells how to get the next page; empty where there is none."""
    return f"\n[more: cursor={cursor!r}]" if cursor else ""


def beside(text: str, note: str) -> str:
    """Put a note below a text, which is cut before the note is."""
    return f"{cut(text, MAX_TEXT_CHARS - len(note) - 1)}\n{note}"


def beside_all(text: str, note: str) -> str:
    """Put a note, if there is one, below a text that is bounded already."""
    return sendable(f"{text}\n{note}" if note else text)


def _shown(value: Any) -> str:
    return cut(repr(value), _SHOWN_INPUT_CHARS)
