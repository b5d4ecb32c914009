"""The official conformance suite: run, and compared with what is expected of this server."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import anyio
import anyio.to_thread

from tests.interop.environments import node, node_modules

# Node's own code, so that no launcher picks an older one.
SUITE = "node_modules/@modelcontextprotocol/conformance/dist/index.js"
EXPECTED = Path(__file__).parent / "expected_failures.toml"


def expected_failures(section: str) -> dict[str, str]:
    """What is expected to fail, as `scenario/check`, each with the reason why."""
    groups = tomllib.loads(EXPECTED.read_text())[section].values()
    return {check: group["why"] for group in groups for check in group["checks"]}


async def run_suite(url: str, out: Path, *options: str) -> dict[str, str]:
    """Run scenarios against a server; gives what became of every check, with what was wrong."""
    executable = await anyio.to_thread.run_sync(node)
    modules = await anyio.to_thread.run_sync(node_modules)
    command = [str(executable), SUITE, "server", "--url", url, *options, "-o", str(out)]
    with anyio.fail_after(180):
        done = await anyio.run_process(command, cwd=modules, env=dict(os.environ), check=False)
    results = await anyio.to_thread.run_sync(_results, out)
    assert results, done.stdout.decode() + done.stderr.decode()
    return results


def failures(results: dict[str, str]) -> dict[str, str]:
    """The checks that failed, and why."""
    return {check: told for check, told in results.items() if told.startswith("FAILURE")}


def _results(out: Path) -> dict[str, str]:
    results: dict[str, str] = {}
    for file in sorted(out.glob("server-*/checks.json")):
        scenario = file.parent.name.removeprefix("server-").partition("-2026-")[0]
        for check in json.loads(file.read_text()):
            # A check may be made several times; one failure is a failure.
            name, told = f"{scenario}/{check['id']}", check["status"]
            if not results.get(name, "").startswith("FAILURE"):
                results[name] = f"{told}: {check.get('errorMessage', '')}"
    return results
