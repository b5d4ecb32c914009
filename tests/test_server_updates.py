"""Clients hear of what has changed, in both eras of the protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp_types import TextResourceContents

from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, Reply
from tests.hearing import LIST, Heard, listening
from tests.serving import Served, cell, open_served
from tests.test_stdio import open_process

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])


class Held:
    """A model that looks at the text once it may, and then answers."""

    def __init__(self) -> None:
        self.gate = anyio.Event()

    def __call__(self, request: ChatRequestView) -> Answer:
        is_first = not any(message["role"] == "assistant" for message in request.messages)
        return Reply(cell("print(context)") if is_first else "FINAL(done)", gate=self.gate)


async def begun(served: Served) -> str:
    """Begin a run that is held; gives its URI."""
    added = await served.call("rlm_context_add", text="some text")
    run = await served.call("rlm_query", question="?", contexts=[added["handle"]], wait_seconds=0)
    return f"rlm://runs/{run['run_id']}"


async def state(served: Served, uri: str) -> dict[str, Any]:
    [contents] = (await served.client.read_resource(uri)).contents
    assert isinstance(contents, TextResourceContents)
    return json.loads(contents.text)


@ERAS
async def test_a_run_tells_of_its_events_to_its_end_and_the_list_of_what_comes_and_goes(
    tmp_path: Path, mode: str
) -> None:
    held, heard = Held(), Heard()
    async with open_served(tmp_path, held, mode=mode, client=heard.options) as served:
        run = await begun(served)
        other = (await served.call("rlm_context_add", text="another text"))["handle"]
        uris = [run, f"{run}/trace", f"rlm://contexts/{other}"]
        async with listening(served.client, heard, uris):
            if mode == "legacy":
                await heard.until(LIST)  # nobody asks for the list there
            quiet = list(heard.told)
            held.gate.set()
            await heard.until(run, f"{run}/trace")
            while (await state(served, run))["status"] != "completed":
                await heard.until(run)
            await served.call("rlm_context_add", text="a third text")
            await heard.until(LIST)
            await served.call("rlm_context_delete", handle=other)
            await heard.until(LIST, f"rlm://contexts/{other}")
        await served.call("rlm_exec", code="1", run_id=run.rpartition("/")[2])
        await served.call("rlm_context_add", text="a fourth text")
        if mode == "legacy":
            await heard.until(LIST)

    assert set(quiet) <= {run, f"{run}/trace"}
    assert heard.told == []


@ERAS
async def test_what_another_server_on_the_same_directory_does_is_told_over_stdio(
    tmp_path: Path, mode: str
) -> None:
    held, heard = Held(), Heard()
    async with (
        open_scripted_model(held) as model,
        open_process(tmp_path, model, mode=mode, client=heard.options) as listener,
        open_process(tmp_path, model) as worker,
    ):
        run = await begun(worker)
        async with listening(listener.client, heard, [run]):
            held.gate.set()
            while (await state(listener, run))["status"] != "completed":
                await heard.until(run)


async def test_what_can_be_listened_to_is_said_in_both_eras(tmp_path: Path) -> None:
    for mode in ("auto", "legacy"):
        async with open_served(tmp_path, Held(), mode=mode) as served:
            resources = served.client.server_capabilities.resources

        assert resources is not None
        assert (resources.subscribe, resources.list_changed) == (True, True), mode
