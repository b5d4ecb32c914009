"""The private parts of other packages and of CPython that this one relies on, in one list.

| of | part | used in |
|---|---|---|
| CPython | layout of `PyASCIIObject`: references, type, length, hash, state, then the characters | `child/mapped_str` |
| CPython | a hash that was not computed yet is -1 | `child/mapped_str` |
| CPython | a reference count of 2**29 is an ordinary number, and goes up and down | `child/mapped_str` |
| json | `json.encoder.c_make_encoder`, with nine arguments, writes what `JSONEncoder.encode` does | `sandbox/wire` |
| zoneinfo | `zoneinfo._common.load_tzdata(key)` returns an open binary file | `child/preload` |
| mcp | `ServerSession._connection` with `state` and `exit_stack`, which live as long as it | `server/updates` |
| mcp | `ServerSession._request_outbound.cancel_requested`, set by `notifications/cancelled` | `server/tool` |
| mcp | `Server.create_initialization_options(notification_options, experimental_capabilities)` | `server/app` |
| mcp | `MCPServer._lowlevel_server`, which takes handlers by method | `server/app` |
| uvicorn | `H11Protocol`: `cycle.response_complete`, `loop`, `transport`, `send_400_response` called while the error is handled, and methods of asyncio's protocol | `server/http/timeouts` |
| uvicorn | `RequestResponseCycle.body`, which may be `bytes` and is then given to the application uncopied, and `message_event`; `H11Protocol.flow` | `server/http/timeouts` |
| h11 | `Connection._reader`, and of one for a body of known length `_remaining`: how many of its bytes must come yet | `server/http/timeouts` |
| uvicorn | `Server.capture_signals()` is a context manager around serving | `server/http/serving` |
| openai | `create` is a plain function of a module of the package, unless somebody patched it | `engine/models/client_wire` |
| openai | `post(path, cast_to=httpx2.Response, body=…)` gives the response as it came | `engine/models/client_wire` |
| wasmtime | `_bindings.wasmtime_config_async_stack_size_set(config, bytes)`; without it the stack is smaller | `portable/process/engine` |

There is a test here for each, which fails first when the part moves.
"""  # noqa: E501  # a table

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import h11
import httpx2
import openai
import pytest
import uvicorn
from mcp.server.lowlevel.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.session import ServerSession
from openai.resources.chat.completions import AsyncCompletions, Completions
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

import rlm_mcp
from rlm_mcp.sandbox import wire
from rlm_mcp.sandbox.child.mapped_str import _TESTED  # pyright: ignore[reportPrivateUsage]
from rlm_mcp.testing.scripted_model import open_scripted_model

OF_TESTED_INTERPRETERS = pytest.mark.skipif(
    sys.version_info[:2] not in _TESTED, reason="texts are decoded by this interpreter"
)
PACKAGE = Path(rlm_mcp.__file__).parent

TEXT = "some characters that are only ASCII"


def _words_of(text: str) -> tuple[int, int, int, int]:
    return (ctypes.c_ssize_t * 4).from_address(id(text))[:4]  # pyright: ignore[reportReturnType]


@OF_TESTED_INTERPRETERS
def test_an_ascii_string_is_a_header_followed_by_its_characters() -> None:
    header = sys.getsizeof("") - 1
    text = TEXT.lower()
    assert ctypes.string_at(id(text) + header, len(text) + 1) == text.encode() + b"\0"


@OF_TESTED_INTERPRETERS
def test_the_header_holds_references_type_length_and_hash_in_this_order() -> None:
    text = TEXT.upper()
    _, kind, length, unset_hash = _words_of(text)
    assert (kind, length, unset_hash) == (id(str), len(text), -1)
    computed = hash(text)
    assert _words_of(text)[3] == computed


@OF_TESTED_INTERPRETERS
def test_a_large_reference_count_is_still_counted() -> None:
    text = TEXT.title()
    references = ctypes.c_ssize_t.from_address(id(text))
    before = references.value
    references.value = 1 << 29
    more = [text, text]
    assert references.value == (1 << 29) + 2
    del more
    assert references.value == 1 << 29
    references.value = before


def test_time_zones_are_loaded_through_the_function_that_is_replaced() -> None:
    load = importlib.import_module("zoneinfo._common").load_tzdata
    assert list(inspect.signature(load).parameters) == ["key"]


def test_a_session_knows_the_connection_that_it_belongs_to() -> None:
    source = inspect.getsource(ServerSession.__init__)
    assert "self._connection = " in source
    kind = inspect.signature(ServerSession.__init__).parameters["connection"].annotation
    connection = importlib.import_module("mcp.server.connection").Connection
    assert "Connection" in str(kind)
    made = inspect.getsource(connection.__init__)
    assert "self.state" in made
    assert "self.exit_stack" in made


