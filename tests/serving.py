"""A served instance for tests: a real client, a real store, and a scripted model over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from mcp import Client
from mcp_types import CallToolResult, TextContent

from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.server.app import build_server
from rlm_mcp.server.results import ERROR_META_KEY
from rlm_mcp.service.opening import open_service
from rlm_mcp.settings import Settings
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Script
from tests.walls import SANDBOX

KEY = "canary-key-5f1d"
# What `one_sandbox_for_all` sets: to start a sandbox's process takes longer than most tests.
SHARED_SANDBOX = ContextVar[OwnedSandbox | None]("SHARED_SANDBOX", default=None)


def settings_in(directory: Path, **changes: Any) -> Settings:
    """Settings that keep everything below a directory."""
    values: dict[str, Any] = {
        "data_dir": directory / "data",
        "allowed_paths": (directory,),
        "root_model": "root",
        "sub_model": "sub",
        "api_key": KEY,
        "min_isolation": "process",
        "sandbox": SANDBOX,
    }
    return Settings(**(values | changes))


@dataclass
class Served:
    """A client, the model behind its server, and what was reported of progress."""

    client: Client
    model: ScriptedModel
    settings: Settings
    progress: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    _told: anyio.Event = field(default_factory=anyio.Event)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must work, and give its structured content."""
        result = await self.raw(tool, **arguments)
        assert not result.is_error, text_of(result)
        assert result.structured_content is not None
        return result.structured_content

    async def error(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must refuse, and give its typed error with the text as `text`."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, text_of(result)
        assert result.meta is not None
        return {**result.meta[ERROR_META_KEY], "text": text_of(result)}

    async def raw(self, tool: str, **arguments: Any) -> CallToolResult:
        """Call a tool, and record its progress."""

        async def note(progress: float, total: float | None, message: str | None) -> None:
            del total
            self.progress.append((progress, message or ""))
            self._told.set()
            self._told = anyio.Event()

        return await self.client.call_tool(tool, arguments, progress_callback=note)

    async def until_told(self, times: int) -> None:
        """Wait until progress has been told this many times in all."""
        while len(self.progress) < times:
            await self._told.wait()

    async def ended(self, run_id: str) -> dict[str, Any]:
        """Wait until a run is no longer running."""
        with anyio.fail_after(60):
            while True:
                run = await self.call("rlm_run_wait", run_id=run_id, wait_seconds=10)
                if run["status"] != "running":
                    return run


@asynccontextmanager
async def open_served(
    directory: Path,
    script: Script,
    *,
    mode: Any = "auto",
    client: Mapping[str, Any] | None = None,
    has_own_sandbox: bool = False,
    **changes: Any,
) -> AsyncGenerator[Served]:
    """Serve in memory, with the scripted model over real HTTP; `client` is for the client."""
    has_own_sandbox = has_own_sandbox or not changes.keys().isdisjoint({"min_isolation", "sandbox"})
    sandbox = None if has_own_sandbox else SHARED_SANDBOX.get()
    async with open_scripted_model(script) as model:
        settings = settings_in(directory, **({"base_url": model.base_url} | changes))
        # In a thread, as the SDK reads files when a server is made; none is at work then.
        opening = partial(open_service, settings, shared=sandbox)
        server = await anyio.to_thread.run_sync(build_server, opening)
        async with Client(server, mode=mode, **(client or {})) as connected:
            yield Served(connected, model, settings)


def text_of(result: CallToolResult) -> str:
    """The text that is beside a result."""
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def turns(*replies: str, sub: Callable[[str], Answer] = lambda prompt: prompt[:20]) -> Script:
    """A script: the root's replies by turn, over and over the last; `sub` answers sub-calls."""

    def answer(request: ChatRequestView) -> Answer:
        if request.model == "sub":
            return sub(request.text)
        turn = sum(message["role"] == "assistant" for message in request.messages)
        return replies[min(turn, len(replies) - 1)]

    return answer


def cell(code: str) -> str:
    """A reply that holds one block of code."""
    return f"```repl\n{code}\n```"
