"""The server as hosts run it: a real process over stdio."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import anyio
import anyio.streams.buffered
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCResponse

from rlm_mcp.server.messages import refusal_of_long
from rlm_mcp.server.stdio import MAX_LINE_CHARS, Unanswered, write_messages
from rlm_mcp.store.database import DATABASE_NAME
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Reply
from tests import walls
from tests.commands import measured
from tests.serving import KEY, Served, cell, settings_in, turns

MEGABYTES = 100
FACT = "The lighthouse keeper's name is Ottilie."
FIND = cell("place = context.find('lighthouse keeper')\nprint(len(context), place)")
TELL = cell("fact = context[place - 4 : place + 40].split('\\n')[0]\nprint(fact)\nFINAL(fact)")


@asynccontextmanager
async def open_process(
    directory: Path,
    model: ScriptedModel,
    *,
    mode: Any = "auto",
    errlog: TextIO = sys.stderr,
    client: Any = None,
    lasts_seconds: float = 120,
    **environment: str,
) -> AsyncGenerator[Served]:
    """Start `python -m rlm_mcp` as a host does, with nothing but what it names in `env`."""
    settings = settings_in(directory, base_url=model.base_url)
    env = {
        "HOME": str(directory),
        "RLM_MCP_DATA_DIR": str(settings.data_dir),
        "RLM_MCP_ALLOWED_PATHS": str(directory),
        "RLM_MCP_BASE_URL": model.base_url,
        "RLM_MCP_API_KEY": KEY,
        "RLM_MCP_ROOT_MODEL": "root",
        "RLM_MCP_SUB_MODEL": "sub",
        "RLM_MCP_MIN_ISOLATION": "process",
        **walls.environment(),
    }
    process = StdioServerParameters(
        command=sys.executable, args=["-m", "rlm_mcp"], env=measured() | env | environment
    )
    with anyio.fail_after(lasts_seconds):
        transport = stdio_client(process, errlog=errlog)
        options: dict[str, Any] = client or {}
        async with Client(transport, mode=mode, **options) as connected:
            yield Served(connected, model, settings)


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 100 MB with one fact in it."""
    path = tmp_path_factory.mktemp("large") / "large.txt"
    line = "Nothing of note happened at the harbour on this day, and nobody wrote more.\n"
    half = line * (MEGABYTES * 500_000 // len(line))
    with path.open("w") as file:
        file.write(half)
        file.write(FACT + "\n")
        file.write(half)
    return path


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_file_of_100_mb_is_asked_about_and_all_of_it_outlives_the_server(
    mode: str, tmp_path: Path, large_file: Path
) -> None:
    (tmp_path / "large.txt").symlink_to(large_file)
    allowed = f"{tmp_path}:{large_file.parent}"
    async with open_scripted_model(turns(FIND, TELL)) as model:
        async with open_process(
            tmp_path, model, mode=mode, RLM_MCP_ALLOWED_PATHS=allowed
        ) as served:
            added = await served.call("rlm_context_add", path=str(tmp_path / "large.txt"))
            served.progress.clear()
            run = await served.call(
                "rlm_query", question="What is her name?", contexts=[added["handle"]]
            )
            place = await served.call("rlm_run_variables", run_id=run["run_id"], name="place")
            trace = await served.call("rlm_run_trace", run_id=run["run_id"], limit=100)
        async with open_process(tmp_path, model, mode=mode) as restarted:
            contexts = await restarted.call("rlm_context_list")
            variables = await restarted.call("rlm_run_variables", run_id=run["run_id"])
            fact = await restarted.call("rlm_run_variables", run_id=run["run_id"], name="fact")

    assert added["bytes"] >= MEGABYTES * 999_000
    assert (run["status"], run["answer"]) == ("completed", FACT)
    assert len(served.progress) >= 2
    assert int(place["text"]) == (added["chars"] - len(FACT) - 1) // 2 + len("The ")
    assert trace["events"][-1]["type"] == "run_finished"
    assert [context["handle"] for context in contexts["contexts"]] == [added["handle"]]
    assert [variable["name"] for variable in variables["variables"]] == ["place", "fact", "FINAL"]
    assert fact["text"] == FACT
    longest = max(
        sum(len(str(message["content"])) for message in request.messages)
        for request in model.requests
    )
    assert longest < 60_000


async def test_a_cell_that_never_ends_is_stopped_and_the_run_goes_on(tmp_path: Path) -> None:
    spin = cell("kept = 7\nwhile True: pass")
    async with (
        open_scripted_model(turns(spin, cell("FINAL(kept)"))) as model,
        open_process(tmp_path, model, RLM_MCP_SANDBOX_TIMEOUT="1") as served,
    ):
        run = await served.call("rlm_query", question="?", text="some text")
        trace = await served.call("rlm_run_trace", run_id=run["run_id"], limit=100)

    assert (run["status"], run["answer"]) == ("completed", "7")
    [stopped] = [event for event in trace["events"] if event.get("detail", {}).get("timed_out")]
    assert "1 s" in stopped["detail"]["error"]


async def test_other_calls_are_answered_while_a_cell_spins_and_a_large_file_loads(
    tmp_path: Path, large_file: Path
) -> None:
    """Answers must not wait for the work; how fast they are is measured in bench/."""
    spin = cell("while True: pass")
    allowed = str(large_file.parent)
    async with (
        open_scripted_model(turns(spin, "FINAL(done)")) as model,
        open_process(
            tmp_path, model, RLM_MCP_SANDBOX_TIMEOUT="20", RLM_MCP_ALLOWED_PATHS=allowed
        ) as served,
    ):
        run = await served.call("rlm_query", question="?", text="some text", wait_seconds=0)
        answered: list[float] = []
        async with anyio.create_task_group() as group:
            done = anyio.Event()

            async def load() -> None:
                await served.call("rlm_context_add", path=str(large_file))
                done.set()

            group.start_soon(load)
            while not done.is_set():
                started = time.perf_counter()
                await served.call("rlm_run_list")
                answered.append(time.perf_counter() - started)
        state = await served.call("rlm_run_wait", run_id=run["run_id"], wait_seconds=0)
        await served.call("rlm_run_cancel", run_id=run["run_id"])

    assert state["status"] == "running"
    assert len(answered) >= 5
    assert statistics.median(answered) < 1


async def test_a_server_whose_host_goes_away_ends_and_leaves_its_run_interrupted(
    tmp_path: Path,
) -> None:
    never = anyio.Event()
    async with open_scripted_model(lambda _: Reply("FINAL(x)", gate=never)) as model:
        async with open_process(tmp_path, model) as served:
            run = await served.call("rlm_query", question="?", text="text", wait_seconds=0)
            with anyio.fail_after(60):
                await model.until(lambda: model.in_flight == 1)
        with anyio.fail_after(60):
            await model.until(lambda: model.in_flight == 0)
        async with open_process(tmp_path, model) as after:
            read = await after.call("rlm_run_wait", run_id=run["run_id"], wait_seconds=0)

    assert read["status"] == "interrupted"


async def test_a_server_whose_host_reads_no_more_ends_without_a_traceback(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "RLM_MCP_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "rlm_mcp"]
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}) + "\n"
    reading, writing = os.pipe()
    with anyio.fail_after(120):
        async with await anyio.open_process(
            command, stdin=subprocess.PIPE, stdout=writing, env=env
        ) as server:
            os.close(writing)
            os.close(reading)
            assert server.stdin is not None
            assert server.stderr is not None
            await server.stdin.send(ping.encode())
            await server.stdin.aclose()
            said = b"".join([piece async for piece in server.stderr])
            ended = await server.wait()

    assert ended == 0
    assert b"Traceback" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells of it at once")
