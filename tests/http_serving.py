"""A server on a real socket for tests, with real HTTP and MCP clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from rlm_mcp.server.http.serving import Place, open_http_server
from rlm_mcp.server.http.timeouts import Patience
from rlm_mcp.settings import Settings
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Script
from tests.serving import SHARED_SANDBOX, Served, settings_in

ANN = "token-of-ann-0123456789"
BOB = "token-of-bob-9876543210"
TOKENS = {"ann": ANN, "bob": BOB}


@dataclass
class Site:
    """A server's root URL, and the model behind it."""

    url: str
    model: ScriptedModel
    settings: Settings
    tokens: dict[str, str] = field(default_factory=dict[str, str])

    @asynccontextmanager
    async def open_http(self, token: str = ANN) -> AsyncGenerator[httpx2.AsyncClient]:
        """An HTTP client; an empty token sends none."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=60) as client:
            yield client

    @asynccontextmanager
    async def open_client(self, token: str = ANN, mode: Any = "auto") -> AsyncGenerator[Served]:
        """An MCP client."""
        async with self.open_http(token) as http:
            transport = streamable_http_client(f"{self.url}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                yield Served(client, self.model, self.settings)


@asynccontextmanager
async def open_site(
    directory: Path,
    script: Script,
    place: Place = Place(port=0),  # noqa: B008  # frozen
    patience: Patience = Patience(),  # noqa: B008  # frozen
    **changes: Any,
) -> AsyncGenerator[Site]:
    """Serve on a free port for two users, with a scripted model."""
    async with open_scripted_model(script) as model:
        values: dict[str, Any] = {"base_url": model.base_url, "http_tokens": TOKENS}
        settings = settings_in(directory, **(values | changes))
        async with open_http_server(
            settings, place, patience=patience, shared=SHARED_SANDBOX.get()
        ) as url:
            yield Site(url, model, settings)
