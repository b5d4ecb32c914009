"""A sandbox whose process has no room for more descriptors: it says so, and keeps none."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rlm_mcp.errors import SandboxError, TooManyFilesError
from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import Isolation, ReplOptions
from rlm_mcp.service.saved_variables import no_calls

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed in /proc")

PLAIN = Isolation("process", ("limits",), ())


def texts_in_memory() -> int:
    found: list[str] = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # such as that of the listing itself
            found.append(str(link.readlink()))
    return sum("memfd:context" in name for name in found)


@contextmanager
def room_for(count: int) -> Generator[None]:
    """Leave so many descriptors free while the block lasts."""
    import resource  # noqa: PLC0415  # Windows has none

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    held = [free]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 64, before[1]))
    try:
        with suppress(OSError):  # there is no more room
            while True:
                held.append(os.dup(0))
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("level", ["as it is", "plain"])
async def test_a_repl_that_finds_no_room_for_descriptors_leaves_none_behind(level: str) -> None:
    isolation = PLAIN if level == "plain" else None
    sandbox = ProcessSandbox(min_isolation="process", isolation=isolation)
    async with sandbox:
        await sandbox.isolation()
        before = texts_in_memory()
        for room in range(1, 5):
            with room_for(room), suppress(OSError, SandboxError, TooManyFilesError):
                async with sandbox.open_repl(TextContext((f"text {room}",)), ReplOptions()):
                    pass
            assert texts_in_memory() == before, room
        async with sandbox.open_repl(TextContext(("text",)), ReplOptions()) as repl:
            done = await repl.execute("print(context)", timeout_seconds=60, on_call=no_calls)
        assert done.output == "text\n"
