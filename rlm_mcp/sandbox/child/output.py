"""What a cell prints: both ends are kept, the middle is counted. Runs in the REPL's process."""

from __future__ import annotations

import io
import threading


class Output(io.TextIOBase):
    """A text stream that holds at most `limit` characters, half from each end."""

    def __init__(self, limit: int) -> None:
        self._half = max(limit // 2, 1)
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Drop everything; a cell begins."""
        self.total = 0
        self._head: list[str] = []
        self._head_size = 0
        self._tail: list[str] = []
        self._tail_size = 0

    def writable(self) -> bool:
        """Return True, as `sys.stdout` does."""
        return True

    def write(self, text: str, /) -> int:
        """Add text; keep what fits."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # model code calls this
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            self.total += len(text)
            room = self._half - self._head_size
            if room > 0:
                self._head.append(text[:room])
                self._head_size += min(room, len(text))
            if len(text) > room:
                self._keep_tail(text[max(room, len(text) - self._half) :])
        return len(text)

    def _keep_tail(self, text: str) -> None:
        self._tail.append(text)
        self._tail_size += len(text)
        if self._tail_size > 4 * self._half or len(self._tail) > 10_000:
            self._tail = ["".join(self._tail)[-self._half :]]
            self._tail_size = len(self._tail[0])

    @property
    def buffer(self) -> io.RawIOBase:
        """A byte stream into this one, for code that writes to `sys.stdout.buffer`."""
        return _Bytes(self)

    def text(self) -> str:
        """Return what was kept, with the number of dropped characters in between."""
        with self._lock:
            head, tail = "".join(self._head), "".join(self._tail)[-self._half :]
        cut = self.total - len(head) - len(tail)
        return f"{head}\n… [{cut:,} characters cut] …\n{tail}" if cut > 0 else head + tail


class _Bytes(io.RawIOBase):
    def __init__(self, output: Output) -> None:
        self._output = output

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        raw = bytes(memoryview(data))  # pyright: ignore[reportArgumentType]  # not a buffer: TypeError
        self._output.write(raw.decode("utf-8", "replace"))
        return len(raw)
