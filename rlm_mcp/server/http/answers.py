"""Answers other than a text: JSON, and errors with the same four fields as those of tools."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from rlm_mcp.errors import InvalidInputError, NotFoundError, RLMError, StoreError, TooLargeError
from rlm_mcp.server.results import error_info
from rlm_mcp.server.schemas import ErrorInfo

# The first that matches is used.
_STATUS = (
    (TooLargeError, 413),
    (InvalidInputError, 400),
    (NotFoundError, 404),
    (StoreError, 503),
)
_CODES = {
    401: "unauthorized",
    403: "forbidden",
    408: "too_slow",
    415: "unsupported_encoding",
    421: "wrong_host",
    501: "not_installed",
    503: "stopping",
}


class _ErrorBody(BaseModel):
    error: ErrorInfo


def json_answer(
    value: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with a model as JSON."""
    return Response(value.model_dump_json(), status, headers, media_type="application/json")


def refusal(
    status: int,
    message: str,
    *,
    code: str = "",
    fix: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with one of HTTP's own errors; its `code` is the usual one if not given."""
    code = code or _CODES[status]
    info = ErrorInfo(code=code, message=message, retryable=status == 503, fix=fix)
    return json_answer(_ErrorBody(error=info), status, headers)


async def error_answer(request: Request, error: Exception) -> Response:
    """Answer with an error of this package."""
    del request
    if not isinstance(error, RLMError):
        raise error
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return json_answer(_ErrorBody(error=error_info(error)), status)
