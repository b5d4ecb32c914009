"""The processes that are measured beside each other, and the model that all of them ask."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from lines import Child
from texts import write_text

HERE = Path(__file__).parent
REPLM, RLMS = "replm==0.1.0", "rlms==0.1.3"


@dataclass(frozen=True)
class Place:
    """Where things are: the model, the `uv` that makes an environment, files and databases."""

    base_url: str
    uv: str
    directory: Path

    def library_command(self, package: str) -> list[str]:
        """How to start a process that uses a library of our environment."""
        return [sys.executable, str(HERE / "library.py"), package, self.base_url]

    def served_command(self, calls_at_once: int) -> list[str]:
        """How to start one that holds our server, which makes so many model calls at once."""
        place = [self.base_url, str(self.directory), str(calls_at_once)]
        return [sys.executable, str(HERE / "served.py"), *place]

    def replm_command(self) -> list[str]:
        """How to start one that uses replm."""
        return [*self._python_with(REPLM), str(HERE / "library.py"), "replm", self.base_url]

    def rlms_command(self) -> list[str]:
        """How to start one that uses rlms."""
        return [*self._python_with(RLMS), str(HERE / "rlms_library.py"), self.base_url]

    def _python_with(self, package: str) -> list[str]:
        """The same Python, with the same client libraries."""
        same = ("openai", "httpx2", "anyio", "pydantic", "aiohttp")
        wanted = [package, *(f"{name}=={version(name)}" for name in same)]
        options = [part for name in wanted for part in ("--with", name)]
        python = ["--python", sys.executable, "python"]
        return [self.uv, "run", "--quiet", "--isolated", "--no-project", *options, *python]


@dataclass(frozen=True)
class Subjects:
    """Running processes: our library, our server with a client (twice), replm and rlms."""

    ours: Child
    served: Child
    served_widely: Child
    replm: Child
    rlms: Child
    place: Place

    def report(self) -> dict[str, Any]:
        """When requests arrived since the last report, and how many at once."""
        return report(self.place.base_url)

    def prepare(self, megabytes: int, salt: str) -> None:
        """Give everybody the same new text."""
        path = self.place.directory / "text.txt"
        write_text(path, megabytes, salt)
        for server in (self.served, self.served_widely):
            server.ask("add", path=str(path))
        path.unlink()
        for library in (self.ours, self.replm, self.rlms):
            library.ask("text", megabytes=megabytes, salt=salt)


@contextmanager
def open_subjects(place: Place) -> Generator[Subjects]:
    """Start the processes, and end them with the block."""
    with ExitStack() as stack:
        started = [
            Child(command)
            for command in (
                place.library_command("rlm_mcp"),
                place.served_command(32),
                place.served_command(200),
                place.replm_command(),
                place.rlms_command(),
            )
        ]
        for child in started:
            stack.callback(child.close)
        yield Subjects(*started, place)


@contextmanager
def open_model() -> Generator[str]:
    """Start the scripted model; gives its base URL."""
    child = Child([sys.executable, str(HERE / "model.py")])
    try:
        yield child.hello
    finally:
        child.close()


def report(base_url: str) -> dict[str, Any]:
    """Ask the scripted model what it saw."""
    body = json.dumps({"model": "report", "messages": []}).encode()
    with urlopen(Request(f"{base_url}/chat/completions", body, method="POST"), timeout=10) as reply:
        return json.loads(json.load(reply)["choices"][0]["message"]["content"])