@pytest.mark.parametrize("greets", [False, True])
async def test_a_server_whose_host_keeps_stdin_open_and_reads_no_more_ends(
    tmp_path: Path, greets: bool
) -> None:
    env = {"HOME": str(tmp_path), "RLM_MCP_DATA_DIR": str(tmp_path / "data")}
    reading, writing = os.pipe()
    with anyio.fail_after(120):
        async with await anyio.open_process(
            [sys.executable, "-m", "rlm_mcp"], stdin=subprocess.PIPE, stdout=writing, env=env
        ) as server:
            os.close(writing)
            assert server.stdin is not None
            assert server.stderr is not None
            if greets:
                await server.stdin.send(GREETING)
                await anyio.wait_readable(reading)
            os.close(reading)
            said = b"".join([piece async for piece in server.stderr])
            ended = await server.wait()

    assert ended == 0
    assert b"Traceback" not in said
    assert not list((tmp_path / "data").glob("*-wal"))  # the store was closed


async def test_nothing_but_the_protocol_is_written_to_stdout(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    env = {"HOME": str(tmp_path), "RLM_MCP_DATA_DIR": str(settings.data_dir)}
    with anyio.fail_after(60):
        done = await anyio.run_process(
            [sys.executable, "-m", "rlm_mcp"], env=env | {"RLM_MCP_TYPO": "1"}, input=b""
        )

    assert done.returncode == 0
    assert done.stdout == b""
    assert b"RLM_MCP_TYPO is not a setting" in done.stderr


NOISY = """
from rlm_mcp.cli.commands.main import main
from rlm_mcp.server import stdio

inner = stdio.parse_message

def parse_message(line):
    print("a library's own words")
    return inner(line)

stdio.parse_message = parse_message
main(["serve"])
"""


async def test_what_a_library_prints_reaches_the_host_at_no_time(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "RLM_MCP_DATA_DIR": str(tmp_path / "data")}
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "server/discover"}) + "\n"
    with anyio.fail_after(120):
        done = await anyio.run_process(
            [sys.executable, "-c", NOISY], env=env, input=ping.encode(), check=False
        )

    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1]
    assert b"a library's own words" in done.stderr


