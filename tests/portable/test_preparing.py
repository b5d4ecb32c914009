"""The module is compiled before a question waits for it: by `install`, `doctor` and the server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.cli.hosts.installer import prepare_sandbox
from rlm_mcp.errors import SandboxError
from rlm_mcp.sandbox.portable import sandbox as portable
from tests.commands import environment, process, started
from tests.serving import settings_in
from tests.walls import IS_PORTABLE

CACHE = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))


def chosen(directory: Path) -> dict[str, str]:
    return environment(directory, RLM_MCP_SANDBOX="portable", XDG_CACHE_HOME=CACHE)


async def test_install_prepares_the_portable_sandbox(tmp_path: Path) -> None:
    code, _, said = await process(chosen(tmp_path), "install", "cursor", "--yes")

    assert code == 0, said
    assert "Compiling the sandbox's Python for this machine, once.\n" in said
    assert "cannot" not in said


async def test_doctor_prepares_it_and_tells_its_layers(tmp_path: Path) -> None:
    _, out, _ = await process(chosen(tmp_path), "doctor", "--json")

    [check] = [each for each in json.loads(out)["checks"] if each["name"] == "isolation"]
    assert check["state"] in ("ok", "warning")
    assert check["found"].startswith("partial: wasm")


@pytest.mark.parametrize(
    ("sandbox", "platform", "prepares"),
    [
        ("auto", "linux", False),
        ("auto", "darwin", True),
        ("auto", "win32", True),
        ("native", "darwin", False),
        ("docker", "win32", False),
        ("portable", "linux", True),
    ],
)
def test_install_prepares_what_the_platform_will_use_and_tells_what_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sandbox: Any,
    platform: str,
    prepares: bool,
) -> None:
    def refuse() -> None:
        raise SandboxError("it cannot be had", fix="Get it.")

    monkeypatch.setattr(portable, "find_module", refuse)
    prepare_sandbox(settings_in(tmp_path, sandbox=sandbox), platform)

    told = "it cannot be had. Get it. Then run `rlm-mcp doctor`." in capsys.readouterr().err
    assert told == prepares


@pytest.mark.skipif(IS_PORTABLE, reason="tried once: it takes all cores for some seconds")
async def test_a_server_compiles_what_is_not_compiled_yet_and_answers(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    built = "rlm-mcp-python-wasm"  # what the clone's build leaves there
    (cache / built).symlink_to(Path(CACHE, built))
    given = {
        "HOME": str(tmp_path),
        "RLM_MCP_DATA_DIR": str(tmp_path / "data"),
        "RLM_MCP_SANDBOX": "portable",
        "XDG_CACHE_HOME": str(cache),
    }
    with anyio.fail_after(600):
        done = await anyio.run_process(started("demo"), check=False, env={**os.environ, **given})

    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert list(cache.glob("rlm-mcp/portable/*.cwasm"))
