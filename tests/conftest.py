"""What every test stands on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


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
