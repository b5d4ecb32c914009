"""A client that hears of changed resources, in either era of the protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp import Client
from mcp.client.subscriptions import ResourceUpdated
from mcp_types import (
    EmptyResult,
    ResourceListChangedNotification,
    ResourceUpdatedNotification,
    SubscribeRequest,
    SubscribeRequestParams,
    UnsubscribeRequest,
    UnsubscribeRequestParams,
)

LIST = "the list"


class Heard:
    """What a client has heard of: URIs, and `LIST` for the list of resources."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._news = anyio.Event()

    @property
    def options(self) -> dict[str, Any]:
        """What a client of the older protocol is made with, to hear."""
        return {"message_handler": self._handle}

    async def _handle(self, message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            self.add(message.params.uri)
        elif isinstance(message, ResourceListChangedNotification):
            self.add(LIST)

    def add(self, uri: str) -> None:
        """Note that something has changed."""
        self.told.append(uri)
        self._news.set()
        self._news = anyio.Event()

    async def until(self, *wanted: str) -> None:
        """Wait until all of these have been told, and forget what was told."""
        await self.until_all(lambda: set(wanted) <= set(self.told))
        self.told.clear()

    async def until_all(self, is_enough: Callable[[], bool]) -> None:
        with anyio.fail_after(60):
            while not is_enough():
                await self._news.wait()


@asynccontextmanager
async def listening(client: Client, heard: Heard, uris: Sequence[str]) -> AsyncGenerator[None]:
    """Subscribe to resources, and to the list of them."""
    if client.protocol_version != "2026-07-28":
        # Sent as they are: the client's own methods warn that newer servers lack them.
        for uri in uris:
            await client.session.send_request(
                SubscribeRequest(params=SubscribeRequestParams(uri=uri)), EmptyResult
            )
        yield
        for uri in uris:
            await client.session.send_request(
                UnsubscribeRequest(params=UnsubscribeRequestParams(uri=uri)), EmptyResult
            )
        return
    async with (
        client.listen(resources_list_changed=True, resource_subscriptions=uris) as subscription,
        anyio.create_task_group() as tasks,
    ):

        async def hear() -> None:
            async for event in subscription:
                heard.add(event.uri if isinstance(event, ResourceUpdated) else LIST)

        tasks.start_soon(hear)
        yield
        tasks.cancel_scope.cancel()
