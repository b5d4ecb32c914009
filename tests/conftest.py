"""What every test stands on."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import AsyncGenerator, Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from tests.serving import SHARED_SANDBOX
from tests.walls import a_sandbox


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def one_sandbox_for_all() -> AsyncGenerator[None]:
    """Let the served instances of a module's async tests share a sandbox."""
    async with a_sandbox(min_isolation="process") as sandbox:
        token = SHARED_SANDBOX.set(sandbox)
        yield
        SHARED_SANDBOX.reset(token)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let the other tests of such a module be run by themselves: they take no async fixture."""
    if isinstance(item, pytest.Function) and not inspect.iscoroutinefunction(item.obj):
        names = item.fixturenames
        names[:] = [name for name in names if name != "one_sandbox_for_all"]


@pytest.fixture(autouse=True)
def no_blocking_of_the_event_loop() -> Iterator[BlockBuster]:
    with blockbuster_ctx("rlm_mcp") as blockbuster:
        # What measures coverage takes a lock of its own for an instant, in whatever line it is.
        measuring = blockbuster.functions["threading.Lock.acquire"]
        measuring.can_block_in("coverage/collector.py", "lock_data")
        yield blockbuster


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("RLM_MCP_", "OPENAI_")):
            monkeypatch.delenv(name)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started in the background is deaf to SIGINT, and so is what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
