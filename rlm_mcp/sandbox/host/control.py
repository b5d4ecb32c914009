"""Orders from the host to a process that forks, over a socket that preserves their boundaries."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import anyio

from rlm_mcp.errors import SandboxError

MAX_ANSWER_BYTES = 1 << 16


class Control:
    """Sends orders to a process that forks, and receives its answers, one at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._turn = anyio.Lock()
        self._sending = anyio.Lock()
        self.is_closed = False

    async def request(
        self, order: Mapping[str, Any], descriptors: Sequence[int] = (), *, seconds: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Send an order and wait for its answer; the caller closes the returned descriptors.

        Raises:
            SandboxError: the process is gone, does not answer, or failed.
        """
        async with self._turn:
            try:
                # Shielded: cancelling one task must not break the process for others.
                with anyio.fail_after(seconds, shield=True):
                    await self.send_order(order, descriptors)
                    return await self.receive_answer()
            except OSError as error:  # TimeoutError too
                self.close()  # a late answer must not be taken for that of the next order
                raise SandboxError(f"the fork server does not answer: {error!s}") from error

    async def send_order(self, order: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send an order without waiting for an answer."""
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        async with self._sending:  # anyio lets only one task wait for a socket
            if self.is_closed:
                raise BrokenPipeError("it was closed")
            with _closed_as_gone():
                await anyio.wait_writable(self._sock)
            socket.send_fds(self._sock, [json.dumps(order).encode()], descriptors)

    async def receive_answer(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for an answer.

        Raises:
            OSError: the process is gone.
            SandboxError: the order failed.
        """
        assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
        with _closed_as_gone():
            await anyio.wait_readable(self._sock)
        data, descriptors, _, _ = socket.recv_fds(self._sock, MAX_ANSWER_BYTES, 4)
        if not data:
            raise ConnectionResetError("its process is gone")
        said = json.loads(data)
        if "error" in said:
            for descriptor in descriptors:
                os.close(descriptor)
            raise SandboxError(f"the fork server failed: {said['error']}")
        return said, descriptors

    @property
    def is_gone(self) -> bool:
        """Whether the process is gone."""
        if self.is_closed:
            return True
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close the host's end; the process then ends itself."""
        if not self.is_closed:
            self.is_closed = True
            anyio.notify_closing(self._sock)
            self._sock.close()


@contextlib.contextmanager
def _closed_as_gone() -> Generator[None]:
    """Another task may close the socket while this one waits for it."""
    try:
        yield
    except anyio.ClosedResourceError as error:
        raise ConnectionResetError("the socket was closed") from error


def control_pair() -> tuple[Control, socket.socket]:
    """Return a control and the child's end of its socket."""
    assert sys.platform == "linux"  # noqa: S101  # nothing else has a fork server
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Control(ours), theirs
