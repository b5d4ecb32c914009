"""A server in a process of its own, and users who try to lose, take or forge something there."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.http_serving import ANN, BOB, Site
from tests.serving import Served, cell, settings_in, text_of, turns
from tests.test_http_process import FEW, open_program
from tests.walls import environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are its own there")

SLOW = "class S:\n    def __repr__(self):\n        while True: pass\n"
EXITS = "class E:\n    def __repr__(self): raise SystemExit(3)\n"
# What honest and other code leaves behind; each is looked at and then used.
VALUES = {
    "a large dict": "value = {n: str(n) for n in range(300_000)}",
    "a large list": "value = ['a line of a text'] * 3_000_000",
    "a repr that does not end": SLOW + "value = S()",
    "a repr that exits": EXITS + "value = E()",
    "a length that lies": "class L(str):\n    def __len__(self): return 1 << 60\nvalue = L('x')",
    "a class that raises": "class M(type):\n    def __getattribute__(cls, name): raise SystemExit\n"
    "class C(metaclass=M): pass\nvalue = C()",
}
# What is written into whatever a REPL has open: frames of each kind, and none.
FORGED = """
import json, os, struct
def send(head, *blobs):
    data = json.dumps({{**head, "lengths": [len(blob) for blob in blobs]}}).encode()
    frame = struct.pack(">II", len(data), sum(map(len, blobs))) + data + b"".join(blobs)
    for number in range(3, 64):
        try: os.write(number, frame)
        except OSError: pass
send({head})
"""
HEADS = {
    "an end": '{"kind": "done", "cell": 1, "error": False}, b"x" * 100',
    "a list": '{"kind": "variables", "ticket": 1, "sizes": [1 << 80]}, b"x", b"y", b"z"',
    "a call": '{"kind": "call", "name": "os.system", "call": 1}, b"true"',
    "no frame": '{"kind": "exec", "cell": -1}',
}


@dataclass
class Users:
    """Two users of a server, and where it keeps its database."""

    ann: Served
    bob: Served
    data: Path
    site: Site

    async def run(self, served: Served, code: str, **arguments: Any) -> dict[str, Any]:
        if "run_id" not in arguments:
            added = await served.call("rlm_context_add", text="some text")
            arguments["contexts"] = [added["handle"]]
        return await served.call("rlm_exec", code=code, **arguments)


@asynccontextmanager
async def open_users(directory: Path, **more: str) -> AsyncGenerator[Users]:
    async with open_scripted_model(turns(cell("FINAL(1)"))) as model:
        tokens = f"ann={ANN},bob={BOB}"
        variables = {"RLM_MCP_BASE_URL": model.base_url, "RLM_MCP_HTTP_TOKENS": tokens}
        known = {**FEW, **variables, **environment(), **more}
        async with open_program(directory, environment=known) as program:
            site = Site(program.url, model, settings_in(directory))
            async with site.open_client(ANN) as ann, site.open_client(BOB) as bob:
                yield Users(ann, bob, directory / "data", site)


@pytest.fixture
async def users(tmp_path: Path) -> AsyncGenerator[Users]:
    async with open_users(tmp_path) as users:
        yield users


async def test_no_look_takes_a_value_away(users: Users) -> None:
    lost: list[str] = []
    for name, code in VALUES.items():
        done = await users.run(users.ann, f"small = 42\n{code}", timeout_seconds=60)
        assert done["error"] is None, name
        for asked in ({}, {"name": "small"}, {"name": "value"}):
            await users.ann.raw("rlm_run_variables", run_id=done["run_id"], **asked)
        after = await users.run(users.ann, "print(small, id(value) > 0)", run_id=done["run_id"])
        # A `repr` that hears no interrupt ends with the REPL, which is said; small values stay.
        is_told = name == "a repr that does not end" and "fresh" in str(after["note"])
        if after["output"] != "42 True\n" and not is_told:
            lost.append(f"{name}: {after}")
    assert lost == []


async def test_what_is_forged_ends_a_repl_by_name_and_harms_nobody_else(users: Users) -> None:
    kept = await users.run(users.bob, "mine = [1, 2]")
    for name, head in HEADS.items():
        forged = await users.run(users.ann, FORGED.format(head=head))
        assert "os.system" not in forged["output"], name
        after = await users.run(users.ann, "print('alive')", run_id=forged["run_id"])
        assert after["output"] == "alive\n", name
    again = await users.run(users.bob, "print(mine)", run_id=kept["run_id"])
    assert (again["output"], again.get("note")) == ("[1, 2]\n", None)


async def test_all_places_of_one_user_cost_another_nothing(tmp_path: Path) -> None:
    again: dict[str, Any] = {}
    run: dict[str, Any] = {}
    async with open_users(tmp_path, RLM_MCP_MAX_CONCURRENT_RUNS="2") as users:
        kept = await users.run(users.bob, "mine = 1")
        added = await users.ann.call("rlm_context_add", text="some text")
        async with anyio.create_task_group() as tasks:
            for _ in range(9):
                spin = {"code": "while True: pass", "timeout_seconds": 60}
                tasks.start_soon(
                    lambda spin=spin: users.ann.raw("rlm_exec", contexts=[added["handle"]], **spin)
                )
            again = await users.run(users.bob, "print(mine)", run_id=kept["run_id"])
            handle = (await users.bob.call("rlm_context_add", text="other text"))["handle"]
            run = await users.bob.call("rlm_query", question="?", contexts=[handle])
            tasks.cancel_scope.cancel()
    assert (again["output"], again.get("note")) == ("1\n", None)
    assert run["status"] == "completed"


@pytest.mark.parametrize("how", ["deleted", "moved", "emptied"])
async def test_a_write_into_a_database_that_is_gone_is_refused(users: Users, how: str) -> None:
    await users.ann.call("rlm_context_add", text="before")
    file = anyio.Path(next(users.data.glob("*.sqlite3")))
    if how == "deleted":
        await file.unlink()
    elif how == "moved":
        await file.rename(f"{file}.moved")
    else:
        await file.write_bytes(b"")
    refused = await users.ann.raw("rlm_context_add", text="after")
    assert refused.is_error
    assert "store_error" in text_of(refused)
    assert "put the file back" in text_of(refused)


# Paths that lead to a place that the caller did not name.
LEADING = ["~", "~/notes.txt", "../notes.txt", "/proc/self/cwd", "file:notes.txt", "*.txt"]
RUN = f"run_{'0' * 32}"
WAYS = ("contexts/ctx_0123456789abcdef", f"runs/{RUN}/export", f"runs/{RUN}/events", "health")


def filled(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Arguments for a tool: what it needs, and each of its paths."""
    values: dict[str, Any] = {
        "string": path,
        "array": [path],
        "integer": 1,
        "number": 1,
        "boolean": True,
    }
    needed = {*schema.get("required", ()), "path"} & schema["properties"].keys()
    kinds = {name: str(schema["properties"][name].get("type")) for name in needed}
    return {name: values.get(kind, "x") for name, kind in kinds.items()}


