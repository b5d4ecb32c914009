"""Hosts that install from npm read back what `install` wrote, and start the server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.interop.environments import HOST_PACKAGES, node, node_modules

# What each says of a server that is there. Two start it too and wait long enough on any machine.
LISTS = {
    "claude-code": ("@anthropic-ai/claude-code", ("claude", "mcp", "list"), "Connected"),
    "codex": ("@openai/codex", ("codex", "mcp", "list"), "enabled"),
    "gemini-cli": ("@google/gemini-cli", ("gemini", "mcp", "list"), "(stdio)"),
    "opencode": ("opencode-ai", ("opencode", "mcp", "list"), "connected"),
    "qwen-code": ("@qwen-code/qwen-code", ("qwen", "mcp", "list"), "(stdio)"),
    "cline": ("cline", ("cline", "config", "mcp"), "[stdio]"),
}
COMMENT = r"(?m)// mine$|# \w+$|/\* none \*/"
COMMENTED = {
    "gemini-cli": (".gemini/settings.json", '{\n  // mine\n  "ui": {}\n}\n'),
    "opencode": (".config/opencode/opencode.jsonc", '{\n  // mine\n  "mcp": {}, /* none */\n}\n'),
    "codex": (".codex/config.toml", "# mine\n[tui]\nnotifications = false # none\n"),
}


def environment(home: Path) -> dict[str, str]:
    """A home of its own, and a server that needs neither key nor network."""
    return {
        "HOME": str(home),
        "PATH": f"{node().parent}{os.pathsep}/usr/bin:/bin",
        "RLM_MCP_ROOT_MODEL": "root",
        "RLM_MCP_BASE_URL": "http://127.0.0.1:9/v1",
        "RLM_MCP_DATA_DIR": str(home / "data"),
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        "MCP_TIMEOUT": "240000",
        "NO_COLOR": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def run(command: tuple[str, ...], home: Path) -> str:
    work = home / "work"
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        command,
        cwd=work,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr


def install(home: Path, host: str, *options: str) -> str:
    return run((sys.executable, "-m", "rlm_mcp", "install", host, "--yes", *options), home)


def installed(package: str, name: str) -> str:
    """The command of a host, where it can be installed."""
    try:
        modules = node_modules({package: HOST_PACKAGES[package]})
    except (AssertionError, OSError) as error:
        pytest.skip(f"not installable here: {str(error)[:200]}")
    command = modules / "node_modules" / ".bin" / name
    if shutil.which(command) is None:
        pytest.skip(f"{package} has no command for this machine")
    return str(command)


@pytest.mark.parametrize("kept", ["absent", "commented"])
@pytest.mark.parametrize("host", LISTS)
def test_a_host_reads_back_what_was_written_for_it(host: str, kept: str, tmp_path: Path) -> None:
    package, words, state = LISTS[host]
    if kept == "commented":
        if host not in COMMENTED:
            pytest.skip(f"{host} takes no comments in its file")
        name, text = COMMENTED[host]
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    list_servers = (installed(package, words[0]), *words[1:])
    install(tmp_path, host)
    told = run(list_servers, tmp_path)
    removal = install(tmp_path, host, "--remove")
    left = run(list_servers, tmp_path)

    line = next((line for line in told.splitlines() if "rlm" in line.split("/")[0]), told)
    assert state in line, told
    assert "Written" in removal or "Deleted" in removal  # it held nothing else
    assert state not in left, left
    if kept == "commented":
        name, text = COMMENTED[host]
        left_text = (tmp_path / name).read_text()
        assert re.findall(COMMENT, left_text) == re.findall(COMMENT, text)
        assert "rlm" not in left_text


async def test_continue_offers_the_tools_to_its_model(tmp_path: Path) -> None:
    command = await anyio.to_thread.run_sync(installed, "@continuedev/cli", "cn")
    file = tmp_path / ".continue" / "config.yaml"
    async with open_scripted_model("Hello.") as model:
        await anyio.Path(file.parent).mkdir()
        await anyio.Path(file).write_text(
            "name: Mine\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: scripted # one\n"
            f"    provider: openai\n    model: gpt-4.1\n    apiBase: {model.base_url}\n"
            "    apiKey: none\n    roles: [chat]\n"
        )
        await anyio.to_thread.run_sync(install, tmp_path, "continue")
        asked = (command, "-p", "Hello?", "--config", str(file))
        said = await anyio.to_thread.run_sync(run, asked, tmp_path)
    offered = {
        tool["function"]["name"]
        for request in model.requests
        for tool in request.params.get("tools", ())
    }

    assert {"rlm_context_add", "rlm_query"} <= offered, said
