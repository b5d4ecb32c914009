"""The service, which opens in the background while the server answers its first requests.

A host asks for the tools first of all and gives up on a server that is slow to answer. Loading the
store, the engine and the sandbox takes longer than everything that this answer needs, so it happens
after it, or as soon as a request needs the service.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from rlm_mcp.errors import RLMError, StoreError, first_of

if TYPE_CHECKING:
    from rlm_mcp.service.service import Service

OpenService = Callable[[], "AbstractAsyncContextManager[Service]"]
# Serves the page of a service; gives its root URL, which is empty where it cannot be served.
OpenPage = Callable[["Service"], "AbstractAsyncContextManager[str]"]
# Hosts list the tools within milliseconds of their greeting, and call one seconds later.
_QUIET_SECONDS = 1.0

log = logging.getLogger(__name__)


class PendingService:
    """A service that is opening, open, or failed to open.

    Where the store could not be opened, the next request tries again: another process may have
    held it, or somebody has mended what was wrong.

    Args:
        open_service: called in a worker thread, so it may import what it needs.
        open_page: what serves the page beside it, if anything does.
    """

    def __init__(self, open_service: OpenService, open_page: OpenPage | None = None) -> None:
        self.page_url = ""
        self._open = open_service
        self._open_page: OpenPage = open_page or _no_page
        self._wanted = anyio.Event()
        self._settled = anyio.Event()
        self._is_open = anyio.Event()
        self._again = anyio.Event()
        self._closing = anyio.Event()
        self._service: Service | None = None
        self._error: RLMError | None = None

    async def get(self, caller: str = "") -> Service:
        """Return the service as a caller sees it; waits until it is open.

        Raises:
            RLMError: it failed to open.
        """
        self._wanted.set()
        self._try_again()
        service = await self.opened()
        return service.as_caller(caller) if caller else service

    async def opened(self) -> Service:
        """Return the machine owner's service once it is open, without making it open sooner.

        Raises:
            RLMError: it failed to open.
        """
        settled = None
        while settled is not self._settled:
            settled = self._settled
            await settled.wait()
        if self._service is None:
            raise self._error or RLMError("The server is stopping.", fix="Start it again.")
        return self._service

    async def until_open(self) -> Service:
        """Return the machine owner's service once it is open, however often that fails before."""
        await self._is_open.wait()
        return await self.opened()

    async def hold(self) -> None:
        """Open the service, keep it open until `close` is called, then close it."""
        with anyio.move_on_after(_QUIET_SECONDS):
            await self._wanted.wait()
        while not self._closing.is_set():
            self._again = anyio.Event()
            await self._try()
            await self._again.wait()
        self._settled.set()

    async def _try(self) -> None:
        before = str(self._error)
        try:
            await self._keep_open()
        except* RLMError as group:
            self._error = error = first_of(group)
            self._service = None
            what = "Each call tries again" if isinstance(error, StoreError) else "No call will do"
            if str(error) != before:
                log.error("%s %s.", error, what)  # noqa: TRY400  # known
        finally:
            self._settled.set()

    def _try_again(self) -> None:
        if self._settled.is_set() and isinstance(self._error, StoreError):
            self._settled = anyio.Event()
            self._again.set()

    async def _keep_open(self) -> None:
        opening = await anyio.to_thread.run_sync(self._open)
        async with opening as service, self._open_page(service) as self.page_url:
            self._service, self._error = service, None
            self._settled.set()
            self._is_open.set()
            await self._closing.wait()

    def close(self) -> None:
        """Let `hold` end."""
        self._closing.set()
        self._wanted.set()
        self._again.set()


def _no_page(service: Service) -> AbstractAsyncContextManager[str]:
    del service
    return nullcontext("")
