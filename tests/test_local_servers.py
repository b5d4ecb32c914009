"""Servers of one's own: what each is sent once it has said which it is, and what doctor reads."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import ValidationError

from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.local.slots import Slots
from rlm_mcp.engine.models.named import Catalogue, Models, open_models
from rlm_mcp.engine.models.retry import RetryPolicy
from rlm_mcp.engine.models.tables import ModelTable
from rlm_mcp.engine.subcalls.typed_calls import Schemas
from rlm_mcp.errors import ContextLengthError, ModelReplyError
from rlm_mcp.service.doctor import check_all
from rlm_mcp.testing.scripted_model import Fault, ScriptedModel, open_scripted_model
from rlm_mcp.testing.scripted_replies import Answer, ChatRequestView, rejected_parameter
from tests.serving import cell, open_served, settings_in, turns

SAY = ({"role": "user", "content": "Say OK."},)
NDJSON = {"content-type": "application/x-ndjson"}
HINTS = {"cache_prompt", "id_slot", "prompt_cache_key", "keep_alive", "options", "ttl"}


def listed(owner: str, **fields: Any) -> dict[str, Any]:
    """A list of one model, as its server owns it."""
    return {"object": "list", "data": [{"id": "m", "owned_by": owner, **fields}]}


def props(slots: int) -> dict[str, Any]:
    """What llama.cpp says of itself."""
    return {"total_slots": slots, "default_generation_settings": {"n_ctx": 8192}}


@asynccontextmanager
async def opened(scripted: ScriptedModel, **table: Any) -> AsyncGenerator[Models]:
    """Open the models of a scripted server, of which `m` has a table."""
    tables = {"m": ModelTable(base_url=scripted.base_url, **table)}
    catalogue = Catalogue(Provider(scripted.base_url), tables)
    policy = RetryPolicy(attempts=2)
    async with open_models(catalogue, limiter=anyio.CapacityLimiter(8), policy=policy) as models:
        yield models


async def ask(models: Models, conversation: str = "", **more: Any) -> ChatReply:
    """Ask `m` once."""
    request = ChatRequest(SAY, 16, conversation=conversation, **more)
    with anyio.fail_after(60):
        return await models.model("m").complete(request)


def hints(model: ScriptedModel) -> list[dict[str, Any]]:
    """What each request held of the fields that only some servers know."""
    return [
        {name: value for name, value in request.params.items() if name in HINTS}
        for request in model.requests
    ]


async def test_llama_cpp_keeps_conversations_and_questions_in_slots_apart() -> None:
    async with open_scripted_model("OK") as model, opened(model) as models:
        model.pages = {"/v1/models": listed("llamacpp"), "/props": props(4)}
        for name in ("one", "", "two", "one", "three", "one"):
            await ask(models, name)

    slots = [sent["id_slot"] for sent in hints(model)]
    assert slots == [0, 2, 1, 0, 1, 0]  # `three` took the slot of `two`, which waited longest
    assert all(sent["cache_prompt"] is True for sent in hints(model))
    assert [path for path, _ in model.asked] == ["/v1/models", "/props"]  # each once


async def test_questions_at_once_share_the_slots_that_no_conversation_has() -> None:
    slots = Slots(4)
    with slots.taken("") as first, slots.taken("") as second, slots.taken("") as third:
        assert sorted((first, second)) == [2, 3]
        assert third in {2, 3}
    with slots.taken("a") as root, slots.taken("") as question:
        assert root < 2 <= question


@pytest.mark.parametrize("page", [props(1), {"role": "router"}, Fault(403, {"error": "no"})])
async def test_a_llama_cpp_server_with_one_slot_is_named_none(page: Any) -> None:
    async with open_scripted_model("OK") as model, opened(model) as models:
        model.pages = {"/v1/models": listed("llamacpp"), "/props": page}
        await ask(models, "one")

    assert hints(model) == [{"cache_prompt": True}]


async def test_what_a_proxy_before_llama_cpp_refuses_is_not_sent_again() -> None:
    def answer(request: Any) -> Any:
        return rejected_parameter("id_slot") if "id_slot" in request.params else "OK"

    async with open_scripted_model(answer) as model, opened(model) as models:
        model.pages = {"/v1/models": listed("llamacpp"), "/props": props(4)}
        assert (await ask(models)).text == "OK"
        await ask(models)

    assert ["id_slot" in sent for sent in hints(model)] == [True, False, False]


@pytest.mark.parametrize(
    "page",
    [
        listed("vllm", max_model_len=32768),
        listed("organization_owner"),
        listed("somebody"),
        {"models": []},
        "not JSON",
        Fault(404, {"error": "nothing here"}),
        Fault(401, {"error": "no"}),
        Fault(200, "[1, 2", {"content-type": "text/plain"}),
    ],
)
async def test_other_servers_are_asked_once_and_sent_nothing_more(page: Any) -> None:
    async with open_scripted_model("OK") as model, opened(model, context_tokens=9000) as models:
        model.pages = {"/v1/models": page}
        await ask(models, "one")
        await ask(models, "one")

    assert hints(model) == [{}, {}]
    assert [path for path, _ in model.asked] == ["/v1/models"]


@pytest.mark.parametrize(
    "address", ["http://[::/v1", "http://h:no-port/v1", "nowhere", "ftp://h/v1"]
)
def test_what_is_no_address_is_refused_before_it_is_asked(address: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        ModelTable(base_url=address, context_tokens=9000)


async def test_many_first_calls_at_once_ask_which_server_it_is_once() -> None:
    async with open_scripted_model("OK") as model, opened(model) as models:
        model.pages = {"/v1/models": listed("llamacpp"), "/props": props(4)}
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask, models)

    assert [path for path, _ in model.asked] == ["/v1/models", "/props"]
    assert all(sent["id_slot"] in {2, 3} for sent in hints(model))


async def test_a_server_that_is_not_ready_is_asked_again_with_the_next_call() -> None:
    states = iter([Fault(503, {"error": {"message": "Loading model"}}), listed("llamacpp")])
    faults = iter([Fault(400, {"error": "no"}), "OK"])
    async with open_scripted_model(lambda _: next(faults)) as model, opened(model) as models:
        model.pages = {"/v1/models": lambda _: next(states), "/props": props(4)}
        with pytest.raises(Exception, match="400"):
            await ask(models)
        await ask(models)

    assert hints(model) == [{}, {"cache_prompt": True, "id_slot": 2}]


async def test_the_settings_say_which_server_it_is_where_it_should_not_be_asked() -> None:
    async with open_scripted_model("OK") as model:
        model.pages = {"/v1/models": listed("llamacpp"), "/props": props(4)}
        async with opened(model, server="other") as models:
            await ask(models, "one")
        async with opened(model, server="openai") as models:
            await ask(models, "one")
            await ask(models)
        assert model.asked == []
        async with opened(model, server="llama.cpp") as models:
            await ask(models, "one")

    named = {"prompt_cache_key": "one"}
    assert hints(model) == [{}, named, {}, {"cache_prompt": True, "id_slot": 0}]
    assert [path for path, _ in model.asked] == ["/props"]


SHIP = {"type": "object", "properties": {"name": {"type": "string"}}}


def forms(model: ScriptedModel) -> list[Any]:
    """The form of the reply that each request asked for."""
    return [request.params.get("response_format") for request in model.requests]


async def test_a_schema_is_sent_to_servers_that_are_known_to_keep_to_it() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": SHIP}}
    async with open_scripted_model("{}") as model:
        for server in ("openai", "vllm", "other"):
            async with opened(model, server=server) as models:
                await ask(models, reply_schema=SHIP)
        async with opened(model, server="openai") as models:
            await ask(models)
            await ask(models, reply_schema={"type": "array"})

    assert forms(model) == [form, form, None, None, None]


async def test_a_server_that_refuses_a_schema_once_is_sent_none_again() -> None:
    def answer(request: ChatRequestView) -> Answer:
        is_refused = "response_format" in request.params
        return rejected_parameter("response_format") if is_refused else "{}"

    async with open_scripted_model(answer) as model, opened(model, server="openai") as models:
        assert (await ask(models, reply_schema=SHIP)).text == "{}"
        assert (await ask(models, reply_schema=SHIP)).text == "{}"

    assert [form is None for form in forms(model)] == [False, True, True]


async def test_a_typed_batch_asks_for_its_schema_by_the_servers_own_means(tmp_path: Path) -> None:
    code = cell(f"found = llm_query_batch(['a', 'b'], schema={SHIP!r})\nprint(found)")
    script = turns(code, "FINAL_VAR(found)", sub=lambda _: '{"name": "Ship"}')
    tables: dict[str, dict[str, str]] = {"m": {"model": "sub", "server": "openai"}}
    async with open_scripted_model(script) as model:
        tables["m"]["base_url"] = model.base_url
        async with open_served(tmp_path, script, models=tables, sub_model="m") as served:
            run = await served.call(
                "rlm_query", question="What?", text="some text", wait_seconds=40
            )

    assert json.loads(run["answer"]) == [{"name": "Ship"}, {"name": "Ship"}]
    sent = [form["json_schema"]["schema"] for form in forms(model)]
    assert sent == [SHIP, SHIP]


async def test_the_schema_of_a_batch_is_read_once() -> None:
    schemas, document, read = Schemas(), json.dumps(SHIP), list[Any]()

    async def call() -> None:
        read.append(await schemas.read(document))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call)

    assert read == [SHIP, SHIP, SHIP]
    assert read[0] is read[1] is read[2]


def ollama_reply(text: str, **changes: Any) -> dict[str, Any]:
    """A whole reply of Ollama's own API."""
    counted = {"prompt_eval_count": 7, "eval_count": 3, "done": True, "done_reason": "stop"}
    message = {"role": "assistant", "content": text, "thinking": "Hm."}
    return {"model": "m", "message": message, **counted, **changes}


