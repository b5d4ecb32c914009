"""What hosts and frameworks need of every tool: arguments as they send them, schemas, hints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from mcp_types import Implementation, ResourceLink, Tool

from rlm_mcp.server.tool import CALLER_SECONDS, SILENT_SECONDS, USUAL_SECONDS, usual_wait
from tests.serving import Served, cell, open_served, text_of, turns
from tests.surface import SNAPSHOT

pytestmark = pytest.mark.usefixtures("one_sandbox_for_all")

TOOLS = [Tool.model_validate(tool) for tool in json.loads(SNAPSHOT.read_text())["tools"]]
BY_NAME = {tool.name: tool for tool in TOOLS}
LIMITS = [(tool.name, "limit") for tool in TOOLS if "limit" in tool.input_schema["properties"]]


def size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The properties of a schema at every level, by name."""
    for name, field in schema.get("properties", {}).items():
        yield name, field
        yield from fields(field)


@pytest.mark.parametrize("name", BY_NAME)
async def test_every_parameter_says_what_it_is(name: str) -> None:
    undescribed = [
        field
        for field, schema in fields(BY_NAME[name].input_schema)
        if not schema.get("description")
    ]

    assert undescribed == []


@pytest.mark.parametrize(("name", "field"), LIMITS)
async def test_limits_name_their_default_and_bounds(name: str, field: str) -> None:
    described = BY_NAME[name].input_schema["properties"][field]["description"]

    assert re.search(r"1 to \d+; default \d+", described)


async def test_the_tools_leave_room_in_a_models_window() -> None:
    listed = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in TOOLS]
    listed = [tool for tool in listed if tool["name"] != "rlm_run_lines"]  # for the view alone
    seen = [{key: tool[key] for key in ("name", "description", "inputSchema")} for tool in listed]

    assert sum(map(size, seen)) < 9_000
    assert size([{key: tool[key] for key in tool if key != "_meta"} for tool in listed]) < 15_500


@pytest.mark.parametrize("name", BY_NAME)
async def test_schemas_are_those_that_every_provider_takes(name: str) -> None:
    """Gemini knows a subset of the keywords, OpenAI's strict form knows no lists of types."""
    tool = BY_NAME[name]
    known = {"type", "properties", "required", "description", "items", "enum", "default"}
    for _, schema in [("", tool.input_schema), *fields(tool.input_schema)]:
        assert schema.keys() <= known
        assert isinstance(schema.get("type", "string"), str)
        assert schema.get("type") != "array" or "items" in schema
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", f"mcp__rlm__{name}")
    assert len(tool.description or "") < 1024


@pytest.mark.parametrize("name", BY_NAME)
async def test_openai_can_make_every_schema_strict_but_for_objects_of_any_form(name: str) -> None:
    """In the strict form each object names all its fields, and each field may be null."""
    open_objects = {
        field
        for field, schema in fields(BY_NAME[name].input_schema)
        if schema.get("type") == "object" and not schema.get("properties")
    }

    assert open_objects <= {"options", "answer_schema", "question_of"}


async def test_only_the_tool_that_asks_the_endpoint_how_it_is_reaches_an_open_world() -> None:
    hints = {tool.name: tool.annotations and tool.annotations.open_world_hint for tool in TOOLS}

    assert [name for name, is_open in hints.items() if is_open] == ["rlm_status"]


async def test_what_hosts_should_load_at_once_and_may_show_whole_is_marked() -> None:
    meta = {tool.name: tool.meta or {} for tool in TOOLS}

    loaded = {name for name, hints in meta.items() if hints.get("anthropic/alwaysLoad")}
    assert loaded == {"rlm_query", "rlm_context_add"}
    long = {name for name, hints in meta.items() if "anthropic/maxResultSizeChars" in hints}
    assert {"rlm_context_read", "rlm_run_trace", "rlm_run_variables", "rlm_query"} <= long


