"""The plugin for Claude Code: what it says is true, and its hook is quick and refuses nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rlm_mcp
from rlm_mcp.settings import PREFIX, Settings
from tests.serving import open_served, turns

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "packaging" / "claude-code"
HOOK = PLUGIN / "hooks" / "propose.sh"
SKILL = (PLUGIN / "skills" / "long-texts" / "SKILL.md").read_text()
MANIFEST = json.loads((PLUGIN / ".claude-plugin" / "plugin.json").read_text())
LINE = "a line of text\n"

needs_sh = pytest.mark.skipif(shutil.which("sh") is None, reason="hooks are run by a POSIX shell")


def asked(file: str, environ: dict[str, str] | None = None, **arguments: Any) -> str:
    """What the hook says when Claude Code is about to read a file."""
    call = {"tool_name": "Read", "tool_input": {"file_path": file, **arguments}}
    for separators in ((",", ":"), (", ", ": ")):
        done = subprocess.run(
            ["sh", str(HOOK)],
            input=json.dumps(call, ensure_ascii=False, separators=separators).encode(),
            env={"PATH": os.environ["PATH"], **(environ or {})},
            capture_output=True,
            check=True,
        )
        assert done.stderr == b""
    return done.stdout.decode()


def test_the_plugin_is_listed_and_has_the_version_of_the_package() -> None:
    market = json.loads((ROOT / ".claude-plugin" / "marketplace.json").read_text())
    [listed] = market["plugins"]

    assert MANIFEST["version"] == rlm_mcp.__version__
    assert listed["name"] == MANIFEST["name"]
    assert (ROOT / listed["source"]).resolve() == PLUGIN


def test_the_options_of_the_plugin_reach_the_server() -> None:
    [server] = json.loads((PLUGIN / ".mcp.json").read_text())["mcpServers"].values()
    used = {
        name: re.findall(r"\$\{user_config\.(\w+)\}", text)[0]
        for name, text in server["env"].items()
    }

    assert all(name.removeprefix(PREFIX).lower() in Settings.model_fields for name in used)
    assert {*used.values(), "propose"} == MANIFEST["userConfig"].keys()
    assert all("default" in option for option in MANIFEST["userConfig"].values())
    assert MANIFEST["userConfig"]["api_key"]["sensitive"]


async def test_the_skill_and_the_hook_name_tools_that_are_served(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never")) as served:
        tools = {tool.name for tool in (await served.client.list_tools()).tools}
    named = set(re.findall(r"\brlm_[a-z_]+", SKILL + HOOK.read_text()))

    assert named <= tools
    assert {"rlm_query", "rlm_context_add"} <= named


def test_a_linter_for_skills_and_plugins_finds_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "skillsaw", "lint", str(PLUGIN)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Warnings: +0", done.stdout), done.stdout


@needs_sh
@pytest.mark.parametrize("name", ["big.log", 'a "b" é\\c.txt', "-x y.csv"])
def test_a_large_text_is_met_with_a_proposal_and_no_decision(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(LINE * 15_000)
    said = json.loads(asked(str(file)))["hookSpecificOutput"]

    assert said.keys() == {"hookEventName", "additionalContext"}
    assert said["additionalContext"].startswith(f"{file} is larger than 200 kB")


@needs_sh
def test_the_hook_is_silent_about_everything_else(tmp_path: Path) -> None:
    big = tmp_path / "big.log"
    big.write_text(LINE * 15_000)
    small, binary, picture = tmp_path / "small", tmp_path / "data.bin", tmp_path / "x.PNG"
    small.write_text("x" * 200_000)
    binary.write_bytes(bytes(300_000))
    picture.write_text(LINE * 15_000)

    for path in (small, binary, picture, tmp_path, tmp_path / "gone"):
        assert asked(str(path)) == "", path
    assert asked("relative.log") == ""
    assert asked(str(big), limit=10) == asked(str(big), offset=10) == ""
    assert asked(str(big), {"CLAUDE_PLUGIN_OPTION_PROPOSE": "false"}) == ""
    assert asked(str(big), {"CLAUDE_PLUGIN_OPTION_PROPOSE": "true"}) != ""


@needs_sh
def test_the_hook_takes_less_than_50_ms_of_the_machine(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    big = tmp_path / "big.log"
    big.write_text(LINE * 1_000_000)

    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    spent: list[float] = []
    for _ in range(10):
        before = seconds()
        asked(str(big))
        spent.append((seconds() - before) / 2)  # it was asked in both spellings

    assert min(spent) < 0.05
