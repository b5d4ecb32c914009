"""Texts and runs as resources: read, listed, completed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference, TextResourceContents

from tests.serving import Served, cell, open_served, turns

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

WORK = cell("words = context.split()\nlong = 'é' * 60_000\nFINAL(words[1])")


@pytest.fixture(params=["auto", "legacy"])
async def served(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncGenerator[Served]:
    async with open_served(tmp_path, turns(WORK), mode=request.param) as served:
        yield served


async def read(served: Served, uri: str) -> TextResourceContents:
    [contents] = (await served.client.read_resource(uri)).contents
    assert isinstance(contents, TextResourceContents)
    assert contents.uri == uri
    return contents


async def followed(served: Served, uri: str | None) -> list[str]:
    """The lines of a text, read to its end by the notes below its pieces."""
    lines: list[str] = []
    while uri:
        text, _, note = (await read(served, uri)).text.partition("]\n\n")[2].rpartition("\n[")
        lines.append(text)
        uri = note.partition("more: ")[2].rstrip("]")
    return lines


async def test_texts_and_runs_are_read_by_their_uris(served: Served) -> None:
    added = await served.call("rlm_context_add", text="alpha beta gamma", name="Greek")
    run = await served.call("rlm_query", question="Which is second?", contexts=[added["handle"]])
    at = f"rlm://runs/{run['run_id']}"

    text = await read(served, f"rlm://contexts/{added['handle']}")
    state = await read(served, at)
    trace = await read(served, f"{at}/trace?after=1&limit=2")
    words = await read(served, f"{at}/variables/words")
    answer = await read(served, f"{at}/variables/FINAL")
    long = await read(served, f"{at}/variables/long")

    assert (text.mime_type, text.text) == ("text/plain", "alpha beta gamma")
    assert state.mime_type == trace.mime_type == words.mime_type == "application/json"
    assert json.loads(state.text) == {
        **run,
        "question": "Which is second?",
        "contexts": [added["handle"]],
        "created_at": json.loads(state.text)["created_at"],
    }
    told = json.loads(trace.text)
    assert [event["seq"] for event in told["events"]] == [2, 3]
    assert told["more"] == f"{at}/trace?after=3"
    assert json.loads(words.text) == ["alpha", "beta", "gamma"]
    assert (answer.mime_type, answer.text) == ("text/plain", "beta")
    assert len(long.text) < 50_200
    assert long.text.endswith('name="long", start=50000)]')


async def test_lists_and_stored_texts_say_how_long_they_hold_to_clients_that_may_keep_them(
    served: Served,
) -> None:
    added = await served.call("rlm_context_add", text="abc")
    run = await served.call("rlm_query", question="?", text="abc")
    text = await served.client.read_resource(f"rlm://contexts/{added['handle']}")
    answer = await served.client.read_resource(f"rlm://runs/{run['run_id']}")
    lists = [
        await served.client.list_tools(),
        await served.client.list_prompts(),
        await served.client.list_resource_templates(),
        await served.client.list_resources(),
    ]

    is_newer = served.client.protocol_version == "2026-07-28"  # the older ones have no such field
    assert [one.ttl_ms for one in lists] == [3_600_000, 3_600_000, 3_600_000, 2000] * is_newer or (
        not is_newer
    )
    assert (text.ttl_ms, text.cache_scope) == ((600_000 if is_newer else 0), "private")
    assert answer.ttl_ms == 0  # it changes while it works


async def test_a_long_text_is_read_piece_by_piece_over_all_its_documents(served: Served) -> None:
    documents = ["one\n" * 3, "", "two " * 10_000, "three"]
    added = await served.call("rlm_context_add", documents=documents)
    uri = f"rlm://contexts/{added['handle']}"

    pieces = await followed(served, uri)
    part = (await read(served, f"{uri}?start=12&limit=7")).text.partition("]\n\n")[2]
    last = (await read(served, f"{uri}?start=999999")).text.partition("]\n\n")[2]

    assert "".join(pieces) == "".join(documents)
    assert len(pieces) == 4
    assert part == (
        "two two\n[document 2, 'document 2': characters 12 to 19 of 40017 in all; "
        f"more: {uri}?start=19]"
    )
    assert (
        last == "\n[document 3, 'document 3': characters 40017 to 40017 of 40017 in all; the end]"
    )


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("rlm://contexts/{handle}x", "Did you mean '{handle}'"),
        ("rlm://runs/{run_id}x/trace", "Did you mean '{run_id}'"),
        ("rlm://runs/{run_id}/variables/wrds", "words"),
        ("rlm://nothing/here", "rlm://runs/{{run_id}}/trace"),
        ("rlm://contexts/{handle}?start=-1", "start='-1' is not a number"),
        ("rlm://contexts/..%2F..%2Fetc%2Fpasswd", "rlm_context_list"),
    ],
)
async def test_what_is_not_there_is_told_with_what_is_near(
    tmp_path: Path, uri: str, told: str
) -> None:
    async with open_served(tmp_path, turns(WORK)) as served:
        added = await served.call("rlm_context_add", text="alpha beta gamma")
        run = await served.call("rlm_query", question="?", contexts=[added["handle"]])
        names = {"handle": added["handle"], "run_id": run["run_id"]}
        with pytest.raises(MCPError) as refused:
            await read(served, uri.format(**names))

    assert refused.value.error.code == -32602
    assert told.format(**names) in refused.value.error.message


async def test_the_list_holds_texts_and_runs_newest_first_in_pages(served: Served) -> None:
    handles: list[str] = []
    for number in range(60):
        added = await served.call("rlm_context_add", text=f"text {number}", name=f"name {number}")
        handles.append(added["handle"])
    run = await served.call("rlm_query", question="Which\none?", contexts=[handles[0]])

    first = await served.client.list_resources()
    rest = await served.client.list_resources(cursor=first.next_cursor)
    with pytest.raises(MCPError) as refused:
        await served.client.list_resources(cursor="nonsense")

    listed = [resource.uri for resource in first.resources + rest.resources]
    assert listed == [
        f"rlm://runs/{run['run_id']}",
        *(f"rlm://contexts/{handle}" for handle in reversed(handles)),
    ]
    assert rest.next_cursor is None
    newest, text = first.resources[:2]
    assert (newest.title, newest.mime_type) == ("Which one?", "application/json")
    assert (text.title, text.size, text.mime_type) == ("name 59", len("text 59"), "text/plain")
    assert refused.value.error.code == -32602


async def test_handles_run_ids_names_and_paths_are_completed(
    served: Served, tmp_path: Path
) -> None:
    added = await served.call("rlm_context_add", text="alpha beta gamma")
    run = await served.call("rlm_query", question="?", contexts=[added["handle"]])
    await anyio.Path(tmp_path / "notes.txt").write_text("notes")
    await anyio.Path(tmp_path / "news").mkdir()
    template = ResourceTemplateReference(uri="rlm://runs/{run_id}/variables/{name}")
    prompt = PromptReference(name="ask_file")

    async def completed(name: str, value: str, ref: Any = template, **known: str) -> list[str]:
        found = await served.client.complete(
            ref, {"name": name, "value": value}, context_arguments=known
        )
        return found.completion.values

    assert await completed("handle", "ctx_") == [added["handle"]]
    assert await completed("handle", "nothing") == []
    assert await completed("run_id", run["run_id"][:9]) == [run["run_id"]]
    assert await completed("name", "wo", run_id=run["run_id"]) == ["words"]
    assert await completed("name", "wo") == await completed("name", "wo", run_id="run_x") == []
    assert await completed("path", "", prompt) == [f"{tmp_path}/"]
    assert await completed("path", f"{tmp_path}/n", prompt) == [
        f"{tmp_path}/news/",
        f"{tmp_path}/notes.txt",
    ]
    assert await completed("path", "/etc/pass", prompt) == []
    assert await completed("question", "", prompt) == []
