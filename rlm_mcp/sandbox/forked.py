"""A REPL forked from the process that holds its text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.channel import Channel
from rlm_mcp.sandbox.child_repl import Seat
from rlm_mcp.sandbox.plain import ready
from rlm_mcp.sandbox.process import socket_pair
from rlm_mcp.sandbox.types import ContextSource, ReplOptions
from rlm_mcp.sandbox.warm import Holder, Warm

RETRIES = 2


class ForkLauncher:
    """Forks a REPL, and again when it is lost; goes to a fresh holder when that is gone."""

    def __init__(
        self, warm: Callable[[], Awaitable[Warm]], source: ContextSource, options: ReplOptions
    ) -> None:
        self._warm = warm
        self._source = source
        self._options = options
        self._held: tuple[Warm, Holder] | None = None

    async def launch(self) -> Seat:
        """Fork a REPL.

        Raises:
            SandboxError: it cannot be had, from a fresh holder either.
        """
        for _ in range(RETRIES):
            try:
                return await self._fork()
            except SandboxError:  # the holder died since it was used, or the warm process did
                await self.release()
        return await self._fork()

    async def release(self) -> None:
        """Let the holder go."""
        held, self._held = self._held, None
        if held is not None:
            warm, holder = held
            await warm.give_back(holder)

    async def _fork(self) -> Seat:
        if self._held is None:
            warm = await self._warm()
            self._held = (warm, await warm.take(self._source))
        ours, theirs = socket_pair()
        channel = Channel(ours)
        try:
            process = await self._held[1].spawn(theirs.fileno(), self._options)
        except BaseException:
            channel.close()
            raise
        finally:
            theirs.close()
        return await ready(Seat(channel, process))
