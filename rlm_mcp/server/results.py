"""How results and errors leave the server: typed content with a short text beside it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ResourceLink, TextContent
from mcp_types.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import BaseModel, ValidationError

from rlm_mcp.errors import InvalidInputError, NotFoundError, RLMError, with_fix
from rlm_mcp.server.sendable import sendable, structured
from rlm_mcp.text import cut

if TYPE_CHECKING:
    from rlm_mcp.server.schemas import ErrorInfo

MAX_TEXT_CHARS = 20_000
MAX_ERROR_CHARS = 2_000
JSON = "application/json"
TEXT = "text/plain"
TEXTS = "rlm://contexts/"
ERROR_META_KEY = "rlm-mcp/error"
_SHOWN_INPUT_CHARS = 200
_MAX_TITLE_CHARS = 100


def result(value: BaseModel, text: str, *links: ResourceLink) -> CallToolResult:
    """Return a model as structured content, beside `text` (cut if long) for hosts that read text.

    Args:
        links: where a host can read more.
    """
    return CallToolResult(
        content=[TextContent(text=sendable(cut(text, MAX_TEXT_CHARS))), *links],
        structured_content=structured(value),
    )


def text_uri(handle: str) -> str:
    """The URI of a stored text."""
    return f"{TEXTS}{handle}"


def run_uri(run_id: str) -> str:
    """The URI of a run."""
    return f"rlm://runs/{run_id}"


def one_line(text: str) -> str:
    """A name or question as a title: one line, not too long."""
    return cut(" ".join(text.split()), _MAX_TITLE_CHARS)


def text_link(handle: str, name: str) -> ResourceLink:
    """A link to a stored text."""
    return ResourceLink(uri=text_uri(handle), name=handle, title=one_line(name), mime_type=TEXT)


def run_link(run_id: str, question: str) -> ResourceLink:
    """A link to a run."""
    return ResourceLink(
        uri=run_uri(run_id), name=run_id, title=one_line(question) or None, mime_type=JSON
    )


def with_notes(value: Any, notes: Sequence[str]) -> Any:
    """Add what the caller should know about its arguments, to the text and to the structure."""
    if not notes or not isinstance(value, CallToolResult):
        return value
    note = " ".join(notes)
    value.content.append(TextContent(text=f"[{note}]"))
    if value.structured_content is not None:
        told = value.structured_content.get("note")
        value.structured_content["note"] = f"{told} {note}" if told else note
    return value


def error_info(error: RLMError) -> ErrorInfo:
    """The four fields of a typed error; a long value that it quotes is cut."""
    from rlm_mcp.server.schemas import ErrorInfo  # noqa: PLC0415  # not before the first answer

    return ErrorInfo(
        code=error.code,
        message=sendable(cut(error.message, MAX_ERROR_CHARS)),
        retryable=error.retryable,
        fix=sendable(cut(error.fix, MAX_ERROR_CHARS)),
    )


def error_result(error: RLMError) -> CallToolResult:
    """Return an error as text for the model and as fields in `_meta`.

    Not as structured content: some clients check that against the schema of a success.
    """
    info = error_info(error)
    return CallToolResult(
        content=[TextContent(text=f"{info.code}: {with_fix(info.message, info.fix)}")],
        is_error=True,
        _meta={ERROR_META_KEY: info.model_dump()},
    )


def protocol_error(error: RLMError) -> MCPError:
    """Return the error of a request that is not a tool call, with the fields as its data."""
    info = error_info(error)
    is_callers = isinstance(error, InvalidInputError | NotFoundError)
    code = INVALID_PARAMS if is_callers else INTERNAL_ERROR
    return MCPError(code, with_fix(info.message, info.fix), info.model_dump())


@contextmanager
def protocol_errors() -> Generator[None]:
    """Turn our errors into the protocol's.

    Raises:
        MCPError: in place of any `RLMError`.
    """
    try:
        yield
    except RLMError as error:
        raise protocol_error(error) from error


def invalid_parameters(method: str, error: ValidationError) -> MCPError:
    """Name the parameters of a request that are not valid, as for arguments."""
    told = f"Invalid parameters of {method}: {_problems(error)}."
    return MCPError(INVALID_PARAMS, sendable(cut(told, MAX_ERROR_CHARS)))


def invalid_arguments(tool: str, error: ValidationError) -> InvalidInputError:
    """Name the arguments that are not valid, each with its value and what is expected."""
    return InvalidInputError(
        f"Invalid arguments of {tool}: {_problems(error)}.",
        fix="Correct these and call it again; nothing was changed.",
    )


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}={_shown(problem['input'])}: "
        f"{_told(problem)}"
        for problem in error.errors(include_url=False)
    )


def _told(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "extra_forbidden":  # a budget alone refuses what it does not know
        from rlm_mcp.server.schemas import BudgetArguments  # noqa: PLC0415  # as above

        return f"there is no such limit; there are {', '.join(BudgetArguments.model_fields)}"
    return f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"


def more(cursor: str | None) -> str:
    """A last line that says how to get the next page; empty on the last page."""
    return f"\n[more: cursor={cursor!r}]" if cursor else ""


def beside(text: str, note: str) -> str:
    """Put a note below a text; only the text is cut."""
    return f"{cut(text, MAX_TEXT_CHARS - len(note) - 1)}\n{note}"


def beside_all(text: str, note: str) -> str:
    """Put a note, if there is one, below a text that is bounded already."""
    return sendable(f"{text}\n{note}" if note else text)


def _shown(value: Any) -> str:
    return cut(repr(value), _SHOWN_INPUT_CHARS)