async def test_ollama_loads_the_window_that_is_set_and_keeps_the_model() -> None:
    async with open_scripted_model("OK") as model:
        model.pages = {"/v1/models": listed("library"), "/api/chat": ollama_reply("Hello")}
        async with opened(
            model, context_tokens=16_384, model="qwen3", reasoning_effort="low"
        ) as models:
            reply = await ask(models, temperature=0.5)
        async with opened(
            model, extra_body={"keep_alive": "2h", "options": {"top_k": 3}}
        ) as models:
            await ask(models)
        async with opened(model) as models:
            await ask(models)  # nothing is set, so the usual API serves

    first, second = [sent for path, sent in model.asked if path == "/api/chat"]
    assert first["options"] == {"num_ctx": 16_384, "temperature": 0.5, "num_predict": 16}
    assert (first["model"], first["keep_alive"], first["think"]) == ("qwen3", "30m", "low")
    assert (first["messages"], first["stream"]) == ([dict(SAY[0])], False)
    assert second["options"] == {"num_predict": 16, "top_k": 3}
    assert second["keep_alive"] == "2h"
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("Hello", "Hm.", "stop")
    assert (reply.input_tokens, reply.output_tokens, reply.usage_estimated) == (7, 3, False)
    assert hints(model) == [{}]


