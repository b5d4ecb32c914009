"""The memory that REPLs share: each holds a copy of its text, so that few large ones fit."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from rlm_mcp.errors import SandboxError

SHARE = 0.7  # of the machine's memory
PATIENCE_SECONDS = 30
UNKNOWN_BYTES = 8 << 30


class Room:
    """Counts what REPLs take. One alone always fits; what does not fit waits a while."""

    def __init__(
        self, total_bytes: int | None = None, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._total = int(SHARE * (total_bytes or machine_bytes()))
        self._patience_seconds = patience_seconds
        self._taken = 0
        self._freed = anyio.Event()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncGenerator[None]:
        """Take room for a REPL while the block runs.

        Raises:
            SandboxError: other REPLs hold too much memory, and keep it.
        """
        await self._wait_for(size)
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size
            self._freed.set()
            self._freed = anyio.Event()

    async def _wait_for(self, size: int) -> None:
        # Bounded: an inner run's REPL waits for room that the outer one may hold.
        with anyio.move_on_after(self._patience_seconds):
            while self._taken and self._taken + size > self._total:
                await self._freed.wait()
            return
        raise SandboxError(
            f"there is not enough memory for another REPL of {size / 1e6:,.0f} MB: those at work "
            "use"
            f" {self._taken / 1e6:,.0f} of {self._total / 1e6:,.0f} MB",
            fix="Ask again when other runs have ended, or over smaller contexts.",
        )


def machine_bytes() -> int:
    """Return the machine's memory; a guess where the platform does not say."""
    if sys.platform == "win32":
        return UNKNOWN_BYTES
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return UNKNOWN_BYTES
