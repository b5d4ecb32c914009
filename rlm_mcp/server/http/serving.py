"""The ASGI app, and the server that it runs in."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass

import anyio
import anyio.to_thread
import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from rlm_mcp.errors import ConfigurationError, RLMError
from rlm_mcp.sandbox.choice import OwnedSandbox
from rlm_mcp.server.app import build_server
from rlm_mcp.server.http.addresses import is_open
from rlm_mcp.server.http.answers import error_answer, no_route_answer
from rlm_mcp.server.http.auth import BearerCheck, StaticBearers
from rlm_mcp.server.http.host_check import HostCheck, KnownHosts, is_loopback
from rlm_mcp.server.http.message_check import MessageCheck
from rlm_mcp.server.http.metrics import metrics_routes
from rlm_mcp.server.http.oauth import Issuer, open_bearers
from rlm_mcp.server.http.page import page_routes
from rlm_mcp.server.http.requests import Exchanges
from rlm_mcp.server.http.routes import make_routes
from rlm_mcp.server.http.timeouts import Patience, patient
from rlm_mcp.server.http.upload_tool import UPLOAD_TOOL
from rlm_mcp.server.pending import OpenService, PendingService
from rlm_mcp.service.machine import share_descriptors
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.service import Service
from rlm_mcp.settings import Settings

MCP_PATH = "/mcp"
_CLOSE_SECONDS = 3
_KEEP_ALIVE_SECONDS = 60
_INSTRUCTIONS = """
The server may be on another machine, where the user's files are not: send a file with \
rlm_context_upload_url and one PUT.
"""
_EXPOSED_HEADERS = ["mcp-session-id", "etag", "location", "content-range", "www-authenticate"]


@dataclass(frozen=True)
class Place:
    """Where to listen, and who may call from where; see `KnownHosts`. Port 0 is any free one."""

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()


async def serve_http(settings: Settings, place: Place, announce: Callable[[str], None]) -> None:
    """Serve until the process is asked to end, by SIGTERM or SIGINT.

    Args:
        announce: called with the server's root URL once it answers.

    Raises:
        ConfigurationError: anybody could call it, or it cannot listen there.
        StoreError: the database cannot be opened.
    """
    async with open_http_server(settings, place) as url:
        announce(url)
        await until_stopped()


async def until_stopped() -> None:
    """Wait until the process is asked to end, by SIGTERM or SIGINT."""
    if sys.platform == "win32":  # ended by KeyboardInterrupt, which Ctrl-C raises
        signal.signal(signal.SIGBREAK, signal.default_int_handler)  # so does Ctrl-Break
        await anyio.sleep_forever()
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            return


@asynccontextmanager
async def open_http_server(
    settings: Settings,
    place: Place,
    *,
    patience: Patience = Patience(),  # noqa: B008  # frozen
    shared: OwnedSandbox | None = None,
    build: Callable[[OpenService], MCPServer[PendingService]] | None = None,
) -> AsyncGenerator[str]:
    """Serve until the block is left; gives the server's root URL.

    What is at work then ends: uploads with nothing stored, runs as `interrupted`, of which those
    who wait are told.

    Args:
        shared: as for `open_service`.
        build: what makes the MCP server, `build_http_mcp` if not said otherwise.

    Raises:
        ConfigurationError, StoreError: as for `serve_http`.
    """
    _check_exposure(place, is_open=not _needs_token(settings))
    # Callers may not own this machine's files, so readable paths must be set explicitly.
    settings = settings.model_copy(update={"allowed_paths": settings.allowed_paths or ()})
    with _listening(place) as sock:
        async with open_service(
            settings, shared=shared, is_remote=True, purpose="serve"
        ) as service:
            make = build or build_http_mcp
            mcp = await anyio.to_thread.run_sync(make, lambda: nullcontext(service))
            async with _answering(mcp, service, settings, place, sock, patience) as url:
                yield url


@asynccontextmanager
async def open_http_service(
    service: Service, settings: Settings, place: Place
) -> AsyncGenerator[str]:
    """Serve a service over HTTP that somebody else opened; gives the server's root URL.

    Raises:
        ConfigurationError: anybody could call it, or it cannot listen there.
    """
    _check_exposure(place, is_open=not _needs_token(settings))
    with _listening(place) as sock:
        mcp = await anyio.to_thread.run_sync(build_http_mcp, lambda: nullcontext(service))
        async with _answering(mcp, service, settings, place, sock, Patience()) as url:
            yield url


@asynccontextmanager
async def _answering(
    mcp: MCPServer[PendingService],
    service: Service,
    settings: Settings,
    place: Place,
    sock: socket.socket,
    patience: Patience,
) -> AsyncGenerator[str]:
    """Answer requests until the block is left; gives the server's root URL."""
    async with _open_verifiers(settings) as verifiers:
        app = Exchanges(_build_app(mcp, service, place, settings, verifiers), patience)
        config = await anyio.to_thread.run_sync(_configured, app, patience)
        async with mcp.session_manager.run(), _running(config, app, service, sock):
            yield _root_url(place, sock)


