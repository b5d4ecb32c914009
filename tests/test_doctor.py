"""`rlm-mcp doctor`: what it tries, and what it says of what does not work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.sandbox.host.sandbox import ProcessSandbox
from rlm_mcp.sandbox.types import Isolation
from rlm_mcp.service.doctor import Check, check_all, isolation_check
from rlm_mcp.service.local_models import OfferedModel
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Fault, unauthorized
from tests.commands import command, environment
from tests.serving import KEY, settings_in


async def checks_of(directory: Path, **changes: Any) -> dict[str, Check]:
    """What is found with these settings, where no model server runs on the machine."""
    find_local = changes.pop("find_local", lambda: None)
    settings = settings_in(directory, **changes)
    return {check.name: check async for check in check_all(settings, find_local)}


async def test_where_all_works_each_part_says_so_and_every_host_is_told_of(tmp_path: Path) -> None:
    async with open_scripted_model("OK") as model:
        env = environment(tmp_path, model.base_url, RLM_MCP_ROOT_MODLE="x")
        shown = await command(env, "doctor")
        listed = await command(env, "doctor", "--json")

    found = json.loads(listed.stdout)
    assert (shown.exit_code, listed.exit_code, found["ok"]) == (0, 0, True)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert set(states.values()) <= {"ok", "warning"}
    assert states["settings"] == "warning"
    assert states["text cache"] == "ok"
    assert "did you mean RLM_MCP_ROOT_MODEL?" in shown.stdout
    assert [request.model for request in model.requests] == ["root", "sub"] * 2
    assert {request.params["max_tokens"] for request in model.requests} == {1}
    for host in ("Claude Desktop", "Cursor", "VS Code", "Codex", "Claude Code"):
        assert host in shown.stdout
    assert "Everything that is needed works." in shown.stdout
    assert KEY not in shown.output + listed.output


async def test_a_rejected_key_is_told_without_the_key(tmp_path: Path) -> None:
    async with open_scripted_model(lambda _: unauthorized()) as model:
        done = await command(environment(tmp_path, model.base_url), "doctor")

    assert done.exit_code == 1
    assert "401" in done.stdout
    assert "Set RLM_MCP_API_KEY" in done.stdout
    assert "Fix first: root model, sub model." in done.stdout
    assert KEY not in done.output


async def test_an_unknown_model_is_told_with_those_that_are_near(tmp_path: Path) -> None:
    unknown = Fault(404, {"error": {"message": "no such model", "code": "model_not_found"}})
    async with open_scripted_model(lambda _: unknown) as model:
        nothing_listed = await checks_of(tmp_path, base_url=model.base_url)
        model.model_names = ["gpt-4.1", "gpt-4.1-mini", "whisper"]
        near = await checks_of(tmp_path, base_url=model.base_url, root_model="gpt-4.2")
        far = await checks_of(tmp_path, base_url=model.base_url, root_model="llama")

    assert near["root model"].state == "failed"
    assert near["root model"].fix == (
        "The endpoint has no 'gpt-4.2'; it has gpt-4.1, gpt-4.1-mini and 1 more."
    )
    assert far["root model"].fix.endswith("it has gpt-4.1, gpt-4.1-mini, whisper.")
    assert "Check the names" in nothing_listed["root model"].fix


async def test_a_server_that_does_not_run_here_is_asked_after_by_its_name(tmp_path: Path) -> None:
    there = await checks_of(tmp_path, base_url="http://127.0.0.1:9/v1", sub_model=None)

    assert there["root model"].state == "failed"
    assert there["root model"].fix.endswith("Is the model server running?")
    assert there["sub model"].found == "the root model"


@pytest.mark.parametrize(
    ("local", "advice"),
    [
        (None, "or start Ollama"),
        (OfferedModel("Ollama", "http://127.0.0.1:11434/v1", "qwen3"), "RLM_MCP_ROOT_MODEL=qwen3"),
    ],
)
async def test_without_a_model_it_says_which_could_be_had(
    tmp_path: Path, local: OfferedModel | None, advice: str
) -> None:
    found = await checks_of(tmp_path, root_model=None, find_local=lambda: local)

    assert found["root model"].state == "failed"
    assert advice in found["root model"].fix


async def test_places_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rlm.sqlite3").write_bytes(b"not a database at all" * 100)
    broken = await checks_of(tmp_path, root_model=None, allowed_paths=(tmp_path / "nowhere",))
    nowhere = await checks_of(tmp_path, root_model=None, data_dir=Path("/proc/nowhere"))

    assert broken["database"].state == "failed"
    assert "is not a database" in broken["database"].found
    assert broken["data directory"].state == "ok"
    assert str(tmp_path / "nowhere") in broken["allowed paths"].fix
    assert nowhere["data directory"].state == "failed"
    assert "RLM_MCP_DATA_DIR" in nowhere["data directory"].fix
    assert list((tmp_path / "data").iterdir()) == [tmp_path / "data" / "rlm.sqlite3"]


async def test_isolation_is_judged_by_what_the_settings_ask_for(tmp_path: Path) -> None:
    isolation = await ProcessSandbox().isolation()
    found = await checks_of(tmp_path, root_model=None, min_isolation="full")

    assert found["isolation"].state == ("ok" if isolation.level == "full" else "failed")
    assert isolation.level in found["isolation"].found


def test_walls_that_a_container_lacks_are_told_with_the_options_that_give_them() -> None:
    less = Isolation("partial", ("landlock", "seccomp"), ("namespaces: Operation not permitted",))
    within = isolation_check(less, in_container=True)
    outside = isolation_check(less, in_container=False)
    full = isolation_check(Isolation("full", ("namespaces",), ()), in_container=True)

    assert (within.state, within.found) == ("warning", "partial: landlock, seccomp")
    assert "namespaces: Operation not permitted" in within.fix
    for file in re.findall(r"seccomp=(\S+)", within.fix):
        assert (Path(__file__).parent.parent / file).is_file()
    assert "apparmor=unconfined" in within.fix
    assert "container" not in outside.fix
    assert (full.state, full.fix) == ("ok", "")


async def test_an_address_without_its_scheme_is_a_finding_that_says_what_it_lacks(
    tmp_path: Path,
) -> None:
    done = await command(environment(tmp_path, "localhost:11434/v1"), "doctor")

    assert done.exit_code == 1
    assert "RLM_MCP_BASE_URL='localhost:11434/v1': it must begin with http://" in done.stdout


async def test_settings_that_cannot_be_read_are_a_finding_too(tmp_path: Path) -> None:
    env = environment(tmp_path, RLM_MCP_MAX_ITERATIONS="0")
    done = await command(env, "doctor", "--json")

    assert done.exit_code == 1
    [check] = json.loads(done.stdout)["checks"]
    assert (check["name"], check["state"]) == ("settings", "failed")
    assert "RLM_MCP_MAX_ITERATIONS='0'" in check["found"]