async def test_a_stream_of_ollama_is_read_piece_by_piece() -> None:
    pieces = [
        {"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False},
        {"message": {"role": "assistant", "content": "Grüß "}, "done": False},
        {"message": {"role": "assistant", "content": "Gott"}, "done": False},
        ollama_reply("", message={"role": "assistant", "content": ""}, done_reason="length"),
    ]
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    body = "\n".join(json.dumps(piece, ensure_ascii=False) for piece in pieces)
    async with open_scripted_model("OK") as model, opened(model, context_tokens=8192) as models:
        model.pages = {"/v1/models": listed("library"), "/api/chat": Fault(200, body, NDJSON)}
        reply = await ask(models, on_delta=hear)

    assert heard == ["Grüß ", "Gott"]
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("Grüß Gott", "Hm.", "length")
    assert reply.output_tokens == 3


async def test_what_ollama_refuses_is_told_as_from_any_other() -> None:
    too_long = Fault(400, {"error": "the input length exceeds the context length"})
    broken = Fault(200, json.dumps({"message": {"content": "a"}, "done": False}), NDJSON)

    async def hear(_: str) -> None:
        """Make it stream."""

    async with open_scripted_model("OK") as model, opened(model, context_tokens=8192) as models:
        model.pages = {"/v1/models": listed("library"), "/api/chat": too_long}
        with pytest.raises(ContextLengthError):
            await ask(models)
        model.pages["/api/chat"] = broken
        with pytest.raises(ModelReplyError):
            await ask(models, on_delta=hear)


async def test_the_window_of_the_settings_is_that_of_models_without_a_table(
    tmp_path: Path,
) -> None:
    def chat(sent: Mapping[str, Any]) -> Mapping[str, Any]:
        is_root = sent["model"] == "root"
        turn = sum(message["role"] == "assistant" for message in sent["messages"])
        code = cell("print(llm_query('say it'))")
        return ollama_reply((code if turn == 0 else "FINAL(done)") if is_root else "it")

    async with open_served(tmp_path, turns("never"), root_context_tokens=16_384) as served:
        served.model.pages = {"/v1/models": listed("library"), "/api/chat": chat}
        run = await served.call("rlm_query", question="What?", text="some text", wait_seconds=40)

    sent = [body for path, body in served.model.asked if path == "/api/chat"]
    assert run["answer"] == "done"
    assert [body["model"] for body in sent] == ["root", "sub", "root"]
    assert {body["options"]["num_ctx"] for body in sent} == {16_384}
    assert not served.model.requests


async def test_a_run_names_its_conversation_with_every_turn_and_with_no_sub_call(
    tmp_path: Path,
) -> None:
    script = turns(cell("print(llm_query('say it'))"), "FINAL(done)")
    async with open_served(tmp_path, script) as served:
        served.model.pages = {"/v1/models": listed("llamacpp"), "/props": props(2)}
        asked = {"text": "some text", "wait_seconds": 40}
        await served.call("rlm_query", question="What?", **asked)

    used = [(request.model, request.params["id_slot"]) for request in served.model.requests]
    assert used == [("root", 0), ("sub", 1), ("root", 0)]


WINDOWS: Sequence[tuple[str, dict[str, Any], str, str]] = (
    (
        "library",
        {
            "/api/ps": {"models": [{"name": "root:latest", "context_length": 2048}]},
            "/api/show": {"model_info": {"qwen3.context_length": 40_960}},
        },
        "Ollama: a window of 2,048, of 40,960 that the model could have",
        "RLM_MCP_ROOT_CONTEXT_TOKENS",
    ),
    (
        "library",
        {"/api/show": {"parameters": 'stop "x"\nnum_ctx                        32768\n'}},
        "Ollama: a window of 32,768",
        "",
    ),
    (
        "organization_owner",
        {
            "/api/v0/models": {
                "data": [{"id": "root", "loaded_context_length": 2048, "max_context_length": 9000}]
            }
        },
        "LM Studio: a window of 2,048, of 9,000 that the model could have",
        "lms load",
    ),
    ("organization_owner", {}, "LM Studio: window not told", ""),
    ("llamacpp", {"/props": props(4)}, "llama.cpp: a window of 8,192, 4 slots", ""),
    (
        "llamacpp",
        {"/props": Fault(501, {"error": "off"}), "/slots": '[{"id": 0, "n_ctx": 2048}]'},
        "llama.cpp: a window of 2,048, 1 slot",
        "-c",
    ),
)


@pytest.mark.parametrize(("owner", "pages", "found", "fix"), WINDOWS)
async def test_doctor_reads_the_window_and_warns_of_a_small_one(
    tmp_path: Path, owner: str, pages: dict[str, Any], found: str, fix: str
) -> None:
    async with open_scripted_model("OK") as model:
        model.pages = {"/v1/models": listed(owner), **pages}
        check = await root_check(tmp_path, model)

    assert check.found.endswith(f"; {found}")
    assert check.state == ("warning" if fix else "ok")
    assert fix in check.fix


async def test_doctor_reads_the_window_of_vllm_in_its_list(tmp_path: Path) -> None:
    async with open_scripted_model("OK") as model:
        one = {"id": "root", "owned_by": "vllm", "max_model_len": 2048}
        model.pages = {"/v1/models": {"data": [one]}}
        check = await root_check(tmp_path, model)

    assert (check.state, check.found[-21:]) == ("warning", "vLLM: a window of 2,048"[-21:])
    assert "--max-model-len" in check.fix


async def root_check(directory: Path, model: ScriptedModel) -> Any:
    """What doctor finds of the root model."""
    settings = settings_in(directory, base_url=model.base_url, sub_model=None)
    checks = {check.name: check async for check in check_all(settings, lambda: None)}
    return checks["root model"]
