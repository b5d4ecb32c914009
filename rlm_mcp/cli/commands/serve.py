"""`rlm-mcp serve`."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import click

from rlm_mcp.cli.commands.options import CheckedCommand, Launch, refuse_alone
from rlm_mcp.cli.output import announce, say

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from rlm_mcp.service.service import Service
    from rlm_mcp.settings import Settings


GC_THRESHOLDS = (10_000, 10, 10)
"""Objects that a server makes between two searches for cycles, and how often older ones join in.

What is loaded at the start are 150,000 objects that stay. By default, Python looks through them for
cycles so often that it takes a fifth of a busy server's CPU, and of its start.
"""

THREAD_SECONDS = 0.0001
"""How long one thread of a server may keep the others waiting that want to run Python.

SQLite, digests and sockets work beside the interpreter, and want it back for an instant after each
step. By default they then wait for up to 5 ms each time, for most of an upload.
"""

FREED_BYTES = 8 << 20
"""Size of the block by which glibc learns how much freed memory to keep: twice as much.

A text that is uploaded is in memory in blocks of 1 MiB, one after another. By default all of them
go back to the kernel, which clears every page anew: a tenth of the time that an upload takes.
"""

_AT_A_TERMINAL = (
    "rlm-mcp: serving MCP over stdio; this command is meant to be started by an MCP client.\n"
    "rlm-mcp: Ctrl-C ends it. rlm-mcp --help lists the commands for a terminal."
)


@click.command(cls=CheckedCommand)
@click.option("--http", "over_http", is_flag=True, help="Serve Streamable HTTP instead of stdio.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME[:PORT]",
    help="Another name by which clients reach the server, such as a proxy's. Repeatable.",
)
@click.option(
    "--allowed-origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="Site whose pages may call the server, such as https://example.org. Repeatable.",
)
@click.pass_obj
def serve(
    launch: Launch,
    *,
    over_http: bool,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
) -> None:
    """Serve MCP over stdio, or over HTTP."""
    refuse_alone("over_http", "host", "port", "hosts", "origins")
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(THREAD_SECONDS)
    _keep_freed_memory()
    settings = launch.settings
    if not over_http:
        from rlm_mcp.server.app import build_server

        if sys.stdin.isatty():
            say(_AT_A_TERMINAL, err=True)
        open_page = partial(_open_page, settings) if settings.ui else None
        server = build_server(partial(_open_service, settings), open_page=open_page)
        anyio.run(server.run_stdio_async)
        return
    from rlm_mcp.server.http.serving import Place, serve_http

    anyio.run(serve_http, settings, Place(host, port, hosts, origins), partial(_announce, settings))


def _open_service(settings: Settings) -> AbstractAsyncContextManager[Service]:
    """Load and open the service; the server has answered its first requests by then."""
    from rlm_mcp.service.opening import open_service

    _spare_what_is_loaded()
    return open_service(settings, purpose="serve")


def _keep_freed_memory() -> None:
    """Free a large block: glibc takes the largest one for a size that is used again and again."""
    bytes(FREED_BYTES)  # zeros that the kernel promises, and no page is touched


def _spare_what_is_loaded() -> None:
    """Let full collections of garbage pass over what stays loaded.

    All calls wait for one, and without this it looks at every object of every library.
    """
    gc.freeze()


@asynccontextmanager
async def _open_page(settings: Settings, service: Service) -> AsyncGenerator[str]:
    """Serve the page of a server over stdio; what that takes is loaded in a thread."""
    beside = await anyio.to_thread.run_sync(import_module, "rlm_mcp.server.http.page_beside")
    async with beside.open_page_beside(settings, service, _announce_page) as url:
        yield url


def _announce_page(url: str, file: Path) -> None:
    """Say where the page is; hosts keep what a server says, so the token is in the file alone."""
    announce(f"the page is at {url}/; open this file in a browser to sign in: {file.as_uri()}")


def _announce(settings: Settings, url: str) -> None:
    _spare_what_is_loaded()
    has_token = bool(settings.http_token or settings.http_tokens or settings.oauth_issuer)
    header = " --header 'Authorization: Bearer TOKEN'" if has_token else ""
    lines = [
        f"serving MCP at {url}/mcp; connect with",
        f"  claude mcp add --transport http rlm {url}/mcp{header}",
        "send a text with",
        f"  curl -T FILE {url}/contexts/NAME{header.replace('--header', '-H')}",
    ]
    if not has_token:
        lines.append("no token is set: every user of this machine may call it")
    for line in lines:
        announce(line)
