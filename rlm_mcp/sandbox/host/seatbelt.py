"""macOS: a REPL's process behind Seatbelt. Written and tested in parts; it has not been run there.

`sandbox-exec` puts a profile on the interpreter that denies by default: files are read below the
interpreter's own folders alone, nothing is written, no socket, no other program, no fork. RLIMIT_AS
does not hold on macOS, so the memory of the process is looked at while a cell runs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SANDBOX_EXEC = "/usr/bin/sandbox-exec"
SYSTEM_FOLDERS = ("/usr/lib", "/System/Library", "/System/Volumes/Preboot/Cryptexes/OS")
PS_SECONDS = 5


def profile(readable: Sequence[str], program: str) -> str:
    """Write a profile that lets `program` run and read the folders `readable`, and nothing else."""
    folders = "\n".join(f"  (subpath {_quoted(folder)})" for folder in readable)
    return f"""(version 1)
(deny default)
(allow process-exec (literal {_quoted(program)}))
(allow sysctl-read)
(allow signal (target self))
(allow file-read-metadata)
(allow file-read*
  (literal "/dev/null")
  (literal "/dev/urandom")
{folders})
(allow file-write-data (literal "/dev/null"))
"""


def behind_seatbelt(command: Sequence[str], package_root: str) -> list[str]:
    """Put a command of this interpreter behind the profile."""
    program = str(Path(command[0]).resolve())
    prefixes = dict.fromkeys((sys.prefix, sys.base_prefix, package_root, *SYSTEM_FOLDERS))
    return [SANDBOX_EXEC, "-p", profile(tuple(prefixes), program), program, *command[1:]]


def resident_bytes(pid: int) -> int:
    """Return the memory a process holds; 0 when it is gone. Blocks, so call in a thread."""
    try:
        said = subprocess.run(  # noqa: S603  # a fixed program and a number
            ["/bin/ps", "-o", "rss=", "-p", str(pid)],
            capture_output=True,
            timeout=PS_SECONDS,
            check=False,
        )
        return int(said.stdout.strip() or 0) * 1024
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
