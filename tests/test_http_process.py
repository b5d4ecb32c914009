"""`rlm-mcp serve --http` as an operator runs it: a real process, its signals, and what it tells."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import httpx2
import pytest
from anyio.streams.text import TextReceiveStream

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, unauthorized
from tests.commands import measured
from tests.http_serving import ANN, BOB, Site
from tests.serving import KEY, cell, settings_in, text_of, turns
from tests.waiting import until

SECRETS = (KEY, ANN, BOB)


@dataclass
class Program:
    """A process that serves, and what it has said on stderr."""

    process: anyio.abc.Process
    url: str
    said: list[str]

    async def stop(self, with_signal: signal.Signals) -> int:
        self.process.send_signal(with_signal)
        with anyio.fail_after(60):
            return await self.process.wait()


@asynccontextmanager
async def open_program(
    directory: Path,
    *arguments: str,
    open_files: int = 0,
    environment: Mapping[str, str] | None = None,
    **more: str,
) -> AsyncGenerator[Program]:
    command = [sys.executable, "-m", "rlm_mcp", "serve", "--http", "--port", "0", *arguments]
    if open_files:
        command = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    variables = {"RLM_MCP_DATA_DIR": str(directory / "data"), **(environment or {}), **more}
    said: list[str] = []
    async with await anyio.open_process(
        command, stdin=None, env=measured() | known | variables
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        announced = anyio.Event()

        async def listen(stream: anyio.abc.ByteReceiveStream) -> None:
            async for text in TextReceiveStream(stream, errors="replace"):
                said.append(text)
                if "\n" in text and "/contexts/NAME" in "".join(said):
                    announced.set()
            announced.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, process.stderr)
            tasks.start_soon(listen, process.stdout)
            try:
                with anyio.fail_after(60):
                    await announced.wait()
                words = "".join(said).replace("/mcp", " ").split()
                url = next((word for word in words if word.startswith("http://")), "")
                yield Program(process, url, said)
            finally:
                if process.returncode is None:
                    process.kill()


def contents(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_no_secret_is_in_what_the_server_writes_and_it_stops_in_good_order(
    tmp_path: Path,
) -> None:
    asked: list[str] = []

    def refuse_keys(request: ChatRequestView) -> Answer:
        asked.append(request.text)
        return (
            cell("print(len(context))\nFINAL(llm_query('?'))") if len(asked) < 3 else unauthorized()
        )

    async with open_scripted_model(refuse_keys) as model:
        settings = settings_in(tmp_path)
        variables = {
            "RLM_MCP_BASE_URL": model.base_url,
            "RLM_MCP_API_KEY": KEY,
            "RLM_MCP_ROOT_MODEL": "root",
            "RLM_MCP_SUB_MODEL": "sub",
            "RLM_MCP_MIN_ISOLATION": "process",
            "RLM_MCP_HTTP_TOKENS": f"ann={ANN},bob={BOB}",
        }
        async with open_program(tmp_path, environment=variables) as program:
            site = Site(program.url, model, settings)
            secrets = await use(site)
            code = await program.stop(signal.SIGTERM)

    written = await anyio.to_thread.run_sync(contents, tmp_path)
    said = "".join(program.said)
    assert code == 0
    assert "Traceback" not in said
    assert b"some text that was sent" in written
    for secret in (*SECRETS, *secrets):
        assert secret.encode() not in written
        assert secret not in said


async def use(site: Site) -> list[str]:
    """Ask, fail, send wrong things; gives the secrets of two URLs, one of them used."""
    async with site.open_http(BOB) as bob, site.open_client(ANN) as served:
        handle = (await bob.put("/contexts/hers", content=b"some text that was sent")).json()
        await bob.get("/contexts/x", headers={"authorization": f"Bearer {ANN}x"})
        await bob.put(f"/contexts/{'x' * 1000}", content=b"x")
        await bob.get("/contexts/x", headers={"host": "evil.example"})
        await served.error("rlm_run_wait", run_id=handle["handle"])
        made = [await served.call("rlm_context_upload_url", name="a") for _ in range(2)]
        sent = await bob.put(made[0]["url"], content=b"sent by a URL")
        run = await served.call("rlm_query", question="?", contexts=[sent.json()["handle"]])
        status = await served.call("rlm_status")
    assert run["status"] in ("completed", "failed")
    assert not [secret for secret in SECRETS if secret in f"{run} {status} {made}"]
    return [one["url"].rpartition("/")[2] for one in made]


@pytest.mark.parametrize("by", [signal.SIGINT])
async def test_a_server_with_no_token_says_so_and_ends_at_ctrl_c(
    tmp_path: Path, by: signal.Signals
) -> None:
    async with open_program(tmp_path) as program:
        async with httpx2.AsyncClient(base_url=program.url) as client:
            alive = await client.get("/healthz")
        code = await program.stop(by)

    said = "".join(program.said)
    assert (alive.status_code, code) == (200, 0)
    assert "no token is set" in said
    assert f"claude mcp add --transport http rlm {program.url}/mcp\n" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        (["--host", "0.0.0.0"], {}, "0.0.0.0"),
        ([], {"RLM_MCP_HTTP_TOKEN": "short-one"}, "RLM_MCP_HTTP_TOKEN"),
        ([], {"RLM_MCP_HTTP_TOKENS": f"ann={ANN},bob={ANN}"}, "RLM_MCP_HTTP_TOKENS"),
    ],
)
async def test_a_server_that_would_be_open_does_not_start(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], told: str
) -> None:
    async with open_program(tmp_path, *arguments, environment=variables) as program:
        with anyio.fail_after(60):
            code = await program.process.wait()

    said = "".join(program.said)
    assert code == 2
    assert told in said
    assert not [token for token in ("short-one", ANN) if token in said]
    assert "Traceback" not in said


async def test_a_client_that_leaves_in_the_middle_of_a_request_is_one_line_of_the_log(
    tmp_path: Path,
) -> None:
    left = "the client closed the connection before it had sent everything"
    async with open_program(tmp_path, RLM_MCP_HTTP_TOKENS=f"ann={ANN}") as program:
        host, _, port = program.url.removeprefix("http://").partition(":")
        asked = [("POST", "/mcp"), ("PUT", "/contexts/name")]
        for count, (method, path) in enumerate(asked, start=1):
            head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {ANN}\r\n"
            head += "content-type: application/json\r\naccept: application/json, text/event-stream"
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(f"{head}\r\ncontent-length: 100\r\n\r\n{{".encode())
            await until(lambda count=count: "".join(program.said).count(left) == count)
        await program.stop(signal.SIGTERM)
    said = "".join(program.said)
    assert [line for line in said.splitlines() if left in line] == [
        f"rlm-mcp: {method}: {left}" for method, _ in asked
    ]
    assert "Traceback" not in said


FEW = {"RLM_MCP_ROOT_MODEL": "root", "RLM_MCP_SUB_MODEL": "sub", "RLM_MCP_MIN_ISOLATION": "process"}


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limit")
async def test_a_server_with_few_descriptors_says_so_and_plans_with_them(tmp_path: Path) -> None:
    code = "FINAL(len(llm_query_batch(['x'] * 20)))"
    limits: dict[str, int] = {}
    ends: list[str | None] = []
    async with open_scripted_model(turns(cell(code))) as model:
        variables = FEW | {"RLM_MCP_BASE_URL": model.base_url, "RLM_MCP_HTTP_TOKENS": f"ann={ANN}"}
        async with open_program(tmp_path, open_files=128, environment=variables) as program:
            site = Site(program.url, model, settings_in(tmp_path))
            async with site.open_client() as served, anyio.create_task_group() as tasks:
                limits = (await served.call("rlm_status"))["limits"]
                handle = (await served.call("rlm_context_add", text="some text"))["handle"]

                async def ask(number: int) -> None:
                    asked = {"question": f"{number}?", "text": f"text {number}"}
                    ends.append(
                        (await served.call("rlm_query", wait_seconds=60, **asked))["status"]
                    )
                    done = await served.call("rlm_exec", code="1", contexts=[handle])
                    ends.append(done["error"])

                for number in range(5):
                    tasks.start_soon(ask, number)
            await program.stop(signal.SIGTERM)
    said = "".join(program.said)
    assert "only 128 files may be open at once" in said
    assert "Traceback" not in said
    assert limits["max_concurrent_runs"] == 2
    assert sorted(map(str, ends)) == ["None"] * 5 + ["completed"] * 5


def last_descriptor(pid: int) -> int:
    return max(int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of another process is set")
async def test_a_server_that_runs_out_of_descriptors_says_that_and_goes_on(tmp_path: Path) -> None:
    import resource  # noqa: PLC0415  # not everywhere

    done: dict[str, str | None] = {}
    refused: list[str] = []
    async with open_scripted_model(turns(cell("FINAL(1)"))) as model:
        variables = FEW | {"RLM_MCP_BASE_URL": model.base_url, "RLM_MCP_HTTP_TOKENS": f"ann={ANN}"}
        async with open_program(tmp_path, environment=variables) as program:
            site = Site(program.url, model, settings_in(tmp_path))
            async with site.open_client() as served:
                handle = (await served.call("rlm_context_add", text="some text"))["handle"]
                pid = program.process.pid
                before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                used = await anyio.to_thread.run_sync(last_descriptor, pid)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, before[1]))
                refused = [
                    text_of(await served.raw("rlm_exec", code="1", contexts=[handle])),
                    text_of(await served.raw("rlm_query", question="?", contexts=[handle])),
                ]
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
                done = await served.call("rlm_exec", code="1", contexts=[handle])
    named = re.compile("too many (open )?files|as many files and sockets open", re.IGNORECASE)
    assert [told for told in refused if not named.search(told)] == []
    assert "internal_error" not in str(refused)
    assert (done["output"], done["error"]) == ("1\n", None)
