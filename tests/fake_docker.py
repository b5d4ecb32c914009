"""A `docker` command for tests: it runs what a container would as an ordinary process.

It is put first on PATH. `FAKE_DOCKER` names a folder, where it notes what it was asked. With
`FAKE_DOCKER_SAYS` it fails with those words, as the real command does where it cannot start one.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

SCRIPT = """#!/bin/sh
exec {python} -I {program} "$@"
"""


def install(folder: Path) -> None:
    """Write the command into a folder."""
    command = folder / "docker"
    python, program = (shlex.quote(path) for path in (sys.executable, __file__))
    command.write_text(SCRIPT.format(python=python, program=program))
    command.chmod(0o755)


def run(folder: Path, words: list[str]) -> None:
    name = words[words.index("--name") + 1]
    (folder / name).write_text(str(os.getpid()))
    code = words[words.index("-c") + 1]
    os.execv(sys.executable, [sys.executable, "-I", "-B", "-c", code])  # our own code


def main() -> None:
    folder, words = Path(os.environ["FAKE_DOCKER"]), sys.argv[1:]
    with (folder / "asked").open("a") as asked:
        asked.write(shlex.join(words if words[0] != "run" else words[:1]) + "\n")
    if said := os.environ.get("FAKE_DOCKER_SAYS"):
        sys.stderr.write(said + "\n")
        sys.exit(125)
    if words[0] == "run":
        run(folder, words)
    numbers = {"pause": signal.SIGSTOP, "unpause": signal.SIGCONT}
    number = numbers.get(words[0], signal.SIGINT if "INT" in words else signal.SIGKILL)
    process = int((folder / words[-1]).read_text())
    if number == signal.SIGINT:  # to the first process, as Docker does
        os.kill(process, number)
    else:
        os.killpg(process, number)


if __name__ == "__main__":
    main()
