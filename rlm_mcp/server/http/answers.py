"""Answers other than a text: JSON, and errors with the same four fields as those of tools."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rlm_mcp.errors import InvalidInputError, NotFoundError, RLMError, StoreError, TooLargeError
from rlm_mcp.server.results import error_info
from rlm_mcp.server.schemas import ErrorInfo
from rlm_mcp.text import preview

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
    404: "not_found",
    405: "wrong_method",
    408: "too_slow",
    415: "unsupported_encoding",
    421: "wrong_host",
    501: "not_installed",
    503: "stopping",
}
_PATHS = (
    "MCP is at /mcp, the page at /. Texts: PUT /contexts/NAME, GET /contexts/HANDLE. Runs: GET "
    "/runs/RUN/events, GET /runs/RUN/export. Also GET /healthz and GET /metrics."
)


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


async def no_route_answer(request: Request, error: Exception) -> Response:
    """Answer where there is no such route, or none with the method."""
    if not isinstance(error, HTTPException) or error.status_code not in (404, 405):
        raise error
    path = preview(request.url.path)
    message = f"There is no path {path!r}."
    if error.status_code == 405:
        message = f"The path {path!r} takes no {preview(request.method)!r}."
    return refusal(error.status_code, message, fix=_PATHS, headers=error.headers)
