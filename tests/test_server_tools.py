"""What holds for every tool of both transports: what is not given, bounds, text and structure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from annotated_types import Ge, Gt, Le

from rlm_mcp.server.http.upload_tool import UPLOAD_TOOL
from rlm_mcp.server.tool import ArgumentRules, make_tool
from rlm_mcp.server.toolbox import all_specs
from tests.serving import Served, cell, open_served, text_of, turns

TOOLS = {spec.function.__name__: make_tool(spec) for spec in all_specs([UPLOAD_TOOL])}


def parameters(tool: str) -> Mapping[str, Any]:
    return TOOLS[tool].fn_metadata.arg_model.model_fields


@pytest.mark.parametrize("name", TOOLS)
def test_no_tool_sees_an_empty_value_for_what_is_not_required(name: str) -> None:
    tool = TOOLS[name]
    optional = set(tool.parameters["properties"]) - set(tool.parameters.get("required", ()))
    nothings: list[Any] = [None, "", [], {}]
    for nothing in nothings:
        assert ArgumentRules(tool).usable(dict.fromkeys(optional, nothing)) == ({}, []), nothing


@pytest.mark.parametrize("name", TOOLS)
def test_fields_of_groups_that_are_null_are_not_given_either(name: str) -> None:
    tool = TOOLS[name]
    groups = {
        field: dict.fromkeys(schema["properties"])
        for field, schema in tool.parameters["properties"].items()
        if schema.get("properties")
    }
    arguments, notes = ArgumentRules(tool).usable(groups)

    assert (arguments, notes) == ({field: {} for field in groups}, [])
    assert bool(groups) == (name in ("rlm_query", "rlm_run_resume"))


@pytest.mark.parametrize("name", TOOLS)
def test_0_where_nothing_can_be_had_for_it_is_the_default(name: str) -> None:
    for field in parameters(name).keys() & {"limit", "timeout_seconds"}:
        usual = parameters(name)[field].default
        for zero in (0, "0", 0.0):
            arguments, notes = ArgumentRules(TOOLS[name]).usable({field: zero})
            assert arguments == {}
            assert notes == [f"{field}=0 was taken as the default, {usual}."]


@pytest.mark.parametrize("name", TOOLS)
def test_a_number_that_no_float_holds_is_left_to_validation(name: str) -> None:
    endless = 10**400
    for field in parameters(name).keys() & {"limit", "timeout_seconds"}:
        assert ArgumentRules(TOOLS[name]).usable({field: endless}) == ({field: endless}, [])
    if "budget" in parameters(name):
        budget = {"budget": {"max_tokens": endless}}
        assert ArgumentRules(TOOLS[name]).usable(budget) == (budget, [])


@pytest.mark.parametrize("name", TOOLS)
def test_descriptions_name_defaults_and_bounds(name: str) -> None:
    """Hosts drop these keywords of a schema, but no description."""
    silent: list[str] = []
    for field, about in parameters(name).items():
        said = about.description or ""
        wanted = [str(one.le) for one in about.metadata if isinstance(one, Le)]
        if about.default not in (None, "", (), False, ...) and not about.is_required():
            wanted.append(f"{about.default:g}" if _is_number(about.default) else str(about.default))
        silent += [
            f"{field}: {one}" for one in wanted if not re.search(rf"\b{one}\b", said, re.IGNORECASE)
        ]

    assert silent == []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@pytest.mark.parametrize("name", TOOLS)
def test_a_number_that_must_not_be_0_is_one_for_which_0_is_the_default(name: str) -> None:
    least = {
        field: next((one for one in about.metadata if isinstance(one, Ge | Gt)), None)
        for field, about in parameters(name).items()
    }
    not_0 = {
        field
        for field, one in least.items()
        if (isinstance(one, Ge) and cast("Any", one.ge) > 0) or isinstance(one, Gt)
    }

    assert not_0 <= {"limit", "timeout_seconds"}


def test_a_budget_has_the_same_fields_wherever_it_is_taken() -> None:
    asked, resumed = (
        TOOLS[name].parameters["properties"]["budget"] for name in ("rlm_query", "rlm_run_resume")
    )

    assert asked["properties"].keys() >= {"max_usd", "max_tokens", "max_seconds", "max_sub_calls"}
    assert resumed["properties"] == asked["properties"]


# --- what a model must know stands in the text and in the structure ---

TOLD = ("note", "preview", "next", "next_cursor", "answer", "message", "fix", "output", "handle")


def told(value: Any) -> Iterator[str]:
    """What a structure says at any depth that stands in the text too."""
    match value:
        case dict():
            fields = cast("dict[str, Any]", value)
            for name, one in fields.items():
                if name in TOLD and isinstance(one, str) and one:
                    yield one
                elif (
                    name in ("input_tokens", "output_tokens") and "answer" in fields
                ):  # of the whole run
                    yield f"{one:,} "
                else:
                    yield from told(one)
        case list():
            for one in cast("list[Any]", value):
                yield from told(one)
        case _:
            return


async def checked(served: Served, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool, and compare what it says in its text and in its structure."""
    result = await served.raw(tool, **arguments)
    text, structure = text_of(result), cast("dict[str, Any]", result.structured_content)
    missing = [one for one in told(structure) if one.strip() not in text]
    assert not result.is_error, text
    assert missing == [], tool
    return structure


@pytest.mark.usefixtures("one_sandbox_for_all")
async def test_notes_previews_tokens_and_next_steps_stand_in_text_and_structure(
    tmp_path: Path,
) -> None:
    code = "found = [1]\nprint(llm_query('how many?'))"
    script = turns(cell(code), cell("FINAL('three')"), sub=lambda _: "many")
    async with open_served(tmp_path, script) as served:
        handle = (await checked(served, "rlm_context_add", text="abc\nabd", name="letters"))[
            "handle"
        ]
        await checked(served, "rlm_context_add", text="abc\nabd")
        await checked(served, "rlm_context_add", text="more")
        asked: dict[str, Any] = {"question": "How many?", "contexts": [handle]}
        short = await checked(served, "rlm_query", **asked, budget={"max_iterations": 1})
        run = await checked(served, "rlm_query", **asked, idempotency_key="again")
        await checked(served, "rlm_query", **asked, idempotency_key="again")
        run_id = run["run_id"]
        for tool, arguments in {
            "rlm_context_list": {"limit": 1},
            "rlm_context_read": {"handle": handle, "limit": 0},
            "rlm_context_search": {"handles": [handle], "pattern": "ab", "limit": 1},
            "rlm_run_list": {"limit": 1},
            "rlm_run_wait": {"run_id": run_id},
            "rlm_run_cancel": {"run_id": run_id},
            "rlm_run_resume": {"run_id": short["run_id"], "budget": {"max_iterations": 4}},
            "rlm_run_trace": {"run_id": run_id, "limit": 2},
            "rlm_run_variables": {"run_id": run_id},
            "rlm_exec": {"code": "print(found)", "run_id": run_id, "timeout_seconds": 0},
            "rlm_status": {},
            "rlm_context_delete": {"handle": handle},
        }.items():
            await checked(served, tool, **arguments)

    assert short["next"]
    assert run["answer"] == "three"