async def test_requests_of_a_pipe_that_is_closed_at_once_are_answered(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "RLM_MCP_DATA_DIR": str(tmp_path / "data")}
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "pipe", "version": "1"},
    }
    sent: list[dict[str, object]] = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "ping"},
        {"id": 3, "method": "tools/list"},
    ]
    lines = "".join(json.dumps({"jsonrpc": "2.0", **each}) + "\n" for each in sent)
    with anyio.fail_after(120):
        done = await anyio.run_process(
            [sys.executable, "-m", "rlm_mcp"], env=env, input=lines.encode(), check=False
        )

    assert done.returncode == 0
    assert sorted(json.loads(line)["id"] for line in done.stdout.splitlines()) == [1, 2, 3]


def responses(count: int) -> list[SessionMessage]:
    return [
        SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=number, result={}))
        for number in range(count)
    ]


def ids_in(path: Path) -> list[int]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


async def test_messages_that_wait_together_are_written_in_order(tmp_path: Path) -> None:
    outgoing, messages = anyio.create_memory_object_stream[SessionMessage](0)
    with (tmp_path / "stdout").open("wb") as file, anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_messages, messages, file, Unanswered())
            async with outgoing, anyio.create_task_group() as senders:
                for response in responses(20):
                    senders.start_soon(outgoing.send, response)

    assert ids_in(tmp_path / "stdout") == list(range(20))


async def test_a_message_sent_just_before_the_end_is_written(tmp_path: Path) -> None:
    outgoing, messages = anyio.create_memory_object_stream[SessionMessage](0)
    with (tmp_path / "stdout").open("wb") as file, anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_messages, messages, file, Unanswered())
            await anyio.wait_all_tasks_blocked()
            outgoing.send_nowait(responses(1)[0])
            outgoing.close()

    assert ids_in(tmp_path / "stdout") == [0]


async def test_a_setting_that_cannot_be_used_ends_the_start_with_its_name(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "RLM_MCP_MAX_ITERATIONS": "many"}
    with anyio.fail_after(60):
        done = await anyio.run_process(
            [sys.executable, "-m", "rlm_mcp"], env=env, input=b"", check=False
        )

    assert done.returncode == 2
    assert b"RLM_MCP_MAX_ITERATIONS='many'" in done.stderr
    assert b"Traceback" not in done.stderr


