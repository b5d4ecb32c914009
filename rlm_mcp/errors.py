"""Everything this package raises on purpose.

RLMError
├── InvalidInputError         an argument that cannot be used; nothing was changed
│   ├── PathNotAllowedError   a path outside the allowed ones
│   ├── TooLargeError         more than the server takes at once
│   └── NotTextError          a file that holds no text
├── NotFoundError             an unknown handle, run, variable or document
├── ConfigurationError        a setting that is missing or wrong
├── ModelError                the model endpoint
│   ├── ModelConnectionError      refused, reset or timed out
│   ├── ModelAuthenticationError  the key was rejected
│   ├── ModelRateLimitError       told to wait, longer than we were ready to
│   ├── ModelRequestError         the request was rejected for good
│   │   └── ContextLengthError    the prompt does not fit the model's window
│   └── ModelReplyError           an answer that is not a chat completion
├── TooManyFilesError         no more files and sockets may be open
├── BudgetExceededError       a budget of the run is used up
├── SandboxError              the REPL's machinery, never the code in it
│   ├── SandboxDiedError          the process that held the REPL is gone
│   ├── SandboxBusyError          a cell runs that must end first
│   ├── WireError                 the child broke the protocol
│   └── IsolationError            the isolation asked for is not available here
└── StoreError                the database could not do what was asked
    ├── StoreBusyError            another process writes to it and does not end
    ├── RunLostError              the run has ended, or is another process's by now
    └── StoreFullError            the disk has no room for it
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar, cast


def with_fix(message: str, fix: str) -> str:
    """Join both parts of an error; a message in a provider's words may lack its full stop."""
    ends = not message or not fix or message[-1] in ".!?:…"
    return f"{message}{'' if ends else '.'} {fix}".strip()


class RLMError(Exception):
    """The root of the tree.

    Args:
        message: what went wrong, with the offending value by `repr`.
        fix: the next step for whoever reads it; empty when `message` names it.
    """

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return with_fix(self.message, self.fix)

    @property
    def fields(self) -> dict[str, Any]:
        """The error as it is stored and sent: `{code, message, retryable, fix}`."""
        names = ("code", "message", "retryable", "fix")
        return {name: getattr(self, name) for name in names}


class InvalidInputError(RLMError, ValueError):
    """An argument cannot be used; nothing was changed."""

    code = "invalid_input"


class PathNotAllowedError(InvalidInputError):
    """A path lies outside the allowed ones, after symlinks are resolved."""

    code = "path_not_allowed"


class TooLargeError(InvalidInputError):
    """There is more of it than the server takes."""

    code = "too_large"


class NotTextError(InvalidInputError):
    """A file holds no text: it is empty, binary, or in no known encoding."""

    code = "not_text"


class NotFoundError(RLMError, LookupError):
    """No such handle, run, variable or document."""

    code = "not_found"


class ConfigurationError(RLMError):
    """A setting is missing or wrong."""

    code = "configuration"


class ModelError(RLMError):
    """The model endpoint did not give an answer."""

    code = "model_error"


class ModelConnectionError(ModelError):
    """The endpoint refused, reset or did not answer in time."""

    code = "model_unreachable"
    retryable = True


class ModelAuthenticationError(ModelError):
    """The endpoint rejected the key."""

    code = "model_authentication"


class ModelRateLimitError(ModelError):
    """The endpoint asked to wait for longer than retries allow."""

    code = "model_rate_limit"
    retryable = True


class ModelRequestError(ModelError):
    """The endpoint rejected the request itself.

    `may_be_too_long` says that it gave no reason that is known, so that a shorter one may pass.
    """

    code = "model_request"
    may_be_too_long = False


class ContextLengthError(ModelRequestError):
    """The prompt does not fit the model's window."""

    code = "model_context_length"


class ModelReplyError(ModelError):
    """The endpoint answered with something that is not a chat completion."""

    code = "model_reply"
    retryable = True


class TooManyFilesError(RLMError):
    """No more files and sockets may be open; nothing was changed."""

    code = "too_many_open_files"
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "The server has as many files and sockets open as it may.",
            fix="Try again in a moment; its operator can raise the limit (`ulimit -n`).",
        )


def lacks_descriptors(error: BaseException | None) -> bool:
    """Whether an error comes from the limit of open files, in whatever it was wrapped."""
    return any(_number(one) in (errno.EMFILE, errno.ENFILE) for one in _causes(error))


def may_pass(error: BaseException | None) -> bool:
    """Whether an error comes from what a machine lacks for a moment: time, memory, descriptors."""
    return lacks_descriptors(error) or any(
        isinstance(one, (TimeoutError, MemoryError)) or _number(one) in (errno.ENOMEM, errno.EAGAIN)
        for one in _causes(error)
    )


def _number(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and all that it was made of, each once."""
    pending, seen = [error], set[int]()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner: tuple[BaseException, ...] = getattr(one, "exceptions", ())
        pending += [one.__cause__, one.__context__, getattr(one, "os_error", None), *inner]


class BudgetExceededError(RLMError):
    """A budget of the run is used up; `limit` names which."""

    code = "budget_exceeded"

    def __init__(self, message: str, *, limit: str, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.limit = limit


class SandboxError(RLMError):
    """The REPL's machinery failed; the code in it is not to blame."""

    code = "sandbox_error"
    retryable = True


class SandboxDiedError(SandboxError):
    """The process that held the REPL is gone, and its variables with it."""

    code = "sandbox_died"


class SandboxBusyError(SandboxError):
    """A cell runs in the REPL; what was asked for is possible when it ends."""

    code = "sandbox_busy"


class WireError(SandboxError):
    """The child sent a frame that the protocol does not allow; it was killed."""

    code = "sandbox_protocol"


class IsolationError(SandboxError):
    """The isolation asked for is not available on this machine."""

    code = "isolation_missing"
    retryable = False


class StoreError(RLMError):
    """The database could not do what was asked; nothing was lost."""

    code = "store_error"


class StoreBusyError(StoreError):
    """Another process's work keeps the database; nothing was changed."""

    code = "store_busy"
    retryable = True


class RunLostError(StoreError):
    """A run has ended, or another process works on it; nothing was written to it."""


class StoreFullError(StoreError):
    """The disk has no room for what was to be written; nothing was lost."""

    code = "store_full"


ErrorT = TypeVar("ErrorT", bound=BaseException)


def first_of(group: BaseExceptionGroup[ErrorT]) -> ErrorT:
    """Return the first error in a group, without the wrapping, however deep it lies."""
    first = group.exceptions[0]
    if isinstance(first, BaseExceptionGroup):
        return first_of(cast("BaseExceptionGroup[ErrorT]", first))
    return first