NOTHING: list[Any] = [None, "", [], {}]


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
async def test_an_empty_value_for_whatever_is_not_required_means_that_it_was_not_given(
    tmp_path: Path, nothing: Any
) -> None:
    async with open_served(tmp_path, turns(cell("FINAL(len(context))"))) as served:
        added = await served.call(
            "rlm_context_add", **filled("rlm_context_add", nothing, text="abc")
        )
        handle = added["handle"]
        asked: dict[str, Any] = {"question": "How long?", "contexts": [handle]}
        run = await served.call("rlm_query", **filled("rlm_query", nothing, **asked))
        given: dict[str, dict[str, Any]] = {
            "rlm_context_read": {"handle": handle},
            "rlm_context_search": {"handles": [handle], "pattern": "b"},
            "rlm_run_wait": {"run_id": run["run_id"]},
            "rlm_run_trace": {"run_id": run["run_id"]},
            "rlm_run_variables": {"run_id": run["run_id"]},
            "rlm_run_cancel": {"run_id": run["run_id"]},
            "rlm_exec": {"code": "1", "contexts": [handle]},
        }
        for name in ("rlm_context_list", "rlm_run_list", "rlm_status", *given):
            await served.call(name, **filled(name, nothing, **given.get(name, {})))

    assert run["answer"] == "3"


def filled(name: str, nothing: Any, **given: Any) -> dict[str, Any]:
    """All arguments of a tool: those given, and nothing for each that is not required."""
    schema = BY_NAME[name].input_schema
    optional = set(schema["properties"]) - set(schema.get("required", ()))
    return dict.fromkeys(optional, nothing) | given


async def test_numbers_truths_and_json_may_come_as_text(tmp_path: Path) -> None:
    """Every argument of every tool that is no text, as models write them that know only text."""
    spelt: dict[str, dict[str, Any]] = {}
    async with open_served(tmp_path, turns(cell("FINAL(len(context))"))) as served:
        handle = (await served.call("rlm_context_add", documents='["abc", "b"]', final="true"))[
            "handle"
        ]
        asked = {"question": "How long?", "contexts": f'["{handle}"]', "wait_seconds": "60"}
        run = await served.call("rlm_query", **asked, budget='{"max_sub_calls": "5"}', options="{}")
        known: dict[str, Any] = {"handle": handle, "handles": f'["{handle}"]', "pattern": "b"}
        known |= {"run_id": run["run_id"], "code": "1", "contexts": f'["{handle}"]'}
        for name in NOT_CHANGING:
            fields = BY_NAME[name].input_schema["properties"]
            wanted = {field: known[field] for field in fields if field in known}
            if name == "rlm_exec":
                del wanted["run_id"]
            spelt[name] = wanted | {
                field: AS_TEXT[schema["type"]]
                for field, schema in fields.items()
                if field not in wanted and schema.get("type") in AS_TEXT
            }
            await served.call(name, **spelt[name])

    assert run["answer"] == "2"
    assert sum(map(len, spelt.values())) > 20


NOT_CHANGING = (
    *("rlm_context_list", "rlm_context_read", "rlm_context_search", "rlm_run_list"),
    *("rlm_run_wait", "rlm_run_trace", "rlm_run_variables", "rlm_exec"),
)
AS_TEXT = {"integer": "1", "number": "1", "boolean": "false"}


async def test_fields_of_a_budget_that_are_null_or_0_are_not_given_and_that_is_said(
    tmp_path: Path,
) -> None:
    budget = {"max_usd": 0, "max_tokens": None, "max_sub_calls": "0", "max_iterations": 5}
    async with open_served(tmp_path, turns(cell("FINAL(len(context))"))) as served:
        result = await served.client.call_tool(
            "rlm_query", {"question": "?", "text": "abc", "budget": budget}
        )

    structure = cast("dict[str, Any]", result.structured_content)
    assert structure["answer"] == "3"
    for told in (structure["note"], text_of(result)):
        assert "budget.max_usd, budget.max_sub_calls: 0 was taken as not given" in told


