"""The example of a sandbox at E2B runs with E2B's own SDK, against a fake of its API.

It tries the client's side; nothing here says anything of E2B's walls.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView
from tests.interop.environments import python_with
from tests.reference import ROOT
from tests.serving import cell

SDK = "e2b-code-interpreter==2.11.5"
EXAMPLE = ROOT / "examples" / "e2b" / "sandbox.py"
TEXT = "The whale was white. Call him Moby. A whale is no fish.\n" * 20
FIRST = """
found = context.count("whale")
print("counted", found, llm_query("what of it?"), llm_query_batch(["a", "b"]))
"""
SECOND = 'x = found + 1\nFINAL(x - 1)\nprint(1 / 0 if x < 0 else "fine")'


def python() -> Path:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return python_with(SDK, *project["dependencies"])


@asynccontextmanager
async def open_fake(folder: Path) -> AsyncGenerator[tuple[str, list[str]]]:
    """Start the fake; gives its address, and what it was asked, complete at the end."""
    command = [sys.executable, str(ROOT / "tests" / "interop" / "fake_e2b.py"), str(folder)]
    asked: list[str] = []
    async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as fake:
        assert fake.stdout is not None
        said = BufferedByteReceiveStream(fake.stdout)
        address = (await said.receive_until(b"\n", 1000)).decode()
        try:
            yield address, asked
        finally:
            fake.kill()
        async for data in said:
            asked += data.decode().splitlines()


def script(request: ChatRequestView) -> Answer:
    if request.model == "gpt-4.1-mini":
        return f"reply to {request.text}"
    has_answered = any(message["role"] == "assistant" for message in request.messages)
    return cell(SECOND if has_answered else FIRST)


async def test_the_example_runs_code_at_e2b_answers_its_calls_and_ends_what_it_started(
    tmp_path: Path,
) -> None:
    try:
        interpreter = await anyio.to_thread.run_sync(python)
    except AssertionError as error:
        pytest.skip(f"not installable here: {str(error)[:200]}")
    book = tmp_path / "book.txt"
    await anyio.Path(book).write_text(TEXT)
    with anyio.fail_after(180):
        async with (
            open_scripted_model(script) as model,
            open_fake(tmp_path) as (address, asked),
        ):
            done = await anyio.run_process(
                [str(interpreter), str(EXAMPLE), str(book), "How many whales?"],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(tmp_path),
                    "PYTHONPATH": str(ROOT),
                    "E2B_API_KEY": "e2b_" + "0" * 40,
                    "E2B_API_URL": address,
                    "E2B_SANDBOX_URL": address,
                    "E2B_HTTP_VERSION": "1.1",
                    "OPENAI_BASE_URL": model.base_url,
                    "OPENAI_API_KEY": "none",
                },
                check=False,
            )
            assert done.returncode == 0, done.stderr.decode()
            told = str(model.requests[-1].messages)

    assert done.stdout.decode().strip() == "40"
    for printed in ("counted 40 reply to what of it", "reply to a", "reply to b"):
        assert printed in told
    assert asked[0] == "POST /v2/sandboxes"
    assert '"allow_internet_access": false' in asked[1]
    assert asked[-1] == "DELETE /sandboxes/box1"
    assert asked.count("POST /files") == 4  # the text, and three replies
