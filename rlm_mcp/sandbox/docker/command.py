"""The `docker` command: how a container starts, is spoken to and ends; what its errors mean."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from queue import SimpleQueue
from threading import Thread
from typing import Any

from rlm_mcp.errors import SandboxError

PYTHON = "python3"
USER = "65534:65534"  # nobody, whatever users the image has
MOST_PROCESSES = 300  # threads included
ORDER_SECONDS = 30
LABEL = "rlm-mcp.repl"  # `docker ps --filter label=rlm-mcp.repl` lists what runs
WALLS = (
    *("--network", "none"),
    *("--ipc", "none"),
    "--read-only",
    *("--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),
    *("--pids-limit", str(MOST_PROCESSES)),
    *("--user", USER),
)


def find_docker() -> str:
    """Find the command.

    Raises:
        SandboxError: it is not installed.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise SandboxError(
            "the Docker sandbox needs the command 'docker', which is not there",
            fix="Install Docker, or set RLM_MCP_SANDBOX to 'auto'.",
        )
    return docker


def run_command(docker: str, name: str, image: str, memory_bytes: int, boot: str) -> list[str]:
    """Return the command that runs Python in a container of its own, with `boot` as its code."""
    return [
        *(docker, "run", "--interactive", "--rm", "--name", name, "--label", LABEL),
        *("--pull", "never"),  # it takes minutes, and fetches what nobody asked for
        *("--log-driver", "none"),  # what a REPL sends would be kept on the disk
        *("--workdir", "/", "--no-healthcheck", "--entrypoint", PYTHON),
        *WALLS,
        *("--memory", str(memory_bytes), "--memory-swap", str(memory_bytes)),
        *(image, "-I", "-B", "-c", boot),
    ]


class Orders:
    """Gives a container orders in turn, from a thread of its own: each is a slow command."""

    def __init__(self, docker: str, name: str) -> None:
        self._docker, self._name = docker, name
        self._todo: SimpleQueue[tuple[str, ...] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def give(self, *order: str) -> None:
        """Have an order given soon, such as `kill --signal INT`."""
        if self._thread is None:
            self._thread = Thread(target=self._work, daemon=True)
            self._thread.start()
        self._todo.put(order)

    def close(self) -> None:
        """Wait until the orders were given, and end the thread. Blocking."""
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (order := self._todo.get()) is not None:
            # One that ended by itself has no container any more.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(  # noqa: S603  # the command that was found, and words of ours
                    [self._docker, *order, self._name],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=ORDER_SECONDS,
                    check=False,
                    **hidden(),
                )


def hidden() -> dict[str, Any]:
    """Options of a process that opens no window on Windows."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}  # a terminal's Ctrl-C is for the server


def why_not(said: str, image: str) -> SandboxError:
    """Make the error of a container that did not start, from what the command said."""
    fixes = {
        "Cannot connect to the Docker daemon": "Start Docker, or set DOCKER_HOST to where it runs.",
        "permission denied while trying to connect": "Give this user the right to use Docker.",
        "No such image": f"Fetch it: docker pull {image}",
        f'"{PYTHON}": executable file not found': "Set RLM_MCP_DOCKER_IMAGE to an image with "
        f"{PYTHON} 3.11 or later.",
    }
    fix = next((fix for mark, fix in fixes.items() if mark.lower() in said.lower()), "")
    if not fix:
        fix = f"Try it by hand: docker run --rm {image} {PYTHON} --version (3.11 or later)"
    told = said.strip()[-500:] or "it said nothing"
    return SandboxError(f"a container of {image!r} did not start: {told}", fix=fix)
