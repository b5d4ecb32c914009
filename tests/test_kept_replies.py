"""Replies of sub-calls that later runs get: each belongs to the model that gave it, where it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.named import Catalogue
from rlm_mcp.engine.models.tables import ModelTable
from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.store.runs.replies import Replies
from rlm_mcp.testing.scripted_model import ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Script
from tests.serving import cell, open_served, turns

PROMPT = "Say who you are"


def called(name: str, model: str = "") -> Script:
    """A server whose sub model says its name; the root asks it, and answers with the reply."""
    chosen = f", model={model!r}" if model else ""
    code = cell(f"r = llm_query({PROMPT!r}{chosen})\nprint(r)")
    return turns(code, "FINAL_VAR(r)", sub=lambda _prompt: name)


async def answered(directory: Path, question: str, **settings: Any) -> tuple[str, int]:
    """Ask one question of a server over a directory; gives the answer and the cached calls."""
    async with open_served(directory, "never", **settings) as served:
        run = await served.call("rlm_query", question=question, text="a text", wait_seconds=40)
    return run["answer"], run["cached_sub_calls"]


def asked_of_sub(model: ScriptedModel) -> int:
    """How often the sub model was asked."""
    return sum(request.model == "sub" for request in model.requests)


async def test_the_default_endpoint_keeps_its_replies_where_it_moves(tmp_path: Path) -> None:
    async with (
        open_scripted_model(called("the first")) as first,
        open_scripted_model(called("the second")) as second,
    ):
        assert await answered(tmp_path, "one?", base_url=first.base_url) == ("the first", 0)
        assert await answered(tmp_path, "two?", base_url=second.base_url) == ("the first", 1)
        assert (asked_of_sub(first), asked_of_sub(second)) == (1, 0)


async def test_a_table_that_moves_to_another_endpoint_or_model_gets_replies_of_its_own(
    tmp_path: Path,
) -> None:
    async with (
        open_scripted_model(called("the first", "small")) as first,
        open_scripted_model(called("the second", "small")) as second,
    ):

        def at(server: ScriptedModel, **fields: Any) -> dict[str, Any]:
            small = {"base_url": server.base_url, "model": "sub", **fields}
            return {"base_url": first.base_url, "models": {"small": small}}

        assert await answered(tmp_path, "one?", **at(first)) == ("the first", 0)
        assert await answered(tmp_path, "two?", **at(second)) == ("the second", 0)
        assert await answered(tmp_path, "three?", **at(first)) == ("the first", 1)


async def test_a_reply_that_an_earlier_version_kept_is_still_read(tmp_path: Path) -> None:
    config = RLMConfig()
    asked = ("sub", config.sub_temperature, config.sub_max_tokens, PROMPT)
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    path = tmp_path / "data" / DATABASE_NAME
    path.parent.mkdir()
    async with open_database(path) as database:
        await Replies(database).put_many({key: "of long ago"})

    async with open_scripted_model(called("the first")) as first:
        models = {"sub": ModelTable(base_url=first.base_url)}
        found = await answered(tmp_path, "one?", base_url=first.base_url, models=models)
        assert found == ("of long ago", 1)
        assert asked_of_sub(first) == 0


def test_where_a_model_answers_is_told_without_its_password() -> None:
    tables = {
        "a": ModelTable(model="m", base_url="http://me:secret@127.0.0.1:1/v1/chat/completions"),
        "b": ModelTable(model="m", base_url="http://127.0.0.1:1/v1", provider="responses"),
        "c": ModelTable(provider="command", command="claude"),
        "d": ModelTable(provider="anthropic", model="claude"),
    }
    catalogue = Catalogue(Provider("http://127.0.0.1:2/v1/"), tables)
    places = {name: catalogue.place_of(name) for name in (*tables, "plain", "command:llm")}

    assert "secret" not in str(places)
    assert places["a"].startswith("openai http://")
    assert places["a"].endswith("127.0.0.1:1/v1 m")
    assert places["b"] == "responses http://127.0.0.1:1/v1 m"
    assert places["c"] == "command claude"
    assert places["d"] == "anthropic https://api.anthropic.com claude"
    assert places["plain"] == places["command:llm"] == ""  # known by their names
