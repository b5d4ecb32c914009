"""The types at the sandbox's boundary: what goes into a REPL and what comes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rlm_mcp.sandbox.layout import Layout
    from rlm_mcp.values import IsolationLevel


class ContextSource(Protocol):
    """Text that becomes `context` in a REPL; the host streams it and never holds all of it."""

    @property
    def key(self) -> str:
        """Identifies the text: REPLs with equal keys share one copy of it."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """One name per document; becomes `context_names`."""
        ...

    @property
    def byte_lengths(self) -> Sequence[int]:
        """UTF-8 bytes of each document, in order."""
        ...

    @property
    def char_lengths(self) -> Sequence[int]:
        """Code points of each document, in order."""
        ...

    @property
    def is_list(self) -> bool:
        """Whether `context` is a `list[str]`; otherwise it is one document, a `str`."""
        ...

    @property
    def prefix(self) -> str:
        """The first characters of the first document, at most 4,000."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the UTF-8 of all documents, in order, without gaps. Blocking: call in a thread."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A `ContextSource` that two threads can read at the same time."""

    def chunks_between(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield `(offset, chunk)` for each chunk that begins in a range of bytes. Blocking."""
        ...


@runtime_checkable
class LaidOutText(Protocol):
    """A `ContextSource` whose text can be in a file that REPLs map as it is."""

    async def lay_out(self, write: Callable[[int], Awaitable[Layout]]) -> tuple[int, Layout] | None:
        """Return a descriptor of the file, for reading alone, and its layout; the caller closes it.

        None where there is no such file: the text is small, or there is no room. `write` lays the
        text out in a file, given its descriptor.
        """
        ...


# The names that a REPL gives to model code; a test compares them with the child's.
RESERVED_NAMES = frozenset(
    {
        "context",
        "context_names",
        "FINAL",
        "FINAL_VAR",
        "search",
        "lines",
        "budget",
        "SHOW_VARS",
        "cite",
        "llm_query",
        "llm_query_batch",
        "llm_query_batched",
        "rlm_query",
    }
)

# `typed_query` is `llm_query` with a schema, which is the only document.
CallName = Literal["llm_query", "typed_query", "rlm_query", "budget"]


@dataclass(frozen=True)
class ReplCall:
    """One call that model code makes out of the REPL.

    Calls of one `llm_query_batch` share `batch_id` and `batch_size`; a single call has a batch size
    of 1. `documents` is the slice passed to `rlm_query`; `is_list`: it was passed as a list.
    """

    name: CallName
    prompt: str = ""
    model: str | None = None
    documents: tuple[str, ...] = ()
    is_list: bool = False
    batch_id: int = 0
    batch_size: int = 1


@dataclass(frozen=True)
class CallReply:
    """The answer to a `ReplCall`: text, or the reason for its failure."""

    text: str = ""
    error: str | None = None


CallHandler = Callable[[ReplCall], Awaitable[CallReply]]


@dataclass(frozen=True)
class CellError:
    """An exception of model code. `traceback` shows only frames of cells, the error last."""

    type: str
    message: str
    traceback: str
    line: int | None = None


@dataclass(frozen=True)
class Final:
    """An answer given by `FINAL`, `FINAL_VAR` or a `Final` variable.

    `text` is the answer as text, `json` the same as JSON where the value is JSON-like, `type` the
    name of its Python type.
    """

    text: str
    type: str
    json: str | None = None


@dataclass(frozen=True)
class Citation:
    """A passage that model code named as support of its answer, by `cite` or with `FINAL`.

    `document`, `start` and `end` say where the REPL found it; `document` is None where it did not.
    The host checks it against the text before anyone relies on it.
    """

    quote: str
    document: int | None = None
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class CellResult:
    """The result of one executed cell.

    `output` is what was printed, cut in the middle; `output_chars` is its length before the cut.
    `lost_variables`: the REPL was replaced by a fresh one; `error` says why.
    `elapsed_seconds` excludes the time spent waiting for calls.
    """

    output: str
    output_chars: int
    elapsed_seconds: float
    error: CellError | None = None
    final: Final | None = None
    timed_out: bool = False
    lost_variables: bool = False
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True)
class Variable:
    """A variable of model code. `size` is its `len` (characters, items or bytes), else 1."""

    name: str
    type: str
    size: int
    preview: str


