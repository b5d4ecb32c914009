"""Has documents converted in a process of its own, which is limited, watched and replaced."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, BinaryIO

from rlm_mcp.errors import StoreError
from rlm_mcp.service.documents.frames import (
    BEGUN,
    DATA,
    DONE,
    ENDED,
    PIECE_BYTES,
    REQUEST,
    SMALL,
    FrameError,
    FrameReader,
    Small,
    small_of,
    write_json,
)

DOCUMENT_SECONDS = 120.0
_POLL_SECONDS = 0.2
_READS_AHEAD = 4  # of about a megabyte at most: what the server holds of what is converted
MAX_DOCUMENT_BYTES = 512 << 20


@dataclass(frozen=True)
class Begun:
    """A document begins; `is_raw` says that its bytes are a text file's, in any charset."""

    name: str
    is_raw: bool


@dataclass(frozen=True)
class Ended:
    """The document is whole. `pages` tells where each begins, `notes` what was left out of it."""

    pages: tuple[tuple[int, str], ...]
    notes: tuple[str, ...]


# A document that begins, its bytes and its end; or one that is short, or was left out.
Said = Begun | bytes | Ended | Small


class Converter:
    """Converts documents one after another. Blocking; for one thread at a time.

    The process starts with the first document, and again after one that killed it.

    Args:
        check: is called while a parser works, and may raise to stop it.
        seconds: how long one file may take.
    """

    def __init__(self, check: Callable[[], None], seconds: float = DOCUMENT_SECONDS) -> None:
        self._check = check
        self._seconds = seconds
        self._process: _Process | None = None

    def convert(self, name: str, kind: str, size: int, pieces: Iterator[bytes]) -> Iterator[Said]:
        """Yield the documents that a file holds.

        Args:
            name: the file's name.
            kind: as `kinds.kind_of` tells it.
            size: how many bytes `pieces` are together.
            pieces: the file's bytes.
        """
        if size > MAX_DOCUMENT_BYTES:
            yield Small("", reason=f"larger than {MAX_DOCUMENT_BYTES:,} bytes")
            return
        process = self._process = self._process or _Process()
        until = time.monotonic() + self._seconds
        try:
            process.send({"name": name, "kind": kind, "size": size}, pieces)
            yield from self._answers(process, until)
        except (FrameError, BrokenPipeError) as error:
            self.close()
            yield Small("", reason=f"its parser ended ({process.how_it_ended()}): {error}")
        except TimeoutError:
            self.close()
            yield Small("", reason=f"not converted within {self._seconds:g} s")
        except BaseException:  # such as a cancel: what the process still says is of no use
            self.close()
            raise

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _answers(self, process: _Process, until: float) -> Iterator[Said]:
        pages: list[tuple[int, str]] = []
        while True:
            kind, body = self._next(process, until)
            if kind == SMALL:
                yield from small_of(body)
                continue
            if kind == DATA:
                yield body
                continue
            said: dict[str, Any] = json.loads(body) if body else {}
            if kind == DONE:
                return
            if kind == BEGUN:
                yield Begun(said["name"], said["is_raw"])
            elif kind == ENDED:
                pages += [(start, label) for start, label in said["pages"]]
                if said["is_last"]:
                    yield Ended(tuple(pages), tuple(said["notes"]))
                    pages = []

    def _next(self, process: _Process, until: float) -> tuple[bytes, bytes]:
        while True:
            self._check()
            if time.monotonic() > until:
                raise TimeoutError
            with contextlib.suppress(Empty):
                return process.next_frame(_POLL_SECONDS)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # our own interpreter and our own code
        [sys.executable, "-I", "-B", "-m", "rlm_mcp.service.documents.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        start_new_session=True,
    )


class _Process:
    """The child, and a thread that starts it and reads what it says.

    On Linux the child ends with the thread that started it. One of a pool ends when it had nothing
    to do for a while, though the child is at work and others of the pool read what it made.
    """

    def __init__(self) -> None:
        # Frames go from thread to thread by as many as arrived together: of an archive with many
        # small files each would take a turn of both, and other threads would wait for these.
        self._arrived: Queue[list[tuple[bytes, bytes]] | FrameError] = Queue(_READS_AHEAD)
        self._frames = deque[tuple[bytes, bytes]]()
        self._is_over = Event()
        started: Queue[subprocess.Popen[bytes] | OSError] = Queue()
        Thread(target=self._start_and_read, args=(started,), daemon=True).start()
        popen = started.get()
        if isinstance(popen, OSError):
            raise StoreError(
                f"No process to convert documents can be started: {popen.strerror}.",
                fix="End other programs, then try again.",
            ) from popen
        self._popen = popen

    def send(self, header: dict[str, Any], pieces: Iterator[bytes]) -> None:
        """Send a document: exactly as many bytes as the header says.

        Raises:
            BrokenPipeError: the process has ended.
        """
        stream, left = self._stream(self._popen.stdin), header["size"]
        write_json(stream, REQUEST, header)
        for piece in pieces:
            stream.write(piece[:left])
            left -= len(piece[:left])
        while left:  # the file has shrunk meanwhile
            stream.write(bytes(min(left, PIECE_BYTES)))
            left -= min(left, PIECE_BYTES)
        stream.flush()

    def next_frame(self, seconds: float) -> tuple[bytes, bytes]:
        """Wait for the next frame.

        Raises:
            Empty: none came in this time.
            FrameError: the process has ended.
        """
        if not self._frames:
            arrived = self._arrived.get(timeout=seconds)
            if isinstance(arrived, FrameError):
                raise arrived
            self._frames.extend(arrived)
        return self._frames.popleft()

    def how_it_ended(self) -> str:
        """Say how the process ended, in a few words."""
        code = self._popen.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End the process."""
        self._is_over.set()
        self._popen.kill()
        self._popen.wait()
        with contextlib.suppress(OSError):
            self._stream(self._popen.stdin).close()

    def _start_and_read(self, started: Queue[subprocess.Popen[bytes] | OSError]) -> None:
        try:
            popen = _start()
        except OSError as error:
            started.put(error)
            return
        started.put(popen)
        self._read(self._stream(popen.stdout))

    def _read(self, stream: BinaryIO) -> None:
        reader, is_at_end = FrameReader(), False
        while not (self._is_over.is_set() or is_at_end):
            try:
                frames = reader.feed(os.read(stream.fileno(), PIECE_BYTES))
            except (FrameError, OSError, ValueError) as error:
                frames, is_at_end = FrameError(str(error)), True
            if frames:
                self._put(frames)
        stream.close()

    def _put(self, frames: list[tuple[bytes, bytes]] | FrameError) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(Full):
                self._arrived.put(frames, timeout=_POLL_SECONDS)
                return

    @staticmethod
    def _stream(stream: Any) -> BinaryIO:
        return stream