@pytest.mark.parametrize("limit", [0, "0", 10_000])
@pytest.mark.parametrize("name", [name for name, _ in LIMITS])
async def test_a_limit_of_0_is_the_default_and_one_too_large_the_maximum(
    tmp_path: Path, name: str, limit: Any
) -> None:
    async with open_served(tmp_path, turns(cell("FINAL(1)"))) as served:
        handle = (await served.call("rlm_context_add", text="abc"))["handle"]
        run = await served.call("rlm_query", question="?", contexts=[handle])
        schema = BY_NAME[name].input_schema
        known = {"handle": handle, "handles": [handle], "pattern": "b", "run_id": run["run_id"]}
        given = {field: known[field] for field in schema.get("required", ())}
        most = int(re.findall(r"1 to (\d+)", schema["properties"]["limit"]["description"])[0])
        limit = limit if limit in (0, "0") else most + 1
        result = await served.client.call_tool(name, {**given, "limit": limit})

    assert not result.is_error
    structure = cast("dict[str, Any]", result.structured_content)
    wanted = "limit=0 was taken as the default" if limit in (0, "0") else f"limit={most} is the max"
    assert wanted in structure["note"]
    assert wanted in text_of(result)


async def test_an_argument_that_no_tool_has_is_refused_still(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never")) as served:
        result = await served.client.call_tool("rlm_context_read", {"handel": None})

    assert result.is_error
    assert "Did you mean 'handle'?" in text_of(result)


async def test_that_a_question_was_asked_before_stands_in_text_and_structure(
    tmp_path: Path,
) -> None:
    async with open_served(tmp_path, turns(cell("FINAL(1)"))) as served:
        asked = {"question": "?", "text": "abc", "idempotency_key": "once"}
        first = await served.client.call_tool("rlm_query", asked)
        again = await served.client.call_tool("rlm_query", asked)

    structure = cast("dict[str, Any]", again.structured_content)
    assert "note" not in cast("dict[str, Any]", first.structured_content)
    assert structure["note"] in text_of(again)
    assert "asked before" in structure["note"]
    assert f"{structure['input_tokens']:,} tokens in" in text_of(again)
    assert {"status", "answer", "error", "next"} <= structure.keys()


async def linked(served: Served) -> list[ResourceLink]:
    """The links in the results of storing a text and asking about it, with progress."""
    added = await served.raw("rlm_context_add", text="abc", name="letters")
    handle = cast("dict[str, Any]", added.structured_content)["handle"]
    ran = await served.raw("rlm_query", question="?", contexts=[handle])
    return [part for part in (*added.content, *ran.content) if isinstance(part, ResourceLink)]


HOST = {"client_info": Implementation(name="a host", version="1")}


async def test_results_link_to_the_text_and_the_run_for_a_host(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns(cell("FINAL(1)")), mode="legacy", client=HOST) as served:
        links = await linked(served)
        read = [await served.client.read_resource(link.uri) for link in links]

    assert [link.title for link in links] == ["letters", "?"]
    assert len(read) == 2


async def test_a_framework_gets_no_links_which_the_api_of_its_model_would_refuse(
    tmp_path: Path,
) -> None:
    async with open_served(tmp_path, turns(cell("FINAL(1)")), mode="legacy") as served:
        links = await linked(served)  # its SDK says "mcp"
        silent = await served.client.call_tool("rlm_context_add", {"text": "abc"})
    async with open_served(tmp_path, turns("never"), mode="legacy", client=HOST) as served:
        nameless = await served.client.call_tool("rlm_context_add", {"text": "abc"})

    assert links == []
    for result in (silent, nameless):
        assert [part.type for part in result.content] == ["text"]


async def test_waits_fit_their_callers() -> None:
    assert usual_wait("claude-code", has_progress=True) == CALLER_SECONDS["claude-code"] > 300
    assert usual_wait("codex-mcp-client", has_progress=True) < 60
    assert usual_wait("some host", has_progress=True) == USUAL_SECONDS
    assert usual_wait("some framework", has_progress=False) == SILENT_SECONDS < 5
    assert usual_wait("", has_progress=False) == SILENT_SECONDS


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_caller_that_asks_for_no_progress_gets_its_run_id_before_its_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("rlm_mcp.server.tool.SILENT_SECONDS", 0.2)
    stuck = cell("import time\ntime.sleep(600)")
    info = Implementation(name="a framework", version="1")
    async with open_served(
        tmp_path, turns(stuck), mode=mode, client={"client_info": info}
    ) as served:
        with anyio.fail_after(60):
            asked = {"question": "?", "text": "abc"}
            result = await served.client.call_tool("rlm_query", asked)
            run = cast("dict[str, Any]", result.structured_content)
            waited = await served.client.call_tool("rlm_run_wait", {"run_id": run["run_id"]})
            await served.call("rlm_run_cancel", run_id=run["run_id"])
            await served.ended(run["run_id"])
            resumed = await served.client.call_tool("rlm_run_resume", {"run_id": run["run_id"]})
        await served.call("rlm_run_cancel", run_id=run["run_id"])

    for answered in (result, waited, resumed):
        assert cast("dict[str, Any]", answered.structured_content)["status"] == "running"


async def test_what_the_operator_set_holds_for_all_callers(tmp_path: Path) -> None:
    stuck = cell("import time\ntime.sleep(600)")
    info = Implementation(name="claude-code", version="2")
    async with open_served(
        tmp_path, turns(stuck), wait_seconds=0.2, client={"client_info": info}
    ) as served:
        with anyio.fail_after(60):
            run = await served.call("rlm_query", question="?", text="abc")
        await served.call("rlm_run_cancel", run_id=run["run_id"])

    assert run["status"] == "running"


async def test_progress_is_reported_at_most_five_times_a_second_and_says_something_new(
    tmp_path: Path,
) -> None:
    many = cell("for n in range(60):\n    llm_query(f'prompt {n}')\nFINAL('done')")
    async with open_served(tmp_path, turns(many)) as served:
        began = anyio.current_time()
        await served.call("rlm_query", question="?", text="abc")
        took = anyio.current_time() - began

    said = [str(message).partition(" · ")[2] or str(message) for message in served.progress]
    assert len(said) <= took * 5 + 2
    assert all(before != after for before, after in pairwise(said))


async def test_a_path_that_a_host_passes_with_its_quotes_loses_them(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never")) as served:
        found = [
            await served.client.get_prompt("ask_file", {"path": path, "question": '"what'})
            for path in ('"/a b/c.txt"', "'/a b/c.txt'", "/a b/c.txt", '"/a')
        ]

    prompts = [cast("Any", one.messages[0].content).text for one in found]
    assert all("rlm_context_add(path='/a b/c.txt')" in prompt for prompt in prompts[:3])
    assert "rlm_context_add(path='/a')" in prompts[3]
    assert all("as the user typed them" in prompt for prompt in prompts)


async def test_a_resource_shows_its_name_first_and_a_piece_says_so_first(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns(cell("FINAL(1)"))) as served:
        added = await served.call("rlm_context_add", text="abc " * 20_000, name="letters")
        await served.call("rlm_query", question="How many?", contexts=[added["handle"]])
        listed = (await served.client.list_resources()).resources
        read = await served.client.read_resource(f"rlm://contexts/{added['handle']}")

    described = [str(entry.description) for entry in listed]
    assert any(one.startswith("letters: 80,000 characters") for one in described)
    assert any(one.startswith("How many?: completed") for one in described)
    text = cast("Any", read.contents[0]).text
    assert text.startswith("[This is a piece: characters 0 to 20,000 of 80,000.")
    assert f'contexts=["{added["handle"]}"]' in text.splitlines()[0]
