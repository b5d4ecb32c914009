"""Notifies subscribed clients of changed resources, in both eras of the protocol.

Changes are read from the store: so those that another server made on the same data directory count
too, and several at once become one notification. The store is polled only while there are
subscribers.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
)
from mcp.shared.exceptions import MCPError
from mcp_types import (
    EmptyResult,
    NotificationParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)
from mcp_types.jsonrpc import INVALID_REQUEST
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from rlm_mcp.errors import RLMError
from rlm_mcp.server.pending import PendingService
from rlm_mcp.server.resources import resource_version
from rlm_mcp.server.results import protocol_errors
from rlm_mcp.server.tool import service_in

if TYPE_CHECKING:
    from rlm_mcp.service.service import Service

MAX_WATCHES = 1000
MAX_URIS = 1000
_STATE_KEY = "rlm-mcp/watch"
# The list is polled less often than a run whose turns somebody follows.
_LIST_SECONDS = 2.0
_LONGEST_SECONDS = 60.0
_RETRY_SECONDS = 5.0
_NEVER_LOOKED = -1

log = logging.getLogger(__name__)

Request = ServerRequestContext[PendingService, Any]
Seen = dict[tuple[str, str | None], Hashable]


@dataclass(eq=False)
class _Watch:
    """What one client subscribed to: each URI with its version at the last notification.

    The list of all resources has the key None.
    """

    service: Service
    emit: Callable[[ServerEvent], Awaitable[None]]
    versions: dict[str | None, Hashable] = field(default_factory=dict[str | None, Hashable])
    is_emitting: bool = False


class Updates:
    """The subscriptions of all clients, and the task that serves them."""

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._some = anyio.Event()

    async def watch(self, pending: PendingService) -> None:
        """Notify subscribers of changes until it is cancelled."""
        service = await pending.until_open()
        async with anyio.create_task_group() as emitting:
            version = _NEVER_LOOKED
            while True:
                await self._until_some()
                try:
                    now = await service.version()
                    if now != version:
                        version = now if await self._look(emitting) else _NEVER_LOOKED
                    await self._pause(service, version)
                except Exception:  # the outermost frame of this task, which must continue
                    log.exception("notifying subscribers failed; will retry")
                    await anyio.sleep(_RETRY_SECONDS)

    async def _until_some(self) -> None:
        if not self._watches:
            self._some = anyio.Event()
            await self._some.wait()

    async def _pause(self, service: Service, version: int) -> None:
        """Wait for a change; less closely while everybody watches only the list."""
        self._some = anyio.Event()
        if any(watch.versions.keys() - {None} for watch in self._watches):
            with anyio.move_on_after(_LONGEST_SECONDS):
                await service.changed(version)
        else:
            with anyio.move_on_after(_LIST_SECONDS):
                await self._some.wait()

    async def _look(self, emitting: TaskGroup) -> bool:
        """Notify all subscribers of what is new to them; returns whether all of them were idle."""
        seen: Seen = {}
        ready = [watch for watch in self._watches if not watch.is_emitting]
        for watch in ready:
            events = [event async for event in _news(watch, seen)]
            if events:
                watch.is_emitting = True
                emitting.start_soon(_emit, watch, events)
        return len(ready) == len(self._watches)

    async def _add(self, watch: _Watch, uris: Iterable[str | None]) -> None:
        """Watch URIs from their present versions on."""
        wanted = set(uris)
        if len(self._watches) >= MAX_WATCHES or len(wanted | watch.versions.keys()) > MAX_URIS:
            raise MCPError(INVALID_REQUEST, f"There are more than {MAX_URIS} subscriptions.")
        for uri in wanted:
            watch.versions[uri] = await _version(watch.service, uri)
        self._watches.add(watch)
        self._some.set()

    async def listen(
        self, ctx: Request, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve `subscriptions/listen`; each stream has a bus of its own."""
        bus = InMemorySubscriptionBus()
        with protocol_errors():
            watch = _Watch(await service_in(ctx), bus.publish)
        wanted: list[str | None] = list(params.notifications.resource_subscriptions or ())
        if params.notifications.resources_list_changed:
            wanted.append(None)
        await self._add(watch, wanted)
        try:
            return await ListenHandler(bus)(ctx, params)
        finally:
            self._watches.discard(watch)

    async def subscribe(self, ctx: Request, params: SubscribeRequestParams) -> EmptyResult:
        """Serve `resources/subscribe`, of the older protocol."""
        await self._add(await self._connection_watch(ctx), [params.uri])
        return EmptyResult()

    async def unsubscribe(self, ctx: Request, params: UnsubscribeRequestParams) -> EmptyResult:
        """Serve `resources/unsubscribe`, of the older protocol."""
        (await self._connection_watch(ctx)).versions.pop(params.uri, None)
        return EmptyResult()

    async def greet(self, ctx: Request, _: NotificationParams) -> None:
        """Watch the list for a client of the older protocol, which does not subscribe to it."""
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            with suppress(RLMError):  # every request answers with it
                await ctx.lifespan_context.opened()  # a greeting need not be fast
                await self._add(await self._connection_watch(ctx), [None])

    async def _connection_watch(self, ctx: Request) -> _Watch:
        """The one watch of a connection, which ends with it."""
        with protocol_errors():
            service = await service_in(ctx)
        # The SDK gives handlers no other access to what lasts as long as their connection.
        connection = ctx.session._connection  # pyright: ignore[reportPrivateUsage]
        watch = connection.state.get(_STATE_KEY)
        if watch is None:
            watch = _Watch(service, _emitter(ctx.session))
            connection.state[_STATE_KEY] = watch
            connection.exit_stack.callback(self._watches.discard, watch)
        return watch


def _emitter(session: ServerSession) -> Callable[[ServerEvent], Awaitable[None]]:
    async def emit(event: ServerEvent) -> None:
        if isinstance(event, ResourceUpdated):
            await session.send_resource_updated(event.uri)
        else:
            await session.send_resource_list_changed()

    return emit


async def _emit(watch: _Watch, events: list[ServerEvent]) -> None:
    try:
        for event in events:
            await watch.emit(event)
    except Exception:  # the outermost frame of this task: one client must not end the server
        log.exception("notifying a subscriber failed")
    finally:
        watch.is_emitting = False


async def _news(watch: _Watch, seen: Seen) -> AsyncGenerator[ServerEvent]:
    """Yield what has changed, and note the new versions."""
    for uri, before in list(watch.versions.items()):
        key = (watch.service.caller, uri)
        if key not in seen:
            seen[key] = await _version(watch.service, uri)
        if seen[key] != before and uri in watch.versions:
            watch.versions[uri] = seen[key]
            yield ResourcesListChanged() if uri is None else ResourceUpdated(uri)


async def _version(service: Service, uri: str | None) -> Hashable:
    if uri is None:
        return await service.listed()
    return await resource_version(service, uri)