def test_a_session_knows_whether_the_client_cancelled_its_request() -> None:
    assert "self._request_outbound = " in inspect.getsource(ServerSession.__init__)
    channel = importlib.import_module("mcp.shared.dispatcher").DispatchContext
    assert isinstance(channel.cancel_requested, property)
    dispatcher = importlib.import_module("mcp.shared.jsonrpc_dispatcher")
    assert "cancel_requested.set()" in inspect.getsource(dispatcher)


def test_a_server_makes_its_greeting_by_a_method_that_can_be_replaced() -> None:
    parameters = list(inspect.signature(Server.create_initialization_options).parameters)
    assert parameters[:3] == ["self", "notification_options", "experimental_capabilities"]


def test_a_server_has_a_lower_one_that_takes_handlers_by_method() -> None:
    lower = vars(MCPServer("name"))["_lowlevel_server"]
    for method in ("add_request_handler", "add_notification_handler"):
        assert callable(getattr(lower, method))


def test_the_json_of_frames_is_that_of_the_package() -> None:
    values: list[object] = [
        {},
        {"a": [1, -2, 1 << 53, True, False, None, 1.5]},
        {'é😀\ud800\n"': {"b": [(), {}]}},
    ]
    write = wire._to_json  # pyright: ignore[reportPrivateUsage]  # what is tried here
    assert [write(value) for value in values] == [
        json.dumps(value, separators=(",", ":")) for value in values
    ]
    assert hasattr(json.encoder, "c_make_encoder")


def test_a_connection_of_uvicorn_has_what_its_timers_look_at() -> None:
    made = inspect.getsource(H11Protocol.__init__) + inspect.getsource(H11Protocol.connection_made)
    for attribute in ("cycle", "loop", "transport"):
        assert f"self.{attribute}" in made
    assert "self.response_complete" in inspect.getsource(RequestResponseCycle.__init__)
    for method in ("connection_lost", "data_received", "pause_writing", "resume_writing"):
        assert callable(getattr(H11Protocol, method))
    refused = inspect.getsource(H11Protocol.handle_events).partition("RemoteProtocolError")[2]
    assert "self.send_400_response(" in refused.partition("return")[0]


def test_a_body_of_uvicorn_may_be_bytes_and_wakes_the_application() -> None:
    given = inspect.getsource(RequestResponseCycle.receive)
    assert "bytes(self.body)" in given
    assert "await self.message_event.wait()" in given
    made = inspect.getsource(H11Protocol.handle_events)
    assert "self.cycle.body += event.data" in made
    assert "self.flow.pause_reading()" in made


def test_h11_counts_what_must_come_of_a_body_in_its_reader() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n")
    assert isinstance(connection.next_event(), h11.Request)
    reader = vars(connection)["_reader"]
    assert reader._remaining == 5
    reader._remaining = 2
    connection.receive_data(b"de")
    events = [connection.next_event() for _ in range(2)]
    assert [type(event) for event in events] == [h11.Data, h11.EndOfMessage]


def test_uvicorn_captures_signals_in_a_context_manager() -> None:
    server = uvicorn.Server(uvicorn.Config(app=""))
    assert isinstance(server.capture_signals(), AbstractContextManager)
    assert "self.capture_signals()" in inspect.getsource(uvicorn.Server.serve)


@pytest.mark.parametrize("kind", [Completions, AsyncCompletions])
def test_create_is_a_plain_function_of_the_package(kind: type) -> None:
    create = vars(kind)["create"]
    assert inspect.isfunction(create)
    assert create.__globals__["__name__"].startswith("openai.")


async def test_a_client_gives_the_response_as_it_came() -> None:
    async with (
        open_scripted_model("ok") as server,
        openai.AsyncOpenAI(api_key="k", base_url=server.base_url) as client,
    ):
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        response = await client.post("/chat/completions", cast_to=httpx2.Response, body=body)
    assert response.json()["choices"][0]["message"]["content"] == "ok"


def test_wasmtime_can_be_told_how_large_its_stack_may_be() -> None:
    bindings = pytest.importorskip("wasmtime._bindings", reason="the extra `portable` has it")

    assert callable(bindings.wasmtime_config_async_stack_size_set)


def private_uses() -> Iterator[str]:
    """Modules of the package that say in a suppression that they use what is private."""
    for path in PACKAGE.rglob("*.py"):
        if re.search(r"reportPrivateUsage|from \S+ import .*\b_[a-z]", path.read_text()):
            yield str(path.relative_to(PACKAGE).with_suffix(""))


def test_what_uses_private_parts_stands_in_the_list_above() -> None:
    listed = set(re.findall(r"`((?:child|server|engine|portable)/\S+)`", __doc__ or ""))
    assert "server/tool" in private_uses()
    for module in private_uses():
        assert any(module.endswith(name) for name in listed), module