async def test_a_file_name_that_is_no_text_harms_nothing(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    await anyio.Path(odd).mkdir()
    for name, data in ((b"\xff.bin", b"\0"), (b"\xfe.txt", b"some text")):
        await anyio.Path(odd / os.fsdecode(name)).write_bytes(data)
    async with (
        open_scripted_model(turns("never")) as model,
        open_process(tmp_path, model) as served,
    ):
        added = await served.call("rlm_context_add", path=str(odd))
        listed = await served.call("rlm_context_list")

    assert added["skipped"] == [{"path": "?.bin", "reason": "binary"}]
    assert len(listed["contexts"]) == 1


PING = b'{"jsonrpc":"2.0","id":"ping","method":"ping"}\n'
AGAIN = PING.replace(b'"id":"ping"', b'"id":"again"')
LIST = b'{"jsonrpc":"2.0","id":"list","method":"tools/list"}\n'
CALL = b'{"jsonrpc":"2.0","id":"call","method":"tools/call","params":{"name":"rlm_run_list"}}\n'
PROBE = (
    b'{"jsonrpc":"2.0","id":"probe","method":"server/discover","params":{"_meta":{'
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientInfo":{"name":"raw","version":"1"},'
    b'"io.modelcontextprotocol/clientCapabilities":{}}}}\n'
)


def ids_of(part: bytes) -> set[Any]:
    """The ids of requests; lines that are no request are not waited for."""
    found: set[Any] = set()
    for line in part.splitlines():
        with suppress(ValueError, RecursionError, AttributeError):
            if len(line) < MAX_LINE_CHARS and b'"method"' in line:
                found.add(json.loads(line).get("id"))
    return {one for one in found if type(one) in (str, int)}


async def answers_to(directory: Path, *parts: bytes, **environment: str) -> tuple[Any, bytes]:
    """Write each part once all requests before it are answered; gives answers by id, and stderr."""
    env = {"HOME": str(directory), "RLM_MCP_DATA_DIR": str(directory / "data")} | environment
    answers: dict[Any, Any] = {}
    asked: set[Any] = set()
    with anyio.fail_after(60):
        command = [sys.executable, "-m", "rlm_mcp"]
        async with await anyio.open_process(command, env=measured() | env) as server:
            assert server.stdin
            assert server.stdout
            lines = anyio.streams.buffered.BufferedByteReceiveStream(server.stdout)
            for part in parts:
                await server.stdin.send(part)
                asked |= ids_of(part)
                while asked - answers.keys():
                    answer = json.loads(await lines.receive_until(b"\n", 1 << 20))
                    answers[answer.get("id")] = answer
            await server.stdin.aclose()
            assert server.stderr
            said = b"".join([chunk async for chunk in server.stderr])
            assert await server.wait() == 0
    return answers, said


@pytest.mark.parametrize("is_queued", [True, False])
async def test_a_client_that_probes_may_still_greet_in_the_older_way(
    tmp_path: Path, is_queued: bool
) -> None:
    """A probe whose answer comes late, and one that was answered, leave both eras open."""
    parts = (PROBE + GREETING + LIST,) if is_queued else (PROBE, GREETING, LIST)
    answers, _ = await answers_to(tmp_path, *parts)

    assert "2026-07-28" in answers["probe"]["result"]["supportedVersions"]
    assert answers[1]["result"]["protocolVersion"] == "2025-06-18"
    assert "rlm_query" in {tool["name"] for tool in answers["list"]["result"]["tools"]}


async def test_probes_leave_the_newer_era_open_too(tmp_path: Path) -> None:
    again = PROBE.replace(b'"probe"', b'"again"')
    modern = PROBE.replace(b'"probe"', b'"list"').replace(b"server/discover", b"tools/list")
    answers, _ = await answers_to(tmp_path, PROBE + again, modern)

    assert answers["again"]["result"]["supportedVersions"]
    assert answers["list"]["result"]["tools"]


async def test_a_store_that_cannot_be_opened_is_the_answer_of_every_tool(tmp_path: Path) -> None:
    answers, said = await answers_to(
        tmp_path, GREETING + LIST, CALL, RLM_MCP_DATA_DIR="/proc/nowhere"
    )

    assert answers["list"]["result"]["tools"]
    assert answers["call"]["result"]["isError"]
    error = answers["call"]["result"]["_meta"]["rlm-mcp/error"]
    assert error["code"] == "store_error"
    assert "/proc/nowhere" in error["message"]
    assert b"/proc/nowhere" in said
    assert b"Traceback" not in said


async def test_a_store_that_could_not_be_opened_is_opened_once_that_is_mended(
    tmp_path: Path,
) -> None:
    path = settings_in(tmp_path).data_dir / DATABASE_NAME
    await anyio.Path(path.parent).mkdir()
    await anyio.Path(path).write_text("not a database")
    async with (
        open_scripted_model(turns("never")) as model,
        open_process(tmp_path, model) as served,
    ):
        first = await served.error("rlm_context_list")
        again = await served.error("rlm_context_list")
        await anyio.Path(path).unlink()
        added = await served.call("rlm_context_add", text="some text")
        listed = await served.call("rlm_context_list")

    assert first == again
    assert "is not a database" in first["message"]
    assert [one["handle"] for one in listed["contexts"]] == [added["handle"]]


async def test_the_tools_are_listed_before_store_engine_and_sandbox_are_loaded() -> None:
    """A host gives up on a server that is slow to answer, so nothing that takes long comes first.

    HTTP is the SDK's own to load.
    """
    program = (
        "import sys\nfrom rlm_mcp.cli.commands import main, serve\n"
        "from rlm_mcp import settings\nfrom rlm_mcp.server.app import build_server\n"
        "build_server(lambda: None)\nprint(*sys.modules)"
    )
    with anyio.fail_after(60):
        # Measuring coverage loads some of them.
        env = {name: value for name, value in os.environ.items() if "COV" not in name}
        done = await anyio.run_process([sys.executable, "-c", program], env=env)
    loaded = set(done.stdout.decode().split())

    early = ("engine.config", "engine.daily_limits", "engine.models.addresses")
    early += ("engine.models.tables", "service.runs.questions")
    rooms = ("engine", "engine.models", "service", "service.runs")
    layers = ("store", "sandbox", "engine", "service", "events", "server.schemas", "server.views")
    layers += ("server.context_tools", "server.run_tools", "server.app_view")
    heavy = tuple(f"rlm_mcp.{layer}" for layer in layers)
    found = {name.removeprefix("rlm_mcp.") for name in loaded if name.startswith(heavy)}
    assert found <= {*early, *rooms}
    assert not loaded & {"aiohttp", "openai", "sqlite3", "sqlite_utils"}


GREETING = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
    b'"capabilities":{},"clientInfo":{"name":"raw","version":"1"}}}\n'
    b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
)
ADD = b'{"jsonrpc":"2.0","id":"add","method":"tools/call","params":{"name":"rlm_context_add",'
HALF = ADD + b'"arguments":{"text":"cut \\ud83d here \\\\ud83d, whole \\ud83d\\ude00"}}}\n'
NO_META = HALF.replace(b'"add"', b'"null"').replace(b'"arguments"', b'"_meta":null,"arguments"')
ANSWERS = 7