def _root_url(place: Place, sock: socket.socket) -> str:
    host = f"[{place.host}]" if ":" in place.host else place.host
    return f"http://{host}:{sock.getsockname()[1]}"


def build_http_mcp(open_service: OpenService) -> MCPServer[PendingService]:
    """Build the MCP server as it is over HTTP; see `build_server`."""
    return build_server(open_service, [UPLOAD_TOOL], _INSTRUCTIONS)


def _build_app(
    mcp: MCPServer[PendingService],
    service: Service,
    place: Place,
    settings: Settings,
    verifiers: Sequence[TokenVerifier],
) -> ASGIApp:
    # Hosts and origins are checked below, on every route alike.
    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app: Starlette = mcp.streamable_http_app(
        streamable_http_path=MCP_PATH, transport_security=unchecked
    )
    app.state.service = service
    app.router.routes.extend([*make_routes(), *page_routes(), *metrics_routes()])
    app.add_exception_handler(RLMError, error_answer)
    app.add_exception_handler(HTTPException, no_route_answer)
    metadata_url = None
    if issuer := _issuer(settings):
        app.router.routes.extend(_metadata(issuer))
        metadata_url = str(build_resource_metadata_url(AnyHttpUrl(issuer.resource)))
    guarded: ASGIApp = BearerCheck(
        MessageCheck(app, MCP_PATH), verifiers, is_open=is_open, metadata_url=metadata_url
    )
    if place.allowed_origins:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=[origin.rstrip("/") for origin in place.allowed_origins],
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
        )
    known = KnownHosts.of(place.host, place.allowed_hosts, place.allowed_origins)
    return HostCheck(guarded, known)


@asynccontextmanager
async def _open_verifiers(settings: Settings) -> AsyncGenerator[list[TokenVerifier]]:
    tokens = {name: token.get_secret_value() for name, token in settings.http_tokens.items()}
    if settings.http_token:
        tokens[""] = settings.http_token.get_secret_value()
    static: list[TokenVerifier] = [StaticBearers(tokens)] if tokens else []
    if issuer := _issuer(settings):
        async with open_bearers(issuer) as bearers:
            yield [*static, bearers]
    else:
        yield static


def _needs_token(settings: Settings) -> bool:
    return bool(_issuer(settings) or settings.http_token or settings.http_tokens)


def _issuer(settings: Settings) -> Issuer | None:
    given = (settings.oauth_issuer, settings.oauth_resource, settings.oauth_jwks_url)
    if None not in given:
        return Issuer(*map(str, given))
    if any(given):
        raise ConfigurationError(
            "RLM_MCP_OAUTH_ISSUER, RLM_MCP_OAUTH_RESOURCE and RLM_MCP_OAUTH_JWKS_URL go together; "
            "only some of them are set.",
            fix="Set all three, or none.",
        )
    return None


def _metadata(issuer: Issuer) -> list[Route]:
    """Tell clients where to get an access token (RFC 9728)."""
    return create_protected_resource_routes(
        AnyHttpUrl(issuer.resource), [AnyHttpUrl(issuer.url)], resource_name="rlm-mcp"
    )


def _check_exposure(place: Place, *, is_open: bool) -> None:
    if is_open and not is_loopback(place.host):
        raise ConfigurationError(
            f"Without a token anybody who reaches {place.host!r} could use this server.",
            fix="Set RLM_MCP_HTTP_TOKEN to a long random text (`openssl rand -hex 32`), or serve "
            "on 127.0.0.1.",
        )


@contextmanager
def _listening(place: Place) -> Generator[socket.socket]:
    """Listen; only few names may be used as an address, so looking one up is quick."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        sock = socket.create_server((place.host, place.port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigurationError(
            f"The server cannot listen on {place.host!r}, port {place.port}: {error.strerror}.",
            fix="Choose another with --host and --port.",
        ) from error
    with sock:
        # asyncio sets it only where a socket names TCP as its protocol, which this one does not. An
        # answer is a head and a body, and without it the body would wait for the head's receipt.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


@asynccontextmanager
async def _running(
    config: uvicorn.Config, app: Exchanges, service: Service, sock: socket.socket
) -> AsyncGenerator[None]:
    """Answer requests until the block is left."""
    server = _Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [sock])
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                app.refuse()
                await service.interrupt_runs()
                await app.close()
                server.should_exit = True


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it."""

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]  # narrower
        """Do nothing."""
        return nullcontext()


def _configured(app: ASGIApp, patience: Patience) -> uvicorn.Config:
    """Configure uvicorn, which reads files; its access log, off here, would show upload URLs."""
    config = uvicorn.Config(
        app,
        http=patient(patience),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
        limit_concurrency=share_descriptors().connections,
    )
    config.load()
    return config
