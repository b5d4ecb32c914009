"""The shapes that cross the sandbox's edge: what goes into a REPL and what comes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


class ContextSource(Protocol):
    """Text that becomes `context` in a REPL; it is streamed, never held whole by the host."""

    @property
    def key(self) -> str:
        """Equal keys mean equal text, so that REPLs may share one copy of it."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """One name a document; becomes `context_names`."""
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
        """Whether `context` is a `list[str]`; otherwise there is one document, a `str`."""
        ...

    @property
    def prefix(self) -> str:
        """The first characters of the first document, at most 4,000."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the UTF-8 of all documents, in order, without gaps; blocks, so call in a thread."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """What a `ContextSource` is besides where two threads may well read it side by side."""

    def chunks_between(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield the chunks that begin in a range of bytes, each after its place; blocks."""
        ...


CallName = Literal["llm_query", "rlm_query", "budget"]


@dataclass(frozen=True)
class ReplCall:
    """One call out of the REPL, made by model code.

    `batch_id` and `batch_size` tie together the calls of one `llm_query_batch`; a call of its own
    has a batch size of 1. `documents` is the slice given to `rlm_query`, `is_list` its kind.
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
    """The answer to a `ReplCall`: text, or the reason why there is none."""

    text: str = ""
    error: str | None = None


CallHandler = Callable[[ReplCall], Awaitable[CallReply]]


@dataclass(frozen=True)
class CellError:
    """What model code raised. `traceback` shows frames of cells alone, the error last."""

    type: str
    message: str
    traceback: str
    line: int | None = None


@dataclass(frozen=True)
class Final:
    """A value handed over by `FINAL`, `FINAL_VAR` or a `Final` variable.

    `text` is the value as an answer, `json` the value as JSON where it is JSON-like, `type` the
    name of its Python type.
    """

    text: str
    type: str
    json: str | None = None


@dataclass(frozen=True)
class CellResult:
    """What one executed cell left behind.

    `output` keeps head and tail of what was printed, `output_chars` is its length before the cut.
    `lost_variables` says that the REPL had to be replaced by a fresh one, and `error` says why.
    `elapsed_seconds` leaves out the time spent waiting for calls.
    """

    output: str
    output_chars: int
    elapsed_seconds: float
    error: CellError | None = None
    final: Final | None = None
    timed_out: bool = False
    lost_variables: bool = False


@dataclass(frozen=True)
class Variable:
    """One name that model code assigned. `size` is in characters, items or bytes, as `len` says."""

    name: str
    type: str
    size: int
    preview: str


@dataclass(frozen=True)
class VariableText:
    """A slice of a variable as text: a `str` as it is, JSON where JSON-like, else its `repr`.

    Offsets are characters of that text; `total` is its length. `json` says that it is JSON.
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
    """How a REPL is made.

    Args:
        sub_calls: whether `llm_query` and `llm_query_batch` exist.
        recursion: whether `rlm_query` exists.
        call_window: calls of one batch that are on their way at once.
        output_chars: characters of output kept of one cell, head and tail.
        memory_bytes: memory allowance over the text itself.
        seed: seeds `random`, so that a replay does the same.
    """

    sub_calls: bool = True
    recursion: bool = False
    call_window: int = 64
    output_chars: int = 100_000
    memory_bytes: int = 1 << 30
    seed: int | None = None


class Repl(Protocol):
    """A live REPL that holds `context` and what earlier cells assigned."""

    async def execute(
        self, code: str, *, timeout_seconds: float, on_call: CallHandler
    ) -> CellResult:
        """Run one cell; calls it makes go to `on_call`, concurrently, and end with the cell.

        Raises:
            SandboxDiedError: the REPL is gone and no fresh one could be had.
        """
        ...

    async def variables(self) -> list[Variable]:
        """List what model code assigned, in order; waits for a cell that runs."""
        ...

    async def read_variable(self, name: str, *, start: int = 0, limit: int = 4000) -> VariableText:
        """Read a slice of one variable as text.

        Raises:
            NotFoundError: there is no such variable; the error names those that exist.
        """
        ...


@dataclass(frozen=True)
class Isolation:
    """What stands between model code and the host.

    `level` is `full`, `partial` or `process`; `layers` are those that hold, `missing` those that
    this machine lacks, each with its reason.
    """

    level: Literal["full", "partial", "process"]
    layers: tuple[str, ...]
    missing: tuple[str, ...] = ()


class Sandbox(Protocol):
    """Where REPLs come from."""

    async def isolation(self) -> Isolation:
        """Say what the walls hold, found by trying and kept."""
        ...

    def open_repl(
        self, source: ContextSource, options: ReplOptions
    ) -> AbstractAsyncContextManager[Repl]:
        """Open a REPL over `source`; leaving the context manager ends its process.

        Raises:
            SandboxError: the process could not be started or filled.
        """
        ...


@dataclass(frozen=True)
class Walls:
    """Which walls to put up, where the machine has them."""

    seccomp: bool = True
    landlock: bool = True
    namespaces: bool = True
