"""Agent frameworks connect as their users connect them, store a large file, ask and follow."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.interop.environments import node, node_modules
from tests.interop.servers import over_stdio
from tests.interop.test_clients import CLIENTS, plain_environment
from tests.serving import cell

MEGABYTES = 30
LOOK = cell("found = context.find('needle')\nprint(found)")
ANSWER = cell("FINAL(context[found : found + 6])")


def script(request: ChatRequestView) -> Answer:
    turns = sum(message["role"] == "assistant" for message in request.messages)
    return Reply(ANSWER if turns else LOOK, latency_seconds=0.5)


def command() -> list[str]:
    modules = node_modules()
    shutil.copy(CLIENTS / "ai_sdk.mjs", modules)
    return [str(node()), str(modules / "ai_sdk.mjs")]


async def test_the_ai_sdk_connects_with_its_own_discovery_and_follows_a_run(
    tmp_path: Path,
) -> None:
    try:
        client = await anyio.to_thread.run_sync(command)
    except AssertionError as error:
        pytest.skip(f"not installable here: {str(error)[:200]}")
    file = tmp_path / "big.txt"
    half = "hay " * (MEGABYTES * 125_000)
    await anyio.Path(file).write_text(f"{half}needle{half}")
    async with open_scripted_model(script) as model, over_stdio(tmp_path, model) as server:
        env = {"INTEROP_SERVER": json.dumps(server), "INTEROP_FILE": str(file)}
        with anyio.fail_after(120):
            done = await anyio.run_process(
                client, env={**plain_environment(), **env}, check=False, stderr=sys.stderr.fileno()
            )
    assert done.returncode == 0
    said = json.loads(done.stdout)

    assert {"rlm_query", "rlm_context_add"} <= set(said["tools"])
    assert said["bytes"] == 2 * len(half) + 6
    assert (said["begun"], said["answer"]) == ("running", "needle")
    assert said["refused"][0] is True
    assert "There is no context 'ctx_0'" in said["refused"][1]
