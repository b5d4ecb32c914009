"""macOS: a REPL's process behind Seatbelt. Tested in parts; it has not been run on macOS.

`sandbox-exec` applies a profile that denies by default: files can be read only in the interpreter's
own folders, nothing can be written, no socket, no other program, no fork. RLIMIT_AS has no effect
on macOS, so the memory of the process is polled while a cell runs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SANDBOX_EXEC = "/usr/bin/sandbox-exec"
SYSTEM_FOLDERS = ("/usr/lib", "/System/Library", "/System/Volumes/Preboot/Cryptexes/OS")
PS_SECONDS = 5


def profile(readable: Sequence[str], program: str, *, compiles: bool = False) -> str:
    """Return a profile that allows only to run `program` and to read the folders `readable`.

    `compiles`: it may also run code that it loads into memory, as WebAssembly's is.
    """
    folders = "\n".join(f"  (subpath {_quoted(folder)})" for folder in readable)
    dynamic = "\n(allow dynamic-code-generation)" if compiles else ""
    return f"""(version 1)
(deny default)
(allow process-exec (literal {_quoted(program)}))
(allow sysctl-read){dynamic}
(allow signal (target self))
(allow file-read-metadata)
(allow file-read*
  (literal "/dev/null")
  (literal "/dev/urandom")
{folders})
(allow file-write-data (literal "/dev/null"))
"""


def behind_seatbelt(
    command: Sequence[str],
    package_root: str,
    folders: Sequence[str] = (),
    *,
    compiles: bool = False,
) -> list[str]:
    """Wrap a command of this interpreter in the profile; `folders` are further ones to read."""
    program = str(Path(command[0]).resolve())
    prefixes = dict.fromkeys((sys.prefix, sys.base_prefix, package_root, *folders, *SYSTEM_FOLDERS))
    return [
        SANDBOX_EXEC,
        "-p",
        profile(tuple(prefixes), program, compiles=compiles),
        program,
        *command[1:],
    ]


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it is gone. Blocking: call in a thread."""
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