async def all_that_is_said(users: Users, http: httpx2.AsyncClient, path: str) -> list[str]:
    """What the server answers to each tool, and to some requests, with a path as every argument."""
    said: list[str] = []
    for tool in (await users.ann.client.list_tools()).tools:
        arguments = filled(tool.input_schema, path)
        said.append(f"{tool.name}: {await users.ann.raw(tool.name, **arguments)}")
    for way in (*WAYS, f"contexts/{path}"):
        answer = await http.get(f"/{way}")
        said.append(f"GET {way}: {answer.text}")
    said.append(f"PUT: {(await http.put('/contexts/x', content=b'some text')).text}")
    return said


@pytest.mark.parametrize("how", ["whole", "deleted", "emptied", "no database", "not readable"])
async def test_no_error_tells_another_machine_where_files_lie(tmp_path: Path, how: str) -> None:
    (home := tmp_path / "home").mkdir()
    async with (
        open_users(tmp_path, HOME=str(home)) as users,
        users.site.open_http(ANN) as http,
    ):
        await users.ann.call("rlm_context_add", text="before")
        await anyio.to_thread.run_sync(damage, next(users.data.glob("*.sqlite3")), how)
        said = [one for path in LEADING for one in await all_that_is_said(users, http, path)]
        said.append(str(await users.ann.raw("rlm_exec", code="1", contexts=["ctx_0"])))
    secret = (str(tmp_path), str(Path.cwd()))
    assert [one for one in said if any(place in one for place in secret)] == []


def damage(file: Path, how: str) -> None:
    """Do something to a database that is in use."""
    if how == "deleted":
        file.unlink()
    elif how == "emptied":
        file.write_bytes(b"")
    elif how == "no database":
        file.write_bytes(b"x" * file.stat().st_size)
    elif how == "not readable":
        file.unlink()
        file.mkdir()