@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(os.name != "posix", reason="there are no such terminals elsewhere")
async def test_at_a_terminal_it_says_that_it_is_for_programs_and_ctrl_c_ends_it(
    tmp_path: Path,
) -> None:
    env = {"HOME": str(tmp_path), "RLM_MCP_DATA_DIR": str(tmp_path / "data")}
    ours, its = os.openpty()
    shown = b""
    with anyio.fail_after(60):
        async with await anyio.open_process(
            [sys.executable, "-m", "rlm_mcp"], env=env, stdin=its, stdout=its, stderr=its
        ) as server:
            os.write(ours, GREETING)
            while b"serverInfo" not in shown:
                await anyio.wait_readable(ours)
                shown += os.read(ours, 65536)
            server.send_signal(signal.SIGINT)
            assert await server.wait() == 130
    os.close(ours)
    os.close(its)

    assert b"Ctrl-C ends it" in shown
    assert b"Traceback" not in shown


async def test_every_line_is_answered_also_one_with_half_a_character_or_that_is_no_message(
    tmp_path: Path,
) -> None:
    env = {"HOME": str(tmp_path), "RLM_MCP_DATA_DIR": str(tmp_path / "data")}
    strange = b'\nno JSON\n{"id":7}\n[1]\n' + b"[" * 100_000 + b"\n"
    answers: list[dict[str, Any]] = []
    with anyio.fail_after(60):
        async with await anyio.open_process([sys.executable, "-m", "rlm_mcp"], env=env) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            await server.stdin.send(GREETING + strange + HALF + NO_META)
            lines = anyio.streams.buffered.BufferedByteReceiveStream(server.stdout)
            while len(answers) < ANSWERS:
                said = json.loads(await lines.receive_until(b"\n", 1_000_000))
                if "id" in said:  # a slow server also tells meanwhile that the list has changed
                    answers.append(said)
            await server.stdin.aclose()
            await server.wait()

    codes = [(one["id"], one["error"]["code"]) for one in answers if "error" in one]
    added, unmarked = [
        one["result"] for name in ("add", "null") for one in answers if one["id"] == name
    ]
    assert codes == [(None, -32700), (7, -32600), (None, -32600), (None, -32700)]
    assert added["structuredContent"]["preview"] == "cut ? here \\ud83d, whole 😀"
    assert unmarked["structuredContent"]["handle"] == added["structuredContent"]["handle"]


