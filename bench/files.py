"""How fast a directory of small files is stored: `python bench/files.py [FILES]`.

The command adds the directory to a new store. Besides the time of the clock it says what the
command took of a core, since that is what other work on the machine does not change.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES_A_FOLDER = 1000
LINES_A_FILE = 8


def write_files(directory: Path, count: int) -> int:
    """Write files of about 570 bytes; return how many bytes they have together."""
    dice, total = random.Random(0), 0
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(500)]
    for number in range(count):
        folder = directory / f"{number // FILES_A_FOLDER:04d}"
        if number % FILES_A_FOLDER == 0:
            folder.mkdir(parents=True)
        lines = (" ".join(dice.choices(words, k=10)) for _ in range(LINES_A_FILE))
        text = "\n".join([f"file {number}", *lines, ""])
        total += (folder / f"{number}.txt").write_text(text)
    return total


def add(directory: Path, store: Path) -> tuple[float, float]:
    """Return the seconds of the clock, and of a core, that the command takes."""
    settings = {"RLM_MCP_DATA_DIR": str(store), "RLM_MCP_ROOT_MODEL": "none"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "rlm_mcp", "contexts", "add", str(directory)],
        env={**os.environ, **settings},
        check=True,
        capture_output=True,
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        total = write_files(directory / "texts", count)
        seconds, of_a_core = add(directory / "texts", directory / "data")
    print(f"{count:,} files, {total / 1e6:.0f} MB")
    print(f"{seconds:6.1f} s of the clock   {count / seconds:8,.0f} files/s")
    print(f"{of_a_core:6.1f} s of a core      {count / of_a_core:8,.0f} files/s")


if __name__ == "__main__":
    main()
