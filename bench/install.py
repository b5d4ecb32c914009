"""What an installation costs: seconds, files and bytes, and which dependency brings how much.

    python bench/install.py [WHEEL_OR_DIRECTORY]

Installs into a new environment with uv, once with an empty cache, as `uvx` does at its first start,
and once with a warm one. Needs the package index.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MEASURE = """
import json
from importlib.metadata import distributions
from pathlib import Path

found = []
for one in distributions():
    files = [Path(one.locate_file(file)) for file in one.files or ()]
    sizes = [file.stat().st_size for file in files if file.exists()]
    found.append((one.name, len(sizes), sum(sizes)))
print(json.dumps(found))
"""


def seconds_to(*command: str | Path) -> float:
    """Run a command, and say how long it took."""
    begin = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return time.perf_counter() - begin


def contents(python: Path) -> list[tuple[str, int, int]]:
    """Name, files and bytes of each distribution in an environment, the largest first."""
    done = subprocess.run([python, "-c", MEASURE], check=True, capture_output=True, text=True)
    found: Any = json.loads(done.stdout)
    return sorted(((name, files, size) for name, files, size in found), key=lambda one: -one[2])


def main() -> None:
    """Install, and print the figures."""
    what = sys.argv[1] if len(sys.argv) > 1 else str(ROOT)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        cache = ("--cache-dir", place / "cache")
        for name in ("cold", "warm"):
            environment = place / name
            seconds_to("uv", "venv", "--quiet", environment)
            python = environment / "bin" / "python"
            spent = seconds_to("uv", "pip", "install", *cache, "--python", python, what)
            print(f"{name} cache: {spent:.1f} s")
        listed = contents(python)
        first = seconds_to(environment / "bin" / "rlm-mcp", "--version")
        compiling = seconds_to(python, "-m", "compileall", "-q", environment / "lib")
    total, files = sum(size for *_, size in listed), sum(count for _, count, _ in listed)
    print(f"{len(listed)} packages, {files} files, {total / 1e6:.1f} MB")
    print(f"first `rlm-mcp --version`: {first:.1f} s; compiling all of it: {compiling:.1f} s")
    for name, count, size in listed[:20]:
        print(f"{name:24} {count:5} files {size / 1e6:6.1f} MB {size / total:4.0%}")


if __name__ == "__main__":
    main()