@pytest.mark.parametrize(
    ("line", "number", "told"),
    [
        (b"\0\0", None, "The message '\\x00\\x00' is not JSON"),
        (b"[" * 100_000, None, "is not JSON: maximum recursion depth exceeded"),
        (b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b"}", None, "is not JSON: Exceeds the limit"),
        (b'[{"jsonrpc":"2.0","id":5,"method":"ping"}]', None, "is a batch of messages"),
        (b'{"id":5,"method":"ping"}', 5, "is none of JSON-RPC 2.0"),
        (b'{"jsonrpc":"2.0","id":"\\ud800"}', "?", "is none of JSON-RPC 2.0"),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, "neither a text nor a whole number"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None, "neither a text nor a whole number"),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', None, "neither a text nor a whole number"),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call"}', 7, "tools/call: params="),
        (
            b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":[]}}',
            7,
            "params.arguments=[]: input should be a valid dictionary",
        ),
    ],
    ids=[
        "bytes",
        "nested",
        "long number",
        "batch",
        "no version",
        "half a character",
        "null",
        "fraction",
        "true",
        "no parameters",
        "list",
    ],
)
async def test_a_line_that_cannot_be_answered_is_quoted_and_the_next_one_is_answered(
    tmp_path: Path, line: bytes, number: Any, told: str
) -> None:
    answers, said = await answers_to(tmp_path, GREETING + line + b"\n" + PING)

    assert told in answers[number]["error"]["message"]
    assert answers["ping"]["result"] == {}
    assert b"Traceback" not in said


async def test_a_call_before_the_greeting_is_told_what_is_missing_and_may_still_greet(
    tmp_path: Path,
) -> None:
    answers, _ = await answers_to(tmp_path, CALL, GREETING + LIST)

    assert "send `initialize` first" in answers["call"]["error"]["message"]
    assert answers["list"]["result"]["tools"]


async def test_a_byte_order_mark_before_the_first_message_is_no_part_of_it(tmp_path: Path) -> None:
    answers, _ = await answers_to(tmp_path, b"\xef\xbb\xbf" + PING)

    assert answers["ping"]["result"] == {}


async def test_a_progress_token_that_is_null_means_none(tmp_path: Path) -> None:
    call = CALL.replace(b'"rlm_run_list"', b'"rlm_run_list","_meta":{"progressToken":null}')
    answers, _ = await answers_to(tmp_path, GREETING, call)

    assert answers["call"]["result"]["structuredContent"]["runs"] == []


async def test_an_unknown_tool_is_told_with_those_that_exist(tmp_path: Path) -> None:
    answers, _ = await answers_to(tmp_path, GREETING, CALL.replace(b"run_list", b"runlist"))

    told = answers["call"]["result"]["content"][0]["text"]
    assert told.startswith(
        "not_found: There is no tool 'rlm_runlist'. Did you mean 'rlm_run_list'?"
    )
    assert "rlm_context_add" in told


async def test_half_a_character_in_an_answer_does_not_end_the_server(tmp_path: Path) -> None:
    outgoing, messages = anyio.create_memory_object_stream[SessionMessage](0)
    odd = JSONRPCResponse(jsonrpc="2.0", id=7, result={"text": "a\ud800b"})
    with (tmp_path / "stdout").open("wb") as file, anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_messages, messages, file, Unanswered())
            async with outgoing:
                await outgoing.send(SessionMessage(odd))

    written = json.loads((tmp_path / "stdout").read_bytes())
    assert written == {"jsonrpc": "2.0", "id": 7, "result": {"text": "a?b"}}


@pytest.mark.parametrize(
    ("begin", "end", "number"),
    [
        ('{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"a":"', '"}}\n', 7),
        ('{"method":"tools/call", "id": "a", "params":{"a":"', '"}}', "a"),
        ('{"params":{"id":9,"a":"', '"}, "method":"x","id":8,"jsonrpc":"2.0"}\n', 8),
        ('{"params":{"a":"', '","id":5}}\n', None),
        ('{"params":{"a":"', '}, \\"id\\":5}"}}\n', None),
        ("", "", None),
    ],
    ids=["first", "text", "last", "inner", "quoted", "none"],
)
def test_the_id_of_a_message_is_found_at_its_ends(begin: str, end: str, number: Any) -> None:
    assert refusal_of_long(begin, end, "1 byte", "Send less.").id == number


async def test_a_line_without_end_is_refused_with_the_limit_and_another_way(
    tmp_path: Path,
) -> None:
    long = b'{"params":{"a":"' + b"x" * MAX_LINE_CHARS + b'"},"id":"long","method":"x"}\n'
    answers, _ = await answers_to(tmp_path, PING, long + AGAIN)

    told = answers["long"]["error"]["message"]
    assert "more than 100,000,000 characters" in told
    assert "`path`" in told
    assert "final=false" in told
    assert answers["again"]["result"] == {}