@dataclass(frozen=True)
class VariableText:
    """A slice of a variable as text: a `str` unchanged, JSON where JSON-like, else its `repr`.

    Offsets are characters of that text. `total` is its length; of a large value that is not a
    `str`, only a lower bound. `json`: the text is JSON.
    """

    name: str
    type: str
    size: int
    text: str
    start: int
    end: int
    total: int
    json: bool = False


@dataclass(frozen=True)
class ReplOptions:
    """Options of a new REPL.

    Args:
        sub_calls: whether `llm_query` and `llm_query_batch` exist.
        recursion: whether `rlm_query` exists.
        call_window: how many calls of one batch may be in flight at once.
        output_chars: how many characters of a cell's output are kept, half from each end.
        memory_bytes: memory the REPL may use on top of the text itself.
        seed: seed of `random`, so that a replay gives the same numbers.
        search_around: how many lines `search` shows before and after each, unless code says.
    """

    sub_calls: bool = True
    recursion: bool = False
    call_window: int = 64
    output_chars: int = 100_000
    memory_bytes: int = 1 << 30
    seed: int | None = None
    search_around: int = 0


class Repl(Protocol):
    """A live REPL with `context` and the variables of earlier cells."""

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        """Run one cell; its calls go to `on_call`, concurrently, and are cancelled when it ends.

        Raises:
            SandboxDiedError: the REPL is gone and could not be replaced.
        """
        ...

    async def variables(self) -> list[Variable]:
        """List the variables of model code in order of assignment; waits for a running cell."""
        ...

    async def read_variable(
        self, name: str, *, start: int = 0, limit: int = 4000, whole: bool = False
    ) -> VariableText:
        """Read a slice of one variable as text; takes nothing from the REPL, whatever it holds.

        Args:
            name: of the variable.
            start: the first character.
            limit: how many characters at most.
            whole: all of the text if it is at most `limit`, else none of it, which is cheaper.

        Raises:
            NotFoundError: no such variable; the error lists the existing ones.
            SandboxBusyError: its `repr` does not end.
        """
        ...


@dataclass(frozen=True)
class LastingVariable:
    """A variable as it is kept for a later question; nobody but a REPL opens the `payload`.

    `reason` says why there is none. A name may be that of a module, function or class.
    """

    name: str
    payload: bytes = b""
    reason: str = ""


@runtime_checkable
class Lasting(Protocol):
    """A `Repl` whose variables can be kept, and put back in another one."""

    async def keep(self, most_bytes: int, room_bytes: int) -> list[LastingVariable]:
        """Return what variables are kept as: up to so many bytes each, and in all.

        Raises:
            SandboxBusyError: a value does not let itself be kept in time.
        """
        ...

    async def reopen(self, variables: Sequence[LastingVariable]) -> list[str]:
        """Put variables back, in order; return the names of those that could be opened."""
        ...


@dataclass(frozen=True)
class Isolation:
    """How well model code is isolated from the host.

    `level` is `full`, `partial` or `process`; `layers` are in force, `missing` are not, each with
    its reason.
    """

    level: IsolationLevel
    layers: tuple[str, ...]
    missing: tuple[str, ...] = ()


@runtime_checkable
class Pausable(Protocol):
    """A `Repl` that can be stopped while nobody uses it."""

    def pause(self) -> None:
        """Stop its process until a cell runs; looks at variables let it run for as long."""
        ...


class Sandbox(Protocol):
    """Opens REPLs."""

    async def isolation(self) -> Isolation:
        """Return the isolation in force, tested once; SandboxError if it cannot be tested now."""
        ...

    def open_repl(
        self, source: ContextSource, options: ReplOptions
    ) -> AbstractAsyncContextManager[Repl]:
        """Open a REPL over `source`; its process ends with the context manager.

        Raises:
            SandboxError: the process could not be started or filled.
        """
        ...


@runtime_checkable
class Particular(Protocol):
    """What a `Sandbox` is besides where its Python differs from an ordinary one."""

    @property
    def note(self) -> str:
        """What a model must know of the REPL beside its names; empty where that is nothing."""
        ...

    def check(self, source: ContextSource) -> None:
        """Refuse a text that no REPL of this sandbox can hold.

        Raises:
            TooLargeError: it is too large.
        """
        ...


THREAD_LIMIT = "thread limit"  # a layer of `Isolation`


@dataclass(frozen=True)
class Walls:
    """Which walls to use, where the machine supports them.

    `thread_limit`: the kernel limits the threads of each REPL; else the host counts them.
    """

    seccomp: bool = True
    landlock: bool = True
    namespaces: bool = True
    thread_limit: bool = True
