"""Models that an operator names: at endpoints and commands of their own, with fallbacks."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.commands.command import CommandModel
from rlm_mcp.engine.models.commands.output import read_output
from rlm_mcp.engine.models.commands.presets import PRESETS, Command, preset_command
from rlm_mcp.engine.models.commands.search import find_commands
from rlm_mcp.engine.models.http_provider import Provider
from rlm_mcp.engine.models.named import Catalogue, Models, open_models
from rlm_mcp.engine.models.retry import RetryPolicy
from rlm_mcp.engine.models.tables import ModelTable
from rlm_mcp.errors import (
    ConfigurationError,
    InvalidInputError,
    ModelConnectionError,
    ModelError,
    ModelReplyError,
)
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Fault, by_model, rejected, rejected_parameter
from tests.commands import environment, process
from tests.waiting import until

ONCE = RetryPolicy(attempts=1, brief_attempts=1)
KEY = "sk-of-the-table-0123456789"


def table(**fields: Any) -> ModelTable:
    return ModelTable.model_validate(fields)


async def ask(models: Models, name: str, model: str | None = None) -> ChatReply:
    with anyio.fail_after(60):
        request = ChatRequest(({"role": "user", "content": "hi"},), max_tokens=9, model=model)
        return await models.model(name).complete(request)


def opened(default: str, **tables: ModelTable) -> Any:
    catalogue = Catalogue(Provider(default, "k"), tables, {"KEY_OF_IT": KEY})
    return open_models(catalogue, limiter=anyio.CapacityLimiter(4), policy=ONCE)


async def test_each_model_is_asked_at_its_own_endpoint_with_its_own_settings() -> None:
    async with open_scripted_model("one") as first, open_scripted_model("two") as second:
        other = table(
            model="its-name",
            base_url=second.base_url,
            api_key_env="KEY_OF_IT",
            headers={"x-team": "a"},
            extra_body={"top_k": 1},
            reasoning_effort="low",
        )
        async with opened(first.base_url, other=other) as models:
            assert [(await ask(models, name)).text for name in ("any", "other")] == ["one", "two"]
            assert (await ask(models, "any", model="other")).model == "other"
    assert first.requests[0].model == "any"
    request = second.requests[0]
    assert (request.model, request.authorization) == ("its-name", f"Bearer {KEY}")
    assert request.headers["x-team"] == "a"
    assert (request.params["top_k"], request.params["reasoning_effort"]) == (1, "low")


async def test_an_extra_that_is_refused_is_left_out() -> None:
    def answer(request: Any) -> Any:
        is_in = "reasoning_effort" in request.params
        return rejected_parameter("reasoning_effort") if is_in else "ok"

    it = table(reasoning_effort="low")
    async with open_scripted_model(answer) as server, opened(server.base_url, it=it) as models:
        assert (await ask(models, "it")).text == "ok"


async def test_a_fallback_answers_where_a_model_fails_and_is_named() -> None:
    script = by_model(a=lambda _: rejected(401, "no"), b=lambda _: rejected(400, "no"), c="ok")
    async with open_scripted_model(script) as server:
        tables = {"a": table(fallback="b"), "b": table(fallback="c"), "c": table()}
        async with opened(server.base_url, **tables) as models:
            reply = await ask(models, "a")
    assert (reply.text, reply.model) == ("ok", "c")


async def test_fallbacks_in_a_circle_end() -> None:
    async with open_scripted_model(lambda _: rejected(400, "no")) as server:
        tables = {"a": table(fallback="b"), "b": table(fallback="a")}
        async with opened(server.base_url, **tables) as models:
            with pytest.raises(ModelError):
                await ask(models, "a")
    assert server.received == 2


async def test_a_fallback_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'b' of the model 'a'"):
        async with opened("http://127.0.0.1:9/v1", a=table(fallback="b")):
            pass


@pytest.mark.parametrize(
    ("allowed", "name", "is_allowed"),
    [
        (None, "anything", True),
        (None, "command:claude", False),
        (("big",), "anything", False),
        (("big",), "big", True),
        (("big",), "root", True),
        (("command:claude",), "command:claude", True),
    ],
)
def test_callers_choose_among_what_the_operator_allows(
    allowed: tuple[str, ...] | None, name: str, is_allowed: bool
) -> None:
    catalogue = Catalogue(Provider(), {}, {}, allowed, ("root",))
    if is_allowed:
        catalogue.refuse_not_allowed(name)
    else:
        with pytest.raises(InvalidInputError, match="Allowed are: 'root'"):
            catalogue.refuse_not_allowed(name)


def program(directory: Path, body: str, name: str = "claude") -> Path:
    """A fake command: a Python program that is found by its name."""
    path = directory / name
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


ECHO = """
prompt = sys.stdin.read()
usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 7}
said = {"argv": sys.argv[1:], "prompt": prompt, "cwd": os.listdir("."), "env": sorted(os.environ)}
print(json.dumps({"result": json.dumps(said), "usage": usage, "total_cost_usd": 0.0125}))
"""


def command_model(path: Path, **more: Any) -> CommandModel:
    command = Command((str(path),), {"PATH": os.environ["PATH"]}, **more)
    return CommandModel("it", command, anyio.CapacityLimiter(2))


async def run(model: CommandModel, *messages: Mapping[str, object]) -> ChatReply:
    with anyio.fail_after(60):
        turns = messages or ({"role": "user", "content": "hi"},)
        return await model.complete(ChatRequest(turns))


async def test_a_command_gets_the_prompt_and_an_empty_directory_alone(tmp_path: Path) -> None:
    model = command_model(program(tmp_path, ECHO), system_option="-s")
    reply = await run(
        model, {"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}
    )
    said = json.loads(reply.text)
    assert (said["argv"], said["prompt"], said["cwd"]) == (["-s", "be brief"], "hi", [])
    assert set(said["env"]) <= {"PATH", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
    assert (reply.input_tokens, reply.output_tokens, reply.cached_input_tokens) == (100, 7, 90)
    assert (reply.told_usd, reply.usage_estimated) == (0.0125, False)


async def test_a_conversation_is_written_out_with_who_said_what(tmp_path: Path) -> None:
    model = command_model(program(tmp_path, "print(sys.stdin.read())"))
    turns = [("system", "rules"), ("user", "one"), ("assistant", "two"), ("user", "three")]
    reply = await run(model, *({"role": role, "content": text} for role, text in turns))
    assert reply.text.index("rules") < reply.text.index("two") < reply.text.index("three")
    assert reply.usage_estimated


async def test_a_command_that_fails_says_why_without_a_secret(tmp_path: Path) -> None:
    body = "print('bad key ' + os.environ['SOME_API_KEY'], file=sys.stderr); sys.exit(3)"
    environment = {"PATH": os.environ["PATH"], "SOME_API_KEY": KEY}
    command = Command((str(program(tmp_path, body)),), environment)
    model = CommandModel("it", command, anyio.CapacityLimiter(1))
    with pytest.raises(ModelConnectionError, match=r"exit code 3: bad key \*\*\*") as caught:
        await run(model)
    assert KEY not in str(caught.value) + repr(command)


@pytest.mark.parametrize(
    ("form", "said", "part"),
    [
        # As `gemini` writes it: JSON over several lines, behind words of its own.
        ("gemini", 'Loading…\n{\n "error": {"message": "no such login", "code": 41}\n}\n',
         "exit code 41: no such login"),
        ("gemini", "\x1b[31mnot in a trusted directory\x1b[0m\n",
         "exit code 41: not in a trusted directory. Try"),
    ],
)  # fmt: skip
async def test_the_reason_for_a_failure_is_read_from_what_a_command_complains(
    form: Any, said: str, part: str, tmp_path: Path
) -> None:
    body = f"sys.stderr.write({said!r}); sys.exit(41)"
    with pytest.raises(ModelConnectionError, match=part):
        await run(command_model(program(tmp_path, body), form=form))


@pytest.mark.parametrize(
    ("printed", "part"),
    [("", "printed nothing"), ('{"is_error": true, "result": "no credit"}', "no credit")],
)
def test_output_that_is_no_reply_is_an_error(printed: str, part: str) -> None:
    with pytest.raises(ModelReplyError, match=part):
        read_output(printed, 0)


CODEX = """{"type": "thread.started", "thread_id": "t"}
not JSON
{"type": "item.completed", "item": {"type": "reasoning", "text": "hm"}}
{"type": "item.completed", "item": {"type": "agent_message", "text": "{\\"result\\": 1}"}}
{"type": "turn.completed",
"""
CODEX_END = (
    '{"type": "turn.completed", "usage": '
    '{"input_tokens": 100, "cached_input_tokens": 60, "output_tokens": 7}}'
)
GEMINI = {
    "response": "[1]",
    "stats": {
        "models": {
            "pro": {"tokens": {"prompt": 90, "candidates": 5, "thoughts": 2, "cached": 60}},
            "flash": {"tokens": {"prompt": 10, "candidates": 0}},
        }
    },
}


@pytest.mark.parametrize(
    ("form", "printed", "complaints", "text", "figures"),
    [
        ("codex", CODEX + CODEX_END, "", '{"result": 1}', (100, 7, 60, None)),
        ("gemini", json.dumps(GEMINI), "", "[1]", (100, 7, 60, None)),
        ("llm", '{"result": "x", "usage": {}}', "Token usage: 1,100 input, 7 output",
         '{"result": "x", "usage": {}}', (1100, 7, 0, None)),
        ("any", '{"result": "x"}', "", '{"result": "x"}', None),
        ("any", '{"response": "x", "usage": {}}', "", '{"response": "x", "usage": {}}', None),
        ("any", '{"result": "x", "total_cost_usd": 0.5}', "", "x", (10, 1, 0, 0.5)),
        ("claude", '{"result": "x", "usage": {"input_tokens": 3, "output_tokens": 2, '
         '"cache_creation_input_tokens": 5}}', "", "x", (8, 2, 0, None)),
    ],
)  # fmt: skip
def test_each_command_is_read_in_its_own_form(
    form: Any, printed: str, complaints: str, text: str, figures: tuple[Any, ...] | None
) -> None:
    reply = read_output(printed, 40, form, complaints)
    assert reply.text == text
    if figures is None:
        assert reply.usage_estimated
        return
    found = (reply.input_tokens, reply.output_tokens, reply.cached_input_tokens, reply.told_usd)
    assert found == figures


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "-Infinity", "-0.5", "true", '"0.5"', "null"])
def test_a_cost_that_is_no_amount_of_money_is_not_told(cost: str) -> None:
    reply = read_output(f'{{"result": "x", "usage": {{}}, "total_cost_usd": {cost}}}', 40)
    assert (reply.text, reply.told_usd) == ("x", None)


@pytest.mark.parametrize(
    ("form", "printed", "part"),
    [
        ("codex", '{"type": "turn.failed", "error": {"message": "no credit"}}', "no credit"),
        ("codex", '{"type": "error", "message": "not logged in"}', "not logged in"),
        ("codex", '{"type": "turn.completed", "usage": {}}', "printed nothing"),
        ("gemini", '{"error": {"type": "x", "message": "quota"}}', "quota"),
        ("claude", '{"is_error": true, "result": "no credit"}', "no credit"),
    ],
)
def test_a_failure_is_read_in_each_commands_own_form(form: Any, printed: str, part: str) -> None:
    with pytest.raises(ModelReplyError, match=part):
        read_output(printed, 0, form)


async def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "pid"
    body = f"""
pid = os.fork()
if pid == 0:
    time.sleep(60)
open({str(child)!r}, "w").write(str(pid))
time.sleep(60)
"""
    model = command_model(program(tmp_path, body), seconds=1.5)
    with pytest.raises(ModelConnectionError, match="gave no reply in 2 s"):
        await run(model)
    pid = int(child.read_text())
    await until(lambda: not is_alive(pid))


async def test_a_cancelled_call_ends_its_command_and_its_children(tmp_path: Path) -> None:
    child = tmp_path / "pid"
    body = f"""
pid = os.fork()
if pid == 0:
    time.sleep(600)
open({str(child)!r} + ".new", "w").write(f"{{os.getpid()}} {{pid}}")
os.rename({str(child)!r} + ".new", {str(child)!r})
time.sleep(600)
"""
    model = command_model(program(tmp_path, body))
    with anyio.fail_after(120):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, model)
            await until(child.exists)
            tasks.cancel_scope.cancel()
        for pid in map(int, child.read_text().split()):
            await until(lambda pid=pid: not is_alive(pid))


async def test_no_more_commands_run_at_once_than_are_allowed(tmp_path: Path) -> None:
    """Each tells how many it has seen at work; it waits for a second, and a little for a third."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    begun.mkdir()
    ended.mkdir()
    body = f"""
count = lambda place: len(os.listdir(place))
begun, ended, seen = {str(begun)!r}, {str(ended)!r}, 0
open(os.path.join(begun, str(os.getpid())), "w").close()
while count(begun) < 2:
    time.sleep(0.02)
for _ in range(10):
    seen = max(seen, count(begun) - count(ended))
    time.sleep(0.02)
print(seen)
open(os.path.join(ended, str(os.getpid())), "w").close()
"""
    model = command_model(program(tmp_path, body))
    said: list[int] = []

    async def ask() -> None:
        said.append(int((await run(model)).text))

    with anyio.fail_after(120):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(ask)
    assert len(said) == 4
    assert max(said) <= 2


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_a_program_that_is_missing_is_named() -> None:
    model = CommandModel("it", Command(("/nowhere/claude",)), anyio.CapacityLimiter(1))
    with pytest.raises(ConfigurationError, match="'/nowhere/claude' of the model 'it'"):
        await run(model)
    with pytest.raises(ModelConnectionError, match="no program '/nowhere/claude'"):
        await model.check()


def test_presets_switch_off_what_the_programs_have_of_their_own() -> None:
    claude = preset_command("claude", "opus", {})
    assert claude.argv[:4] == ("claude", "--model", "opus", "-p")
    assert claude.argv[claude.argv.index("--tools") + 1] == ""
    assert "--strict-mcp-config" in claude.argv
    assert preset_command("codex", "m", {}).argv[:4] == ("codex", "exec", "--model", "m")
    assert "features.shell_tool=false" in preset_command("codex", "", {}).argv
    gemini = preset_command("gemini", "", {"PATH": "x"})
    assert 'decision = "deny"' in Path(gemini.argv[gemini.argv.index("--policy") + 1]).read_text()
    assert gemini.environment == {"PATH": "x", "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    assert set(PRESETS) == {"claude", "codex", "gemini", "llm"}
    with pytest.raises(ConfigurationError, match="'nobody'"):
        preset_command("nobody", "", {})


async def test_programs_that_are_installed_are_found_with_their_login(tmp_path: Path) -> None:
    program(tmp_path, "sys.exit(0 if sys.argv[1:] == ['auth', 'status'] else 9)")
    program(tmp_path, "sys.exit(1)", "codex")
    program(tmp_path, "sys.exit(1)", "llm")
    found = await find_commands({"PATH": str(tmp_path)})
    assert list(map(str, found)) == ["claude (logged in)", "codex (run: codex login)", "llm"]


ANSWERS = """
prompt = sys.stdin.read()
code = "```repl\\nr = llm_query('say it', model='small')\\nFINAL(r)\\n```"
print(json.dumps({"result": code, "usage": {"input_tokens": 1, "output_tokens": 1},
    "total_cost_usd": 0.03}))
"""


async def test_a_run_needs_no_key_where_a_command_is_its_root(tmp_path: Path) -> None:
    program(tmp_path, ANSWERS)
    paid = Fault(body={"choices": [{"message": {"content": "from the other endpoint"},
                                    "finish_reason": "stop"}],
                       "usage": {"prompt_tokens": 50_000, "completion_tokens": 10_000,
                                 "prompt_tokens_details": {"cached_tokens": 20_000}}})  # fmt: skip
    async with open_scripted_model([paid]) as server:
        config = tmp_path / "settings.toml"
        config.write_text(
            f'[models.small]\nbase_url = "{server.base_url}"\nmodel = "tiny"\n'
            "input_price = 2.0\noutput_price = 8.0\ncached_input_price = 0.5\n"
            'api_key_env = "KEY_OF_IT"\nheaders = { x-secret = "hidden-0123456789" }\n'
        )
        env = environment(
            tmp_path,
            RLM_MCP_ROOT_MODEL="command:claude",
            RLM_MCP_SUB_MODEL="small",
            PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            KEY_OF_IT=KEY,
        )
        asked = ("query", "What is it?", "--text", "a text " * 6000, "--json")
        code, out, err = await process(env, "--config", str(config), *asked)
    assert (code, json.loads(out)["answer"]) == (0, "from the other endpoint"), err
    shown = await process(env, "--config", str(config), "runs", "list", "--json")
    run_id = json.loads(shown[1])["runs"][0]["run_id"]
    trace = await process(env, "--config", str(config), "runs", "export", run_id, "--json", "-")
    events = json.loads(trace[1])["events"]
    by_model = {row["model"]: row for row in events[-1]["detail"]["usage_by_model"]}
    figures = {name: (row["calls"], row["cost_is"]) for name, row in by_model.items()}
    assert figures == {"command:claude": (1, "told"), "small": (1, "computed")}
    # 30,000 fresh at $2, 20,000 cached at $0.50, 10,000 out at $8, each a million.
    assert by_model["small"]["cost_usd"] == pytest.approx(0.06 + 0.01 + 0.08)
    assert json.loads(out)["cost_usd"] == pytest.approx(0.03 + 0.15)
    assert server.requests[0].model == "tiny"
    assert server.requests[0].authorization == f"Bearer {KEY}"
    stored = b"".join(
        path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()
    )
    for secret in (KEY, "hidden-0123456789"):
        assert secret not in out + err
        assert secret.encode() not in stored
