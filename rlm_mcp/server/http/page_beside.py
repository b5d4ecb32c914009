"""The page of a server over stdio, served beside it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio.to_thread

from rlm_mcp.errors import RLMError
from rlm_mcp.server.http.own_page import address_with, guarded, new_token, redirect_file
from rlm_mcp.server.http.serving import Place, open_http_service
from rlm_mcp.service.service import Service
from rlm_mcp.settings import Settings

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_page_beside(
    settings: Settings, service: Service, announce: Callable[[str, Path], None]
) -> AsyncGenerator[str]:
    """Serve the page of a service that another transport serves; gives its root URL.

    The page is an extra: where it cannot be served, that is logged and the URL is empty.

    Args:
        announce: called with that URL and the file that opens the page.
    """
    token = new_token()
    async with AsyncExitStack() as stack:
        url = ""
        try:
            opened = open_http_service(service, guarded(settings, token), Place(port=0))
            served = await stack.enter_async_context(opened)
            file = redirect_file(address_with(served, token), settings.data_dir)
            announce(served, await anyio.to_thread.run_sync(stack.enter_context, file))
            url = served
        except (OSError, RLMError) as error:
            log.warning("the page cannot be served: %s", error)
        yield url
